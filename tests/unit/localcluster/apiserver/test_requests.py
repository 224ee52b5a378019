from __future__ import annotations

import pytest

from fairlead.localcluster.apiserver.errors import ApiError
from fairlead.localcluster.apiserver.negotiation import Form, negotiate
from fairlead.localcluster.apiserver.requests import Attributes, attributes_of, parse_query, parse_yaml


@pytest.mark.parametrize(
    ("method", "url", "wanted"),
    [
        ("GET", "/api/v1/pods", Attributes(verb="list", version="v1", resource="pods")),
        ("GET", "/api/v1/namespaces", Attributes(verb="list", version="v1", resource="namespaces")),
        (
            "GET",
            "/api/v1/namespaces/n",
            Attributes(verb="get", version="v1", resource="namespaces", namespace="n", name="n"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/n/finalize",
            Attributes(
                verb="update", version="v1", resource="namespaces", subresource="finalize", namespace="n", name="n"
            ),
        ),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/n/deployments",
            Attributes(verb="deletecollection", group="apps", version="v1", resource="deployments", namespace="n"),
        ),
        (
            "PATCH",
            "/apis/a.b/v1/namespaces/n/things/x/status",
            Attributes(
                verb="patch",
                group="a.b",
                version="v1",
                resource="things",
                subresource="status",
                namespace="n",
                name="x",
            ),
        ),
        ("GET", "/api/v1/pods?watch=1", Attributes(verb="watch", version="v1", resource="pods")),
        (
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name%3Dp",
            Attributes(verb="list", version="v1", resource="pods", name="p"),
        ),
        ("GET", "/apis/apps", Attributes(verb="get")),
        ("GET", "/version", Attributes(verb="get")),
    ],
)
def test_attributes_of_a_request(method: str, url: str, wanted: Attributes) -> None:
    path, _, query = url.partition("?")
    found = attributes_of(method, path, parse_query(query.encode()))
    assert (found.verb, found.group, found.resource) == (wanted.verb, wanted.group, wanted.resource)
    assert (found.subresource, found.namespace, found.name) == (wanted.subresource, wanted.namespace, wanted.name)
    assert found.path == path


def test_parse_yaml_gives_json_values() -> None:
    assert parse_yaml(b"a: 1\n2: [x, null]\nd: 2020-01-01\n") == {"a": 1, "2": ["x", None], "d": "2020-01-01"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"a: [", id="broken"),
        pytest.param(b"!!python/object/apply:os.system [id]", id="code"),
        pytest.param(b"a: &a [x]\nb: &b [*a,*a]\n" * 1 + b"c: &c " + b"[" * 5000, id="deep"),
    ],
)
def test_parse_yaml_refuses(body: bytes) -> None:
    with pytest.raises(ApiError, match="error converting YAML to JSON"):
        parse_yaml(body)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", ""),
        ("*/*", ""),
        ("application/vnd.kubernetes.protobuf, application/json", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", ""),
        ("application/json;as=Unknown;v=v1;g=meta.k8s.io,application/json", ""),
    ],
)
def test_negotiate_takes_the_first_it_can(accept: str, kind: str) -> None:
    assert negotiate(accept, kinds=frozenset({"Table"})) == Form(kind)


def test_negotiate_refuses_what_it_cannot() -> None:
    with pytest.raises(ApiError) as refused:
        negotiate("application/vnd.kubernetes.protobuf", kinds=frozenset())
    assert refused.value.code == 406
