"""Kopf's settings, chosen in one place, and its way to the API server."""

from __future__ import annotations

import ssl
from typing import Any

import kopf

from fairlead.core import names
from fairlead.core.actions import meta, status_of
from fairlead.kube import KubeClient
from fairlead.services.watchdog import MANAGED


class GenerationDiffBase(kopf.DiffBaseStorage):
    """Tells Kopf what was handled last, from what the status says anyway: no annotation, no copy of the spec.

    Reconciling is level-based and ignores the difference; all that Kopf has to know is whether there is one. So an
    object is its generation, and the last handled one is ``status.observedGeneration``.
    """

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> Any:
        """Return what identifies the object as it is."""
        del extra_fields
        return {"generation": meta(body)["generation"]}

    def fetch(self, *, body: kopf.Body) -> Any:
        """Return what identified the object when it was handled last, or None."""
        observed = status_of(body).get("observedGeneration", -1)
        return {"generation": observed} if observed >= 0 else None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        """Do nothing: whoever reconciles writes the status."""


class NoProgress(kopf.ProgressStorage):
    """Keeps nothing of Kopf on an object: its handlers only feed our own queue and cannot be half done."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        """Return nothing: no handler is ever in the middle of something."""

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Do nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Do nothing."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Do nothing."""

    def clear(self, *, essence: Any) -> Any:
        """Return what the object is without what was stored: all of it."""
        return essence


def build_settings() -> kopf.OperatorSettings:
    """Return the settings of Kopf."""
    settings = kopf.OperatorSettings()
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (0.5, 1, 2, 5, 10)
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.watching.server_timeout = 240
    settings.watching.reconnect_backoff = 0.1
    settings.watching.label_selectors["v1", "pods"] = MANAGED
    settings.queueing.worker_limit = 100
    settings.scanning.disabled = True  # the CRDs are there before Kopf starts
    settings.posting.enabled = False  # our own Events are few and meaningful
    settings.peering.standalone = True  # the one active operator is chosen by a Lease
    settings.process.ultimate_exiting_timeout = 30
    settings.persistence.finalizer = f"{names.GROUP}/operator"
    settings.persistence.progress_storage = NoProgress()
    settings.persistence.diffbase_storage = GenerationDiffBase()
    return settings


class Connection(kopf.ConnectionInfo):
    """Checks chain and name of the server's certificate, as our own client does, and no more."""

    def as_ssl_context(self) -> ssl.SSLContext:
        """Return Kopf's context without the strictness of Python 3.13, which certificates of EKS do not stand."""
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


async def connect(kube: KubeClient) -> kopf.ConnectionInfo:
    """Return how Kopf reaches the API server: as our own client does, with the token that is valid now."""
    found = await kube.credentials()
    scheme, _, token = found.authorization.partition(" ")
    return Connection(
        server=found.server,
        ca_path=found.ca_path,
        certificate_path=found.certificate_path,
        private_key_path=found.key_path,
        scheme=scheme or None,
        token=token or None,
    )
