from __future__ import annotations

import pytest

from fairlead.localcluster.apiserver.errors import ApiError
from fairlead.localcluster.apiserver.protobuf import _fields, parse_protobuf
from fairlead.localcluster.apiserver.protobuf_messages import MESSAGES

# What `kubectl create configmap foo --from-literal=a=b` (1.33) sends.
CONFIGMAP = bytes.fromhex(
    "6b3873000a0f0a0276311209436f6e6669674d6170121d0a130a03666f6f12001a0022002a0032003800420012060a01611201621a002200"
)
SPECIAL = {"string", "bytes", "int", "bool", "Time", "MicroTime", "Quantity", "IntOrString", "ExtraValue", "Ignored"}


def test_parse_protobuf_reads_what_kubectl_sends() -> None:
    assert parse_protobuf(CONFIGMAP) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "foo"},
        "data": {"a": "b"},
    }


def test_parse_protobuf_refuses_fields_it_does_not_know() -> None:
    data, unknown = bytes.fromhex("12060a0161120162"), bytes.fromhex("4a060a0161120162")
    assert data in CONFIGMAP
    with pytest.raises(ApiError, match="field 9 of ConfigMap") as refused:
        parse_protobuf(CONFIGMAP.replace(data, unknown))
    assert refused.value.code == 415


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"k8s\x00\xff", CONFIGMAP[:-10], b"k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
)
def test_parse_protobuf_refuses_broken_bytes(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_protobuf(body)
    assert refused.value.code in {400, 415}


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_name_types_that_exist(message: str) -> None:
    kinds = {field.kind for field in _fields(message).values()}
    assert kinds <= SPECIAL | set(MESSAGES)
