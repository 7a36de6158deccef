"""What decides about a pair of videos, and what is said of the cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ieadapt.runs.folder import open_run
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.plan import Cost
from ieadapt.tasks.enhance.run import FILES, Seconds, finished, pair_key, write_pair
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.pairs import PairTask, VideoPair

TASK = PairTask("00", "a ball", 3)
NAMES = [*(f"00-{name}" for name in FILES), "00.json"]


def _key(task: PairTask = TASK, profile: EntropyProfile | None = None, **changes: object) -> str:
    settings: dict[str, object] = {"model": "scenes", "generation": GenerationConfig(), "config": EnhanceConfig()}
    return pair_key(**{"task": task, "profile": profile, **settings, **changes})  # type: ignore[arg-type]


def _profile(ep: float) -> EntropyProfile:
    row = {"site": "a", "kind": "joint", "order": 0, "head": 0, "step": 0, "branch": "cond", "ep": ep, "energy": 1.0}
    return EntropyProfile.from_rows([row])


def test_a_pair_is_known_by_all_that_decides_about_it() -> None:
    assert _key() == _key(generation=GenerationConfig(batch_size=7))
    assert _key() == _key(dataclasses.replace(TASK, name="07"))
    others = [
        _key(dataclasses.replace(TASK, seed=4)),
        _key(dataclasses.replace(TASK, prompt="a star")),
        _key(model="other"),
        _key(config=EnhanceConfig(scale=2)),
        _key(generation=GenerationConfig(num_inference_steps=3)),
        _key(profile=_profile(40.0)),
        _key(profile=_profile(50.0)),
    ]
    assert len({_key(), *others}) == 8


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run with one finished pair."""
    video = torch.rand(4, 3, 16, 16)
    pair = VideoPair(video, video, 1.0, 2.0, None)
    with open_run(tmp_path, "enhance", {}) as run:
        write_pair(run, TASK, pair, "k")
    return tmp_path


def _found(folder: Path, key: str = "k") -> Seconds | None:
    with open_run(folder, "enhance", {}, resume=True) as run:
        return finished(run, TASK, key)


def test_a_whole_pair_counts_as_finished(made: Path) -> None:
    assert _found(made) == Seconds(1.0, 2.0)
    assert _found(made, "other") is None


@pytest.mark.parametrize("file", NAMES)
@pytest.mark.parametrize("content", [None, b"", b"x"])
def test_a_pair_with_a_damaged_file_is_made_again(file: str, content: bytes | None, made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == sorted([*NAMES, "config.json"])
    (made / file).unlink()
    if content is not None:
        (made / file).write_bytes(content)
    assert _found(made) is None


def test_what_was_saved_is_said() -> None:
    assert Cost().summary() == ""
    batch = Cost(passes=8, weak_passes=4, blocks_replayed=6, blocks_computed=14, weak_seconds=1.25, seconds_saved=0.5)
    assert (batch + batch).summary() == (
        "8 weak passes took 2.5 s. 12 of 40 blocks were replayed, since the pass before had computed them: "
        "about 1.0 s were saved."
    )
    nothing = Cost(weak_passes=1, blocks_computed=14, weak_seconds=2.0)
    assert nothing.summary() == (
        "1 weak pass took 2.0 s. No block comes before the first changed site, so none was replayed."
    )
