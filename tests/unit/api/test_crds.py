from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.api import crdgen
from fairlead.api.meta import Resource
from fairlead.api.schema import schema_of, structural
from fairlead.api.v1alpha1 import RESOURCES
from fairlead.localcluster.schema import check_crd, compile_schema, validate, with_defaults

ROOT = Path(__file__).resolve().parents[3]

WORKFLOW = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "Workflow",
    "metadata": {"name": "triage"},
    "spec": {"nodes": [{"name": "a", "llm": {"prompt": "x"}}]},
}
RUN = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "WorkflowRun",
    "metadata": {"name": "triage-1"},
    "spec": {"workflowRef": {"name": "triage"}, "inputs": {"a": 1}},
}
MODEL = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Model", "metadata": {"name": "m"}}
TOOL = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Tool", "metadata": {"name": "t"}}
AGENT = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "a"}}

everything = pytest.mark.parametrize("resource", RESOURCES.values(), ids=list(RESOURCES))


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += walk(schema[key], f"{path}[]")
    return found


def messages(obj: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    schema = compile_schema(schema_of(obj["kind"]))
    before = with_defaults(schema, old) if old else None
    return [f"{error.path}: {error.message}" for error in validate(schema, with_defaults(schema, obj), old=before)]


@everything
def test_committed_crd_is_what_the_types_say(resource: Resource) -> None:
    file = ROOT / "crds" / f"fairlead.dev_{resource.plural}.yaml"
    assert file.read_text() == crdgen.render(resource)


@everything
def test_crd_is_accepted_by_the_api_server(resource: Resource) -> None:
    assert check_crd(crdgen.build_crd(resource)) == []


@everything
def test_crd_has_only_fields_that_kubernetes_1_29_knows(resource: Resource) -> None:
    """An older server refuses a field that it does not know (kubectl) or drops it (a client that does not ask)."""
    spec = crdgen.build_crd(resource)["spec"]
    (version,) = spec["versions"]
    assert spec.keys() == {"group", "scope", "names", "versions"}
    assert version.keys() == {"name", "served", "storage", "schema", "subresources", "additionalPrinterColumns"}
    rules = [one for _, schema in walk(version["schema"]["openAPIV3Schema"]) for one in _rules(schema)]
    assert {key for one in rules for key in one} <= {"rule", "message", "messageExpression", "reason", "fieldPath"}


def _rules(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = schema.get("x-kubernetes-validations", [])
    return found


@everything
def test_crd_survives_client_side_apply(resource: Resource) -> None:
    assert len(crdgen.render(resource).encode()) < 200_000


@everything
def test_crd_bounds_every_list_map_and_string(resource: Resource) -> None:
    unbounded = []
    for path, schema in walk(schema_of(resource.kind)):
        free = "properties" not in schema and path != ".metadata"
        match schema.get("type"):
            case "string" if not ({"maxLength", "enum", "format"} & schema.keys()) and path not in (
                ".apiVersion",
                ".kind",
            ):
                unbounded.append(path)
            case "array" if "maxItems" not in schema:
                unbounded.append(path)
            case "object" if free and "maxProperties" not in schema:
                unbounded.append(path)
            case _:
                pass
    assert unbounded == []


@everything
def test_crd_describes_every_field(resource: Resource) -> None:
    fields = [
        path
        for path, schema in walk(schema_of(resource.kind))
        if path.count(".") > 1 and not path.endswith("[]") and not schema.get("description")
    ]
    assert fields == []


@everything
def test_columns_show_fields_that_exist(resource: Resource) -> None:
    known = {path.replace("[]", "") for path, _ in walk(schema_of(resource.kind))}
    for column in resource.columns:
        path = column.path.split("[")[0]
        assert path in known or path == ".metadata.creationTimestamp", column


@everything
def test_status_defaults_to_not_observed(resource: Resource) -> None:
    schema = compile_schema(schema_of(resource.kind))
    assert with_defaults(schema, {"spec": {}})["status"] == {"observedGeneration": -1}


def test_run_columns_are_those_of_the_design() -> None:
    columns = RESOURCES["WorkflowRun"].columns
    assert [c.name.upper() for c in columns if not c.wide] == [
        "WORKFLOW",
        "STATUS",
        "PROGRESS",
        "COST",
        "DURATION",
        "AGE",
    ]
    assert [c.name.upper() for c in columns if c.wide] == ["AGENT", "TRIGGER", "MESSAGE"]


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        pytest.param(
            [{"name": "a", "llm": {"prompt": "x"}, "tool": {"name": "sql"}}],
            'spec.nodes[0]: Invalid value: "object": node "a" must have exactly one action: set one of llm, agent,',
            id="two-actions",
        ),
        pytest.param([{"name": "a"}], 'node "a" must have exactly one action', id="no-action"),
        pytest.param([{"name": "a", "needs": ["a"], "wait": {"seconds": 1}}], "remove it from needs", id="self-need"),
        pytest.param(
            [{"name": "a", "forEach": "[1]", "repeat": {"from": "a", "until": "true"}, "wait": {"seconds": 1}}],
            'node "a" has forEach and repeat',
            id="for-each-and-repeat",
        ),
        pytest.param([{"name": "while", "wait": {"seconds": 1}}], "a word that CEL keeps for itself", id="keyword"),
        pytest.param([{"name": "Big", "wait": {"seconds": 1}}], "spec.nodes[0].name", id="upper-case"),
        pytest.param([{"name": "a", "wait": {}}], "exactly one of seconds and until", id="empty-wait"),
        pytest.param(
            [{"name": "a", "maxParallel": 2, "wait": {"seconds": 1}}], "maxParallel without forEach", id="alone"
        ),
        pytest.param([{"name": "a", "wait": {"seconds": 1}}] * 2, "Duplicate value", id="same-name-twice"),
        pytest.param([], "spec.nodes", id="no-nodes"),
    ],
)
def test_workflow_with_a_mistake_is_refused_with_the_fix(nodes: list[dict[str, Any]], wanted: str) -> None:
    found = messages({**WORKFLOW, "spec": {"nodes": nodes}})
    assert any(wanted in message for message in found), found


