from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fairlead.core import names
from fairlead.errors import Refused, Unavailable
from fairlead.gateway.server import keep_identity, load_identity
from fairlead.kube import Ref
from fairlead.services.certificates import Certificates, Identity, is_good, make_authority, make_identity
from fairlead.testing.clock import FakeClock
from fairlead.testing.kube import FakeKube

HOSTS = ("fairlead-gateway", "127.0.0.1", "::1")
SECRET = Ref("v1", "Secret", names.GATEWAY_TLS_SECRET, "fairlead-system")
CONFIG_MAP = Ref("v1", "ConfigMap", names.GATEWAY_CA_CONFIGMAP, "fairlead-system")


def certificates(kube: Any, clock: FakeClock, hosts: tuple[str, ...] = HOSTS) -> Certificates:
    return Certificates(kube, clock, namespace="fairlead-system", hosts=hosts)


class Refusing:
    """Certificates of a server that refuses for a moment, and then shows a bug."""

    def __init__(self) -> None:
        self.answers: list[Exception] = [Refused("Unauthorized"), Unavailable("down"), RuntimeError("a bug")]

    async def ensure(self) -> Identity:
        raise self.answers.pop(0)


async def test_keep_identity_goes_on_whatever_the_server_answers() -> None:
    refusing: Any = Refusing()
    with pytest.raises(RuntimeError, match="a bug"):
        await keep_identity(refusing, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), FakeClock())


async def test_ensure_makes_it_once_and_publishes_the_authority() -> None:
    kube, clock = FakeKube(), FakeClock()
    first = await certificates(kube, clock).ensure()
    second = await certificates(kube, clock).ensure()
    assert first == second
    assert kube.objects[CONFIG_MAP]["data"][names.CA_KEY].encode() == first.authority.certificate
    assert "PRIVATE" not in str(kube.objects[CONFIG_MAP])


async def test_ensure_two_replicas_agree() -> None:
    kube, clock = FakeKube(), FakeClock()
    one, two = await asyncio.gather(certificates(kube, clock).ensure(), certificates(kube, clock).ensure())
    assert one.authority == two.authority
    assert kube.objects[CONFIG_MAP]["data"][names.CA_KEY].encode() == one.authority.certificate


async def test_ensure_renews_before_it_expires_under_the_same_authority() -> None:
    kube, clock = FakeKube(), FakeClock()
    first = await certificates(kube, clock).ensure()
    clock.advance(timedelta(days=320).total_seconds())
    second = await certificates(kube, clock).ensure()
    assert first.certificate != second.certificate
    assert first.authority == second.authority


async def test_ensure_renews_the_authority_in_its_last_years() -> None:
    kube, clock = FakeKube(), FakeClock()
    first = await certificates(kube, clock).ensure()
    clock.advance(timedelta(days=3400).total_seconds())
    second = await certificates(kube, clock).ensure()
    assert first.authority != second.authority
    assert kube.objects[CONFIG_MAP]["data"][names.CA_KEY].encode() == second.authority.certificate


async def test_ensure_other_hosts_need_another_certificate() -> None:
    kube, clock = FakeKube(), FakeClock()
    first = await certificates(kube, clock).ensure()
    second = await certificates(kube, clock, ("localhost",)).ensure()
    assert first.certificate != second.certificate
    assert first.authority == second.authority


@pytest.mark.parametrize("data", [{}, {"ca.crt": "eA==", "ca.key": "eA==", "tls.crt": "eA==", "tls.key": "eA=="}])
async def test_ensure_replaces_a_broken_secret(data: dict[str, str]) -> None:
    kube, clock = FakeKube(), FakeClock()
    metadata = {"name": SECRET.name, "namespace": SECRET.namespace}
    await kube.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    assert is_good(await certificates(kube, clock).ensure(), HOSTS, clock.now())


def test_is_good_certificate_of_another_authority_is_not() -> None:
    now = FakeClock().now()
    mine, other = make_authority(now), make_authority(now)
    identity = make_identity(other, HOSTS, now)
    assert is_good(identity, HOSTS, now)
    assert not is_good(Identity(mine, identity.certificate, identity.key), HOSTS, now)


def test_identity_does_not_show_its_keys() -> None:
    now = FakeClock().now()
    assert "PRIVATE" not in repr(make_identity(make_authority(now), HOSTS, now))


def test_load_identity_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    now = FakeClock().now()
    load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), make_identity(make_authority(now), HOSTS, now))
    assert list(tmp_path.iterdir()) == []
