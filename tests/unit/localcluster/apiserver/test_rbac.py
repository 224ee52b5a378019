from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.localcluster.apiserver.bootstrap import bootstrap_objects
from fairlead.localcluster.apiserver.rbac import describe_rule, rule_allows, uncovered
from fairlead.localcluster.apiserver.requests import Attributes

Json = dict[str, Any]

VERBS, GROUPS, RESOURCES = ("get", "list", "*"), ("", "apps", "*"), ("pods", "pods/log", "*/log", "*")
RULES = st.fixed_dictionaries(
    {
        "verbs": st.lists(st.sampled_from(VERBS), min_size=1, max_size=2, unique=True),
        "apiGroups": st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2, unique=True),
        "resources": st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=2, unique=True),
    },
    optional={"resourceNames": st.lists(st.sampled_from(("a", "b")), max_size=2, unique=True)},
)
ASKED = st.builds(
    lambda verb, group, resource, subresource, name: Attributes(
        verb=verb, group=group, resource=resource, subresource=subresource, name=name
    ),
    *(
        st.sampled_from(values)
        for values in (("get", "list", "watch"), ("", "apps"), ("pods", "jobs"), ("", "log"), ("", "a", "b"))
    ),
)


@given(st.lists(RULES, max_size=3), RULES, ASKED)
def test_uncovered_never_calls_covered_what_the_held_rules_refuse(
    held: list[Json], wanted: Json, asked: Attributes
) -> None:
    if not uncovered(held, [wanted]) and rule_allows(wanted, asked):
        assert any(rule_allows(rule, asked) for rule in held)


@given(st.lists(RULES, min_size=1, max_size=3))
def test_uncovered_of_oneself_is_nothing(rules: list[Json]) -> None:
    assert uncovered(rules, rules) == []


@pytest.mark.parametrize(
    ("pattern", "path", "allowed"),
    [("/healthz", "/healthz", True), ("/apis/*", "/apis/apps", True), ("/apis/*", "/api", False), ("*", "/x", True)],
)
def test_rule_allows_paths(pattern: str, path: str, *, allowed: bool) -> None:
    rule = {"verbs": ["get"], "nonResourceURLs": [pattern]}
    assert rule_allows(rule, Attributes(verb="get", path=path)) is allowed
    assert not rule_allows(rule, Attributes(verb="get", path=path, resource="pods"))


def test_describe_rule_reads_as_in_kubernetes() -> None:
    atom = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"], "verbs": ["get"]}
    assert describe_rule(atom) == '{APIGroups:[""], Resources:["pods"], ResourceNames:["x"], Verbs:["get"]}'


def test_bootstrap_objects_refer_to_each_other() -> None:
    objects = bootstrap_objects()
    roles = {obj["metadata"]["name"] for plural, obj in objects if plural == "clusterroles"}
    bound = {obj["roleRef"]["name"] for plural, obj in objects if plural == "clusterrolebindings"}
    assert bound <= roles
    assert {"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user", "system:node"} <= roles
