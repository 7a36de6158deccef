"""The benchmark of pairs runs, goes on where it stopped, and its plain rows are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.edit_methods import CEILING, COPY, candidates, for_pair, methods
from benchmarks.edit_pairs import main, read_cells
from ieadapt.testbed.edits import ALL_KINDS, EditPair, edit_pairs

MASKED = next(config for config in candidates().values() if config.mask.startswith("cross"))


def _pair(kind: str) -> EditPair:
    return edit_pairs(1, [kind])[0]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_mask_follows_words_of_the_prompts(kind: str) -> None:
    pair = _pair(kind)
    words = for_pair(MASKED, pair).mask_words
    assert all(word in f"{pair.source_prompt} {pair.prompt}".split() for word in words)
    assert set(getattr(pair.target, kind).split()) <= set(words)
    assert (pair.source.shape in words) == (kind != "background")


def test_other_configurations_are_the_same_for_every_pair() -> None:
    pair = _pair("colour")
    assert all(for_pair(config, pair) == config for config in methods().values() if "CHANGED" not in config.mask)


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = tmp_path / "cells.jsonl"
    monkeypatch.setattr("benchmarks.edit_pairs.kept_cells", lambda model: [])
    words = ["run", "--pairs", "4", "--motion", "0", "--steps", "2", "--half", "choose", "--cells", str(cells)]
    assert main([*words, "--methods", f"{COPY}; {CEILING}"]) == 0
    found = read_cells(cells)
    assert [(cell["kind"], cell["method"]) for cell in found[:2]] == [("colour", COPY), ("colour", CEILING)]
    assert len(found) == 8
    copies = [cell for cell in found if cell["method"] == COPY]
    assert all(cell["success"] == 0 and cell["kept"] > 60 for cell in copies)
    assert all(cell["success"] == 1 and cell["psnr"] > 30 for cell in found if cell["method"] == CEILING)
    assert main([*words, "--methods", f"{COPY}; sdedit-0.4", "--seconds", "0"]) == 1
    assert len(read_cells(cells)) == 8
    assert main([*words, "--methods", f"{COPY}; sdedit-0.4"]) == 0
    assert len(read_cells(cells)) == 12
    assert "4 of 4 cells" in capsys.readouterr().err
