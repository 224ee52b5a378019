"""The operator that one writes on a first afternoon with Kopf: a pod for each run, handlers that return results.

Its pods do less than Fairlead's: they print the answer, and nothing is journalled, called, priced or traced.
"""

from __future__ import annotations

import sys
from typing import Any

import kopf
import kubernetes

GROUP, VERSION, PLURAL = "bench.example", "v1", "naiveruns"
LABEL = "bench.example/run"
PROGRAM = "print('hi there', flush=True)"


@kopf.on.startup()
def login(**_: Any) -> None:
    """Use the same configuration as Kopf."""
    kubernetes.config.load_kube_config()


@kopf.on.create(GROUP, VERSION, PLURAL)
def start(name: str, namespace: str, **_: Any) -> dict[str, str]:
    """Make the pod of a run."""
    container = {"name": "agent", "image": "fairlead-agent:0.1.0", "command": [sys.executable, "-c", PROGRAM]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {LABEL: name}},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    kopf.adopt(pod)
    kubernetes.client.CoreV1Api().create_namespaced_pod(namespace, pod)
    return {"pod": name}


@kopf.on.event("pods", labels={LABEL: kopf.PRESENT})
def follow(status: dict[str, Any], name: str, namespace: str, **_: Any) -> None:
    """Copy a pod's end into the run's status."""
    if status.get("phase") in {"Succeeded", "Failed"}:
        kubernetes.client.CustomObjectsApi().patch_namespaced_custom_object_status(
            GROUP, VERSION, namespace, PLURAL, name, {"status": {"phase": status["phase"]}}
        )
