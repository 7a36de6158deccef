"""The ledger of sealed claims: one way in, every opening written down."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sealed
from benchmarks.scene_sets import SEEDS, scene_set, seed_of_sealed_set
from benchmarks.sealed import LEDGER, check_claim, read_ledger
from ieadapt.errors import FailureError, UsageError
from ieadapt.testbed import Scene

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean repository."""
    root = tmp_path / "repository"
    root.mkdir()
    for words in (
        ["init", "-q"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "start"],
    ):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


def _measured(scenes: Sequence[Scene], level: float, config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("break"):
        raise ValueError("out of memory")
    return {"scenes": len(scenes), "level": level}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sealed, "_measured", _measured, raising=False)
    return {"run": "benchmarks.sealed:_measured", "n": 2}


def test_a_claim_gets_the_scenes_and_a_line(root: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    ledger = tmp_path / "sealed.json"
    line = check_claim("guidance helps", config, ledger=ledger, root=root)
    assert line["result"] == {"scenes": 2, "level": 0.05}
    assert (line["round"], line["n"], line["claim"]) == (1, 2, "guidance helps")
    again = check_claim("so does ours", config, new_round=True, ledger=ledger, root=root)
    assert (again["round"], again["level"]) == (2, 0.025)
    assert read_ledger(ledger) == [line, again]


def test_a_failure_is_written_down_too(root: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    ledger = tmp_path / "sealed.json"
    with pytest.raises(FailureError, match="the claim could not be checked; got out of memory"):
        check_claim("guidance helps", config | {"break": True}, ledger=ledger, root=root)
    assert read_ledger(ledger)[0]["result"] == {"failed": "ValueError: out of memory"}


def test_no_way_past_the_rules(root: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    ledger = tmp_path / "sealed.json"
    with pytest.raises(UsageError, match="a sealed set is opened for a claim"):
        check_claim(" ", config, ledger=ledger, root=root)
    with pytest.raises(UsageError, match="the configuration names no function"):
        check_claim("x", {"run": "os:system"}, ledger=ledger, root=root)
    (root / "new").write_text("not committed")
    with pytest.raises(UsageError, match=r"the tree is not clean; got \?\? new"):
        check_claim("x", config, ledger=ledger, root=root)
    assert not ledger.exists()
    (root / "new").unlink()
    for _ in range(3):
        check_claim("x", config, new_round=True, ledger=ledger, root=root)
    with pytest.raises(UsageError, match="no sealed set is left; expected at most 3 rounds"):
        check_claim("x", config, new_round=True, ledger=ledger, root=root)


def test_sets_share_no_scene() -> None:
    assert len({*SEEDS.values(), *(seed_of_sealed_set(number) for number in (1, 2, 3))}) == 5
    assert not {repr(scene) for scene in scene_set("choosing", 20)} & {
        repr(scene) for scene in scene_set("confirming", 20)
    }


def test_every_sealed_row_of_a_record_has_its_line() -> None:
    claims = {line["claim"] for line in read_ledger(LEDGER)}
    rows = [
        (path.name, row)
        for path in sorted(RESULTS.glob("*.json"))
        for row in json.loads(path.read_text()).get("rows", [])
        if isinstance(row, dict) and row.get("set") == "sealed"
    ]
    assert [(name, row) for name, row in rows if row.get("claim") not in claims] == []
