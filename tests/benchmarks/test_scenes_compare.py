"""Ways of generating are read from a file, made and scored once, and compared scene by scene."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scenes_compare import FIGURES, differences, main, read_variants
from benchmarks.training.checkpoint import load_parts, save_weights
from benchmarks.training.models import ARCHITECTURES
from ieadapt.errors import UsageError

FIRST = Path(__file__).parents[2] / "benchmarks" / "sweeps" / "scenes-first.json"


def test_the_first_file_of_variants_is_read() -> None:
    variants = read_variants(json.loads(FIRST.read_text()))
    assert variants["guidance-3-steps-2"].steps == 2.0
    assert variants["guidance-3"].enhance is None
    enhance = variants["pag"].enhance
    assert enhance is not None
    assert enhance.perturbation == "identity"
    assert not variants["pag"].needs_profile
    assert variants["low-ep"].needs_profile


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown setting of a variant.*got \['guidence'\]; in plain"):
        read_variants({"plain": {"guidence": 1}})


def test_differences_are_paired_by_scene() -> None:
    plain = [{figure: float(index) for figure in FIGURES} for index in range(30)]
    better = [row | {"accuracy": row["accuracy"] + 0.5} for row in plain]
    rows = {(row["variant"], row["figure"]): row for row in differences({"plain": plain, "better": better})}
    assert rows["better", "accuracy"]["difference"] == pytest.approx(0.5)
    assert rows["better", "accuracy"]["low"] == pytest.approx(0.5)
    assert rows["better", "fit"]["difference"] == 0
    assert rows["plain", "accuracy"]["mean"] == 14.5
    with pytest.raises(UsageError, match="nothing to compare with; expected better; got plain"):
        differences({"better": better})


@pytest.mark.slow
@pytest.mark.parametrize("model", ["scenes", "scenes-dit"])
def test_variants_are_made_once_and_go_on(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On an untrained tiny model."""
    folder, variants = tmp_path / "weights", tmp_path / "variants.json"
    for name, module in load_parts(ARCHITECTURES[model], folder, "tiny").modules.items():
        save_weights(folder, name, module.state_dict())
    words = ["--model", model, "--size", "tiny", "--folder", str(folder), "--scenes", "2", "--steps", "2"]
    words += ["--fit", "1", "--device", "cpu", "--variants", str(variants), "--out", str(tmp_path / "out")]
    variants.write_text(json.dumps({"plain": {"guidance": 1}}))
    main(words)
    first = (tmp_path / "out" / "plain.json").read_bytes()
    entropy = {"sites": "spatial/joint:top=0.5", "start": 0.0}
    variants.write_text(json.dumps({"plain": {"guidance": 1}, "top": {"guidance": 2, "enhance": entropy}}))
    main([*words, "--workers", "2"])
    assert (tmp_path / "out" / "plain.json").read_bytes() == first
    rows = json.loads((tmp_path / "out" / "top.json").read_text())
    assert [row["scene"] for row in rows] == [0, 1]
    assert set(FIGURES) < set(rows[0])
    assert "top" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "differences.json").read_text())) == 8
