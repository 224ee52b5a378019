"""Builds the objects that Fairlead creates, from an allow-list of fields. Pods satisfy Pod Security "restricted"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fairlead.core import names
from fairlead.core.actions import Obj, meta, spec_of
from fairlead.core.resources import build_resources

USER_ID: Final = 10001

_LEASE_SECONDS: Final = 15
_DRAIN_SECONDS: Final = 30
_STOP_SECONDS: Final = 15
"""What a pod needs to stop after it has drained."""
_TOKEN_SECONDS: Final = 3600
_SECURITY: Final = re.compile(r"(.+\.)?security\.(alpha|beta)\.kubernetes\.io/|io\.(kubernetes\.cri-o|containerd)\.")
_NOTE_BYTES: Final = 1024
"""What an API server takes as an Event's note: it counts bytes, whatever its message says."""


@dataclass(frozen=True, slots=True)
class PodSettings:
    """What all agent pods have in common."""

    image: str
    pull_policy: str
    gateway_url: str
    gateway_ca: str
    """PEM."""
    fixed_user: bool = True
    """Whether they run as `USER_ID`; else as whom the cluster says."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What makes a pod one of a pool, or the pod of one run."""

    name: str
    owner: Obj
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    restart: str
    concurrency: int


def build_owner_reference(owner: Obj) -> dict[str, Any]:
    """Return the reference that makes *owner* the controller of a new object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta(owner)["name"],
        "uid": meta(owner)["uid"],
        "controller": True,
    }


def build_pool_pod(agent: Obj, slot: int, settings: PodSettings) -> dict[str, Any]:
    """Return the pod in one slot of an Agent's pool. A process that ends is started again in the same pod."""
    name = meta(agent)["name"]
    spec = spec_of(agent)
    kind = _Kind(
        name=names.child_name(name, str(slot)),
        owner=agent,
        labels={names.AGENT_LABEL: names.label_value(name)},
        annotations={},
        restart="Always",
        concurrency=spec.get("concurrency", 4),
    )
    return _build_pod(kind, spec, settings)


def build_run_pod(run: Obj, number: int, settings: PodSettings) -> dict[str, Any]:
    """Return the *number*-th pod of a run that has a pod of its own. No pool or StatefulSet has pods of such names."""
    name = meta(run)["name"]
    kind = _Kind(
        name=names.child_name(name, f"r{number}"),
        owner=run,
        labels={names.RUN_LABEL: names.label_value(name)},
        annotations={names.POOL_ANNOTATION: meta(run)["uid"]},
        restart="OnFailure",
        concurrency=1,
    )
    return _build_pod(kind, {}, settings)


def _build_pod(kind: _Kind, spec: Mapping[str, Any], settings: PodSettings) -> dict[str, Any]:
    options = spec.get("pod") or {}
    lease = {names.LEASE_SECONDS_ANNOTATION: str(spec.get("leaseDurationSeconds", _LEASE_SECONDS))}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": kind.name,
            "namespace": meta(kind.owner)["namespace"],
            "labels": _foreign(options.get("labels")) | names.PART_OF_LABELS | dict(kind.labels),
            "annotations": _foreign(options.get("annotations")) | lease | dict(kind.annotations),
            "ownerReferences": [build_owner_reference(kind.owner)],
        },
        "spec": _build_pod_spec(kind, spec, settings),
    }
    template = {**pod, "metadata": {**pod["metadata"], "name": ""}}  # all pods of a pool are of one digest
    pod["metadata"]["annotations"][names.SPEC_DIGEST_ANNOTATION] = names.digest(template)
    return pod


def is_security_annotation(key: str) -> bool:
    """Return whether an annotation would change what a pod may do on its node."""
    return _SECURITY.match(key) is not None


