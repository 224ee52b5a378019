"""The engine's images: what a pod asks for is there, is fetched, or the pod is told why not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from docker import DockerClient
from docker.auth import resolve_repository_name
from docker.errors import ImageNotFound

from fairlead.errors import InvalidObject
from fairlead.localcluster.podruntime.refusals import full_name
from fairlead.localcluster.podruntime.state import Json

_PATIENCE_SECONDS: Final = 3.0
"""How long a container's start waits for its image before the pod says that it is being fetched."""

Auth = dict[str, str]


@dataclass(frozen=True, slots=True)
class Image:
    """What has to be known of an image."""

    ident: str
    user: str
    entrypoint: tuple[str, ...]
    stop_signal: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Image:
        """Read the engine's description."""
        config = document.get("Config") or {}
        stop = config.get("StopSignal") or "SIGTERM"
        return cls(document["Id"], config.get("User") or "", tuple(config.get("Entrypoint") or ()), stop)


class Images:
    """Finds and fetches images; one is fetched once at a time, whoever asks for it."""

    def __init__(self, client: DockerClient, threads: Executor) -> None:
        self._api, self._threads = client.api, threads
        self._pulls: dict[str, asyncio.Future[None]] = {}

    def find(self, name: str) -> Image | None:
        """Return an image that is there; talks to the engine."""
        try:
            return Image.of(self._api.inspect_image(name))  # type: ignore[no-untyped-call]
        except ImageNotFound:
            return None

    async def get(self, container: Json, auth: Callable[[str], Auth | None]) -> Image:
        """Return a container's image as its ``imagePullPolicy`` says. *auth* returns credentials for a registry.

        Raises:
            InvalidObject: it is not there, and why (``ErrImageNeverPull``, ``ErrImagePull``, ``ContainerCreating``).
        """
        loop, name = asyncio.get_running_loop(), full_name(container["image"])
        policy = container.get("imagePullPolicy") or ("Always" if name.endswith(":latest") else "IfNotPresent")
        found = await loop.run_in_executor(self._threads, self.find, name)
        if found is not None and policy != "Always":
            return found
        if policy == "Never":
            text = f'Container image "{container["image"]}" is not present with pull policy of Never'
            raise InvalidObject(text, reason="ErrImageNeverPull")
        await self._pull(name, auth)
        found = await loop.run_in_executor(self._threads, self.find, name)
        if found is None:
            raise InvalidObject(f"the engine does not have {name} after fetching it", reason="ErrImagePull")
        return found

    async def _pull(self, name: str, auth: Callable[[str], Auth | None]) -> None:
        if name not in self._pulls:
            pull = asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, name, auth)
            self._pulls[name] = pull
        pull = self._pulls[name]
        _, pending = await asyncio.wait((pull,), timeout=_PATIENCE_SECONDS)
        if pending:
            raise InvalidObject(f"Pulling image {name}", reason="ContainerCreating")
        del self._pulls[name]
        if error := pull.exception():
            words = getattr(error, "explanation", None) or error  # the engine's, without the SDK's address around them
            raise InvalidObject(f'Failed to pull image "{name}": {words}', reason="ErrImagePull") from error

    def _fetch(self, name: str, auth: Callable[[str], Auth | None]) -> None:
        registry, _ = resolve_repository_name(name)
        repository, _, digest = name.partition("@")
        tag = digest
        if not digest:
            repository, _, tag = name.rpartition(":")
        for line in self._api.pull(repository, tag=tag, stream=True, decode=True, auth_config=auth(registry)):
            if "error" in line:
                raise OSError(line["error"])


def registry_auth(secrets: list[Mapping[str, bytes]], registry: str) -> Auth | None:
    """Return the credentials for a registry from the Secrets of a pod's ``imagePullSecrets``; None: there are none."""
    for secret in secrets:
        try:
            document = json.loads(secret.get(".dockerconfigjson", b"{}"))
            entries: dict[str, Auth] = document.get("auths") or {}
        except (ValueError, AttributeError):
            continue
        for host, entry in entries.items():
            if host.removeprefix("https://").partition("/")[0] in (registry, f"index.{registry}"):
                user, _, password = base64.b64decode(entry.get("auth", "")).decode(errors="replace").partition(":")
                return {"username": entry.get("username") or user, "password": entry.get("password") or password}
    return None
