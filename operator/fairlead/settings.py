"""Settings, one class per process, from ``FAIRLEAD_*`` environment variables. Read only by `wiring` and `cli`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from fairlead.core import names


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="FAIRLEAD_", use_attribute_docstrings=True, extra="ignore", frozen=True
    )


class ProcessSettings(_Settings):
    """What every process of the control plane needs to know."""

    kubeconfig: Path | None = None
    """The kubeconfig to use; inside a cluster none is needed: the pod's service account is used."""
    storage_url: str = "sqlite:////var/lib/fairlead/fairlead.db"
    """Where history lives: ``sqlite:///path`` or ``postgresql://user:password@host/database``. Secret."""
    namespace: str = names.SYSTEM_NAMESPACE
    """The namespace that the control plane itself lives in."""
    log_level: str = "INFO"
    log_format: str = "json"
    """``json`` for machines, ``console`` for people."""


class OperatorSettings(ProcessSettings):
    """The operator."""

    identity: str = ""
    """The holder of the operator's Lease; empty: host name and a random suffix."""
    watch_namespaces: list[str] = []
    """The namespaces to watch; empty: all."""
    agent_image: str = "fairlead-agent:0.1.0"
    agent_image_pull_policy: str = "IfNotPresent"
    gateway_url: str = f"https://fairlead-gateway.{names.SYSTEM_NAMESPACE}.svc:8443"
    """What agent pods call."""
    resync_seconds: Annotated[float, Field(gt=0)] = 30
    """How often everything is looked at again, should a message have been lost."""
    lease_poll_seconds: Annotated[float, Field(gt=0)] = 2
    """How often the agents' Leases are listed to judge their expiry."""
    probe_port: int = 8081
    """The port of ``/healthz`` and ``/readyz``; 0 for none."""
    probe_bind: str = ""
    """The address of that port; empty: every address of the pod, where the kubelet probes it."""
    leader_lease_seconds: Annotated[float, Field(gt=0)] = 15


class GatewaySettings(ProcessSettings):
    """The gateway."""

    bind: str = "0.0.0.0"  # noqa: S104 - a pod's own address; laptop mode sets loopback
    port: int = 8443
    hosts: list[str] = [
        "fairlead-gateway",
        f"fairlead-gateway.{names.SYSTEM_NAMESPACE}",
        f"fairlead-gateway.{names.SYSTEM_NAMESPACE}.svc",
        f"fairlead-gateway.{names.SYSTEM_NAMESPACE}.svc.cluster.local",
    ]
    """Names and addresses in the serving certificate."""
    allow_loopback_models: bool = False
    """Whether a Model's ``baseURL`` may be this machine (an Ollama on a laptop)."""
    allow_private_models: bool = False
    """Whether a Model's ``baseURL`` may be a private address (a model server in the cluster)."""
    tool_timeout_seconds: Annotated[float, Field(gt=0)] = 60


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with *changes*, for a process of the control plane that is started from it."""
    return {**os.environ, **changes}
