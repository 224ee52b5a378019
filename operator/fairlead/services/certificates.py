"""The gateway's own certification authority and serving certificate, kept in a Secret that all its replicas share."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fairlead.clock import Clock
from fairlead.core import names
from fairlead.errors import Conflict
from fairlead.kube import KubeClient, Ref
from fairlead.logs import get_logger

_log = get_logger(__name__)
_CA_LIFE: Final = timedelta(days=3650)
_LIFE: Final = timedelta(days=365)
_RENEW_BEFORE: Final = timedelta(days=60)
_SKEW: Final = timedelta(minutes=10)
_TRIES: Final = 5
_CA_KEY: Final = "ca.key"
_CERT: Final = "tls.crt"
_KEY: Final = "tls.key"


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the gateway serves with, and who vouches for it."""

    authority: Authority
    certificate: bytes
    """PEM, of the serving certificate."""
    key: bytes = field(repr=False)


def make_authority(now: datetime) -> Authority:
    """Return a new certification authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlead-gateway-ca")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key.public_key(), now, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def make_identity(authority: Authority, hosts: Sequence[str], now: datetime) -> Identity:
    """Return a serving certificate for *hosts* (names and addresses), signed by *authority*."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is no elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fairlead-gateway")])
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _builder(name, issuer.subject, key.public_key(), now, _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(key_id, critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Identity(authority, certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def is_good(identity: Identity, hosts: Sequence[str], now: datetime) -> bool:
    """Whether a certificate is for exactly these hosts, by its authority, and not about to expire."""
    try:
        own = x509.load_pem_x509_certificate(identity.certificate)
        authority = x509.load_pem_x509_certificate(identity.authority.certificate)
        own.verify_directly_issued_by(authority)
        names_in_it = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        return False
    wanted = {_general_name(host) for host in hosts}
    return set(names_in_it) == wanted and own.not_valid_after_utc - _RENEW_BEFORE > now


def authority_is_good(authority: Authority, now: datetime) -> bool:
    """Whether an authority outlives what it signs."""
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        serialization.load_pem_private_key(authority.key, None)
    except (ValueError, TypeError):
        return False
    return certificate.not_valid_after_utc - _LIFE - _RENEW_BEFORE > now


class Certificates:
    """Reads the gateway's identity from its Secret, makes and renews it, and publishes the authority."""

    def __init__(self, kube: KubeClient, clock: Clock, *, namespace: str, hosts: Sequence[str]) -> None:
        self._kube = kube
        self._clock = clock
        self._namespace = namespace
        self._hosts = tuple(hosts)

    async def ensure(self) -> Identity:
        """Return an identity that is good now; where replicas make one at the same time, all take the first one's."""
        for _ in range(_TRIES):
            try:
                identity = await self._ensure_secret()
            except Conflict:
                continue
            await self._publish(identity.authority)
            return identity
        raise Conflict("the gateway's certificate was changed by others all the time")

    async def _ensure_secret(self) -> Identity:
        now = self._clock.now()
        secret = await self._kube.get(Ref("v1", "Secret", names.GATEWAY_TLS_SECRET, self._namespace))
        found = _parse_secret(secret)
        if found is not None and is_good(found, self._hosts, now) and authority_is_good(found.authority, now):
            return found
        keep = found is not None and authority_is_good(found.authority, now)
        authority = found.authority if found is not None and keep else make_authority(now)
        identity = make_identity(authority, self._hosts, now)
        if secret is None:
            await self._kube.create(self._secret(identity, ""))
        else:
            await self._kube.replace(self._secret(identity, secret["metadata"]["resourceVersion"]))
        _log.info("certificate_made", hosts=list(self._hosts), new_authority=not keep)
        return identity

    def _secret(self, identity: Identity, resource_version: str) -> dict[str, Any]:
        data = {
            names.CA_KEY: identity.authority.certificate,
            _CA_KEY: identity.authority.key,
            _CERT: identity.certificate,
            _KEY: identity.key,
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": self._metadata(names.GATEWAY_TLS_SECRET, resource_version),
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }

    async def _publish(self, authority: Authority) -> None:
        ref = Ref("v1", "ConfigMap", names.GATEWAY_CA_CONFIGMAP, self._namespace)
        text = authority.certificate.decode()
        found = await self._kube.get(ref)
        if found is None:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {names.CA_KEY: text}}
            try:
                await self._kube.create({**body, "metadata": self._metadata(names.GATEWAY_CA_CONFIGMAP, "")})
            except Conflict:
                await self._kube.merge_patch(ref, {"data": {names.CA_KEY: text}})
        elif (found.get("data") or {}).get(names.CA_KEY) != text:
            await self._kube.merge_patch(ref, {"data": {names.CA_KEY: text}})

    def _metadata(self, name: str, resource_version: str) -> dict[str, Any]:
        labels = {"app.kubernetes.io/part-of": "fairlead", "app.kubernetes.io/managed-by": "fairlead-gateway"}
        given = {"resourceVersion": resource_version} if resource_version else {}
        return {"name": name, "namespace": self._namespace, "labels": labels, **given}


def _parse_secret(secret: Mapping[str, Any] | None) -> Identity | None:
    data = (secret or {}).get("data") or {}
    if not all(data.get(key) for key in (names.CA_KEY, _CA_KEY, _CERT, _KEY)):
        return None
    authority = Authority(base64.b64decode(data[names.CA_KEY]), base64.b64decode(data[_CA_KEY]))
    return Identity(authority, base64.b64decode(data[_CERT]), base64.b64decode(data[_KEY]))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
