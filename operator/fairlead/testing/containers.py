"""The install of ``manifests/`` in containers next to an API server: what a node would run, as it would run it."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from fairlead.testing.apiserver import ApiServer
from fairlead.testing.kubectl import Kubectl, free_port

Json = Mapping[str, Any]

SYSTEM = "fairlead-system"
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the Docker client."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if check and done.returncode:
        message = f"docker {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        raise AssertionError(message)
    return done


@dataclass
class Node:
    """Plays the kubelet: containers as a pod's specification says, read-only, without rights, on the host's network."""

    cluster: ApiServer
    kubectl: Kubectl
    folder: Path
    overrides: Mapping[str, Mapping[str, str]]
    """Environment by container name that only this node needs: ports and addresses of one machine."""
    names: dict[str, str] = field(default_factory=dict)
    """The container of a pod, by the pod's name."""

    def start(self, pod: Json) -> None:
        """Start the one container of a pod that is stored in the cluster."""
        spec = pod["spec"]
        (container,) = spec["containers"]
        name = f"fairlead-test-{secrets.token_hex(4)}"
        security = {**spec["securityContext"], **container["securityContext"]}
        options = ["--name", name, "--network", "host", "--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", _memory(container)]
        options += ["--read-only"] if security["readOnlyRootFilesystem"] else []
        for key, value in self._environment(pod, container).items():
            options += ["--env", f"{key}={value}"]
        for mount in self._mounts(pod, container):
            options += ["--mount", mount]
        command = [*container.get("command", ()), *container.get("args", ())]
        entry = ["--entrypoint", command[0]] if command else []
        docker("run", "--detach", *options, *entry, container["image"], *command[1:])
        self.names[pod["metadata"]["name"]] = name

    def stop(self, pod: str, *, seconds: int) -> int:
        """End a pod's container with SIGTERM, as PID 1; return its exit code."""
        name = self.names[pod]
        docker("stop", "--time", str(seconds), name)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", name).stdout)

    def log(self, pod: str) -> str:
        """Return what a pod's container has printed."""
        done = docker("logs", self.names[pod])
        return done.stdout + done.stderr

    def clear(self) -> None:
        """Remove every container."""
        for name in self.names.values():
            docker("rm", "--force", "--volumes", name, check=False)

    def _environment(self, pod: Json, container: Json) -> dict[str, str]:
        server = urlsplit(self.cluster.url)
        found = {"KUBERNETES_SERVICE_HOST": str(server.hostname), "KUBERNETES_SERVICE_PORT": str(server.port)}
        for entry in container.get("env", ()):
            reference = entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
            value = pod["metadata"]["name"] if reference == "metadata.name" else entry.get("value", "")
            found[entry["name"]] = value
        return found | dict(self.overrides.get(container["name"], {}))

    def _mounts(self, pod: Json, container: Json) -> list[str]:
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        found = [
            self._mount(pod, volumes[mount["name"]], mount["mountPath"]) for mount in container.get("volumeMounts", ())
        ]
        if pod["spec"].get("automountServiceAccountToken", True):
            found.append(self._bind(self._account(pod), _ACCOUNT, read_only=True))
        return found

    def _mount(self, pod: Json, volume: Json, target: str) -> str:
        if "emptyDir" in volume:
            size = volume["emptyDir"]["sizeLimit"].replace("Mi", "m")
            return f"type=tmpfs,destination={target},tmpfs-size={size},tmpfs-mode=1777"
        if "projected" in volume:
            (source,) = volume["projected"]["sources"]
            return self._bind(self._projected(pod, source["serviceAccountToken"]), target, read_only=True)
        shared = self.folder / "volumes" / volume["persistentVolumeClaim"]["claimName"]
        shared.mkdir(parents=True, exist_ok=True)
        shared.chmod(0o777)
        return self._bind(shared, target, read_only=False)

    @staticmethod
    def _bind(source: Path, target: str, *, read_only: bool) -> str:
        return f"type=bind,source={source},destination={target}" + (",readonly" if read_only else "")

    def _projected(self, pod: Json, source: Json) -> Path:
        folder = self._folder(pod) / "projected"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source["path"]).write_text(self._token(pod, f"--audience={source['audience']}"))
        return folder

    def _account(self, pod: Json) -> Path:
        folder = self._folder(pod) / "account"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self._token(pod))
        assert self.cluster.ca_file is not None  # noqa: S101 - our own server has one
        (folder / "ca.crt").write_bytes(self.cluster.ca_file.read_bytes())
        (folder / "namespace").write_text(pod["metadata"]["namespace"])
        return folder

    def _folder(self, pod: Json) -> Path:
        return self.folder / "pods" / str(pod["metadata"]["uid"])

    def _token(self, pod: Json, *arguments: str) -> str:
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName", "default")
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={meta['name']}", f"--bound-object-uid={meta['uid']}")
        return self.kubectl("create", "token", account, "-n", meta["namespace"], *bound, *arguments).strip()


def _memory(container: Json) -> str:
    return str(container["resources"]["limits"]["memory"]).replace("Mi", "m").replace("Gi", "g")


def install(kubectl: Kubectl, overlay: Path) -> list[dict[str, Any]]:
    """Apply an overlay as its reader does; return the pods of its Deployments, which no controller here makes."""
    kubectl("apply", "--filename", str(overlay.parents[1] / "base" / "namespace.yaml"))
    kubectl("apply", "--kustomize", str(overlay))
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    rendered = list(yaml.safe_load_all(kubectl("kustomize", str(overlay))))
    return [_create_pod(kubectl, each) for each in rendered if each["kind"] == "Deployment"]


def _create_pod(kubectl: Kubectl, deployment: Json) -> dict[str, Any]:
    template, meta = deployment["spec"]["template"], deployment["metadata"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": f"{meta['name']}-0", "namespace": meta["namespace"]},
        "spec": template["spec"],
    }
    made = kubectl("create", "-n", meta["namespace"], "-o", "json", "-f", "-", stdin=json.dumps(pod))
    found: dict[str, Any] = json.loads(made)
    return found


def addresses() -> dict[str, dict[str, str]]:
    """Return what stands in for a cluster's Service and its name: free ports of this machine."""
    gateway, probes = free_port(), free_port()
    return {
        "gateway": {"FAIRLEAD_BIND": "127.0.0.1", "FAIRLEAD_PORT": str(gateway), "FAIRLEAD_HOSTS": '["127.0.0.1"]'},
        "operator": {"FAIRLEAD_GATEWAY_URL": f"https://127.0.0.1:{gateway}", "FAIRLEAD_PROBE_PORT": str(probes)},
    }


def missing_images(images: Sequence[str]) -> list[str]:
    """Return the images that the engine does not have."""
    return [image for image in images if docker("image", "inspect", image, check=False).returncode]
