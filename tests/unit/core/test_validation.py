from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.validation import validate_object, validate_text

HEAD = "apiVersion: fairlead.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n"
MODEL = HEAD.format(kind="Model", name="default") + "spec: {model: ollama_chat/llama3.2}\n"


def workflow(nodes: str, rest: str = "") -> str:
    return HEAD.format(kind="Workflow", name="triage") + f"spec:\n  model: default\n{rest}  nodes:\n{nodes}---\n{MODEL}"


GOOD = workflow("    - name: a\n      llm: {prompt: x}\n")


def test_validate_text_has_nothing_to_say_of_what_is_right() -> None:
    assert validate_text(GOOD) == []


@pytest.mark.parametrize(
    ("nodes", "line", "message", "fix"),
    [
        pytest.param(
            "    - {name: a, llm: {promt: x}}\n", 7, 'unknown field "promt"', 'did you mean "prompt"?', id="typo"
        ),
        pytest.param("    - {name: a, llm: {}}\n", 7, '"prompt" is missing', "set prompt: What to ask", id="missing"),
        pytest.param(
            "    - name: a\n      llm: {prompt: x}\n      tool: {name: sql}\n",
            7,
            "must have exactly one action",
            "set one of llm",
            id="two-actions",
        ),
        pytest.param(
            "    - {name: a, needs: [b], llm: {prompt: x}}\n    - {name: b, needs: [a], llm: {prompt: x}}\n",
            7,
            "cycle (a -> b -> a)",
            "remove one of these needs",
            id="cycle",
        ),
        pytest.param(
            "    - {name: review, llm: {prompt: x}}\n    - {name: b, needs: [reviw], llm: {prompt: x}}\n",
            8,
            'needs unknown node "reviw"',
            'did you mean "review"?',
            id="unknown-need",
        ),
        pytest.param('    - {name: a, when: "1 ==", llm: {prompt: x}}\n', 7, "is no CEL expression", "", id="bad-cel"),
        pytest.param(
            "    - {name: a, llm: {prompt: [x]}}\n", 7, "must be a text, not a list", "write a text", id="wrong-type"
        ),
        pytest.param(
            "    - {name: a, tool: {name: on}}\n", 7, "on without quotes is true", 'quotes: "on"', id="yaml-boolean"
        ),
        pytest.param(
            '    - {name: a, code: {language: shell, source: x, network: {allow: ["*.a.example"]}}}\n',
            7,
            '"*.a.example" cannot be used here',
            "write each name out: there are no wildcards",
            id="wildcard",
        ),
        pytest.param("    - {name: a, llm: {prompt: }}\n", 7, "there is no value", "remove the field", id="null"),
        pytest.param("    - {name: a, llm: {prompt: x}, onError: fail}\n", 7, "not one of", '"Fail"', id="enum"),
        pytest.param(
            "    - {name: a, llm: {prompt: x}, timeoutSeconds: 0}\n", 7, "0 is too small", "at least 1", id="minimum"
        ),
        pytest.param("    - {name: A, llm: {prompt: x}}\n", 7, '"A" cannot be used', "lower-case", id="name"),
        pytest.param(
            "    - {name: a, memory: {}, wait: {seconds: 1}}\n",
            7,
            "memory is not supported yet",
            "remove",
            id="unsupported",
        ),
        pytest.param("    - {name: a, llm: {prompt: x}}\n" * 2, 8, '"a" is there twice', "another name", id="double"),
        pytest.param('    - {name: a, llm: {prompt: "{{ inputs.x }}"}}\n', 7, "unknown input", "", id="unknown-input"),
        pytest.param(
            "    - {name: a, llm: {prompt: x}, repat: {}}\n", 7, 'unknown field "repat"', '"repeat"', id="node-typo"
        ),
    ],
)
def test_validate_text_names_line_node_and_fix(nodes: str, line: int, message: str, fix: str) -> None:
    problems = validate_text(workflow(nodes), "triage.yaml")
    problem = next((one for one in problems if message in one.message), None)
    assert problem is not None, [one.text() for one in problems]
    assert fix in problem.fix
    assert problem.line == line
    assert problem.column > 0
    assert problem.severity == "error"


