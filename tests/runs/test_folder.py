"""A run folder says how far its run came, and never loses or overwrites what it should not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ieadapt.errors import FailureError, IEAdaptWarning, UsageError
from ieadapt.files import record_text
from ieadapt.runs.folder import CONFIG, RunFolder, open_run, read_run


def test_a_finished_run_is_complete_and_says_how_it_was_made(tmp_path: Path) -> None:
    with open_run(tmp_path / "a" / "b", "measure", {"seed": 3}, command="ieadapt measure") as run:
        assert read_run(run.path)["status"] == "running"
        run.note(sites=["mid"], attention_backend="native")
        run.write("figures/ep.png", b"png")
        run.write("report.html", "<p>")
    record = read_run(run.path)
    assert record["status"] == "complete"
    assert record["error"] is None
    assert record["config"] == {"seed": 3}
    assert record["sites"] == ["mid"]
    assert record["files"] == ["figures/ep.png", "report.html"]
    assert {"torch", "diffusers", "python"} <= set(record["versions"])
    assert record["seconds"] >= 0
    assert (run.path / "figures/ep.png").read_bytes() == b"png"
    assert not list(run.path.rglob("*.part"))


@pytest.mark.parametrize(
    ("error", "reason"), [(KeyboardInterrupt(), "stopped by the user"), (ValueError("bad"), "ValueError: bad")]
)
def test_a_run_that_ends_early_is_marked_partial_and_keeps_its_files(
    tmp_path: Path, error: BaseException, reason: str
) -> None:
    with pytest.raises(type(error)), open_run(tmp_path, "enhance", {}) as run:
        run.write("00.mp4", b"video")
        raise error
    record = read_run(tmp_path)
    assert (record["status"], record["error"]) == ("partial", reason)
    assert (tmp_path / "00.mp4").is_file()


def test_a_run_that_is_refused_before_it_began_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError), open_run(tmp_path / "run", "measure", {}):
        raise UsageError("unknown model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(UsageError, match="files of something else"), open_run(tmp_path, "measure", {}, overwrite=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_earlier_run_is_replaced_only_on_request(tmp_path: Path) -> None:
    with open_run(tmp_path, "measure", {}) as run:
        run.write("old.png", b"old")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds a complete measure run.*--overwrite"), open_run(tmp_path, "x", {}):
        pass
    assert (tmp_path / "old.png").is_file()
    with open_run(tmp_path, "measure", {}, overwrite=True):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, "notes.txt"]


def _rewrite(folder: Path, **fields: Any) -> None:
    """Change a record as its own writer would have."""
    (folder / CONFIG).write_text(record_text(json.loads((folder / CONFIG).read_text()) | fields))


@pytest.mark.parametrize("name", ["../outside.txt", "{outside}", "a/../../outside.txt", "link/outside.txt", "x\0"])
def test_a_record_cannot_name_files_elsewhere(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    folder = tmp_path / "run"
    with open_run(folder, "measure", {}) as run:
        run.write("ep.png", b"ep")
    (folder / "link").symlink_to(tmp_path)
    _rewrite(folder, files=["ep.png", name.format(outside=outside)])
    for options in ({}, {"overwrite": True}, {"resume": True}):
        refused = pytest.raises(UsageError, match=r"names a file outside its folder; got .*; in .*run; remedy")
        with refused, open_run(folder, "measure", {}, **options):
            pass
    assert outside.read_text() == "mine"


def test_a_file_that_is_a_link_out_is_not_read(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", "measure", {}) as run:
        run.write("ep.png", b"ep")
    (run.path / "ep.png").unlink()
    (run.path / "ep.png").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="names a file outside its folder"):
        read_run(run.path)


def test_an_output_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/ieadapt"):
        with pytest.raises(UsageError, match="output folder cannot be written"), open_run(out, "measure", {}):
            pass


def test_a_write_that_fails_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, mode: str) -> None:
        Path.touch(self)
        raise OSError(28, "No space left on device")

    run = RunFolder(tmp_path, {"files": []})
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FailureError, match="cannot write a file of the run; got No space left"):
        run.write("video.mp4", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": 99, "workflow": "measure"}'])
def test_what_is_no_run_is_not_read_as_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / CONFIG).write_text(content)
    with pytest.raises(UsageError, match=r"no run in|cannot be read|no record of a run"):
        read_run(tmp_path)


def test_a_resumed_run_keeps_the_files_of_the_earlier_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, "edit", {"seed": 1}) as run:
        run.write("a/job.json", b"{}")
        raise KeyboardInterrupt
    with open_run(tmp_path, "edit", {"seed": 2}, resume=True) as run:
        assert run.record["files"] == ["a/job.json"]
        run.write("report.html", "<p>")
    record = read_run(tmp_path)
    assert (record["status"], record["config"], record["error"]) == ("complete", {"seed": 2}, None)
    assert record["files"] == ["a/job.json", "report.html"]
    assert (tmp_path / "a/job.json").is_file()


def test_only_the_same_workflow_is_resumed(tmp_path: Path) -> None:
    with open_run(tmp_path, "measure", {}):
        pass
    with pytest.raises(UsageError, match="holds a complete measure run"), open_run(tmp_path, "edit", {}, resume=True):
        pass


@pytest.mark.parametrize("damage", ["gone", "changed", "cut", "emptied", "a folder"])
def test_a_resumed_run_keeps_only_what_is_as_it_was(damage: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, "edit", {}) as run:
        run.write("00.mp4", b"one video")
        run.write("01.mp4", b"another video")
        raise KeyboardInterrupt
    file = tmp_path / "01.mp4"
    content = {"changed": b"another vide0", "cut": b"another", "emptied": b""}.get(damage)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    elif damage == "a folder":
        file.mkdir()
    with open_run(tmp_path, "edit", {}, resume=True) as run:
        assert run.holds("00.mp4")
        assert not run.holds("00.mp4", "01.mp4")


def test_a_run_without_hashes_is_read_and_not_trusted(tmp_path: Path) -> None:
    with open_run(tmp_path, "edit", {}) as run:
        run.write("00.mp4", b"video")
    earlier = {name: value for name, value in read_run(tmp_path).items() if name != "sha256"}
    (tmp_path / CONFIG).write_text(json.dumps(earlier))
    assert read_run(tmp_path)["files"] == ["00.mp4"]
    with pytest.warns(IEAdaptWarning, match="no content hashes"), open_run(tmp_path, "edit", {}, resume=True) as run:
        assert run.record["files"] == []


def test_leftovers_of_a_killed_run_are_swept_and_nothing_else(tmp_path: Path) -> None:
    leftover, foreign = tmp_path / "a" / "00.mp4.0123abcd.part", tmp_path / "film.mp4.part"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    leftover.rename(tmp_path / leftover.name)
    leftover.parent.rmdir()
    with open_run(tmp_path, "edit", {}) as run:  # the folder holds nothing else, so it counts as empty
        run.write("00.mp4", b"video")
    assert not (tmp_path / leftover.name).exists()
    foreign.write_bytes(b"mine")
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    with open_run(tmp_path, "edit", {}, resume=True):
        pass
    assert foreign.exists()
    assert not leftover.exists()
