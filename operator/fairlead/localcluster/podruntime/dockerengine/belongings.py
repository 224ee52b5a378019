"""Everything in the engine that belongs to one home: found by its labels, removed by its id."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

from docker import DockerClient
from docker.errors import APIError, NotFound

from fairlead.localcluster.podruntime.dockerengine import labels

_CONFLICT: Final = 409


class Belongings:
    """What a home has in the engine. Every method waits for the engine: call it in a thread."""

    def __init__(self, client: DockerClient, home: str) -> None:
        self._api, self.home = client.api, home

    def containers(self, uid: str = "") -> list[dict[str, Any]]:
        """Return the home's containers, or those of one pod: ``{Id, State, Labels, …}``."""
        found: list[dict[str, Any]] = self._api.containers(all=True, filters=self._filters(uid))
        return found

    def remove_container(self, ident: str) -> None:
        """End and remove a container."""
        try:
            self._api.remove_container(ident, v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != _CONFLICT:  # it is being removed already
                raise

    def remove_pod(self, uid: str) -> None:
        """Remove whatever is left of a pod."""
        for container in self.containers(uid):
            self.remove_container(container["Id"])
        self._remove_volumes(uid)

    def sweep(self, known: Collection[str]) -> int:
        """Remove what belongs to no pod of *known* uids; return how many containers that were."""
        strangers = [each for each in self.containers() if each["Labels"].get(labels.UID) not in known]
        for container in strangers:
            self.remove_container(container["Id"])
        self._remove_volumes("", known)
        return len(strangers)

    def clear(self) -> int:
        """Remove everything, the network too; return how many containers that were."""
        count = self.sweep(())
        for network in self._api.networks(filters=self._filters("")):
            with suppress(NotFound):
                self._api.remove_network(network["Id"])
        return count

    def _remove_volumes(self, uid: str, known: Collection[str] = ()) -> None:
        for volume in self._api.volumes(filters=self._filters(uid))["Volumes"] or ():
            if (volume["Labels"] or {}).get(labels.UID) not in known:
                with suppress(NotFound):
                    self._api.remove_volume(volume["Name"])

    def _filters(self, uid: str) -> dict[str, list[str]]:
        return {"label": [f"{labels.HOME}={self.home}", *([f"{labels.UID}={uid}"] if uid else ())]}