def test_problem_reads_as_documented() -> None:
    nodes = "    - {name: summarise, llm: {prompt: x}}\n    - name: reply\n      needs: [sumarise]\n"
    nodes += "      llm: {prompt: x}\n"
    (problem,) = validate_text(workflow(nodes), "triage.yaml")
    assert problem.text() == (
        'error: workflow "triage" node "reply": needs unknown node "sumarise"\n'
        "  triage.yaml:9:15  spec.nodes[1].needs[0]\n"
        '  fix: did you mean "summarise"?'
    )


def test_validate_text_finds_every_mistake_at_once() -> None:
    nodes = "    - {name: a, llm: {promt: x}, timeoutSeconds: 0}\n    - {name: b, needs: [zz], wait: {}}\n"
    assert {problem.path for problem in validate_text(workflow(nodes))} == {
        "spec.nodes[0].llm.promt",
        "spec.nodes[0].llm.prompt",
        "spec.nodes[0].timeoutSeconds",
        "spec.nodes[1].needs[0]",
        "spec.nodes[1].wait",
    }


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        pytest.param("3\n", "the document is no object", "begin with apiVersion", id="number"),
        pytest.param("a: 1\n", '"apiVersion" is missing', "fairlead.dev/v1alpha1", id="no-api-version"),
        pytest.param(HEAD.format(kind="Workfow", name="a"), 'no kind "Workfow"', '"Workflow"', id="kind-typo"),
        pytest.param(GOOD.replace("v1alpha1", "v1", 1), 'no "fairlead.dev/v1"', "v1alpha1", id="version"),
        pytest.param(
            HEAD.format(kind="Model", name="Big") + "spec: {model: x}", '"Big" cannot be a name', "lower", id="upper"
        ),
        pytest.param(
            HEAD.format(kind="Model", name="a" * 64) + "spec: {model: x}", "over 63 characters", "shorter", id="long"
        ),
        pytest.param(
            HEAD.format(kind="Model", name="a").replace("name: a", "x: 1") + "spec: {model: x}",
            '"name" is missing',
            "set metadata.name",
            id="no-name",
        ),
        pytest.param(HEAD.format(kind="Model", name="a"), '"spec" is missing', "set spec", id="no-spec"),
        pytest.param(
            HEAD.format(kind="Model", name="a") + "spec: {scripted: {responses: [{match: '(', reply: x}]}}",
            "not a regular expression",
            "backslash",
            id="regular-expression",
        ),
        pytest.param(
            HEAD.format(kind="Agent", name="a") + "spec: {scale: {min: 3, max: 2}}",
            "scale.min must not be larger",
            "lower min",
            id="scale",
        ),
        pytest.param(
            HEAD.format(kind="Agent", name="a") + "spec: {resources: {limits: {memory: much}}}",
            '"much" is not a quantity',
            "256Mi",
            id="quantity",
        ),
        pytest.param(
            HEAD.format(kind="WorkflowRun", name="a")
            + "spec: {workflowRef: {name: a}, replyTo: {trigger: t, conversation: c}}",
            "replyTo is not supported yet",
            "remove it",
            id="unsupported-in-a-run",
        ),
        pytest.param(
            HEAD.format(kind="Tool", name="a") + "spec: {http: {url: 'https://{host}/x'}}",
            "an argument cannot choose the host",
            "write the host out",
            id="host-of-a-tool",
        ),
        pytest.param(
            HEAD.format(kind="Agent", name="a") + "spec: {tools: [sql, seek]}",
            'the Tool "seek" is not among the files',
            "apply it as well",
            id="tool-of-an-agent",
        ),
        pytest.param(
            HEAD.format(kind="Model", name="a") + "spec: {model: x, fallbacks: [b]}",
            'the Model "b" is not among the files',
            "apply it as well",
            id="fallback",
        ),
    ],
)
def test_validate_text_refuses_objects(text: str, message: str, fix: str) -> None:
    problems = validate_text(text)
    assert any(message in one.message and fix in one.fix for one in problems), [one.text() for one in problems]


