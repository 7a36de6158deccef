"""Records say which commit they were made from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ieadapt.runs import records


def test_the_commit_is_that_of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IEADAPT_COMMIT", raising=False)
    root = Path(__file__).parents[2]
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert records.commit().removesuffix("+changes") == done.stdout[:12]


def test_a_package_that_is_not_tracked_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a virtual environment inside of somebody else's repository."""
    monkeypatch.delenv("IEADAPT_COMMIT", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    assert records.commit() == "unknown"
    monkeypatch.setenv("IEADAPT_COMMIT", "abc")
    assert json.loads(records.experiment("a", "b", [{"c": 1}]))["commit"] == "abc"
