"""A pod's volumes as folders, and what is in them: configuration, secrets, tokens, facts about the pod."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fairlead.clock import Clock
from fairlead.errors import InvalidObject
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.podruntime.environment import field_value, resource_value
from fairlead.localcluster.podruntime.state import Json, parse_time

_REFRESH: Final = timedelta(minutes=1)
"""How old the contents of a ConfigMap or Secret may be."""
_TOKEN_SHARE: Final = 0.8
"""A token is replaced when this part of its life is over."""
_TOKEN_SECONDS: Final = 3600
_PRIVATE: Final = 0o700
_EXECUTABLE: Final = 0o111


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read a pod's files. The folder around them is this user's own, whatever is said here."""

    folders: int = _PRIVATE
    files: int = 0o600
    group: int = -1
    """The group that they are given to; -1: this user's own."""


@dataclass(slots=True)
class _Token:
    text: bytes
    renew_at: datetime


@dataclass(slots=True)
class Volumes:
    """The volumes of one pod, below *folder*."""

    client: KubeClient
    clock: Clock
    folder: Path
    access: Access = field(default_factory=Access)
    _tokens: dict[tuple[str, int], _Token] = field(default_factory=dict)
    _objects: dict[tuple[str, str], Mapping[str, bytes] | None] = field(default_factory=dict)

    async def load(self, pod: Json) -> None:
        """Read every ConfigMap and Secret that the pod names."""
        namespace = pod["metadata"]["namespace"]
        found = {named: await self._read(*named, namespace) for named in sorted(references(pod["spec"]))}
        self._objects = found

    def lookup(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        """Return what `load` read."""
        return self._objects.get((kind, name))

    async def write(self, pod: Json) -> datetime | None:
        """Bring every volume up to date; return when that is due again.

        Raises:
            InvalidObject: a volume cannot be had (``FailedMount``).
        """
        due: list[datetime] = []
        if any(kind for kind, _ in references({"volumes": pod["spec"].get("volumes")})):
            due.append(self.clock.now() + _REFRESH)
        for volume in pod["spec"].get("volumes") or ():
            folder = self.folder / "volumes" / volume["name"]
            folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            if "emptyDir" not in volume:
                _replace_files(folder, await self._files(pod, volume), _executable(self.access, volume))
        due += [token.renew_at for token in self._tokens.values()]
        return min(due, default=None)

    def mount(self, container: Json) -> Path:
        """Return the folder that is a container's root, with its volumes where it mounts them.

        Raises:
            InvalidObject: a mount names no volume, or a place outside.
        """
        root: Path = self.folder / "containers" / container["name"]
        root.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
        for mount in sorted(container.get("volumeMounts") or (), key=lambda mount: str(mount["mountPath"])):
            volume = self.folder / "volumes" / mount["name"]
            source = below(volume, mount.get("subPath") or "")
            if not volume.is_dir():
                raise _failed(f'volumeMount "{mount["name"]}" names no volume of the pod')
            if mount.get("subPath") and not source.exists():
                source.mkdir(parents=True, mode=_PRIVATE)
            target = below(root, mount["mountPath"])
            target.parent.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            if not target.is_symlink():
                target.symlink_to(source)
        return root

    def source(self, mount: Json) -> Path:
        """Return what a container mounts, for an engine that mounts it.

        Raises:
            InvalidObject: there is no such volume, or nothing at its ``subPath``.
        """
        volume = self.folder / "volumes" / mount["name"]
        source = below(volume, mount.get("subPath") or "")
        if not volume.is_dir():
            raise _failed(f'volumeMount "{mount["name"]}" names no volume of the pod')
        if not source.exists():
            raise _failed(f'volume "{mount["name"]}" has no "{mount.get("subPath")}"')
        return source

    def remove(self) -> None:
        """Delete everything below the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _read(self, kind: str, name: str, namespace: str) -> Mapping[str, bytes] | None:
        obj = await self.client.get(Ref("v1", kind, name, namespace))
        return None if obj is None else object_data(obj)

    async def _files(self, pod: Json, volume: Json) -> dict[str, bytes]:
        if "configMap" in volume:
            return self._from_object("ConfigMap", volume["configMap"], name=volume["configMap"].get("name", ""))
        if "secret" in volume:
            return self._from_object("Secret", volume["secret"], name=volume["secret"].get("secretName", ""))
        if "downwardAPI" in volume:
            return downward_files(pod, volume["downwardAPI"])
        if "projected" not in volume:
            kind = ", ".join(sorted(set(volume) - {"name"})) or "nothing"
            raise _failed(f'volume "{volume["name"]}": laptop mode cannot mount {kind}')
        files: dict[str, bytes] = {}
        for index, source in enumerate(volume["projected"].get("sources") or ()):
            files |= await self._projected(pod, source, key=(volume["name"], index))
        return files

    async def _projected(self, pod: Json, source: Json, *, key: tuple[str, int]) -> dict[str, bytes]:
        if "serviceAccountToken" in source:
            wish = source["serviceAccountToken"]
            return {wish["path"]: await self._token(pod, wish, key=key)}
        if "configMap" in source:
            return self._from_object("ConfigMap", source["configMap"], name=source["configMap"].get("name", ""))
        if "secret" in source:
            return self._from_object("Secret", source["secret"], name=source["secret"].get("name", ""))
        if "downwardAPI" in source:
            return downward_files(pod, source["downwardAPI"])
        raise _failed(f"laptop mode cannot project {', '.join(source)}")

    def _from_object(self, kind: str, source: Json, *, name: str) -> dict[str, bytes]:
        data = self.lookup(kind, name)
        optional = bool(source.get("optional"))
        if data is None:
            if optional:
                return {}
            raise _failed(f'{kind.lower()} "{name}" not found')
        if not source.get("items"):
            return dict(data)
        missing = [item["key"] for item in source["items"] if item["key"] not in data]
        if missing and not optional:
            raise _failed(f"{kind.lower()} references non-existent config key: {missing[0]}")
        return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}

    async def _token(self, pod: Json, wish: Json, *, key: tuple[str, int]) -> bytes:
        held = self._tokens.get(key)
        if held is None or held.renew_at <= self.clock.now():
            held = self._tokens[key] = await self._request_token(pod, wish)
        return held.text

    async def _request_token(self, pod: Json, wish: Json) -> _Token:
        meta, now = pod["metadata"], self.clock.now()
        account = pod["spec"].get("serviceAccountName") or "default"
        reference = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec: dict[str, Any] = {
            "audiences": [wish["audience"]] if wish.get("audience") else [],
            "expirationSeconds": wish.get("expirationSeconds") or _TOKEN_SECONDS,
            "boundObjectRef": reference,
        }
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": meta["namespace"]},
            "spec": spec,
        }
        status = (await self.client.create(request, subresource="token", name=account))["status"]
        ends = parse_time(status.get("expirationTimestamp")) or now + timedelta(seconds=_TOKEN_SECONDS)
        return _Token(status["token"].encode(), now + (ends - now) * _TOKEN_SHARE)


def references(spec: Json) -> set[tuple[str, str]]:
    """Return kind and name of every ConfigMap and Secret that a pod's spec reads."""
    found: set[tuple[str, str]] = set()
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        sources = [entry.get("valueFrom") or {} for entry in container.get("env") or ()]
        for source in [*sources, *(container.get("envFrom") or ())]:
            found |= {
                ("ConfigMap", source[key]["name"]) for key in ("configMapKeyRef", "configMapRef") if key in source
            }
            found |= {("Secret", source[key]["name"]) for key in ("secretKeyRef", "secretRef") if key in source}
    found |= {("Secret", each["name"]) for each in spec.get("imagePullSecrets") or ()}
    for volume in spec.get("volumes") or ():
        for source in [volume, *((volume.get("projected") or {}).get("sources") or ())]:
            if "configMap" in source:
                found.add(("ConfigMap", source["configMap"].get("name", "")))
            if "secret" in source:
                found.add(("Secret", source["secret"].get("secretName") or source["secret"].get("name", "")))
    return found


def object_data(obj: Json) -> dict[str, bytes]:
    """Return what a ConfigMap or a Secret holds, by key."""
    if obj["kind"] == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in (obj.get("data") or {}).items()} | binary


