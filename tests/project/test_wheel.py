"""The wheel holds what a user needs and nothing else, and runs the demo without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*words: str | Path, where: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=where, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, where=folder)
    return next(folder.glob("ieadapt-*.whl"))


@pytest.mark.slow
def test_it_holds_the_package_and_its_models_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "ieadapt",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    assert any(name.startswith("ieadapt/testbed/scenes/unet/") for name in names)
    assert any(name.endswith("report.html.j2") for name in names)
    assert "ieadapt/py.typed" in names
    assert wheel.stat().st_size < 45_000_000


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    _run("-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, where=tmp_path)
    place = _run("-c", "import ieadapt; print(ieadapt.__file__)", where=tmp_path, PYTHONPATH=str(site)).strip()
    assert Path(place).is_relative_to(site)
    words = ("-m", "ieadapt", "demo", "--captions", "1", "--steps", "2", "--out", "demo")
    said = _run(*words, where=tmp_path, PYTHONPATH=str(site), HF_HUB_OFFLINE="1")
    assert "Without the attention of layer #" in said
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
