"""Records are complete and finite; the tables of README and docs are what the records say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import results, tables

FIELDS = {"name", "command", "date", "commit", "machine", "versions", "notes", "ep_definition", "rows"}


def test_a_record_says_how_it_was_made(tmp_path: Path) -> None:
    path = results.record("speed", "make bench", [{"site": "mid", "seconds": 0.5}], folder=tmp_path)
    content = json.loads(path.read_text())
    assert set(content) == FIELDS
    assert content["versions"]["torch"]
    assert content["machine"]["cores"] >= 1
    assert results.load("speed", folder=tmp_path) == content
    assert [file.name for file in tmp_path.iterdir()] == ["speed.json"]


@pytest.mark.parametrize("rows", [[], [{"seconds": float("nan")}], [{"seconds": float("inf")}]])
def test_what_cannot_be_a_result_is_refused(rows: list, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record 'speed'"):
        results.record("speed", "make bench", rows, folder=tmp_path)


def test_an_unknown_record_names_the_known_ones(tmp_path: Path) -> None:
    results.record("speed", "make bench", [{"seconds": 1}], folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="there are: speed"):
        results.load("spead", folder=tmp_path)


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_recorded_files_are_complete(path: Path) -> None:
    content = json.loads(path.read_text())
    assert set(content) == FIELDS
    assert content["name"] == path.stem
    assert content["rows"]


def _fake(name: str) -> dict:
    rows = [{"variant": "plain", "fidelity": 0.71234, "low": 0.6, "high": 0.8}]
    return {"rows": [*rows, {"variant": "enhanced", "fidelity": None, "low": 0.0, "high": 1.0}]}


def test_a_table_is_filled_and_filling_it_again_changes_nothing() -> None:
    text = "a\n<!-- table: x variant=Which_one fidelity=Fidelity:.2f [low,high]=Range:.1f -->\nold\n<!-- /table -->\nb"
    once = tables.render(text, _fake)
    assert "| Which one | Fidelity | Range |\n| --- | ---: | ---: |\n| plain | 0.71 | [0.6, 0.8] |\n" in once
    assert "| enhanced | – | [0.0, 1.0] |" in once
    assert "old" not in once
    assert tables.render(once, _fake) == once


def test_a_number_in_a_sentence_is_filled() -> None:
    text = "it is <!-- value: x 0 fidelity:.1f -->?<!-- /value -->."
    assert tables.render(text, _fake) == text.replace("?", "0.7")


@pytest.mark.parametrize(
    "marker", ["<!-- table: x speed -->\n<!-- /table -->", "<!-- value: x 7 low -->1<!-- /value -->"]
)
def test_a_marker_that_names_nothing_is_an_error(marker: str) -> None:
    with pytest.raises(ValueError, match=r"the record has no column 'speed'|no row 7"):
        tables.render(marker, _fake)


@pytest.mark.parametrize("path", [path for path in tables.documents() if path.is_file()], ids=lambda path: path.name)
def test_documents_agree_with_the_records(path: Path) -> None:
    assert tables.render(path.read_text()) == path.read_text(), "run make tables"


def test_the_commit_is_that_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IEADAPT_COMMIT", raising=False)
    root = Path(__file__).parents[2]
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert results.commit().removesuffix("+changes") == done.stdout[:12]


def test_a_package_that_is_not_tracked_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a virtual environment inside of somebody else's repository."""
    monkeypatch.delenv("IEADAPT_COMMIT", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    assert results.commit() == "unknown"
    monkeypatch.setenv("IEADAPT_COMMIT", "abc")
    assert json.loads(results.experiment("a", "b", [{"c": 1}]))["commit"] == "abc"
