"""Every kind of video as frames, and what is said of the awkward ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ieadapt.errors import UsageError
from ieadapt.metrics.clips import USUAL_RATE
from ieadapt.runs.clip_folders import ClipFile
from ieadapt.runs.clip_reading import ReadClip, ReadConfig, aligned, check_readable, read_clip
from tests.runs.files import LEVELS, corner, grey, greys, write


def _read(path: Path, **config: object) -> ReadClip:
    return read_clip(ClipFile(path.stem, path), ReadConfig(**config))  # type: ignore[arg-type]


def _levels(read: ReadClip) -> list[float]:
    return [round(float(frame.mean()) * 255) for frame in read.frames]


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("a.mp4", {}),
        ("a.webm", {"codec": "libvpx-vp9", "crf": "5", "b": "0"}),
        ("a.mkv", {"codec": "ffv1", "pixels": "bgr0"}),
        ("a.gif", {"codec": "gif", "pixels": "gray"}),
    ],
)
def test_every_frame_of_a_file_is_read(tmp_path: Path, name: str, keywords: dict) -> None:
    read = _read(greys(tmp_path / name, 6, **keywords))
    assert _levels(read) == pytest.approx(LEVELS[:6], abs=2)
    assert read.size == (6, 48, 64)
    assert read.notes == ()


def test_a_folder_of_frames_is_read_in_natural_order(tmp_path: Path) -> None:
    for index in (10, 2, 1):
        Image.fromarray(grey(index * 10)).save(tmp_path / f"f{index}.png")
    assert _levels(_read(tmp_path)) == [10, 20, 100]


def test_a_variable_rate_is_said_and_no_frame_is_lost(tmp_path: Path) -> None:
    read = _read(greys(tmp_path / "a.mkv", 5, stamps=[0, 100, 200, 900, 1000]))
    assert _levels(read) == pytest.approx(LEVELS[:5], abs=2)
    assert read.notes == ("variable frame rate: frames taken one by one",)


def test_ten_bits_are_read_in_eight(tmp_path: Path) -> None:
    read = _read(greys(tmp_path / "a.mkv", 3, codec="ffv1", pixels="yuv420p10le"))
    assert read.notes == ("read in 8 bits per channel",)
    assert _levels(read) == pytest.approx(LEVELS[:3], abs=2)
    Image.fromarray(np.full((8, 8), 514 * 64, dtype=np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "frames").mkdir()
    (tmp_path / "deep.png").rename(tmp_path / "frames" / "deep.png")
    still = _read(tmp_path / "frames")
    assert (_levels(still), still.notes) == ([128], ("read in 8 bits per channel",))


def test_transparent_parts_become_black(tmp_path: Path) -> None:
    half = np.dstack([grey(200), np.full((48, 64), 255, dtype=np.uint8)])
    half[:, :32, 3] = 0
    Image.fromarray(half).save(tmp_path / "f.png")
    for path in (tmp_path, write(tmp_path / "a.mkv", [half] * 2, codec="ffv1", pixels="bgra")):
        read = _read(path)
        assert read.notes == ("transparent parts on black",)
        assert read.frames[0, :, :, :32].max() == 0
        assert read.frames[0, :, :, 32:].mean() == pytest.approx(200 / 255, abs=0.01)
    opaque = half.copy()
    opaque[..., 3] = 255
    assert _read(write(tmp_path / "b.mkv", [opaque] * 2, codec="ffv1", pixels="bgra")).notes == ()


def test_only_the_asked_frames_are_read_and_shrunk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [corner(100)] * 4)
    assert _read(path, frames=2, side=24).size == (2, 24, 32)
    assert _read(path, side=100).size == (4, 48, 64)
    with pytest.raises(UsageError, match="--side must be positive; expected >= 1; got 0"):
        ReadConfig(side=0)


def test_what_is_no_video_is_refused_before_it_is_measured(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty.mp4", tmp_path / "broken.mp4"
    empty.touch()
    broken.write_bytes(b"no video" * 99)
    with pytest.raises(UsageError, match=r"the video is empty; got 0 bytes; in .*empty.mp4"):
        check_readable(ClipFile("a", empty))
    with pytest.raises(UsageError, match=r"no video that can be read; .*in .*broken.mp4"):
        check_readable(ClipFile("a", broken))
    check_readable(ClipFile("a", greys(tmp_path / "good.mp4")))


def test_a_damaged_frame_and_unequal_frames_are_refused(tmp_path: Path) -> None:
    Image.fromarray(grey(10)).save(tmp_path / "1.png")
    Image.fromarray(grey(10, (32, 32))).save(tmp_path / "2.png")
    with pytest.raises(UsageError, match="frames of a video differ in size; got frame 0 of 64x48 and frame 1 of 32x32"):
        _read(tmp_path)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:50])
    with pytest.raises(UsageError, match=r"a frame cannot be read; got .*; in .*2.png"):
        _read(tmp_path)


def test_a_video_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.runs.sources.free_memory", lambda: 100_000)
    with pytest.raises(UsageError, match=r"too large for the memory; .*20 frames of 64x48.*add --frames N or --side N"):
        _read(greys(tmp_path / "a.mp4"))


def test_videos_are_made_alike_only_on_request(tmp_path: Path) -> None:
    ours = _read(greys(tmp_path / "a.mp4", 5))
    theirs = _read(write(tmp_path / "b.mp4", [grey(level, (128, 96)) for level in LEVELS[:7]]))
    text = r"differ; got .*a.mp4: 5 frames of 64x48 pixels; .*b.mp4: 7 frames of 128x96 pixels; remedy: add --align"
    with pytest.raises(UsageError, match=text):
        aligned(ours, theirs, ReadConfig())
    first, second, notes = aligned(ours, theirs, ReadConfig(align=True))
    assert first.shape == second.shape == (5, 3, 48, 64)
    assert torch.allclose(first, second, atol=0.01)
    assert notes == ("aligned to 5 frames of 64x48 pixels",)
    square = _read(write(tmp_path / "c.mp4", [grey(10, (64, 64))] * 5))
    with pytest.raises(UsageError, match=r"of different shapes; got .*64x48.*64x64 pixels; remedy: crop"):
        aligned(ours, square, ReadConfig(align=True))


def test_a_video_says_how_fast_it_is_shown(tmp_path: Path) -> None:
    assert _read(write(tmp_path / "a.mp4", [grey(20)] * 6, rate=24)).rate == pytest.approx(24, rel=0.01)
    Image.fromarray(grey(10)).save(tmp_path / "1.png")
    assert _read(tmp_path).rate == USUAL_RATE
