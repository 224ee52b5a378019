import importlib.util
import re
from enum import StrEnum
from pathlib import Path
from types import ModuleType

import pytest

from fairlead.api import conditions
from fairlead.api.v1alpha1 import RESOURCES

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pages_are_what_the_code_says(reference: ModuleType) -> None:
    for name, text in reference.pages().items():
        assert (ROOT / "docs/reference" / name).read_text() == text, f"{name}: make generate"


@pytest.mark.parametrize("enum", [conditions.ConditionType, conditions.Reason, conditions.EventReason])
def test_every_condition_and_reason_is_explained(reference: ModuleType, enum: type[StrEnum]) -> None:
    page = reference.conditions_page()
    explained = dict(reference.members(enum))
    assert set(explained) == set(enum)
    assert all(f"| `{value}` | {words} |" in page for value, words in explained.items())


def test_every_field_of_every_kind_is_on_a_page(reference: ModuleType) -> None:
    text = "\n".join(reference.pages().values())
    for resource in RESOURCES.values():
        for name, schema in resource.model.model_json_schema(by_alias=True)["$defs"].items():
            if name != "ObjectMeta":
                assert f"## {name}\n" in text, name
                assert all(f"| `{field}` |" in text for field in schema["properties"])


def test_links_between_pages_lead_somewhere(reference: ModuleType) -> None:
    pages = reference.pages()
    for name, text in pages.items():
        for page, anchor in re.findall(r"\]\(([a-z]*(?:\.md)?)#([a-z]+)\)", text):
            headings = re.findall(r"^## (\w+)$", pages[page or name], re.MULTILINE)
            assert anchor in {heading.lower() for heading in headings}, (name, page, anchor)


NOT_FOR_USERS = {
    # between agent and gateway, or of one process's own; never the reason of a condition, a node or a call
    *("Conflict", "Draining", "Expired", "Fenced", "Forbidden", "ForeignDatabase", "HTTPError", "Invalid"),
    *("InvalidRequest", "KindNotFound", "LeadershipLost", "NewerDatabase", "NoKubeconfig", "NotFound", "RunNotFound"),
    *("SessionExpired", "Unauthenticated", "Unauthorized", "UnknownProtocol", "WatchDead"),
}
SOURCES = [*(ROOT / "operator/fairlead").rglob("*.py"), *(ROOT / "agent_image/fairlead_agent").rglob("*.py")]


def test_every_reason_in_the_code_is_explained() -> None:
    """A reason that people may see belongs into `fairlead.api.conditions`, with a docstring."""
    found: dict[str, str] = {}
    for path in SOURCES:
        if not {"localcluster", "testing", "api"} & set(path.parts):
            for name in re.findall(r'\breason(?:: str)? ?= ?"([A-Z][a-z]\w+)"', path.read_text()):
                found[name] = str(path.relative_to(ROOT))
    known = {*conditions.Reason, *conditions.EventReason, *NOT_FOR_USERS}
    assert {name: path for name, path in found.items() if name not in known} == {}
