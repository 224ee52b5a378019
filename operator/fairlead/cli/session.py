"""A command's connection to the cluster that is meant."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fairlead.cli.options import Target
from fairlead.clock import SystemClock
from fairlead.errors import Refused, Unavailable
from fairlead.kube import KubeClient
from fairlead.localcluster.supervisor.home import Home, State

USER_AGENT: Final = "fairlead-cli"
_DEFAULT_KUBECONFIG: Final = "~/.kube/config"
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    target: Target
    kube: KubeClient
    namespace: str
    """The one that is meant where one is needed."""
    local: Home | None
    """The home, if the cluster is the one that runs on this machine."""
    clock: SystemClock

    @property
    def scope(self) -> str:
        """The namespace to list; empty: all."""
        return "" if self.target.all_namespaces else self.namespace


def run_session(target: Target, work: Callable[[Session], Awaitable[_Result]]) -> _Result:
    """Connect, do *work*, disconnect."""

    async def connected() -> _Result:
        async with open_session(target) as session:
            return await work(session)

    return asyncio.run(connected())


@contextlib.asynccontextmanager
async def open_session(target: Target) -> AsyncIterator[Session]:
    """Connect to the cluster that is meant.

    Raises:
        Refused: there is none, or it is that of a Fairlead on this machine which does not run (``NoKubeconfig``).
    """
    home = Home(target.home.resolve())
    path = find_kubeconfig(target, home)
    kube = await KubeClient.connect(kubeconfig=path, user_agent=USER_AGENT, context=target.context)
    try:
        namespace = target.namespace or context_namespace(path, target.context)
        local = home if path == home.kubeconfig or _same_server(home, kube.server) else None
        yield Session(target, kube, namespace, local, SystemClock())
    except Unavailable as error:
        if path != home.kubeconfig or runs(home):
            raise
        text = f"Fairlead does not run in {home.root}: start it with `fairlead up`"
        raise Refused(f"{text}, or unset KUBECONFIG to use another cluster", reason="NoKubeconfig") from error
    finally:
        await kube.aclose()


def find_kubeconfig(target: Target, home: Home) -> Path:
    """Return the kubeconfig: the one asked for, that of the Fairlead that runs here, or kubectl's default.

    Raises:
        Refused: there is none.
    """
    if target.kubeconfig:
        if not any(Path(part).expanduser().is_file() for part in target.kubeconfig.split(os.pathsep)):
            raise Refused(f"there is no kubeconfig {target.kubeconfig}; is it the right path?", reason="NoKubeconfig")
        return Path(target.kubeconfig)
    if runs(home):
        return home.kubeconfig
    default = Path(_DEFAULT_KUBECONFIG).expanduser()
    if default.exists():
        return default
    raise Refused(
        f"no cluster: Fairlead does not run in {home.root} and there is no {_DEFAULT_KUBECONFIG}; "
        "start it with `fairlead up`, or name a cluster with --kubeconfig",
        reason="NoKubeconfig",
    )


def runs(home: Home) -> bool:
    """Whether Fairlead runs in *home*."""
    supervisor = State.read(home).supervisor if home.kubeconfig.exists() else None
    return supervisor is not None and supervisor.alive()


def context_namespace(kubeconfig: Path, context: str) -> str:
    """Return the namespace of a context of a kubeconfig."""
    entry = read_context(kubeconfig, context)
    return str(entry.get("namespace") or "default")


def read_context(kubeconfig: Path, context: str) -> dict[str, Any]:
    """Return a context of a kubeconfig, the current one if *context* is empty."""
    import yaml

    wanted = context
    found: dict[str, dict[str, Any]] = {}
    for part in str(kubeconfig).split(os.pathsep):
        with contextlib.suppress(OSError):
            document = yaml.safe_load(Path(part).read_text()) or {}
            wanted = wanted or document.get("current-context") or ""
            for entry in document.get("contexts") or ():
                found.setdefault(entry["name"], entry.get("context") or {})
    return found.get(wanted, {})


def _same_server(home: Home, server: str) -> bool:
    port = State.read(home).ports.get("apiserver") if runs(home) else None
    return port is not None and server == f"https://127.0.0.1:{port}"
