from __future__ import annotations

import sqlite3
import stat
import tarfile
from pathlib import Path

import pytest

from fairlead.cli.backup import write_backup
from fairlead.cli.completion import complete
from fairlead.cli.demo import build_objects, choose_model
from fairlead.cli.files import read_objects, read_sources
from fairlead.cli.main import run
from fairlead.errors import InvalidObject, TerminalError
from fairlead.localcluster.data import find_data
from fairlead.localcluster.supervisor.home import Home, State

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"


def test_read_objects_of_a_folder_takes_files_in_order_and_lists_apart(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(CONFIG_MAP % "b" + "---\n" + CONFIG_MAP % "c")
    (tmp_path / "a.yml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
    )
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\n")
    assert [obj["metadata"]["name"] for obj in read_objects([str(tmp_path)])] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "x.yaml", id="no-yaml"),
        pytest.param("a: 1", "apiVersion and kind", id="no-object"),
        pytest.param("apiVersion: v1\nkind: ConfigMap\n", "metadata", id="no-metadata"),
    ],
)
def test_read_objects_of_a_bad_file_says_which(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InvalidObject, match=message):
        read_objects([str(tmp_path / "x.yaml")])


def test_read_sources_of_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidObject, match="there is no file"):
        list(read_sources([str(tmp_path / "none.yaml")]))
    with pytest.raises(InvalidObject, match="no YAML file"):
        list(read_sources([str(tmp_path)]))


def test_validate_of_the_quickstart_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(find_data("configs") / "quickstart")]) == 0
    assert capsys.readouterr().out == ""


def test_validate_names_file_line_and_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(
        "apiVersion: fairlead.dev/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  model: m\n  nodes:\n"
        "  - name: draft\n    llm: {prompt: hi}\n  - name: reply\n    needs: [drft]\n    llm: {prompt: hi}\n"
    )
    assert run(["validate", str(file)]) == 3
    printed = capsys.readouterr().out
    assert f"{file}:10:" in printed
    assert "draft" in printed


def test_backup_holds_databases_and_keys_and_is_private(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    State({"apiserver": 1}).write(home)
    (home.apiserver / "pki").mkdir()
    (home.apiserver / "pki" / "ca.key").write_text("key")
    live = sqlite3.connect(home.database)
    live.execute("PRAGMA journal_mode=WAL")
    live.execute("CREATE TABLE t (x)")
    live.execute("INSERT INTO t VALUES (42)")
    live.commit()
    target = tmp_path / "copy.tar.gz"
    write_backup(home, target)
    live.close()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with tarfile.open(target) as archive:
        archive.extractall(tmp_path / "restored", filter="data")
    copy = sqlite3.connect(tmp_path / "restored" / "fairlead.db")
    assert copy.execute("SELECT x FROM t").fetchall() == [(42,)]
    copy.close()
    assert (tmp_path / "restored" / "apiserver" / "pki" / "ca.key").read_text() == "key"
    assert (tmp_path / "restored" / "supervisor.json").exists()


def test_backup_without_a_home_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "--home", str(tmp_path / "none"), str(tmp_path / "x")]) == 1
    assert "nothing to back up" in capsys.readouterr().err


def test_complete_offers_commands_and_choices() -> None:
    assert ("validate", "Check files: schema, graph, expressions, references.") in complete(["val"])
    assert [value for value, _ in complete(["completion", "z"])] == ["zsh"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_FAIRLEAD_COMPLETE" in capsys.readouterr().out


def test_build_objects_makes_a_new_run_each_time_and_takes_the_model() -> None:
    *declared, wanted = build_objects({"model": "openai/x"}, secret="canary-key", messages=7)
    assert wanted["kind"] == "WorkflowRun"
    assert wanted["metadata"] == {"generateName": "quickstart-", "namespace": "default"}
    assert wanted["spec"]["inputs"]["messages"] == 7
    kinds = {obj["kind"]: obj for obj in declared}
    assert kinds["Model"]["spec"] == {"model": "openai/x"}
    assert kinds["Secret"]["stringData"] == {"api-key": "canary-key"}


def test_choose_model_without_its_key_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(TerminalError, match="export OPENAI_API_KEY"):
        choose_model("openai/gpt-4.1-mini", scripted=False)
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key")
    spec, key, said = choose_model("openai/gpt-4.1-mini", scripted=False)
    assert spec is not None
    assert spec["apiKey"]["valueFrom"]["secretKeyRef"]["name"] == "quickstart-model"
    assert key == "canary-key"
    assert "canary-key" not in said + str(spec)
