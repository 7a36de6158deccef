"""`ieadapt edit` on a tiny model: sources, outputs, the kept inversion, batches that resume, and bad input."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ieadapt.runs.decoding import open_video
from ieadapt.runs.folder import problem_of, read_run
from tests.cli.conftest import Program
from tests.cli.test_commands import undefined_names
from tests.runs.files import damaged_copy, decode_video, grey, greys, write

SIZE = ("--steps", "2", "--height", "16", "--width", "24", "--frames", "5")
TARGET = ("--prompt", "a blue ball")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ieadapt" / "inversions"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A moving gradient with sound, larger than the model's frames."""
    ramp = np.linspace(0, 200, 64).astype(np.uint8)
    pictures = [np.stack([np.tile(np.roll(ramp, 3 * index), (48, 1))] * 3, axis=2) for index in range(10)]
    return write(tmp_path / "clip.mp4", pictures, tone=440.0)


def test_a_video_is_edited_into_several_targets(tiny: Path, clip: Path, tmp_path: Path, program: Program) -> None:
    done = program("edit", tiny, "--video", clip, "--source-prompt", "a red ball", *TARGET, "--prompt", "a green ball",
                   *SIZE, "--out", tmp_path / "run")  # fmt: skip
    assert done.status == 0, done.err
    record = read_run(tmp_path / "run")
    assert record["status"] == "complete"
    expected = {"source.mp4", "reconstruction.mp4", "00-edit.mp4", "01-edit.mp4", "01-side-by-side.mp4", "00-strip.png"}
    assert expected | {"job.json", "report.html"} <= set(record["files"])
    frames = decode_video((tmp_path / "run" / "01-edit.mp4").read_bytes())
    assert tuple(frames.shape) == (5, 3, 16, 24)
    assert "5 frames, 0.00–0.50 s at 10 per second; whole picture" not in done.err  # 4:3 into 3:2 is cut
    assert "source clip.mp4: 5 frames, 0.00–0.50 s at 10 per second; middle 64x43 of 64x48 as 24x16" in done.err
    assert "reconstruction: PSNR" in done.err
    assert "a green ball" in done.out
    assert "report:" in done.out
    assert undefined_names(tmp_path / "run" / "report.html") == set()


