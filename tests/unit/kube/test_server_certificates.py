"""An API server whose certificates have no key identifiers, as EKS has them, and a Python that wants them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fairlead.clock import SystemClock
from fairlead.controllers.startup import connect
from fairlead.errors import Unavailable
from fairlead.kube import KubeClient, Ref

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default", "uid": "u"}}
Key = ec.EllipticCurvePrivateKey


def sign(name: str, key: Key, issuer: str, signer: Key, extension: x509.ExtensionType) -> bytes:
    """Return a certificate with one extension and no more."""
    now = SystemClock().now()
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    builder = (
        x509.CertificateBuilder(by, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def authority(key: Key) -> bytes:
    return sign("kubernetes", key, "kubernetes", key, x509.BasicConstraints(ca=True, path_length=None))


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have contexts made as Python 3.13 makes them."""
    make = ssl.create_default_context

    def make_strict(*args: Any, **options: Any) -> ssl.SSLContext:
        context = make(*args, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", make_strict)


@asynccontextmanager
async def serve(folder: Path, host: str, *, trusted: bool = True) -> AsyncIterator[KubeClient]:
    """Serve a pod with a certificate for *host*; give a client that may trust its authority."""
    ca, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    leaf = sign("kube-apiserver", own, "kubernetes", ca, x509.SubjectAlternativeName([x509.DNSName(host)]))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "leaf.pem").write_bytes(own.private_bytes(*pem) + leaf)
    (folder / "ca.crt").write_bytes(authority(ca if trusted else ec.generate_private_key(ec.SECP256R1())))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem")

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(POD)

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/default/pods/a", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    client = await KubeClient.connect(kubeconfig=write(folder, runner.addresses[0][1]), user_agent="test")
    try:
        yield client
    finally:
        await client.aclose()
        await runner.cleanup()


def write(folder: Path, port: int) -> Path:
    cluster = {"server": f"https://localhost:{port}", "certificate-authority": str(folder / "ca.crt")}
    config = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": cluster}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return folder / "kubeconfig"


async def get_as_kopf(client: KubeClient) -> Any:
    info = await connect(client)
    connector = aiohttp.TCPConnector(ssl=info.as_ssl_context())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{info.server}/api/v1/namespaces/default/pods/a") as answer,
    ):
        return await answer.json()


async def test_client_and_kopf_reach_a_server_whose_certificates_have_no_key_identifiers(tmp_path: Path) -> None:
    async with serve(tmp_path, "localhost") as client:
        assert await client.get(Ref.of(POD)) == POD
        assert await get_as_kopf(client) == POD


@pytest.mark.parametrize(
    ("host", "trusted", "why"),
    [
        pytest.param("elsewhere", True, "Hostname mismatch", id="another-name"),
        pytest.param("localhost", False, "certificate", id="another-authority"),
    ],
)
async def test_client_and_kopf_still_check_name_and_chain(tmp_path: Path, host: str, trusted: bool, why: str) -> None:
    async with serve(tmp_path, host, trusted=trusted) as client:
        with pytest.raises(Unavailable, match=why):
            await client.get(Ref.of(POD))
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match=why):
            await get_as_kopf(client)
