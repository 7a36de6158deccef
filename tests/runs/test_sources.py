"""Any video file gives the frames that were asked for, at the right times, the right way up; or one clear line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ieadapt.errors import UsageError
from ieadapt.runs.decoding import VideoFile
from ieadapt.runs.settings import SourceConfig
from ieadapt.runs.sources import Frames, Source, read_source
from tests.runs.files import LEVELS, corner, grey, greys, loudness, write

SMALL = Frames(8, 48, 64)


def shown(source: Source) -> list[int]:
    """Which grey frame of the file each frame of a source is."""
    levels = 255 * source.frames.mean(dim=(1, 2, 3))
    return [int(np.argmin([abs(level - known) for known in LEVELS])) for level in levels.tolist()]


def red_corner(frame: torch.Tensor) -> str:
    """Where the red quarter is."""
    red = frame[0] - frame[2]
    height, width = red.shape
    parts = {
        f"{across}{down}": float(red[rows, columns].mean())
        for across, rows in (("upper ", slice(0, height // 2)), ("lower ", slice(height // 2, None)))
        for down, columns in (("left", slice(0, width // 2)), ("right", slice(width // 2, None)))
    }
    return max(parts, key=lambda name: parts[name])


def test_every_frame_at_the_files_own_rate(tmp_path: Path) -> None:
    source = read_source(greys(tmp_path / "a.mp4"), SMALL)
    assert shown(source) == list(range(8))
    assert source.rate == 10
    assert source.frames.shape == (8, 3, 48, 64)
    assert source.chosen == "8 frames, 0.00–0.80 s at 10 per second; whole picture of 64x48 as 64x48; no sound"


def test_the_last_frame_counts(tmp_path: Path) -> None:
    assert shown(read_source(greys(tmp_path / "a.mp4"), Frames(20, 48, 64))) == list(range(20))


@pytest.mark.parametrize(
    ("start", "fps", "number", "expected"),
    [
        (0.5, None, 4, [5, 6, 7, 8]),
        (0.0, 5, 4, [0, 2, 4, 6]),
        (0.2, 20, 5, [2, 2, 3, 3, 4]),
        (0.0, 3, 5, [0, 3, 6, 10, 13]),
        (1.25, 10, 3, [12, 13, 14]),
    ],
)
def test_start_and_rate(start: float, fps: float | None, number: int, expected: list[int], tmp_path: Path) -> None:
    source = read_source(greys(tmp_path / "a.mp4"), Frames(number, 48, 64), SourceConfig(start, fps))
    assert shown(source) == expected


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mkv", "libx264", "yuv420p"), ("a.webm", "libvpx-vp9", "yuv420p"), ("a.ts", "libx264", "yuv420p"),
     ("a.avi", "mpeg4", "yuv420p"), ("a.mov", "prores_ks", "yuv422p10le"), ("a.gif", "gif", "rgb8"),
     ("a.h264", "libx264", "yuv420p")],
)  # fmt: skip
def test_other_containers_and_codecs(name: str, codec: str, pixels: str, tmp_path: Path) -> None:
    rate = 25 if name.endswith("h264") else 10
    source = read_source(greys(tmp_path / name, codec=codec, pixels=pixels, rate=rate), SMALL, SourceConfig(2 / rate))
    assert shown(source) == list(range(2, 10))


def test_seeking_far_into_a_file_finds_the_same_frames(tmp_path: Path) -> None:
    pictures = [grey(LEVELS[index % 20]) for index in range(400)]
    path = write(tmp_path / "a.mp4", pictures, rate=10, g="24")
    assert shown(read_source(path, SMALL, SourceConfig(31.3))) == [(313 + index) % 20 for index in range(8)]


def test_a_variable_rate_is_sampled_by_time(tmp_path: Path) -> None:
    stamps = [0, 100, 200, 300, 1000, 1100, 1200, 1900, 2000, 2100]
    path = greys(tmp_path / "a.mp4", number=10, stamps=stamps)
    source = read_source(path, Frames(6, 48, 64), SourceConfig(fps=5))
    assert shown(source) == [0, 2, 3, 3, 3, 4]  # what is on screen at 0, .2, .4, .6, .8 and 1.0 s


@pytest.mark.parametrize(
    ("matrix", "corner_now"),
    [((0, 1, -1, 0), "upper right"), ((-1, 0, 0, -1), "lower right"), ((0, -1, 1, 0), "lower left")],
)
def test_rotation_in_the_header_is_applied(matrix: tuple[int, ...], corner_now: str, tmp_path: Path) -> None:
    a, b, c, d = (65536 * value for value in matrix)

    def turn(stream: av.VideoStream) -> None:
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])

    path = write(tmp_path / "a.mp4", [corner(90)] * 10, change=turn)
    size = (64, 48) if matrix[0] == 0 else (48, 64)
    source = read_source(path, Frames(4, *size))
    assert red_corner(source.frames[0]) == corner_now
    assert "turned by" in source.chosen
    assert "whole picture" in source.chosen


def test_ten_bits_and_the_colours_of_bt709(tmp_path: Path) -> None:
    colour = np.zeros((48, 64, 3), dtype=np.uint8) + np.array([200, 60, 30], dtype=np.uint8)

    def tag(stream: av.VideoStream) -> None:
        stream.codec_context.colorspace = 1

    path = write(tmp_path / "a.mp4", [colour] * 10, pixels="yuv420p10le")
    source = read_source(path, SMALL)
    assert "read in 8 bits per channel" in source.chosen
    torch.testing.assert_close(255 * source.frames.mean(dim=(0, 2, 3)), torch.tensor([200.0, 60, 30]), atol=4, rtol=0)


def test_transparent_parts_become_black(tmp_path: Path) -> None:
    picture = np.full((48, 64, 4), 255, dtype=np.uint8)
    picture[:, :32, 3] = 0
    source = read_source(write(tmp_path / "a.mov", [picture] * 8, codec="qtrle", pixels="argb"), SMALL)
    assert source.frames[..., :32].max() == 0
    assert source.frames[..., 32:].min() == 1
    assert "transparent parts on black" in source.chosen


def test_crop_keeps_the_middle_and_fit_keeps_everything(tmp_path: Path) -> None:
    picture = grey(200, (96, 48))
    picture[:, 24:72] = 100
    path = write(tmp_path / "a.mp4", [picture] * 8)
    cut = read_source(path, Frames(4, 32, 32)).frames
    assert (255 * cut[..., 2:-2] - 100).abs().max() < 8
    whole = read_source(path, Frames(4, 32, 32), SourceConfig(size="fit"))
    assert whole.frames[..., :8, :].max() == 0
    assert whole.frames[..., -8:, :].max() == 0
    assert (255 * whole.frames[..., 10:-10, :4] - 200).abs().max() < 12
    assert "whole picture of 96x48 as 32x32 with black bars" in whole.chosen


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    def widen(stream: av.VideoStream) -> None:
        stream.sample_aspect_ratio = Fraction(2)
        stream.codec_context.sample_aspect_ratio = Fraction(2)

    path = write(tmp_path / "a.mkv", [corner(90)] * 8, change=widen)
    source = read_source(path, Frames(4, 48, 128), SourceConfig(size="fit"))
    assert "black bars" not in source.chosen


def test_the_sound_of_the_span_comes_along(tmp_path: Path) -> None:
    path = greys(tmp_path / "a.mp4", tone=440.0)
    sound = read_source(path, Frames(10, 48, 64), SourceConfig(0.2)).sound
    assert sound is not None
    assert sound.samples.shape[1] == 48_000
    assert loudness(sound.samples, 0.0, 0.25) < 0.01
    assert loudness(sound.samples, 0.35, 0.9) == pytest.approx(0.5 / 2**0.5, abs=0.03)


def test_the_same_file_gives_the_same_frames(tmp_path: Path) -> None:
    path = greys(tmp_path / "a.mp4", tone=440.0)
    first, second = read_source(path, Frames(8, 20, 20)), read_source(path, Frames(8, 20, 20))
    assert torch.equal(first.frames, second.frames)
    assert first.sound is not None
    assert second.sound is not None
    assert np.array_equal(first.sound.samples, second.sound.samples)


def refusal(path: Path, wanted: Frames = SMALL, config: SourceConfig | None = None, memory: int | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        read_source(path, wanted, config, memory=memory)
    return str(caught.value)


def test_what_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("no video at all")
    assert "this is no video that can be read; got Invalid data" in refusal(text)
    assert "convert it to MP4" in refusal(text)
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "the video is empty; got 0 bytes" in refusal(tmp_path / "empty.mp4")
    assert "got no such file" in refusal(tmp_path / "missing.mp4")
    (tmp_path / "folder").mkdir()
    assert "there is no picture in this folder of frames; expected .bmp, .jpeg" in refusal(tmp_path / "folder")


def test_a_file_with_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    assert "no video track in it" in refusal(path)


def test_one_picture_is_no_video(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(grey(90)).save(tmp_path / "a.png")
    assert "this is a picture, not a video; expected 2 frames or more; got 1 frame" in refusal(tmp_path / "a.png")
    assert "got 1 frame" in refusal(greys(tmp_path / "a.mp4", number=1))


def test_no_picture_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert "no video that can be read" in refusal(path)


def test_too_short(tmp_path: Path) -> None:
    path = greys(tmp_path / "a.mp4")
    line = refusal(path, Frames(32, 48, 64))
    assert "the video is too short; expected 32 frames at 10 per second, up to 3.10 s; got a video of 2.00 s" in line
    assert "raise --fps to 15.6 or more" in line
    assert len(read_source(path, Frames(32, 48, 64), SourceConfig(fps=15.6)).frames) == 32
    assert "lower --start" in refusal(path, SMALL, SourceConfig(1.5))
    assert "begins after the video's end; expected --start below 2.00" in refusal(path, SMALL, SourceConfig(30))


def test_too_short_where_no_header_says_so(tmp_path: Path) -> None:
    path = greys(tmp_path / "a.h264", rate=25)
    assert "too short; expected 32 frames" in refusal(path, Frames(32, 48, 64))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_file_that_was_cut_off(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    path = write(tmp_path / name, list(noise), movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = refusal(path, Frames(20, 48, 64))
    assert any(words in line for words in ("damaged or cut off", "too short", "no video that can be read")), line


def test_a_file_too_large_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = greys(tmp_path / "a.mp4")
    monkeypatch.setattr(VideoFile, "pictures_at", lambda *arguments: pytest.fail("it was decoded"))
    line = refusal(path, memory=100_000)
    assert "too large for the memory; expected at most 0.0 GiB; got an estimated 0.0 GiB for 64x48 pictures" in line
    assert "GiB for 64x48 pictures and 8 frames of 400000x400000 pixels" in refusal(path, Frames(8, 400_000, 400_000))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"start": -1.0}, "--start 0 or more"),
        ({"start": float("nan")}, "--start 0 or more"),
        ({"fps": 0}, "--fps 0.1..240"),
        ({"size": "stretch"}, "unknown fitting; expected crop, fit; got stretch"),
    ],
)
def test_bad_settings(values: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SourceConfig(**values)  # type: ignore[arg-type]


def test_one_frame_is_not_asked_for() -> None:
    with pytest.raises(UsageError, match="--frames 2 or more"):
        Frames(1, 48, 64)
    with pytest.raises(UsageError, match="a frame has a size"):
        Frames(8, 0, 64)
