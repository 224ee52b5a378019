"""What is used of the official client: its configuration and its connections.

Its packages import every kind and every call that there is, for both its clients: 1.6 s of processor time and 80 MB in
each command and each process. Here its modules are imported without what the packages do when they are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Final

_CLIENT: Final = "kubernetes.aio.client"
_PACKAGES: Final = ("kubernetes", "kubernetes.aio", _CLIENT)


@contextmanager
def _unopened() -> Iterator[None]:
    """Let modules be found in the packages, which are as they would be if their ``__init__`` were empty.

    What is imported meanwhile is known to nobody else: whoever imports the client afterwards gets it whole.
    """
    others = {name: sys.modules.pop(name) for name in _client_modules()}
    path = None
    for name in _PACKAGES:
        package = _package(name, path)
        sys.modules[name], path = package, list(package.__path__)
    try:
        yield
    finally:
        for name in _client_modules():
            del sys.modules[name]
        sys.modules.update(others)


def _client_modules() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == _PACKAGES[0]]


def _package(name: str, path: list[str] | None) -> ModuleType:
    spec = PathFinder.find_spec(name, path)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return module_from_spec(spec)


with _unopened():
    from kubernetes.aio.client.configuration import Configuration  # type: ignore[import-untyped]
    from kubernetes.aio.client.rest import RESTClientObject  # type: ignore[import-untyped]

    # Both are asked of the package by name; ApiClient is what makes objects of answers, which nobody does here.
    vars(sys.modules[_CLIENT]).update(Configuration=Configuration, ApiClient=object)
    from kubernetes.aio.config import (  # type: ignore[import-untyped]
        ConfigException,
        load_incluster_config,
        load_kube_config,
    )

__all__ = ["ConfigException", "Configuration", "RESTClientObject", "load_incluster_config", "load_kube_config"]
