"""Object names, labels, annotations and digests: in one place, never an f-string twice."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from fairlead.api import group

GROUP: Final = group.GROUP
VERSION: Final = group.VERSION
API_VERSION: Final = group.API_VERSION
CATEGORY: Final = group.CATEGORY

SYSTEM_NAMESPACE: Final = "fairlead-system"
SANDBOX_NAMESPACE: Final = "fairlead-sandboxes"
"""Of sandboxes that are pods; nothing else is in it."""
AUDIENCE: Final = "fairlead-gateway"
"""The audience of the projected token that an agent pod shows to the gateway."""
OPERATOR_LEASE: Final = "fairlead-operator"
GATEWAY_TLS_SECRET: Final = "fairlead-gateway-tls"  # noqa: S105 - the name of a Secret
GATEWAY_CA_CONFIGMAP: Final = "fairlead-gateway-ca"
CA_KEY: Final = "ca.crt"

AGENT_LABEL: Final = f"{GROUP}/agent"
"""On pods and Leases: the Agent whose pool the pod belongs to."""
WORKFLOW_LABEL: Final = f"{GROUP}/workflow"
RUN_LABEL: Final = f"{GROUP}/run"
"""On a pod that exists for one run: the name of the WorkflowRun."""
POOL_ANNOTATION: Final = f"{GROUP}/pool"
LEASE_SECONDS_ANNOTATION: Final = f"{GROUP}/lease-seconds"
"""On an agent pod: the duration of its Lease."""
DRAIN_ANNOTATION: Final = f"{GROUP}/drain"
"""On a Lease, ``true``: its pod claims nothing more and finishes what it has."""
VERSION_ANNOTATION: Final = f"{GROUP}/version"
"""On a Lease: the version of the agent that holds it."""
CAPABILITIES_ANNOTATION: Final = f"{GROUP}/capabilities"
"""On a Lease: what its agent can do, with commas between; of an external agent its skills."""
CAPACITY_ANNOTATION: Final = f"{GROUP}/capacity"
"""On a Lease: how many tasks the pod works on at once."""
AGENT_CONTAINER: Final = "agent"
"""The container of an agent pod that is Fairlead's: a cluster may inject others beside it."""
SPEC_DIGEST_ANNOTATION: Final = f"{GROUP}/spec-digest"
APPROVE_ANNOTATION: Final = f"{GROUP}/approve"
"""On a run: the node whose question is answered with yes, as ``<node>`` or ``<node>=<comment>``."""
REJECT_ANNOTATION: Final = f"{GROUP}/reject"
"""On a run: the same, with no."""

EXTERNAL_LABEL: Final = f"{GROUP}/external"
"""On the Lease of an external agent: ``true``."""
CARD_ANNOTATION: Final = f"{GROUP}/card-name"
"""On the Lease of an external agent: what its card calls it."""
PROBE_REASON_ANNOTATION: Final = f"{GROUP}/probe-reason"
"""On the Lease of an external agent: why its card could not be read last; empty: it could."""
PROBE_MESSAGE_ANNOTATION: Final = f"{GROUP}/probe-message"
A2A_LABEL: Final = f"{GROUP}/a2a-agent"
"""On a run that a message of another agent made: the Agent that it was sent to."""
REQUESTED_BY_ANNOTATION: Final = f"{GROUP}/requested-by"
"""On a run that the gateway made: for whom."""

PART_OF_LABELS: Final = {"app.kubernetes.io/part-of": "fairlead", "app.kubernetes.io/managed-by": "fairlead-operator"}

TOKEN_MOUNT: Final = "/var/run/secrets/fairlead.dev"  # noqa: S105 - a path
TOKEN_FILE: Final = "token"  # noqa: S105 - a file name

_MAX_NAME = 63


def digest(value: Any) -> str:
    """Return the SHA-256 of *value* as canonical JSON (sorted keys), in hexadecimal."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def child_name(parent: str, suffix: str) -> str:
    """Return ``<parent>-<suffix>``, shortened with a digest of the parent where it would be over 63 characters."""
    name = f"{parent}-{suffix}"
    if len(name) <= _MAX_NAME:
        return name
    mark = hashlib.sha256(parent.encode()).hexdigest()[:8]
    return f"{parent[: _MAX_NAME - len(suffix) - len(mark) - 2].rstrip('-.')}-{mark}-{suffix}"


def label_value(name: str) -> str:
    """Return *name* as the value of a label: names may have 253 characters, values 63."""
    if len(name) <= _MAX_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - len(mark) - 1].rstrip('-.')}-{mark}"


def agent_pool(cluster: str, namespace: str, agent: str) -> str:
    """Return the key of an Agent's pool in the work queue.

    *cluster* is the uid of ``kube-system``; *agent* is the Agent's name or the value of the label that stands for it.
    """
    return f"{cluster}/{namespace}/agent/{label_value(agent)}"


def external_lease(agent: str) -> str:
    """Return the name of the Lease of an external agent."""
    return child_name(agent, "external")


def run_pool(cluster: str, namespace: str, run_uid: str) -> str:
    """Return the key of the pool of one pod that exists for one run."""
    return f"{cluster}/{namespace}/run/{run_uid}"