def test_workflow_that_is_right_is_accepted() -> None:
    assert messages(WORKFLOW) == []


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({}, "exactly one of workflowRef", id="neither"),
        pytest.param({"workflowRef": {"name": "a"}, "workflow": WORKFLOW["spec"]}, "remove one of them", id="both"),
    ],
)
def test_run_refers_to_one_workflow(spec: dict[str, Any], wanted: str) -> None:
    assert any(wanted in message for message in messages({**RUN, "spec": spec}))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        pytest.param({"suspend": True}, None, id="suspend"),
        pytest.param({"stop": True}, None, id="stop"),
        pytest.param({"inputs": {"a": 2}}, "inputs cannot change", id="inputs"),
        pytest.param({"workflowRef": {"name": "other"}}, "workflowRef cannot change", id="workflow"),
        pytest.param({"priority": 3}, "priority cannot change", id="priority"),
        pytest.param({"budget": {"maxTokens": 3}}, "budget cannot change", id="budget"),
        pytest.param({"rerunOf": {"name": "x"}}, "rerunOf cannot change", id="rerun"),
        pytest.param({"dryRun": True}, "dryRun cannot change", id="dry-run"),
        pytest.param({"ttlSecondsAfterFinished": 3}, "ttlSecondsAfterFinished cannot change", id="ttl"),
    ],
)
def test_run_spec_is_immutable_but_for_suspend_and_stop(change: dict[str, Any], wanted: str | None) -> None:
    found = messages({**RUN, "spec": {**RUN["spec"], **change}}, old=RUN)  # type: ignore[dict-item]
    assert (found == []) if wanted is None else any(wanted in message for message in found)


def test_run_that_was_stopped_stays_stopped() -> None:
    stopped = {**RUN, "spec": {**RUN["spec"], "stop": True}}  # type: ignore[dict-item]
    assert any("cannot be taken back" in message for message in messages(RUN, old=stopped))


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({"model": "ollama_chat/llama3.2"}, None, id="model"),
        pytest.param({"scripted": {"responses": [{"reply": "x"}]}}, None, id="scripted"),
        pytest.param({}, "exactly one of model", id="neither"),
        pytest.param({"model": "x", "scripted": {"responses": [{"reply": "x"}]}}, "exactly one of model", id="both"),
        pytest.param({"scripted": {"responses": [{"match": "x"}]}}, "set reply", id="no-answer"),
        pytest.param(
            {"scripted": {"responses": [{"reply": "x", "error": {"status": 429}}]}}, "error stands alone", id="error"
        ),
    ],
)
def test_model_has_one_source_of_answers(spec: dict[str, Any], wanted: str | None) -> None:
    found = messages({**MODEL, "spec": spec})
    assert (found == []) if wanted is None else any(wanted in message for message in found)


def test_agent_with_min_over_max_is_refused() -> None:
    found = messages({**AGENT, "spec": {"scale": {"min": 3, "max": 2}}})
    assert any("scale.min must not be larger than scale.max: lower min or raise max" in message for message in found)


def test_agent_without_a_spec_has_a_pool_of_one() -> None:
    schema = compile_schema(schema_of("Agent"))
    assert with_defaults(schema, {**AGENT, "spec": {}})["spec"]["scale"] == {"min": 1}