def test_rate_and_sound_of_the_source_stay(tiny: Path, clip: Path, tmp_path: Path, program: Program) -> None:
    done = program("edit", tiny, "--video", clip, *TARGET, *SIZE, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    with open_video(tmp_path / "run" / "00-edit.mp4") as video:
        assert (video.header.rate, video.header.has_sound) == (Fraction(10), True)


@pytest.mark.slow
def test_an_inversion_is_made_once(tiny: Path, clip: Path, tmp_path: Path, program: Program, own_cache: Path) -> None:
    words = ("edit", tiny, "--video", clip, "--source-prompt", "a red ball", *SIZE)
    first = program(*words, *TARGET, "--out", tmp_path / "a")
    assert first.status == 0, first.err
    kept = list(own_cache.iterdir())
    assert [path.suffix for path in kept] == [".safetensors"]
    second = program(*words, "--prompt", "a green ball", "--out", tmp_path / "b")
    assert "inversion kept from an earlier run" in second.err
    assert "inversion kept" not in first.err
    kept[0].write_bytes(b"damaged")
    third = program(*words, *TARGET, "--out", tmp_path / "c")
    assert third.status == 0, third.err
    assert "inversion kept" not in third.err
    assert (tmp_path / "a" / "00-edit.mp4").read_bytes() == (tmp_path / "c" / "00-edit.mp4").read_bytes()


def test_a_generated_source(tiny: Path, tmp_path: Path, program: Program) -> None:
    done = program("edit", tiny, "--source-seed", 3, "--source-prompt", "a red ball", *TARGET, *SIZE, "--json",
                   "--out", tmp_path / "run")  # fmt: skip
    assert done.status == 0, done.err
    job = json.loads(done.out)["jobs"][0]
    assert job["source"] == "generated, seed 3: “a red ball”, 5 frames of 24x16"
    assert job["edits"][0]["measures"]["psnr"] > 0
    program("enhance", tiny, "--prompt", "a red ball", *SIZE, "--seed", 3, "--scale", 0, "--sites", "temporal",
            "--out", tmp_path / "plain")  # fmt: skip
    plain = decode_video((tmp_path / "plain" / "00-plain.mp4").read_bytes())
    assert torch.equal(plain, decode_video((tmp_path / "run" / "source.mp4").read_bytes()))


def _jobs(folder: Path, second: str = "a grey sea") -> Path:
    greys(folder / "sea.mp4")
    file = folder / "jobs.yaml"
    file.write_text(
        "- {seed: 3, source: a red ball, targets: a blue ball, name: ball}\n"
        f"- {{video: sea.mp4, source: a sea, targets: [{second}, a white sea]}}\n"
        "- {video: missing.mp4, targets: a cat, active: no}\n"
    )
    return file


@pytest.mark.slow
def test_a_file_of_jobs_resumes(tiny: Path, tmp_path: Path, program: Program) -> None:
    words = ("edit", tiny, "--jobs", _jobs(tmp_path), *SIZE, "--out", tmp_path / "run")
    done = program(*words)
    assert done.status == 0, done.err
    record = read_run(tmp_path / "run")
    assert {"01-ball/00-edit.mp4", "02-sea/01-edit.mp4", "02-sea/job.json"} <= set(record["files"])
    assert "--overwrite" in program(*words).refused()
    (tmp_path / "run" / "01-ball" / "job.json").unlink()
    before = (tmp_path / "run" / "02-sea" / "00-edit.mp4").stat().st_mtime_ns
    again = program(*words, "--resume")
    assert again.status == 0, again.err
    assert "02-sea: finished earlier" in again.err
    assert "01-ball: reconstruction" not in again.err
    assert "01-ball: inversion kept from an earlier run; reconstruction: PSNR" in again.err
    assert (tmp_path / "run" / "02-sea" / "00-edit.mp4").stat().st_mtime_ns == before
    assert set(read_run(tmp_path / "run")["files"]) == set(record["files"])


@pytest.mark.slow
def test_one_bad_job_does_not_end_the_others(tiny: Path, tmp_path: Path, program: Program) -> None:
    greys(tmp_path / "sea.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    rows = [f"- {{video: {name}, targets: a white sea}}\n" for name in ("text.mp4", "sea.mp4", "missing.mp4")]
    (tmp_path / "jobs.yaml").write_text("".join(rows))
    words = ("edit", tiny, "--jobs", tmp_path / "jobs.yaml", *SIZE, "--out", tmp_path / "run")
    done = program(*words)
    assert done.status == 1
    lines = done.err.splitlines()
    assert lines[0].startswith("01-text: left out: this is no video that can be read")  # before anything is computed
    assert lines[1].startswith("03-missing: left out: the video cannot be read")
    assert lines[-1].startswith("ieadapt: 2 of 3 jobs were left out; got 01-text: this is no video")
    assert "a white sea" in done.out
    record = read_run(tmp_path / "run")
    assert (record["status"], list(record["left_out"])) == ("partial", ["01-text", "03-missing"])
    assert "02-sea/00-edit.mp4" in record["files"]
    assert "left out: 03-missing" in (tmp_path / "run" / "report.html").read_text()
    for name in ("text.mp4", "missing.mp4"):
        greys(tmp_path / name)
    assert program(*words, "--resume").status == 0
    assert read_run(tmp_path / "run")["status"] == "complete"


def test_a_folder_of_frames_is_edited(tiny: Path, tmp_path: Path, program: Program) -> None:
    (tmp_path / "frames").mkdir()
    for index in range(6):
        Image.fromarray(grey(40 * index)).save(tmp_path / "frames" / f"{index}.png")
    done = program("edit", tiny, "--video", tmp_path / "frames", *TARGET, *SIZE, "--out", tmp_path / "run", "--json")
    assert done.status == 0, done.err
    source = json.loads(done.out)["jobs"][0]["source"]
    assert source.startswith("frames: 5 frames, 0.00–0.62 s at 8 per second; middle 64x43 of 64x48 as 24x16; no sound")
    levels = decode_video((tmp_path / "run" / "source.mp4").read_bytes()).mean(dim=(1, 2, 3)) * 255
    assert levels.tolist() == pytest.approx([0, 40, 80, 120, 160], abs=3)


def test_signs_of_damage_are_noted_or_refused(tiny: Path, tmp_path: Path, program: Program) -> None:
    noisy = list(np.random.default_rng(0).integers(0, 255, (6, 48, 64, 3), dtype=np.uint8))
    path = damaged_copy(write(tmp_path / "whole.mkv", noisy, codec="ffv1", pixels="bgr0"), tmp_path / "clip.mkv")
    words = ("edit", tiny, "--video", path, *TARGET, *SIZE, "--json", "--out")
    done = program(*words, tmp_path / "run")
    assert done.status == 0, done.err
    assert any(note.startswith("damaged: the decoder reports") for note in json.loads(done.out)["jobs"][0]["notes"])
    assert "damaged: the decoder reports" in (tmp_path / "run" / "report.html").read_text()
    assert "the video is damaged or cut off" in program(*words, tmp_path / "strict", "--strict").refused()
    assert not (tmp_path / "strict").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["00-edit.mp4", "source.mp4", "00-strip.png", "00-side-by-side.mp4", "job.json"])
@pytest.mark.parametrize("content", [None, b"x"])
def test_a_job_with_a_damaged_file_is_done_again(
    name: str, content: bytes | None, tiny: Path, tmp_path: Path, program: Program
) -> None:
    words = ("edit", tiny, "--jobs", _jobs(tmp_path), *SIZE, "--out", tmp_path / "run")
    assert program(*words).status == 0
    file, record = tmp_path / "run" / "01-ball" / name, read_run(tmp_path / "run")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    again = program(*words, "--resume")
    assert again.status == 0, again.err
    assert "02-sea: finished earlier" in again.err
    assert "01-ball: finished earlier" not in again.err
    after = read_run(tmp_path / "run")
    assert set(after["files"]) == set(record["files"])
    assert not [each for each in after["files"] if problem_of(tmp_path / "run", after, each)]


@pytest.mark.slow
def test_a_changed_job_is_done_again(tiny: Path, tmp_path: Path, program: Program) -> None:
    words = ("edit", tiny, *SIZE, "--out", tmp_path / "run", "--jobs")
    assert program(*words, _jobs(tmp_path)).status == 0
    again = program(*words, _jobs(tmp_path, "a black sea"), "--resume")
    assert "01-ball: finished earlier" in again.err
    assert "02-sea: finished" not in again.err
    job = json.loads((tmp_path / "run" / "02-sea" / "job.json").read_text())
    assert job["edits"][0]["prompt"] == "a black sea"


def test_a_preset_stands_for_its_settings(tiny: Path, clip: Path, tmp_path: Path, program: Program) -> None:
    words = ("edit", tiny, "--video", clip, *TARGET, *SIZE, "--out", tmp_path / "run")
    assert "residual of an edit is out of range" in program(*words, "--preset", "inversion", "--residual", 5).refused()
    assert "sdedit" in program(*words, "--preset", "no-such").refused()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "an edit has one source; expected --video FILE, --source-seed N or --jobs FILE; got none"),
        (("--video", "CLIP", "--source-seed", 3), "got --video and --source-seed"),
        (("--video", "missing.mp4"), "the video cannot be read; expected a video file; got no such file"),
        (("--video", "TEXT"), "this is no video that can be read"),
        (("--video", "PICTURE"), "this is a picture, not a video"),
        (("--video", "CLIP", "--frames", 32), "the video is too short; expected 32 frames at 10 per second"),
        (("--video", "CLIP", "--start", 30), "begins after the video's end"),
        (("--video", "CLIP", "--start", -1), "--start 0 or more"),
        (("--video", "CLIP", "--fps", 0), "--fps 0.1..240"),
        (("--video", "CLIP", "--size", "stretch"), "unknown fitting"),
        (("--video", "CLIP", "--frames", 1), "--frames 2 or more"),
        (("--video", "CLIP", "--height", 4_000_000, "--width", 4_000_000), "too large for the memory"),
        (("--video", "CLIP", "--source-prompt", "a blue ball"), "the same, so nothing would change"),
        (("--source-seed", 3), "a generated source needs its prompt"),
        (("--video", "CLIP", "--method", "magic"), "unknown method of an edit"),
        (("--video", "CLIP", "--edit-start", 2), "start of an edit is out of range"),
    ],
)
def test_bad_input(
    words: tuple[object, ...], expected: str, tiny: Path, clip: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    greys(tmp_path / "picture.mp4", number=1)
    files = {"CLIP": clip, "TEXT": tmp_path / "text.mp4", "PICTURE": tmp_path / "picture.mp4"}
    given = [files.get(str(word), word) for word in words]
    size = SIZE if "--frames" not in words and "--height" not in words else ("--steps", "2")
    line = program("edit", tiny, *TARGET, *size, *given, "--out", tmp_path / "run").refused()
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_a_file_of_jobs_that_is_not_there(tiny: Path, tmp_path: Path, program: Program) -> None:
    line = program("edit", tiny, "--jobs", tmp_path / "none.yaml", "--out", tmp_path / "run").refused()
    assert "the file of jobs cannot be read; got No such file" in line


def test_a_file_of_jobs_stands_alone(tiny: Path, tmp_path: Path, program: Program) -> None:
    line = program("edit", tiny, *TARGET, "--jobs", _jobs(tmp_path), "--out", tmp_path / "run").refused()
    assert "a file of jobs brings its own prompts" in line


def test_no_target(tiny: Path, clip: Path, program: Program) -> None:
    assert "an edit needs a prompt" in program("edit", tiny, "--video", clip).refused()


def test_a_prompt_past_the_text_encoder(tiny: Path, clip: Path, tmp_path: Path, program: Program) -> None:
    long = "a ball " * 60 + "with a hat"
    words = ("edit", tiny, "--video", clip, *SIZE, "--out", tmp_path / "run")
    line = program(*words, "--prompt", long).refused()
    assert "too long for the text encoder" in line
    assert "these words would be dropped" in line


def test_what_stays_readable_of_the_videos(tiny: Path, clip: Path, tmp_path: Path, program: Program) -> None:
    assert program("edit", tiny, "--video", clip, *TARGET, *SIZE, "--out", tmp_path / "run").status == 0
    with av.open(tmp_path / "run" / "00-side-by-side.mp4") as container:
        assert container.streams.video[0].codec_context.name == "h264"
