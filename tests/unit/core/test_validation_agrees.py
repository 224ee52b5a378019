"""`fairlead validate` finds whatever the API server would refuse: both read the same schema, with different code."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.api.schema import schema_of
from fairlead.core.validation import validate_object
from fairlead.localcluster.schema import compile_schema, pruned, validate, with_defaults

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = [
    document
    for name in ("workflow", "model", "agent", "run")
    for document in yaml.safe_load_all((ROOT / f"configs/quickstart/{name}.yaml").read_text())
]
SCHEMAS = {kind: compile_schema(schema_of(kind)) for kind in ("Workflow", "Model", "Agent", "WorkflowRun")}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 100_000),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from(["", "a", "in", "A_b", "load", "x" * 300, "Manual", "0.5", "https://a.example", "default"]),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(["load", "load", 3, None]), max_size=3),
    st.dictionaries(st.sampled_from(["name", "prompt", "seconds", "unknown", "limit"]), st.integers(0, 3), max_size=2),
)
NAMES = st.sampled_from(
    ["needs", "when", "forEach", "maxParallel", "repeat", "wait", "llm", "tool", "name", "scripted", "model", "scale"]
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield from places(item, (*path, key))


PLACES = [[path for path in places(example) if len(path) > 1 and path[0] == "spec"] for example in EXAMPLES]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """An example with one thing changed, added or taken away."""
    index = draw(st.integers(0, len(EXAMPLES) - 1))
    obj: dict[str, Any] = orjson.loads(orjson.dumps(EXAMPLES[index]))
    *way, last = draw(st.sampled_from(PLACES[index]))
    parent: Any = obj
    for step in way:
        parent = parent[step]
    match draw(st.sampled_from(["change", "add", "remove"])):
        case "remove":
            del parent[last]
        case "add" if isinstance(parent[last], dict):
            parent[last][draw(NAMES)] = draw(VALUES)
        case _:
            parent[last] = draw(VALUES)
    return obj


def refused(obj: dict[str, Any]) -> list[str]:
    schema = SCHEMAS[obj["kind"]]
    _, unknown = pruned(schema, obj)
    return [*unknown, *(f"{error.path}: {error.message}" for error in validate(schema, with_defaults(schema, obj)))]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_validate_object_finds_what_the_api_server_refuses(obj: dict[str, Any]) -> None:
    theirs = refused(obj)
    ours = [problem for problem in validate_object(obj) if problem.severity == "error"]
    if theirs:
        assert ours, theirs
    shapes = [problem for problem in ours if problem.reason == "InvalidSpec"]
    if not theirs and shapes:
        nothing = {"there is no value", "not a regular expression"}
        assert all(any(word in problem.message for word in nothing) for problem in shapes), shapes
