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

    Whoever imports the packages afterwards gets them whole.
    """
    if any(name in sys.modules for name in _PACKAGES):
        yield
        return
    path = None
    for name in _PACKAGES:
        package = _package(name, path)
        sys.modules[name], path = package, list(package.__path__)
    try:
        yield
    finally:
        for name in _PACKAGES:
            del sys.modules[name]


def _package(name: str, path: list[str] | None) -> ModuleType:
    spec = PathFinder.find_spec(name, path)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return module_from_spec(spec)


with _unopened():
    from kubernetes.aio.client.configuration import Configuration  # type: ignore[import-untyped]
    from kubernetes.aio.client.rest import RESTClientObject  # type: ignore[import-untyped]

    # Both are asked of the package by name; ApiClient is what makes objects of answers, which nobody does here.
    for _name, _value in (("Configuration", Configuration), ("ApiClient", object)):
        vars(sys.modules[_CLIENT]).setdefault(_name, _value)
    from kubernetes.aio.config import (  # type: ignore[import-untyped]
        ConfigException,
        load_incluster_config,
        load_kube_config,
    )

__all__ = ["ConfigException", "Configuration", "RESTClientObject", "load_incluster_config", "load_kube_config"]
