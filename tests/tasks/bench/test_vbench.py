"""VBench's layout: names, seeds, resuming; and its result files as tables."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics.intervals import paired_interval
from ieadapt.runs.folder import read_run
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.bench.vbench import VBenchRun, read_results, run_vbench, summarise_results
from ieadapt.tasks.enhance.config import EnhanceConfig
from tests.tiny import build

PROMPTS = ("a red ball", "a blue ball")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> VBenchRun:
    folder = tmp_path_factory.mktemp("models") / "animatediff"
    build("animatediff").save_pretrained(folder)
    generation = GenerationConfig(num_inference_steps=2, num_frames=4, height=16, width=16, batch_size=3)
    return VBenchRun(
        str(folder),
        PROMPTS,
        samples=2,
        generation=generation,
        enhancement=EnhanceConfig(start=0, sites="temporal"),
        seed=7,
        workers=1,
    )


@pytest.fixture(scope="module")
def made(asked: VBenchRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_vbench(asked, tmp_path_factory.mktemp("runs") / "vbench")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.mp4"))}


def test_videos_have_the_names_that_vbench_wants(made: Path) -> None:
    names = [f"{prompt}-{sample}.mp4" for prompt in PROMPTS for sample in range(2)]
    for way in ("plain", "enhanced"):
        assert sorted(path.name for path in (made / way).iterdir()) == sorted(names)
    contents = _contents(made)
    assert len(set(contents.values())) == len(contents), "every seed and way gives another video"
    record = read_run(made)
    assert record["status"] == "complete"
    assert record["seeds"] == {name: 7 + index for index, name in enumerate(names)}


def test_a_video_depends_on_its_prompt_and_seed_alone(asked: VBenchRun, made: Path, tmp_path: Path) -> None:
    """The second prompt alone, from its first seed, in other batches."""
    alone = dataclasses.replace(asked, prompts=PROMPTS[1:], seed=9)
    assert _contents(run_vbench(alone, tmp_path / "run")).keys() < _contents(made).keys()
    again, before = (len(_contents(folder)[f"plain/{PROMPTS[1]}-0.mp4"]) for folder in (tmp_path / "run", made))
    assert again == pytest.approx(before, rel=0.05)


def test_a_run_goes_on_with_what_is_missing(asked: VBenchRun, made: Path, tmp_path: Path) -> None:
    run_vbench(asked, tmp_path / "run")
    whole = _contents(tmp_path / "run")
    lost = tmp_path / "run" / "enhanced" / f"{PROMPTS[0]}-1.mp4"
    lost.unlink()
    kept = tmp_path / "run" / "plain" / f"{PROMPTS[0]}-1.mp4"
    before = kept.stat().st_mtime_ns
    garbage = tmp_path / "run" / "plain" / f"{PROMPTS[0]}-0.mp4"
    garbage.write_bytes(b"garbage")
    leftover = tmp_path / "run" / "plain" / "x.mp4.0123abcd.part"
    leftover.touch()
    os.utime(leftover, (0, 0))
    run_vbench(asked, tmp_path / "run", resume=True)
    after = _contents(tmp_path / "run")
    assert after.keys() == whole.keys()
    assert kept.stat().st_mtime_ns == before
    assert after[f"plain/{garbage.name}"].startswith(whole[f"plain/{garbage.name}"][:12])
    assert not list((tmp_path / "run").rglob("*.part"))
    with pytest.raises(UsageError, match=r"holds a complete vbench run of .*remedy: name another --out"):
        run_vbench(asked, tmp_path / "run")
    with pytest.raises(UsageError, match=r"holds a run of another request; in .*run; remedy"):
        run_vbench(dataclasses.replace(asked, seed=1), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_two_workers_make_the_same_videos(asked: VBenchRun, made: Path, tmp_path: Path) -> None:
    folder = run_vbench(dataclasses.replace(asked, workers=2), tmp_path / "run")
    assert _contents(folder) == _contents(made)


def test_what_cannot_be_made_is_a_failure_and_the_run_is_partial(asked: VBenchRun, tmp_path: Path) -> None:
    wrong = dataclasses.replace(asked, enhancement=EnhanceConfig(start=0, sites="no_such_site"))
    with pytest.raises(FailureError, match=r"\d videos could not be made; got a red ball-0.mp4: .*no_such_site"):
        run_vbench(wrong, tmp_path / "run")
    assert read_run(tmp_path / "run")["status"] == "partial"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"prompts": ("a", "a")}, "a prompt is listed twice, and its videos would have one name; got 'a'"),
        ({"prompts": ("a/b",)}, "this one makes no file name; expected no '/', at most 255 bytes; got 'a/b'"),
        ({"prompts": ("a" * 250,)}, "this one makes no file name"),
        ({"samples": 0}, "a prompt needs videos; expected --samples >= 1; got 0"),
        ({"prompts": ()}, "there is no prompt"),
    ],
)
def test_what_makes_no_layout_is_refused(asked: VBenchRun, changed: dict, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        dataclasses.replace(asked, **changed)


def _results(path: Path, **dimensions: list[float]) -> Path:
    rows = {
        name: [
            sum(values) / len(values),
            [{"video_path": f"/x/v-{k}.mp4", "video_results": v} for k, v in enumerate(values)],
        ]
        for name, values in dimensions.items()
    }
    path.write_text(json.dumps(rows))
    return path


def test_result_files_are_read_and_compared_pair_by_pair(tmp_path: Path) -> None:
    plain = _results(tmp_path / "plain.json", subject_consistency=[0.9, 0.8, 0.7], dynamic_degree=[0.0, 1.0])
    enhanced = _results(tmp_path / "enhanced.json", subject_consistency=[0.95, 0.8, 0.9], dynamic_degree=[1.0, 1.0])
    assert read_results(plain)["dynamic_degree"] == {"v-0.mp4": 0.0, "v-1.mp4": 1.0}
    alone = summarise_results(plain)
    assert [(row.metric, row.better, row.videos) for row in alone] == [
        ("subject_consistency", "higher", 3),
        ("dynamic_degree", "context", 2),
    ]
    first = summarise_results(enhanced, plain)[0]
    difference = first.difference, first.difference_low, first.difference_high
    assert difference == pytest.approx(paired_interval([0.95, 0.8, 0.9], [0.9, 0.8, 0.7]))
    assert (first.mean, first.reference) == pytest.approx((2.65 / 3, 0.8))


def test_a_folder_of_result_files_is_read_as_one(tmp_path: Path) -> None:
    _results(tmp_path / "color_eval_results.json", color=[1.0])
    _results(tmp_path / "scene_eval_results.json", scene=[0.5, 0.0])
    (tmp_path / "scene_full_info.json").write_text("[]")
    assert {name: len(values) for name, values in read_results(tmp_path).items()} == {"color": 1, "scene": 2}
    (tmp_path / "none").mkdir()
    with pytest.raises(
        UsageError, match=r"holds no results of VBench; expected NAME_eval_results\.json files; in .*none"
    ):
        read_results(tmp_path / "none")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": 1}', '{"a": [0.5, []]}', '{"a": [0.5, [{"video": 1}]]}'])
def test_other_files_are_no_results(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match=r"(?s)result file of VBench.*in .*x.json"):
        read_results(tmp_path / "x.json")


def test_result_files_without_a_shared_video_are_refused(tmp_path: Path) -> None:
    one, other = _results(tmp_path / "a.json", color=[1.0]), _results(tmp_path / "b.json", scene=[1.0])
    with pytest.raises(UsageError, match="share no video of color"):
        summarise_results(one, other)
