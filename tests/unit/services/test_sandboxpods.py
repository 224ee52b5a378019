from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fairlead.errors import Refused, RetryableError
from fairlead.kube import Ref
from fairlead.services.sandboxpods import SandboxPods


class Cluster:
    """Keeps what is asked of it; its pods' logs are answered with `log`."""

    def __init__(self, log: tuple[int, bytes] = (200, b""), refuses: str = "") -> None:
        self.asked: list[tuple[str, Any]] = []
        self._log = log
        self._refuses = refuses

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if self._refuses:
            raise Refused(self._refuses, reason="Forbidden")
        self.asked.append(("create", obj))
        return obj

    async def get(self, ref: Ref) -> None:
        self.asked.append(("get", ref))

    async def delete(self, ref: Ref, *, grace_seconds: int) -> None:
        self.asked.append(("delete", (ref, grace_seconds)))

    async def raw(self, method: str, path: str, *, query: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        self.asked.append((method, (path, dict(query))))
        return self._log[0], {}, self._log[1]


def pods(cluster: Any) -> SandboxPods:
    return SandboxPods(cluster, "sandboxes")


async def test_create_stays_in_the_namespace() -> None:
    cluster = Cluster()
    await pods(cluster).create({"kind": "Pod", "metadata": {"name": "p", "namespace": "kube-system"}})
    ((_, made),) = cluster.asked
    assert (made["apiVersion"], made["metadata"]["namespace"]) == ("v1", "sandboxes")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        pytest.param('pods "p" is forbidden: exceeded quota: sandboxes', RetryableError, id="room-comes-back"),
        pytest.param('pods "p" is forbidden: maximum memory usage per Container is 8Gi', Refused, id="never-fits"),
    ],
)
async def test_create_that_is_refused(words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="forbidden"):
        await pods(Cluster(refuses=words)).create({"kind": "Pod", "metadata": {"name": "p"}})


async def test_log_of_a_container_that_is_gone_is_empty() -> None:
    assert await pods(Cluster((400, b'container "program" in pod "p" is not available'))).log("p", 10) == b""


async def test_delete_waits_for_nothing() -> None:
    cluster = Cluster()
    await pods(cluster).delete("Secret", "s")
    assert cluster.asked == [("delete", (Ref("v1", "Secret", "s", "sandboxes"), 0))]


async def test_log_is_bounded_also_where_the_cluster_gives_more() -> None:
    cluster = Cluster((200, b"x" * 50))
    assert await pods(cluster).log("p", 10) == b"x" * 10
    assert cluster.asked == [("GET", ("/api/v1/namespaces/sandboxes/pods/p/log", {"limitBytes": "10"}))]


@pytest.mark.parametrize(("status", "error"), [(500, RetryableError), (404, RetryableError), (403, Refused)])
async def test_log_that_is_not_given(status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=str(status)):
        await pods(Cluster((status, b"no"))).log("p", 10)


async def test_get_of_a_policy_asks_its_own_group() -> None:
    cluster = Cluster()
    await pods(cluster).get("NetworkPolicy", "n")
    assert cluster.asked == [("get", Ref("networking.k8s.io/v1", "NetworkPolicy", "n", "sandboxes"))]
