"""What the server's identity and everybody's first credentials are made of, made once per data folder."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fairlead.clock import Clock, SystemClock

_LIFETIME = timedelta(days=3650)
_RENEW_BEFORE = timedelta(days=90)
_SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True, slots=True)
class Pki:
    """Files, all readable by their owner only, and the tokens."""

    ca_cert: Path
    cert: Path
    key: Path
    service_account_key: Path
    admin_token: str
    node_token: str

    def ca_pem(self) -> str:
        """Return the certificate that clients trust."""
        return self.ca_cert.read_text()


def ensure(data_dir: Path, hosts: Sequence[str] = ("127.0.0.1", "localhost"), *, clock: Clock | None = None) -> Pki:
    """Return the files of *data_dir*, making what is missing; *hosts* are the names the certificate is for."""
    folder = data_dir / "pki"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = (clock or SystemClock()).now()
    ca_key = _ec_key(folder / "ca.key")
    ca_cert = folder / "ca.crt"
    if not ca_cert.exists():
        write_private(ca_cert, _pem(_ca_certificate(ca_key, now)))
    _ensure_serving(folder, ca_key, hosts=hosts, now=now)
    if not (folder / "sa.key").exists():
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        write_private(folder / "sa.key", _key_pem(key))
    return Pki(
        ca_cert=ca_cert,
        cert=folder / "tls.crt",
        key=folder / "tls.key",
        service_account_key=folder / "sa.key",
        admin_token=_token(folder / "admin.token"),
        node_token=_token(folder / "node.token"),
    )


def kubeconfig(url: str, pki: Pki, *, name: str = "fairlead") -> str:
    """Return a kubeconfig with which kubectl is the administrator."""
    cluster = {"server": url, "certificate-authority-data": _base64(pki.ca_cert.read_bytes())}
    user = f"{name}-admin"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": pki.admin_token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": "default"}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def write_private(path: Path, data: bytes) -> None:
    """Write *data* so that only the owner can read it, at no moment anybody else, and the file is whole or absent."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _token(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()


def _ec_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        write_private(path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        message = f"{path} is not an EC key"
        raise TypeError(message)
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _ca_certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        _builder("fairlead-ca", "fairlead-ca", now=now)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: str, issuer: str, *, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _ensure_serving(folder: Path, ca_key: ec.EllipticCurvePrivateKey, *, hosts: Sequence[str], now: datetime) -> None:
    path = folder / "tls.crt"
    wanted = [_general_name(host) for host in dict.fromkeys((*hosts, *_SERVICE_NAMES))]
    if path.exists() and _still_good(x509.load_pem_x509_certificate(path.read_bytes()), wanted, now=now):
        return
    key = _ec_key(folder / "tls.key")
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder("fairlead-apiserver", "fairlead-ca", now=now)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(path, _pem(certificate))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _still_good(certificate: x509.Certificate, wanted: list[x509.GeneralName], *, now: datetime) -> bool:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(wanted) <= set(names) and certificate.not_valid_after_utc > now + _RENEW_BEFORE