def test_structural_refuses_a_union() -> None:
    with pytest.raises(ValueError, match="one type"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})


def test_structural_inlines_references_and_keeps_what_stands_beside() -> None:
    definitions = {
        "Inner": {"type": "object", "title": "Inner", "properties": {"n": {"exclusiveMinimum": 0, "type": "integer"}}}
    }
    schema = {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}], "default": None, "description": "of the field"}
    assert structural(schema, definitions) == {
        "type": "object",
        "description": "of the field",
        "properties": {"n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}},
    }


def test_crds_are_plain_yaml() -> None:
    for text in crdgen.files().values():
        assert yaml.safe_load(text)["kind"] == "CustomResourceDefinition"
        assert "&id" not in text
        assert "$ref" not in text


@everything
def test_values_of_any_type_may_be_null(resource: Resource) -> None:
    # an API server cannot compare an object that holds a null where none is allowed: every update would be refused
    untyped = [
        path
        for path, schema in walk(schema_of(resource.kind))
        if "type" not in schema and "x-kubernetes-int-or-string" not in schema and not schema.get("nullable")
    ]
    assert untyped == []


@everything
def test_entries_of_lists_have_no_defaults(resource: Resource) -> None:
    """`kubectl apply` replaces a list as a whole: what a server fills in would be a difference at every apply."""
    filled = [path for path, schema in walk(schema_of(resource.kind)) if "[]" in path and "default" in schema]
    assert filled == []


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        pytest.param({"builtin": {"name": "sql", "config": {"tables": {}}}}, None, id="builtin"),
        pytest.param({"http": {"url": "https://x/{id}"}, "parameters": {"type": "object"}}, None, id="http"),
        pytest.param({"mcp": {"url": "https://x"}}, None, id="mcp"),
        pytest.param({}, "exactly one of builtin, http and mcp", id="nothing"),
        pytest.param({"builtin": {"name": "sql"}, "http": {"url": "https://x"}}, "exactly one of builtin", id="both"),
        pytest.param({"builtin": {"name": "sql"}, "parameters": {}}, "remove it", id="parameters-of-a-builtin"),
        pytest.param({"builtin": {"name": "sql"}, "approvers": ["a"]}, "set requireApproval: true", id="approvers"),
        pytest.param({"builtin": {"name": "sql"}, "approvers": ["a"], "requireApproval": True}, None, id="approval"),
        pytest.param({"http": {"url": "ftp://x"}}, "spec.http.url", id="no-http-address"),
        pytest.param({"http": {"url": "https://x", "headers": [{"name": "A"}]}}, "exactly one of value", id="header"),
        pytest.param(
            {"http": {"url": "https://x", "headers": [{"name": "A", "value": "b\r\nC: d"}]}},
            "spec.http.headers[0].value",
            id="two-headers-in-one",
        ),
        pytest.param({"mcp": {}}, "exactly one of url and image", id="empty-mcp"),
    ],
)
def test_tool_is_one_thing(spec: dict[str, Any], wanted: str | None) -> None:
    found = messages({**TOOL, "spec": spec})
    assert (found == []) if wanted is None else any(wanted in message for message in found), found


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        pytest.param({**WORKFLOW, "spec": {**WORKFLOW["spec"], "budget": {"period": "Day"}}}, "budget", id="workflow"),  # type: ignore[dict-item]
        pytest.param({**RUN, "spec": {**RUN["spec"], "budget": {}}}, "budget", id="run"),  # type: ignore[dict-item]
        pytest.param({**AGENT, "spec": {"budget": {"period": "Run"}}}, "budget", id="agent"),
        pytest.param({**MODEL, "spec": {"model": "x", "budget": {}}}, "budget", id="model"),
    ],
)
def test_budget_without_a_limit_is_refused_with_the_fix(obj: dict[str, Any], path: str) -> None:
    assert any(f"spec.{path}" in message and "set maxCostUSD or maxTokens" in message for message in messages(obj))


@pytest.mark.parametrize(
    ("obj", "period"),
    [
        pytest.param({**WORKFLOW, "spec": {**WORKFLOW["spec"], "budget": {"maxTokens": 1}}}, "Run", id="workflow"),  # type: ignore[dict-item]
        pytest.param({**AGENT, "spec": {"budget": {"maxTokens": 1}}}, "Run", id="agent"),
        pytest.param({**MODEL, "spec": {"model": "x", "budget": {"maxTokens": 1}}}, "Month", id="model"),
    ],
)
def test_budget_has_a_period(obj: dict[str, Any], period: str) -> None:
    found = with_defaults(compile_schema(schema_of(obj["kind"])), obj)
    assert found["spec"]["budget"]["period"] == period
    assert messages(obj) == []
