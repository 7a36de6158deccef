"""The picks are the best scale, the best method, and the two sets that are told apart most surely."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scenes_compare import Rows
from benchmarks.validity import Picks
from benchmarks.validity_picks import best_pair, main, picks
from ieadapt.errors import UsageError

MEANS = {
    "guidance-1": 0.60,
    "guidance-3": 0.72,
    "guidance-6": 0.70,
    "method STG-R 1 - 4": 0.68,
    "sites spatial 64, STG-A 2 - 4": 0.66,
    "sites spatial 64, STG-A 2 - 5": 0.61,
    "sites spatial 16, STG-A 2 - 8": 0.67,
    "sites spatial 16, STG-A 2 - 9": 0.40,
}


def _rows(name: str, presence: float = 0.9) -> Rows:
    noise = 0.05 * np.random.default_rng(len(name)).standard_normal(100)
    return [{"accuracy": MEANS[name] + float(each), "presence": presence} for each in noise]


def _compared() -> dict[str, Rows]:
    # the worse set of the 16s destroys the video, which tells nothing of sites
    return {name: _rows(name, 0.5 if name.endswith("9") else 0.9) for name in MEANS}


def test_the_best_of_each_is_picked() -> None:
    variants = {name: {"guidance": int(name[-1]) if name.startswith("guidance") else 1, "name": name} for name in MEANS}
    chosen = picks("scenes", _compared(), variants)
    assert chosen["guidance"] == 3
    assert chosen["method"]["name"] == "method STG-R 1 - 4"
    assert chosen["better"]["name"] == "sites spatial 64, STG-A 2 - 4"
    assert chosen["worse"]["name"] == "sites spatial 64, STG-A 2 - 5"
    assert chosen["tried"] == len(MEANS)


def test_sets_of_different_groups_are_never_compared() -> None:
    with pytest.raises(UsageError, match="no two sets of sites can be compared"):
        best_pair({name: rows for name, rows in _compared().items() if not name.endswith(("4", "8"))})


def test_a_file_of_picks_is_what_validity_reads(tmp_path: Path) -> None:
    compared, variants, out = tmp_path / "compared", tmp_path / "variants.json", tmp_path / "picks.json"
    compared.mkdir()
    for name, rows in _compared().items():
        (compared / f"{name}.json").write_text(json.dumps(rows))
    variants.write_text(json.dumps({name: {"guidance": 1} for name in [*MEANS, "never made"]}))
    main(["--model", "scenes", "--compared", str(compared), "--variants", str(variants), "--out", str(out)])
    assert Picks(**json.loads(out.read_text())).tried == len(MEANS)
