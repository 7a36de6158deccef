"""Lists of edits in the forms of V2VBench and LOVEU-TGVE, and what is said of lists that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from PIL import Image

from ieadapt.errors import UsageError
from ieadapt.tasks.bench.edit_sets import as_v2vbench, read_edit_set

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
