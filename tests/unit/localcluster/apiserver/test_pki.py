from __future__ import annotations

import ssl
from pathlib import Path

import yaml
from cryptography import x509

from fairlead.localcluster.apiserver import pki
from fairlead.testing.clock import FakeClock


def names_of(identity: pki.Pki) -> set[str]:
    certificate = x509.load_pem_x509_certificate(identity.cert.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def test_ensure_makes_everything_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    assert pki.ensure(tmp_path) == first
    assert before == {path: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    assert {path.stat().st_mode & 0o777 for path in before} == {0o600}
    assert len({first.admin_token, first.node_token}) == 2


def test_ensure_makes_a_new_certificate_for_more_names_under_the_same_ca(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path)
    authority = first.ca_pem()
    second = pki.ensure(tmp_path, ["127.0.0.1", "10.0.0.7", "box.example.com"])
    assert {"127.0.0.1", "10.0.0.7", "box.example.com", "kubernetes.default.svc"} <= names_of(second)
    assert second.ca_pem() == authority
    ssl.create_default_context(cadata=authority)


def test_ensure_renews_a_certificate_before_it_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    first = pki.ensure(tmp_path, clock=clock).cert.read_bytes()
    clock.advance(3600 * 24 * 3600)
    assert pki.ensure(tmp_path, clock=clock).cert.read_bytes() != first


def test_kubeconfig_names_the_server_its_ca_and_a_token(tmp_path: Path) -> None:
    identity = pki.ensure(tmp_path)
    document = yaml.safe_load(pki.kubeconfig("https://127.0.0.1:1", identity))
    assert document["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert document["users"][0]["user"] == {"token": identity.admin_token}
    assert document["current-context"] == "fairlead"
