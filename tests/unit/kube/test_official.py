"""The official client in part: in processes of their own, for what is imported is imported once."""

from __future__ import annotations

import subprocess
import sys

import pytest


def outcome(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_it_imports_no_kinds_and_leaves_nothing_half() -> None:
    code = """
import sys
import fairlead.kube
print([name for name in sys.modules if name.startswith("kubernetes") and (".models" in name or ".api" in name)])
print("kubernetes" in sys.modules)
"""
    assert outcome(code) == "[]\nFalse"


@pytest.mark.parametrize("first", ["fairlead.kube.official", "kubernetes.aio.config"])
def test_the_whole_client_is_there_for_whoever_wants_it(first: str) -> None:
    code = f"""
import {first}
import kubernetes.aio.config
from fairlead.kube import official
from kubernetes.aio import client, config
pod = client.V1Pod(metadata=client.V1ObjectMeta(name="p"))
print(pod.metadata.name, config.kube_config.ApiClient.__module__, kubernetes.client.V1Pod.__name__)
print(kubernetes.aio.config is config, official.ConfigException.__name__)
"""
    assert outcome(code) == "p kubernetes.aio.client.api_client V1Pod\nTrue ConfigException"
