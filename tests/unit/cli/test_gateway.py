"""How a command finds the gateway, and what it trusts."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import pytest

from fairlead.cli import gateway
from fairlead.cli.options import Target
from fairlead.cli.session import Session
from fairlead.clock import SystemClock
from fairlead.core import names
from fairlead.errors import Refused
from fairlead.kube import KubeClient, Ref
from fairlead.localcluster.apiserver import pki

FORBIDDEN = 'Error from server (Forbidden): services "fairlead-gateway" is forbidden: User "jane" cannot get resource'


class Cluster:
    """Answers for the published authority."""

    def __init__(self, found: dict[str, Any] | Refused | None) -> None:
        self.found = found

    async def get(self, ref: Ref) -> dict[str, Any] | None:
        assert (ref.kind, ref.name, ref.namespace) == ("ConfigMap", names.GATEWAY_CA_CONFIGMAP, names.SYSTEM_NAMESPACE)
        if isinstance(self.found, Refused):
            raise self.found
        return self.found


def session(found: dict[str, Any] | Refused | None, target: Target) -> Session:
    return Session(target, cast("KubeClient", Cluster(found)), "default", None, SystemClock())


def place(opened: Session) -> AbstractAsyncContextManager[gateway.Place]:
    return gateway._place(opened)


def published(authority: str) -> dict[str, Any]:
    return {"data": {names.CA_KEY: authority}}


def subjects(context: ssl.SSLContext) -> int:
    return len(context.get_ca_certs())


async def test_place_of_a_named_gateway_for_whoever_may_not_read_what_it_publishes(tmp_path: Path) -> None:
    refused = Refused("configmaps is forbidden", reason="Forbidden")
    async with place(session(refused, Target(tmp_path, gateway="https://fairlead.example.com"))) as found:
        assert (found.url, found.ca, found.host) == ("https://fairlead.example.com", "", "")


async def test_place_of_a_named_gateway_for_nobody(tmp_path: Path) -> None:
    refused = Refused("who are you", reason="Unauthorized")
    with pytest.raises(Refused, match="who are you"):
        async with place(session(refused, Target(tmp_path, gateway="https://fairlead.example.com"))):
            pass


async def test_trust_of_a_named_gateway_is_in_the_system_and_in_what_it_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public, own = (pki.ensure(tmp_path / name).ca_pem() for name in ("public", "own"))
    (tmp_path / "system.pem").write_text(public)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    async with place(session(published(own), Target(tmp_path, gateway="https://fairlead.example.com"))) as found:
        trusted = gateway._trust(found)
    assert subjects(trusted) == 2
    assert trusted.verify_mode == ssl.CERT_REQUIRED
    assert trusted.check_hostname
    assert subjects(gateway._trust(gateway.Place("https://127.0.0.1:1", own, "fairlead-gateway"))) == 1
    assert subjects(gateway._trust(gateway.Place("https://fairlead.example.com", "", public=True))) == 1


async def test_forward_that_is_forbidden_says_which_role_to_bind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\necho '{FORBIDDEN}' >&2\nexit 1\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = tmp_path / "kubeconfig"
    config.write_text("")
    with pytest.raises(
        Refused, match=r'User "jane".*Role fairlead-port-forward of fairlead-system.*--gateway'
    ) as caught:
        async with place(session(None, Target(tmp_path, kubeconfig=str(config)))):
            pass
    assert caught.value.reason == "Forbidden"
