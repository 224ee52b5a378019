from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fairlead.core import names
from fairlead.errors import InvalidObject, TerminalError
from fairlead.localcluster.podruntime.dockerengine import options
from fairlead.localcluster.podruntime.dockerengine.choosing import choose
from fairlead.localcluster.podruntime.dockerengine.images import registry_auth


def agent_pod(make_pod: Any, **spec: Any) -> Any:
    pod = make_pod(**spec)
    pod["metadata"]["labels"] = {**names.PART_OF_LABELS, names.AGENT_LABEL: "default"}
    return pod


def options_of(pod: Any, **container: Any) -> dict[str, Any]:
    return options.container_options(pod, {"name": "agent", "image": "i", **container}, {"A": "1"})


def test_agent_has_no_network_but_a_socket(make_pod: Any) -> None:
    pod = agent_pod(make_pod)
    assert options.is_agent(pod)
    assert not options.needs_sandbox(pod)
    assert options.network_options(pod, sandbox="")["network_mode"] == "none"
    assert options_of(pod)["environment"] == {"A": "1", "FAIRLEAD_GATEWAY_SOCKET": "/run/fairlead/gateway.sock"}
    mount = options.gateway_mount("/home/run/gateway")
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == ("/home/run/gateway", "/run/fairlead", True)


def test_agents_of_several_containers_share_no_network_either(make_pod: Any) -> None:
    pod = agent_pod(make_pod, initContainers=[{"name": "first", "image": "i"}])
    assert options.needs_sandbox(pod)
    held = options.sandbox_options(pod, python="python", network="", volumes=["v"])
    assert held["network_mode"] == "none"
    assert (held["user"], held["cap_drop"], held["read_only"]) == ("65534:65534", ["ALL"], True)
    assert options.network_options(pod, sandbox="abc") == {"network_mode": "container:abc"}


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({}, id="none"),
        pytest.param({names.AGENT_LABEL: "default"}, id="not-managed-by-fairlead"),
        pytest.param(dict(names.PART_OF_LABELS), id="of-fairlead-but-no-agent"),
    ],
)
def test_other_pods_have_the_homes_network_and_no_socket(make_pod: Any, labels: dict[str, str]) -> None:
    pod = make_pod()
    pod["metadata"]["labels"] = labels
    assert not options.is_agent(pod)
    assert options.needs_sandbox(pod)
    assert options.SOCKET_VARIABLE not in options_of(pod)["environment"]
    assert options.sandbox_options(pod, python="python", network="n", volumes=())["network"] == "n"


def test_security_context_of_the_container_goes_before_the_pods(make_pod: Any) -> None:
    pod = make_pod(securityContext={"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4, 3]})
    own = {
        "runAsUser": 5,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }
    found = options_of(pod, securityContext=own)
    assert (found["user"], found["group_add"], found["read_only"]) == ("5:2", ["3", "4"], True)
    assert (found["cap_drop"], found["cap_add"]) == (["ALL"], ["NET_BIND_SERVICE"])
    assert found["security_opt"] == ["no-new-privileges:true"]


def test_seccomp_is_the_engines_unless_turned_off(make_pod: Any) -> None:
    assert "security_opt" not in options_of(make_pod())
    off = {"seccompProfile": {"type": "Unconfined"}}
    assert options_of(make_pod(), securityContext=off)["security_opt"] == ["seccomp=unconfined"]
    with pytest.raises(InvalidObject, match="seccomp"):
        options_of(make_pod(), securityContext={"seccompProfile": {"type": "Localhost"}})


def test_limits_are_the_engines_and_swap_is_none(make_pod: Any) -> None:
    resources = {"limits": {"memory": "64Mi", "cpu": "1500m", "ephemeral-storage": "1Mi"}, "requests": {"cpu": "250m"}}
    found = options_of(make_pod(), resources=resources)
    assert (found["mem_limit"], found["memswap_limit"]) == (64 << 20, 64 << 20)
    assert (found["nano_cpus"], found["cpu_shares"], found["pids_limit"]) == (1_500_000_000, 256, 1024)
    assert {(each["Name"], each["Hard"]) for each in found["ulimits"]} == {("core", 0), ("fsize", 1 << 20)}
    assert "mem_limit" not in options_of(make_pod())


def test_command_and_args_replace_entrypoint_and_cmd(make_pod: Any) -> None:
    assert {"entrypoint", "command"}.isdisjoint(options_of(make_pod()))
    found = options_of(make_pod(), command=["sh", "-c"], args=["echo $(A) $$(A) $(B)"], workingDir="/w")
    assert (found["entrypoint"], found["command"]) == (["sh", "-c"], ["echo 1 $(A) $(B)"])
    assert found["working_dir"] == "/w"


@pytest.mark.parametrize(
    ("security", "image_user", "said"),
    [
        pytest.param({"runAsNonRoot": True}, "", "would run as root", id="image-of-root"),
        pytest.param({"runAsNonRoot": True}, "0:0", "would run as root", id="image-of-uid-0"),
        pytest.param({"runAsNonRoot": True, "runAsUser": 0}, "7", "would run as root", id="asks-for-root"),
        pytest.param({"runAsNonRoot": True}, "app", "by name", id="nobody-can-say"),
        pytest.param({"runAsNonRoot": True}, "7:7", "", id="image-of-somebody"),
        pytest.param({"runAsNonRoot": True, "runAsUser": 7}, "", "", id="asks-for-somebody"),
        pytest.param({}, "", "", id="may-be-root"),
    ],
)
def test_check_user_holds_to_run_as_non_root(make_pod: Any, security: Any, image_user: str, said: str) -> None:
    container = {"name": "agent", "securityContext": security}
    if said:
        with pytest.raises(InvalidObject, match=said):
            options.check_user(make_pod(), container, image_user=image_user)
    else:
        options.check_user(make_pod(), container, image_user=image_user)


def test_empty_dirs_are_memory_of_a_size(make_pod: Any) -> None:
    volumes = [
        {"name": "a", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "b", "emptyDir": {}},
        {"name": "c", "secret": {}},
    ]
    found = options.empty_dirs(make_pod(volumes=volumes, securityContext={"fsGroup": 7}))
    assert found["a"]["o"] == "size=1048576,mode=0777,nosuid,nodev,gid=7"
    assert found["b"]["o"].startswith("size=1073741824,")
    assert set(found) == {"a", "b"}
    with pytest.raises(InvalidObject, match="subPath"):
        options.volume_mount({"name": "a", "mountPath": "/a", "subPath": "x"}, "v", empty=True)


def test_registry_auth_is_found_by_registry() -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    config = {"auths": {"https://index.docker.io/v1/": {"auth": auth}, "r.example": {"username": "u", "password": "p"}}}
    secrets = [{}, {".dockerconfigjson": b"no json"}, {".dockerconfigjson": json.dumps(config).encode()}]
    assert registry_auth(secrets, "docker.io") == {"username": "me", "password": "pass:word"}
    assert registry_auth(secrets, "r.example") == {"username": "u", "password": "p"}
    assert registry_auth(secrets, "other.example") is None


def test_choose_takes_processes_where_the_socket_has_no_room(tmp_path: Any) -> None:
    deep = tmp_path / ("d" * 100)
    assert choose("process", agent_image="i", gateway=deep).engine == "process"
    choice = choose("auto", agent_image="i", gateway=deep)
    assert (choice.engine, "too long for a socket" in choice.why) == ("process", True)
    with pytest.raises(TerminalError, match="too long for a socket"):
        choose("docker", agent_image="i", gateway=deep)
