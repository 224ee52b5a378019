"""What the documentation shows works: files, links, commands, reasons."""

import re
from pathlib import Path

import pytest
import yaml

from fairlead.api.conditions import Reason
from fairlead.cli.main import GROUPS
from fairlead.core.validation import validate_text

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "configs/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {name for group in GROUPS.values() for name in group}

pages = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def fences(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


@pages
def test_objects_on_the_page_are_valid(page: Path) -> None:
    embedded = [text.partition("<<'YAML'\n")[2].partition("YAML\n")[0] for text in fences(page, "sh")]
    for text in [*fences(page, "yaml"), *filter(None, embedded)]:
        if text.lstrip().startswith(("apiVersion", "#")):
            assert [one.text() for one in validate_text(text) if one.severity == "error"] == []
        else:
            assert yaml.safe_load(text)


@pages
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pages
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    used = set(re.findall(r"`fairlead ([a-z-]+)", text))
    for block in fences(page, "sh", "console"):
        used |= set(re.findall(r"^(?:\$ )?fairlead ([a-z-]+)", block, re.MULTILINE))
    assert used <= COMMANDS, used - COMMANDS


@pages
def test_make_targets_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`make\s([a-z]+)", page.read_text())
    for block in fences(page, "sh", "console"):
        for line in re.findall(r"^(?:\$ )?make ([a-z ]+)", block, re.MULTILINE):
            named += line.split()
    assert set(named) <= known


@pages
def test_settings_exist(page: Path) -> None:
    declared = set(re.findall(r"^    (\w+): .*=", (ROOT / "operator/fairlead/settings.py").read_text(), re.MULTILINE))
    known = {f"FAIRLEAD_{name.upper()}" for name in declared} | {"FAIRLEAD_HOME", "FAIRLEAD_GATEWAY_URL"}
    assert set(re.findall(r"\bFAIRLEAD_[A-Z_]+\b", page.read_text())) <= known


def test_troubleshooting_names_reasons_that_exist() -> None:
    page = ROOT / "docs/howto/troubleshoot.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    named = {name for row in rows for name in re.findall(r"`([A-Z][A-Za-z]+)`", row)}
    assert named
    assert named <= set(Reason), named - set(Reason)
