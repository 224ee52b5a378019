from __future__ import annotations

import pytest

from fairlead.localcluster.apiserver.errors import ApiError
from fairlead.localcluster.apiserver.selectors import parse_fields, parse_labels, parse_selection, requirements_of

LABELS = {"app": "web", "tier": "2", "example.com/x": ""}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier=2", True),
        ("app!=web", False),
        ("other!=web", True),
        ("app in (db, web)", True),
        ("app notin (db,web)", False),
        ("other notin (db)", True),
        ("app", True),
        ("!app", False),
        ("!other", True),
        ("example.com/x", True),
        ("example.com/x=", True),
        ("tier>1", True),
        ("tier<2", False),
        ("app>1", False),
    ],
)
def test_parse_labels_matches_as_kubernetes_does(selector: str, *, matches: bool) -> None:
    assert all(term.matches(LABELS) for term in parse_labels(selector)) is matches


@pytest.mark.parametrize("selector", ["a=b=c", "a in b", "in (a)", "a>b", "-a", "a b"])
def test_parse_labels_refuses_what_is_no_selector(selector: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement"):
        parse_labels(selector)


def test_requirements_of_a_selector_object() -> None:
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}
    assert all(term.matches(LABELS) for term in requirements_of(selector))
    assert not all(term.matches({"app": "web"}) for term in requirements_of(selector))


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("metadata.name=a", True),
        ("metadata.name!=a", False),
        ("spec.nodeName=", True),
        ("spec.hostNetwork=false", True),
        ("type=x\\,y", True),
        ("source=kubelet", True),
    ],
)
def test_parse_fields_matches(selector: str, *, matches: bool) -> None:
    obj = {"metadata": {"name": "a"}, "type": "x,y", "spec": {}, "source": {"component": "kubelet"}}
    assert all(term.matches(obj) for term in parse_fields(selector)) is matches


def test_parse_selection_knows_its_fields() -> None:
    assert parse_selection("", "type=x", known=("type",))
    with pytest.raises(ApiError, match="field label not supported: other"):
        parse_selection("", "other=x", known=("type",))
    assert not parse_selection("", "", known=())