def downward_files(pod: Json, source: Json) -> dict[str, bytes]:
    """Return the files of a ``downwardAPI`` volume."""
    files = {}
    for item in source.get("items") or ():
        if "fieldRef" in item:
            files[item["path"]] = field_value(pod, item["fieldRef"]["fieldPath"]).encode()
        else:
            files[item["path"]] = resource_value(pod, item["resourceFieldRef"]).encode()
    return files


def below(root: Path, path: str) -> Path:
    """Return *path*, absolute or not, below *root*.

    Raises:
        InvalidObject: it leads outside.
    """
    parts = PurePosixPath("/" + path).parts[1:]
    if ".." in parts:
        raise _failed(f'"{path}" must not contain ".."')
    return root.joinpath(*parts)


def _executable(access: Access, volume: Json) -> Access:
    """Return the access to a volume's files, which are programs if its ``defaultMode`` says so."""
    source: Json = next((volume[kind] for kind in ("configMap", "secret", "projected") if kind in volume), {})
    may_run = (source.get("defaultMode") or 0) & _EXECUTABLE & (access.folders & _EXECUTABLE)
    return replace(access, files=access.files | may_run)


def _replace_files(folder: Path, files: Mapping[str, bytes], access: Access) -> None:
    """Make the folder hold these files, each replaced as a whole so that no reader sees half of one."""
    _open_to(folder, access)
    wanted = {below(folder, name): data for name, data in files.items()}
    for path, data in wanted.items():
        if path.is_file() and path.read_bytes() == data:
            continue
        for parent in [each for each in path.parents if folder in each.parents][::-1]:
            parent.mkdir(exist_ok=True, mode=_PRIVATE)
            _open_to(parent, access)
        temporary = path.with_name(f".{path.name}.new")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            os.fchown(file.fileno(), -1, access.group)
            os.fchmod(file.fileno(), access.files)
        temporary.replace(path)
    for path in [found for found in folder.rglob("*") if found.is_file() and found not in wanted]:
        path.unlink()


def _open_to(folder: Path, access: Access) -> None:
    os.chown(folder, -1, access.group)
    folder.chmod(access.folders)


def _failed(message: str) -> InvalidObject:
    return InvalidObject(message, reason="FailedMount")
