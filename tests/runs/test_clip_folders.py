"""Which files of a folder are videos, by which names, and what is said of the others."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.clip_folders import find_clips, natural, parts_of, read_prompts_of
from ieadapt.runs.folder import open_run, read_run


def _frames(folder: Path, number: int = 2) -> Path:
    folder.mkdir()
    for index in range(number):
        Image.new("RGB", (16, 16)).save(folder / f"{index}.png")
    return folder


def _empty(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_videos_are_found_and_stray_files_named(tmp_path: Path) -> None:
    _empty(tmp_path, "b10.MP4", "b2.webm", "c.gif", "notes.txt", "cover.png", ".hidden.mp4")
    (tmp_path / "empty").mkdir()
    _frames(tmp_path / "a")
    found = find_clips(tmp_path)
    assert list(found.clips) == ["a", "b2", "b10", "c"]
    assert found.label == tmp_path.name
    assert found.left_out == (
        "cover.png: a picture, not a video",
        "empty: a folder without pictures",
        "notes.txt: no video",
    )


def test_a_folder_of_frames_and_a_file_are_one_video_each(tmp_path: Path) -> None:
    assert find_clips(_frames(tmp_path / "clip")).clips == {"clip": tmp_path / "clip"}
    _empty(tmp_path, "one.mp4")
    assert list(find_clips(tmp_path / "one.mp4").clips) == ["one"]


def test_a_folder_without_videos_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no video in this folder; expected .*; got an empty folder; in"):
        find_clips(tmp_path)
    _empty(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match=r"got notes.txt: no video"):
        find_clips(tmp_path)
    with pytest.raises(UsageError, match=r"no such folder of videos; in .*nowhere"):
        find_clips(tmp_path / "nowhere")


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"two videos have one name; got a.gif and a.mp4"):
        find_clips(_empty(tmp_path, "a.gif", "a.mp4"))


def _run(folder: Path, *parts: str) -> Path:
    with open_run(folder, "enhance", {"prompts": ["a red ball", "a blue ball"]}) as run:
        for name in ("00", "01"):
            for part in (*parts, "side-by-side"):
                run.write(f"{name}-{part}.mp4", b"x")
        run.write("00-plain.png", b"x")
    return folder


def test_a_run_has_parts_and_prompts(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", "plain", "enhanced")
    assert parts_of(run) == ["enhanced", "plain"]
    found = find_clips(f"{run}:enhanced")
    assert [(name, clip.name) for name, clip in found.clips.items()] == [
        ("00", "00-enhanced.mp4"),
        ("01", "01-enhanced.mp4"),
    ]
    assert found.prompts == {"00": "a red ball", "01": "a blue ball"}
    assert found.label == "run:enhanced"
    with pytest.raises(
        UsageError, match=r"several parts; expected enhanced, plain; in .*; remedy: name one: .*:enhanced"
    ):
        find_clips(run)
    with pytest.raises(UsageError, match="no such part of videos; expected enhanced, plain; got edited"):
        find_clips(f"{run}:edited")


def test_a_run_of_one_part_needs_no_name_and_other_folders_have_none(tmp_path: Path) -> None:
    assert find_clips(_run(tmp_path / "run", "plain")).label == "run:plain"
    with pytest.raises(UsageError, match="only run folders have parts; got plain"):
        find_clips(f"{_frames(tmp_path / 'clip')}:plain")
    (tmp_path / "a:b").mkdir()
    assert find_clips(_empty(tmp_path / "a:b", "x.mp4")).clips.keys() == {"x"}


def test_prompts_come_by_name_or_line_by_line(tmp_path: Path) -> None:
    clips = find_clips(_empty(tmp_path, "b.mp4", "a.mp4")).clips
    named, listed = tmp_path / "prompts.json", tmp_path / "prompts.txt"
    named.write_text(json.dumps({"b": "a ball", "a": "a cat", "z": "unused"}))
    listed.write_text("a cat\n\na ball\n")
    assert read_prompts_of(named, clips) == read_prompts_of(listed, clips) == {"a": "a cat", "b": "a ball"}


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("p.json", '{"a": "a cat"}', "a video has no prompt; got b"),
        ("p.json", "no json", "cannot be read; got no JSON object"),
        ("p.json", "[1]", "cannot be read; got no JSON object"),
        ("p.txt", "one\n", "do not fit the videos; expected 2 prompts.*; got 1 prompt"),
        ("p.txt", None, "cannot be read; got No such file"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: str | None, text: str) -> None:
    clips = find_clips(_empty(tmp_path, "a.mp4", "b.mp4")).clips
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=text):
        read_prompts_of(tmp_path / name, clips)


def test_names_sort_as_people_count() -> None:
    names = ["clip10", "clip2", "2", "a", "10"]
    assert sorted(names, key=lambda name: natural(Path(name))) == ["2", "10", "a", "clip2", "clip10"]


def test_the_edits_of_a_run_share_its_source(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", "edit", {"prompts": ()}) as run:
        for folder in ("", "hike/"):
            for name in ("source", "reconstruction", "00-edit", "01-edit", "01-mask", "00-side-by-side"):
                run.write(f"{folder}{name}.mp4", b"x")
    assert set(parts_of(tmp_path / "run")) == {"edit", "source", "reconstruction"}
    edits, sources = (find_clips(f"{tmp_path / 'run'}:{part}").clips for part in ("edit", "source"))
    assert edits.keys() == sources.keys() == {"00", "01", "hike-00", "hike-01"}
    assert sources["hike-01"] == tmp_path / "run" / "hike" / "source.mp4"


def test_a_run_with_several_seeds_repeats_each_prompt(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", "enhance", {"prompts": ["a ball", "a star"], "seeds": 2}) as run:
        for number in range(4):
            run.write(f"{number:02d}-plain.mp4", b"x")
    prompts = find_clips(tmp_path / "run").prompts
    assert prompts == {"00": "a ball", "01": "a ball", "02": "a star", "03": "a star"}


def _enhanced(folder: Path, *, stopped: bool = False) -> Path:
    with contextlib.suppress(KeyboardInterrupt), open_run(folder, "enhance", {"prompts": ["a", "b"]}) as run:
        for name in ("00-plain.mp4", "01-plain.mp4"):
            run.write(name, name.encode())
        if stopped:
            raise KeyboardInterrupt
    return folder


@pytest.mark.parametrize("content", [None, b"", b"01-plain.mp5"])
def test_a_video_that_is_not_what_the_run_wrote_is_left_out_by_name(content: bytes | None, tmp_path: Path) -> None:
    run = _enhanced(tmp_path / "run")
    (run / "01-plain.mp4").unlink()
    if content is not None:
        (run / "01-plain.mp4").write_bytes(content)
    found = find_clips(run)
    assert list(found.clips) == ["00"]
    reason = "gone" if content is None else "not what the run wrote: its content hash is another"
    assert found.left_out == (f"01-plain.mp4: {reason}",)
    (run / "00-plain.mp4").unlink()
    with pytest.raises(FailureError, match=r"no video of this run is as the run wrote it; got 00.*; remedy"):
        find_clips(run)


def test_a_run_that_is_not_complete_is_told(tmp_path: Path) -> None:
    assert find_clips(_enhanced(tmp_path / "done")).left_out == ()
    assert find_clips(_enhanced(tmp_path / "stopped", stopped=True)).left_out == (
        "what a partial run has not made (stopped by the user)",
    )
    with open_run(tmp_path / "now", "enhance", {}) as run:
        run.write("00-plain.mp4", b"video")
        assert find_clips(run.path).left_out == ("what a running run has not made",)


def test_a_run_of_an_earlier_version_is_read_with_a_note(tmp_path: Path) -> None:
    run = _enhanced(tmp_path / "run")
    record = {name: value for name, value in read_run(run).items() if name != "sha256"}
    (run / "config.json").write_text(json.dumps(record))
    found = find_clips(run)
    assert list(found.clips) == ["00", "01"]
    assert ["an earlier version wrote this run" in each for each in found.left_out] == [True]


@pytest.mark.parametrize("config", [{"prompts": 5}, {"prompts": [None]}, {"prompts": ["a"], "seeds": "x"}])
def test_prompts_of_another_type_are_one_error(config: dict[str, Any], tmp_path: Path) -> None:
    with open_run(tmp_path / "run", "enhance", config) as run:
        run.write("00-plain.mp4", b"video")
    with pytest.raises(UsageError, match="the record of this run cannot be read; got prompts"):
        find_clips(run.path)
