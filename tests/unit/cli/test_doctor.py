"""What `fairlead doctor` says of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fairlead.cli import doctor
from fairlead.cli.options import Target
from fairlead.cli.session import Session
from fairlead.clock import SystemClock
from fairlead.errors import Refused
from fairlead.kube import KubeClient, Ref


class Cluster:
    """Has nothing, or lets nobody look."""

    server = "https://api"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def get(self, ref: Ref) -> dict[str, Any] | None:
        del ref
        if self.error is not None:
            raise self.error
        return None

    async def credentials(self) -> Any:
        raise Refused("nobody may")


async def look(tmp_path: Path, cluster: Cluster) -> list[doctor.Finding]:
    target = Target(tmp_path, gateway="https://127.0.0.1:1")
    return await doctor._look(Session(target, cast("KubeClient", cluster), "default", None, SystemClock()))


async def test_look_by_whoever_may_not_read_the_cluster_goes_on_to_the_gateway(tmp_path: Path) -> None:
    found = await look(tmp_path, Cluster(Refused("leases is forbidden")))
    assert [one.state for one in found] == ["ok", "note", "note", "bad"]
    assert "leases is forbidden" in found[2].what
    assert "the gateway: " in found[3].what


async def test_look_at_a_cluster_without_fairlead_says_how_to_install_it(tmp_path: Path) -> None:
    found = await look(tmp_path, Cluster())
    assert [one.state for one in found] == ["ok", "bad"]
    assert found[1].fix == "kubectl apply -k manifests/base"