def _foreign(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return what a person chose, without what is Fairlead's to say."""
    own = f"{names.GROUP}/"
    chosen = ((key, value) for key, value in (given or {}).items() if not key.startswith(own))
    return {key: value for key, value in chosen if not is_security_annotation(key)}


def _build_pod_spec(kind: _Kind, spec: Mapping[str, Any], settings: PodSettings) -> dict[str, Any]:
    options = spec.get("pod") or {}
    drain = spec.get("drainSeconds", _DRAIN_SECONDS)
    user = {"runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID} if settings.fixed_user else {}
    chosen = {
        "nodeSelector": options.get("nodeSelector"),
        "tolerations": options.get("tolerations"),
        "priorityClassName": options.get("priorityClassName"),
        "runtimeClassName": options.get("runtimeClassName"),
        "serviceAccountName": options.get("serviceAccountName"),
        "imagePullSecrets": [{"name": name} for name in options.get("imagePullSecrets") or ()],
    }
    return {
        "restartPolicy": kind.restart,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain + _STOP_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            **user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_build_container(kind, spec, settings)],
        "volumes": [_TOKEN_VOLUME, {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
        **{key: value for key, value in chosen.items() if value},
    }


_TOKEN_VOLUME: Final = {
    "name": "token",
    "projected": {
        "sources": [
            {
                "serviceAccountToken": {
                    "audience": names.AUDIENCE,
                    "expirationSeconds": _TOKEN_SECONDS,
                    "path": names.TOKEN_FILE,
                }
            }
        ]
    },
}


def _build_container(kind: _Kind, spec: Mapping[str, Any], settings: PodSettings) -> dict[str, Any]:
    options = spec.get("pod") or {}
    ours = {
        "FAIRLEAD_GATEWAY_URL": settings.gateway_url,
        "FAIRLEAD_GATEWAY_CA": settings.gateway_ca,
        "FAIRLEAD_TOKEN_FILE": f"{names.TOKEN_MOUNT}/{names.TOKEN_FILE}",
        "FAIRLEAD_CONCURRENCY": str(kind.concurrency),
        "FAIRLEAD_DRAIN_SECONDS": str(spec.get("drainSeconds", _DRAIN_SECONDS)),
    }
    given = [entry for entry in options.get("env") or () if not entry["name"].startswith("FAIRLEAD_")]
    return {
        "name": names.AGENT_CONTAINER,
        "image": options.get("image") or settings.image,
        "imagePullPolicy": options.get("imagePullPolicy") or settings.pull_policy,
        "env": [{"name": name, "value": value} for name, value in ours.items()]
        + [{"name": entry["name"], "value": entry.get("value", "")} for entry in given],
        "resources": build_resources(spec.get("resources") or {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "token", "mountPath": names.TOKEN_MOUNT, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the only place that a read-only root leaves
        ],
    }


def build_started_run(workflow: Obj) -> dict[str, Any]:
    """Return the run that ``startPolicy: OnApply`` makes: one name for each uid and generation of the workflow."""
    name, generation = meta(workflow)["name"], meta(workflow)["generation"]
    mark = names.digest([meta(workflow)["uid"], generation])[:5]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "WorkflowRun",
        "metadata": {
            "name": names.child_name(name, f"{generation}-{mark}"),
            "namespace": meta(workflow)["namespace"],
            "labels": names.PART_OF_LABELS | {names.WORKFLOW_LABEL: names.label_value(name)},
            "ownerReferences": [build_owner_reference(workflow)],
        },
        "spec": {"workflowRef": {"name": name}},
    }


def _cut(text: str, size: int) -> str:
    """Return as much of *text* as fits into *size* bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore")


def build_event(  # noqa: PLR0913 - the fields of an Event
    about: Obj,
    *,
    reason: str,
    message: str,
    at: datetime,
    reporter: str,
    warning: bool = False,
    related: Obj | None = None,
) -> dict[str, Any]:
    """Return an Event about an object. The same event has the same name, so that saying it twice is saying it once.

    *at* has a time zone, *reporter* is the process that says it, *related* another object that it is about.
    """
    of = meta(about)
    mark = names.digest([of["uid"], reason, message])[:16]
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{of['name'][:200]}.{mark}", "namespace": of.get("namespace") or "default"},
        "eventTime": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{names.GROUP}/operator",
        "reportingInstance": reporter[:128],
        "action": reason,
        "reason": reason,
        "regarding": _reference(about),
        "note": _cut(message, _NOTE_BYTES),
        "type": "Warning" if warning else "Normal",
    }
    return event if related is None else event | {"related": _reference(related)}


def _reference(obj: Obj) -> dict[str, Any]:
    of = meta(obj)
    found = {name: of.get(name, "") for name in ("name", "namespace", "uid")}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], **found}
