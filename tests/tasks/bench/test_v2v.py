"""An editing benchmark: V2VBench's layout, the two controls, resuming, and the table."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from PIL import Image

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.folder import read_run
from ieadapt.runs.settings import SourceConfig
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.bench.v2v import V2VConfig, as_v2vbench, read_edit_set, run_v2v
from ieadapt.tasks.edit.config import Sampling
from tests.metrics import clips
from tests.runs import files
from tests.tiny import build

V2VBENCH = """
data:
- video_id: hike
  prompt: a man hikes
  edit:
  - prompt: a superman hikes
  - prompt: a man hikes, pixel art
- video_id: bear
  edit: [{prompt: a panda}]
"""
_KINDS = "Style Change Caption,Object Change Caption,Background Change Caption,Multiple Changes Caption"
TGVE = f"""Video name,Our GT caption,{_KINDS}
DAVIS,,,,,
hike,a man hikes,"a man hikes, pixel art",a panda hikes,,a panda hikes in snow
bear,,a bear in oil,,,
"""
METHOD = "sdedit-0.6"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "animatediff"
    build("animatediff").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    (folder / "hike.mp4").write_bytes(encode_video(clips.pan(32, 48, 6, 1, 0)))
    (folder / "bear").mkdir()
    for index, frame in enumerate(clips.pan(40, 40, 5, 1, 1)):
        Image.fromarray((frame * 255).byte().movedim(0, -1).numpy()).save(folder / "bear" / f"{index}.png")
    entries = [
        {"video_id": "hike", "prompt": "a man", "edit": [{"prompt": "a bear"}, {"prompt": "a cat"}]},
        {"video_id": "bear", "prompt": "a bear", "edit": [{"prompt": "a panda"}]},
    ]
    (folder / "set.yaml").write_text(yaml.safe_dump({"data": entries}))
    return folder / "set.yaml"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> V2VConfig:
    sampling = Sampling(num_inference_steps=3, num_frames=4, height=16, width=24)
    cache = tmp_path_factory.mktemp("cache")
    return V2VConfig(methods=METHOD, metrics="psnr,flicker", sampling=sampling, workers=1, cache=cache)


@pytest.fixture(scope="module")
def made(model: str, edits: Path, config: V2VConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "v2v"
    run_v2v(model, edits, folder, config)
    return folder


def test_the_layout_is_that_of_v2vbench(made: Path, edits: Path) -> None:
    rows = ("copy", "reconstruction", METHOD)
    expected = {f"{row}/{file}.mp4" for row in rows for file in ("hike/0", "hike/1", "bear/0")}
    found = {str(path.relative_to(made)) for path in made.rglob("*.mp4")}
    assert found == expected | {"source/hike.mp4", "source/bear.mp4"}
    listed = yaml.safe_load((made / "config.yaml").read_text())["data"]
    assert listed == yaml.safe_load(edits.read_text())["data"]
    assert read_run(made)["status"] == "complete"


def test_the_copy_is_the_source_and_an_edit_is_none_of_both_controls(made: Path) -> None:
    source = (made / "source/hike.mp4").read_bytes()
    assert (made / "copy/hike/0.mp4").read_bytes() == (made / "copy/hike/1.mp4").read_bytes() == source
    rest = [(made / row / "hike/0.mp4").read_bytes() for row in ("reconstruction", METHOD)]
    assert len({source, *rest}) == 3
    values = pl.read_parquet(made / "values.parquet")
    assert values.filter(method="copy")["psnr"].to_list() == [100.0] * 3
    assert values.filter(method="copy")["flicker_change"].to_list() == [0.0] * 3
    assert (values.filter(pl.col("method") != "copy")["psnr"] < 60).all()


def test_the_table_has_a_row_per_method_with_its_interval(
    model: str, edits: Path, config: V2VConfig, made: Path, tmp_path: Path
) -> None:
    values = pl.read_parquet(made / "values.parquet")
    found = run_v2v(model, edits, made, config, resume=True)
    assert list(found.table.headings) == ["method", "psnr (dB)", "flicker (255ths)"]
    assert [row[0] for row in found.table.rows] == ["copy", "reconstruction", METHOD]
    assert found.table.rows[0][1] == "100.00 [100.00, 100.00]"
    for name, (psnr, _) in found.rows.items():
        assert psnr.mean == pytest.approx(np.mean(values.filter(method=name)["psnr"].to_list()))


def test_a_run_goes_on_with_what_is_missing(
    model: str, edits: Path, config: V2VConfig, made: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*.mp4")}
    (made / METHOD / "bear" / "0.mp4").unlink()
    run_v2v(model, edits, made, config, resume=True)
    assert {path: path.read_bytes() for path in made.rglob("*.mp4")} == before
    other = dataclasses.replace(config, methods="sdedit-0.4")
    with pytest.raises(UsageError, match="holds a run of another request"):
        run_v2v(model, edits, made, other, resume=True)


def _films(folder: Path) -> dict[Path, torch.Tensor]:
    return {path: files.decode_video(path.read_bytes()) for path in folder.rglob("*.mp4")}


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:200], lambda content: b"?" * 300])
def test_a_file_that_is_not_what_was_written_is_made_again(
    model: str, edits: Path, config: V2VConfig, made: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(made, tmp_path / "run")
    before = _films(tmp_path / "run")
    record = next((tmp_path / "run" / "written").iterdir())
    for path in (tmp_path / "run/source/hike.mp4", tmp_path / "run/reconstruction/bear/0.mp4", record):
        path.write_bytes(damage(path.read_bytes()))
    run_v2v(model, edits, tmp_path / "run", config, resume=True)
    after = _films(tmp_path / "run")
    assert after.keys() == before.keys()
    for path, film in after.items():  # made in another batch, which rounds otherwise on some processors
        torch.testing.assert_close(film, before[path], rtol=0, atol=8 / 255)
    assert read_run(tmp_path / "run")["status"] == "complete"


@pytest.fixture
def damaged(edits: Path, tmp_path: Path) -> Path:
    """The list of edits beside videos of which one has a flipped bit in a slice with a checksum."""
    shutil.copytree(edits.parent, tmp_path / "set")
    (tmp_path / "set" / "hike.mp4").unlink()
    noise = list(np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8))
    clip = files.write(tmp_path / "set" / "hike.mkv", noise, codec="ffv1", pixels="bgr0", slicecrc="1")
    content = bytearray(clip.read_bytes())
    content[len(content) // 3] ^= 1
    clip.write_bytes(content)
    return tmp_path / "set" / "set.yaml"


def test_damage_of_a_source_is_a_note_on_its_rows(model: str, damaged: Path, config: V2VConfig, tmp_path: Path) -> None:
    sign = "hike: source: damaged: "
    found = run_v2v(model, damaged, tmp_path / "run", config)
    values = pl.read_parquet(tmp_path / "run" / "values.parquet")
    noted = {video for video, notes in values.select("video", "notes").rows() if "source: damaged: " in notes}
    assert noted == {"hike"}
    assert values.filter(video="hike")["notes"].str.contains("source: damaged: ").all()
    assert sum(note.startswith(sign) for note in found.notes) == 1
    assert sign in (tmp_path / "run" / "benchmark.json").read_text()
    again = run_v2v(model, damaged, tmp_path / "run", config, resume=True)
    assert again.notes == found.notes


def test_strict_leaves_a_damaged_source_out(model: str, damaged: Path, config: V2VConfig, tmp_path: Path) -> None:
    strict = dataclasses.replace(config, source=SourceConfig(strict=True))
    found = run_v2v(model, damaged, tmp_path / "strict", strict)
    assert pl.read_parquet(tmp_path / "strict" / "values.parquet")["video"].unique().to_list() == ["bear"]
    assert "the video is damaged or cut off; got damaged: " in found.batch.left_out["hike"]
    record = read_run(tmp_path / "strict")
    assert (record["status"], list(record["left_out"])) == ("partial", ["hike"])
    assert "--strict" in record["command"]
    assert [
        entry["video_id"] for entry in yaml.safe_load((tmp_path / "strict" / "config.yaml").read_text())["data"]
    ] == ["bear"]


def test_a_source_that_cannot_be_read_ends_no_benchmark(
    model: str, edits: Path, config: V2VConfig, tmp_path: Path
) -> None:
    shutil.copytree(edits.parent, tmp_path / "set")
    (tmp_path / "set" / "hike.mp4").write_bytes(b"no video")
    found = run_v2v(model, tmp_path / "set" / "set.yaml", tmp_path / "run", config)
    assert "this is no video that can be read" in found.batch.left_out["hike"]
    assert any(note.startswith("left out: hike: this is no video") for note in found.notes)
    assert read_run(tmp_path / "run")["status"] == "partial"
    (tmp_path / "set" / "hike.mp4").write_bytes((edits.parent / "hike.mp4").read_bytes())
    found = run_v2v(model, tmp_path / "set" / "set.yaml", tmp_path / "run", config, resume=True)
    assert not found.batch.left_out
    assert read_run(tmp_path / "run")["status"] == "complete"


def test_bad_requests_are_refused(model: str, edits: Path, config: V2VConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the choice of methods is empty; remedy: pass --methods default"):
        V2VConfig(methods=" , ")
    with pytest.raises(UsageError, match=r"sdedit-0\.4"):
        V2VConfig(methods="sdedit-0.5")
    long = dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, num_frames=16))
    with pytest.raises(FailureError, match=r"2 videos could not be edited; got hike: the video is too short"):
        run_v2v(model, edits, tmp_path / "run", long)
    assert read_run(tmp_path / "run")["status"] == "partial"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos" / "bear").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "videos" / "bear" / "0.jpg")
    (tmp_path / "videos" / "hike.mp4").touch()
    return tmp_path / "videos"


def _list(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_v2vbench_lists_are_read_and_written(videos: Path, tmp_path: Path) -> None:
    jobs = read_edit_set(_list(tmp_path, "set.yaml", V2VBENCH), videos)
    assert [(job.name, job.source_prompt, job.prompts, job.video) for job in jobs] == [
        ("hike", "a man hikes", ("a superman hikes", "a man hikes, pixel art"), videos / "hike.mp4"),
        ("bear", "", ("a panda",), videos / "bear"),
    ]
    again = yaml.safe_load(as_v2vbench(jobs))["data"]
    assert [entry["video_id"] for entry in again] == ["hike", "bear"]
    assert again[0]["edit"] == yaml.safe_load(V2VBENCH)["data"][0]["edit"]
    assert read_edit_set(_list(videos, "bare.yaml", yaml.safe_dump(again))) == jobs, "a bare list beside its videos"


def test_tgve_lists_are_read_without_their_headings_and_gaps(videos: Path, tmp_path: Path) -> None:
    jobs = read_edit_set(_list(tmp_path, "set.csv", "\ufeff" + TGVE), videos)
    assert [(job.name, job.prompts) for job in jobs] == [
        ("hike", ("a man hikes, pixel art", "a panda hikes", "a panda hikes in snow")),
        ("bear", ("a bear in oil",)),
    ]


def test_a_file_of_jobs_is_a_list_too(videos: Path) -> None:
    jobs = read_edit_set(_list(videos, "jobs.csv", "video,source,targets\nhike.mp4,a man,a bear | a cat\n"))
    assert jobs[0].prompts == ("a bear", "a cat")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "s.yaml",
            "data: [{video_id: nowhere, edit: [{prompt: x}]}]",
            "is not there; expected nowhere.mp4 or a folder of",
        ),
        ("s.yaml", "data: [{video_id: hike}]", r"an entry of the list has no edits; expected edit: \[{prompt"),
        ("s.yaml", "data: [{video_id: hike, edit: [{promt: x}]}]", "an entry of the list has no edits"),
        ("s.yaml", "data: [unclosed", "the list of edits cannot be read"),
        ("s.yaml", "data: []", "the list of edits is empty"),
        ("s.csv", TGVE.split("hike")[0], "the list of edits is empty"),
        ("s.yaml", "- {seed: 3, source: a ball, targets: a cat}", "edits videos from files; got a job with a seed"),
        ("none.yaml", None, "the list of edits cannot be read; got No such file"),
    ],
)
def test_what_is_no_list_is_refused(name: str, text: str | None, message: str, videos: Path, tmp_path: Path) -> None:
    if text is not None:
        _list(tmp_path, name, text)
    with pytest.raises(UsageError, match=message):
        read_edit_set(tmp_path / name, videos)