def test_validate_text_leaves_other_peoples_kinds_alone() -> None:
    assert validate_text("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: x}\nspec: {a: 1}\n") == []
    assert validate_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\n") == []


def test_validate_text_warns_of_what_is_not_among_the_files() -> None:
    (problem,) = validate_text(GOOD.replace("model: default", "model: defalt"))
    assert (problem.severity, problem.reason, problem.fix) == ("warning", "ModelNotFound", 'did you mean "default"?')


def nested(inner: str, inputs: str = "{}") -> str:
    outer = workflow(f"    - {{name: a, workflow: {{name: inner, inputs: {inputs}}}}}\n")
    return f"{outer}---\n{HEAD.format(kind='Workflow', name='inner')}spec:\n{inner}"


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        pytest.param(
            nested("  nodes: [{name: b, workflow: {name: triage}}]\n"), "would run itself", ("triage", 7), id="cycle"
        ),
        pytest.param(
            nested("  inputs: [{name: i, required: true}]\n  nodes: [{name: b, wait: {seconds: 1}}]\n"),
            'requires input "i"',
            ("triage", 7),
            id="missing-input",
        ),
    ],
)
def test_validate_text_compares_workflows_that_run_each_other(text: str, message: str, place: tuple[str, int]) -> None:
    found = [(one.subject, one.line) for one in validate_text(text) if message in one.message]
    assert any(place[0] in subject and line == place[1] for subject, line in found), found


def test_validate_text_says_a_mistake_of_a_nested_workflow_once() -> None:
    problems = validate_text(nested("  nodes: [{name: b, needs: [z], wait: {seconds: 1}}]\n"))
    assert len([one for one in problems if one.severity == "error"]) == 1


def run(inputs: str) -> str:
    declared = "  inputs:\n    - {name: count, type: integer, required: true}\n"
    flow = workflow("    - {name: a, llm: {prompt: x}}\n", declared)
    head = HEAD.format(kind="WorkflowRun", name="one")
    return f"{flow}---\n{head}spec: {{workflowRef: {{name: triage}}, inputs: {inputs}}}\n"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param("{count: many}", "must be of type integer", id="wrong-type"),
        pytest.param("{}", 'input "count" is required', id="missing"),
        pytest.param("{count: 1, cuont: 2}", 'unknown input "cuont"', id="unknown"),
    ],
)
def test_validate_text_compares_a_run_with_its_workflow(inputs: str, message: str) -> None:
    (problem,) = validate_text(run(inputs))
    assert message in problem.message
    assert problem.reason == "InvalidInputs"
    assert problem.path.startswith("spec.inputs")


def test_validate_text_accepts_a_run_that_fits() -> None:
    assert validate_text(run("{count: 3}")) == []


def test_validate_object_takes_what_an_api_server_gives() -> None:
    obj = yaml.safe_load(GOOD.split("---")[0])
    obj["metadata"] |= {"uid": "u", "generation": 1, "managedFields": [{"manager": "kubectl"}]}
    obj["status"] = {"observedGeneration": 1}
    obj["spec"] |= {"startPolicy": "Manual", "pendingTimeoutSeconds": 300}
    assert validate_object(obj) == []


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "nodes", "llm", "prompt", "needs", "inputs", "scripted", "responses", "match", "scale"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["Workflow", "WorkflowRun", "Agent", "Model"]), metadata=GARBAGE, spec=GARBAGE)
def test_validate_object_never_raises(kind: str, metadata: Any, spec: Any) -> None:
    obj = {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    for problem in validate_object(obj):
        assert problem.text()
