"""Settings, one class per process, from ``FAIRLEAD_*`` environment variables. Read only by `wiring` and `cli`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fairlead.core import names


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="FAIRLEAD_", use_attribute_docstrings=True, extra="ignore", frozen=True
    )


_Read = TypeVar("_Read", bound=_Settings)


def read_settings(kind: type[_Read]) -> _Read:
    """Return a process's settings; end the process with a line for each one that is wrong, without its value."""
    try:
        return kind()
    except ValidationError as error:
        wrong = [f"FAIRLEAD_{str(one['loc'][0]).upper()}: {one['msg']}" for one in error.errors()]
        raise SystemExit("\n".join(wrong)) from None


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
    agent_fixed_user: bool = True
    """Whether agents run as user 10001; false: as whom the cluster says (OpenShift gives each namespace users of its
    own)."""
    gateway_url: str = f"https://fairlead-gateway.{names.SYSTEM_NAMESPACE}.svc:8443"
    """What agent pods call."""
    resync_seconds: Annotated[float, Field(gt=0)] = 30
    """How often everything is looked at again, should a message have been lost."""
    lease_poll_seconds: Annotated[float, Field(gt=0)] = 0.75
    """How often the agents' Leases are listed to judge their expiry; less often where a list takes long."""
    scale_down_seconds: Annotated[float, Field(ge=0)] = 60
    """How long fewer pods must have been enough before a pool that follows its work shrinks."""
    probe_port: int = 8081
    """The port of ``/healthz`` and ``/readyz``; 0 for none."""
    probe_bind: str = ""
    """The address of that port; empty: every address of the pod, where the kubelet probes it."""
    leader_lease_seconds: Annotated[float, Field(gt=0)] = 15


class GatewaySettings(ProcessSettings):
    """The gateway."""

    bind: str = ""
    """The address to serve on; empty: every address of the pod, of both families. Laptop mode sets loopback."""
    port: int = 8443
    socket: Path | None = None
    """A Unix socket to serve on as well, for agents that have no network. Whoever may open its folder may connect."""
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
    allow_loopback_tools: bool = False
    """Whether an http Tool's ``url``, or a host that a program may reach, may be this machine. The built-in
    `http_request` never may."""
    allow_private_tools: bool = False
    """Whether an http Tool's ``url``, or a host that a program may reach, may be a private address (a service in the
    cluster)."""
    allow_loopback_agents: bool = False
    """Whether the ``url`` of an external Agent may be this machine."""
    allow_private_agents: bool = False
    """Whether the ``url`` of an external Agent may be a private address (an agent in the cluster)."""
    public_url: str = ""
    """Where others reach this gateway, as the cards of its agents say; empty: as whoever asks for a card reached it."""
    tool_timeout_seconds: Annotated[float, Field(gt=0)] = 60
    sandbox: Literal["auto", "docker", "bubblewrap", "pod", "none"] = "auto"
    """What the programs of ``code`` nodes and of the tools `python` and `shell` run in. ``auto``: in a cluster pods,
    elsewhere Docker where an engine and the image are there, else bubblewrap where it works. Without one, programs are
    refused."""
    sandbox_image: str = "fairlead-sandbox:0.1.0"
    sandbox_namespace: str = names.SANDBOX_NAMESPACE
    """Where sandboxes that are pods live: a namespace of their own, with a policy that denies every connection."""
    sandbox_runtime_class: str = ""
    """The RuntimeClass of sandboxes that are pods, for a kernel of their own: gVisor's or Kata's, as the cluster names
    it."""
    sandbox_fixed_user: bool = True
    """Whether sandboxes that are pods run as user 10001; false: as whom the cluster says."""
    sandbox_parallel: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many programs run at a time; more wait."""
    sandbox_warm: Annotated[int, Field(ge=0, le=100)] = 1
    """How many sandboxes are kept ready, so that a program starts at once. Pods never are."""


class ExportSettings(BaseSettings):
    """Where the gateway sends traces: OpenTelemetry's own environment variables, ``OTEL_*``."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", use_attribute_docstrings=True, extra="ignore", frozen=True)

    exporter_otlp_endpoint: str = ""
    """The collector (OTLP over HTTP, protobuf); traces go to ``<endpoint>/v1/traces``. Empty: none are sent."""
    exporter_otlp_traces_endpoint: str = ""
    """The whole URL for traces, where it is another one."""
    exporter_otlp_headers: SecretStr = SecretStr("")
    """Headers for the collector, ``name=value`` with commas between, values URL-encoded. Secret."""
    exporter_otlp_traces_headers: SecretStr = SecretStr("")
    """The headers for traces, where they are others. Secret."""
    exporter_otlp_certificate: Path | None = None
    """A file with the certificates to trust, where the collector's is not from a public authority."""
    service_name: str = "fairlead"
    """The name that spans are exported under."""

    @property
    def traces_url(self) -> str:
        """The URL to send traces to; empty: none."""
        base = self.exporter_otlp_endpoint.rstrip("/")
        return self.exporter_otlp_traces_endpoint or (f"{base}/v1/traces" if base else "")

    @property
    def traces_headers(self) -> str:
        """The headers, as they were given."""
        return self.exporter_otlp_traces_headers.get_secret_value() or self.exporter_otlp_headers.get_secret_value()


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with *changes*, for a process of the control plane that is started from it."""
    return {**os.environ, **changes}
