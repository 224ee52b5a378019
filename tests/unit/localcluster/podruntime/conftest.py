from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def make_pod() -> Callable[..., dict[str, Any]]:
    def build(*, node: str = "local", image: str = "fairlead-agent:0.1.0", **spec: Any) -> dict[str, Any]:
        containers = [{"name": "agent", "image": image}]
        whole = {"containers": containers, "nodeName": node, **spec}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u-1"},
            "spec": {key: value for key, value in whole.items() if value},
        }

    return build
