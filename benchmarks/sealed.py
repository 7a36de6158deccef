"""The ledger of sealed claims: `python -m benchmarks.sealed --claim TEXT --config FILE`, the only way to sealed scenes.

A claim is checked once, on scenes that chose nothing. FILE is JSON: `{"run": "module:function", "n": 400, ...}`; the
function gets the sealed scenes, the level of its intervals and the file's content, and returns what it measured. The
ledger gets a line with date, commit, claim, number of scenes and result, also where the claim fails or the function
raises. A round of claims uses one set; another round takes the next set, three at most, and intervals are at level
.05 / rounds opened.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scene_sets import SIZE, seed_of_sealed_set
from ieadapt.errors import FailureError, UsageError
from ieadapt.files import write_atomically
from ieadapt.testbed import Scene, sample_scenes

LEDGER = Path(__file__).with_name("sealed.json")
MOST_ROUNDS = 3
LEVEL = 0.05

Check = Callable[[Sequence[Scene], float, Mapping[str, Any]], Mapping[str, Any]]
"""Sealed scenes, level of the intervals and configuration -> what was measured."""


def read_ledger(path: Path = LEDGER) -> list[dict[str, Any]]:
    """Every claim so far, the oldest first."""
    return json.loads(path.read_text()) if path.exists() else []


def level_of(rounds: int) -> float:
    """The level of an interval once so many rounds have been opened.

    Example:
        >>> level_of(2)
        0.025
    """
    return LEVEL / rounds


def check_claim(
    claim: str, config: Mapping[str, Any], *, new_round: bool = False, ledger: Path = LEDGER, root: Path | None = None
) -> dict[str, Any]:
    """Open a sealed set for one claim and write its line.

    Args:
        claim: what is claimed, one sentence.
        config: as in the module's text.
        new_round: take the next set; without it the last one opened, or the first.
        ledger: the file of claims.
        root: the repository, whose tree must be clean.

    Returns:
        The line.

    Raises:
        UsageError: an unclean tree, no claim, a configuration that names no function, or a fourth round.
        FailureError: the function failed; its line stands in the ledger.
    """
    commit = _clean_commit(root or LEDGER.parent.parent)
    lines = read_ledger(ledger)
    opened = max((line["round"] for line in lines), default=0)
    number = opened + 1 if new_round or not opened else opened
    if number > MOST_ROUNDS:
        raise UsageError("no sealed set is left", expected=f"at most {MOST_ROUNDS} rounds", where=str(ledger))
    if not claim.strip():
        raise UsageError("a sealed set is opened for a claim", got="no text", where="--claim")
    check = _function(config)
    n = int(config.get("n", SIZE))
    line: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
        "claim": claim,
        "round": number,
        "level": level_of(number),
        "n": n,
        "config": dict(config),
    }
    try:
        line["result"] = dict(check(sample_scenes(n, seed_of_sealed_set(number), "heldout"), line["level"], config))
    except Exception as error:
        line["result"] = {"failed": f"{type(error).__name__}: {error}"}
        raise FailureError("the claim could not be checked", got=str(error), where=config["run"]) from error
    finally:  # an opened set is written down whatever came of it
        line.setdefault("result", {"failed": "interrupted"})
        write_atomically(ledger, (json.dumps([*lines, line], indent=1) + "\n").encode())
    return line


def _clean_commit(root: Path) -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain")
    if changed:
        first, remedy = changed.splitlines()[0], "commit what the claim rests on"
        raise UsageError("the tree is not clean", got=first, where=str(root), remedy=remedy)
    return git("rev-parse", "--short", "HEAD")


def _function(config: Mapping[str, Any]) -> Check:
    module, _, name = str(config.get("run", "")).partition(":")
    if not module.startswith("benchmarks.") or not name:
        raise UsageError(
            "the configuration names no function", expected='"run": "benchmarks.MODULE:FUNCTION"', got=config.get("run")
        )
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", required=True, help="what is claimed, one sentence")
    parser.add_argument("--config", type=Path, required=True, help="JSON: the function that measures, and its settings")
    parser.add_argument("--new-round", action="store_true", help="open the next set")
    options = parser.parse_args()
    line = check_claim(options.claim, json.loads(options.config.read_text()), new_round=options.new_round)
    print(json.dumps(line, indent=1))


if __name__ == "__main__":
    main()
