"""Videos open in a browser's format, show what they were given, and are the same bytes every time."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs import videos
from ieadapt.runs.sources import read_sound
from ieadapt.runs.videos import SOUND_RATE, Sound, encode_video, rows_of_frames, side_by_side, strip
from tests.runs.files import decode_video


def _clip(frames: int = 6, height: int = 64, width: int = 96) -> torch.Tensor:
    """A smooth gradient that moves, since yuv420p keeps no single-pixel colour."""
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None]
    shifted = [(columns + 0.1 * frame).remainder(1.0).expand(height, width) * 0.3 for frame in range(frames)]
    return torch.stack([torch.stack([rows.expand(height, width), part, 0.5 + 0 * part]) for part in shifted])


def _stream(content: bytes) -> av.VideoStream:
    return av.open(io.BytesIO(content)).streams.video[0]


def test_a_video_is_h264_in_the_pixel_format_of_browsers() -> None:
    stream = _stream(encode_video(_clip(), frames_per_second=12))
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert (stream.width, stream.height, stream.frames, stream.average_rate) == (96, 64, 6, 12)


def test_the_header_stands_before_the_pictures_so_that_it_starts_at_once() -> None:
    content = encode_video(_clip())
    assert content.index(b"moov") < content.index(b"mdat")


def test_it_shows_what_it_was_given() -> None:
    clip = _clip()
    error = (decode_video(encode_video(clip)) - clip).abs()
    assert error.mean() < 0.015


def test_the_same_frames_give_the_same_bytes() -> None:
    assert encode_video(_clip()) == encode_video(_clip())


def test_values_outside_the_range_are_clipped() -> None:
    decoded = decode_video(encode_video(torch.full((2, 3, 16, 16), 7.0)))
    assert decoded.min() > 0.98


@pytest.mark.parametrize(("height", "width"), [(15, 17), (16, 17), (15, 16), (2, 2)])
def test_odd_sizes_are_extended_not_refused(height: int, width: int) -> None:
    decoded = decode_video(encode_video(torch.full((2, 3, height, width), 0.5)))
    assert decoded.shape[2:] == (height + height % 2, width + width % 2)
    assert (decoded - 0.5).abs().max() < 0.03


def test_vp9_where_there_is_no_h264(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9"})
    content = encode_video(_clip())
    assert _stream(content).codec_context.name == "vp9"
    assert (decode_video(content) - _clip()).abs().mean() < 0.02


def test_no_encoder_at_all_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", set())
    with pytest.raises(FailureError, match="libx264"):
        encode_video(_clip())


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (4, 1, 8, 8), (4, 4, 8, 8)])
def test_what_is_no_rgb_video_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="RGB frames"):
        encode_video(torch.zeros(shape))


def test_nan_is_a_failure() -> None:
    with pytest.raises(FailureError, match="not finite"):
        encode_video(torch.full((2, 3, 8, 8), float("nan")))


def test_a_strip_holds_the_frames_unchanged_from_first_to_last() -> None:
    clip = torch.arange(16)[:, None, None, None].expand(16, 3, 4, 5) / 255
    picture = Image.open(io.BytesIO(strip(clip, count=4)))
    assert picture.size == (20, 4)
    assert [picture.getpixel((column, 0))[0] for column in (0, 5, 10, 15)] == [0, 5, 10, 15]
    assert Image.open(io.BytesIO(strip(clip[:3], count=8))).size == (15, 4)


def test_clips_side_by_side_keep_their_pixels_under_their_labels() -> None:
    plain, enhanced = torch.zeros(2, 3, 8, 30), torch.full((2, 3, 8, 30), 0.5)
    joined = side_by_side({"plain": plain, "enhanced": enhanced}, gap=4)
    assert torch.equal(joined[:, :, -8:, :30], plain)
    assert torch.equal(joined[:, :, -8:, 34:], enhanced)
    assert (joined[:, :, -8:, 30:34] == 1).all()
    assert joined[:, :, :-8].min() < 0.6


def test_clips_of_different_shapes_do_not_stand_side_by_side() -> None:
    with pytest.raises(UsageError, match="one shape"):
        side_by_side({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(2, 3, 8, 10)})
    with pytest.raises(UsageError, match="no clip"):
        side_by_side({})


def test_there_is_always_an_encoder_to_prefer() -> None:
    assert next(name for name in videos._ENCODERS if name in av.codecs_available) == "libx264"


def test_sound_is_muxed_beside_the_frames_and_reads_back(tmp_path: Path) -> None:
    time = np.arange(SOUND_RATE) / SOUND_RATE
    wave = (0.5 * np.sin(2 * np.pi * 440 * time) * (time >= 0.5)).astype(np.float32)
    path = tmp_path / "video.mp4"
    content = encode_video(_clip(10), Fraction(10), Sound(np.stack([wave, 0 * wave])))
    path.write_bytes(content)
    heard = read_sound(path, 0.0, 1.0)
    assert heard is not None
    heard = heard.samples
    assert np.abs(heard[0] - wave)[2000:-2000].mean() < 0.02  # AAC is lossy, and its first block is not kept exactly
    assert np.abs(heard[1]).max() < 0.02
    assert content == encode_video(_clip(10), Fraction(10), Sound(np.stack([wave, 0 * wave])))


def test_a_fractional_rate_is_kept() -> None:
    assert _stream(encode_video(_clip(), Fraction(30000, 1001))).average_rate == Fraction(30000, 1001)


def test_frames_stand_in_rows_unchanged() -> None:
    clip = torch.arange(16)[:, None, None, None].expand(16, 3, 20, 30) / 255
    picture = np.asarray(Image.open(io.BytesIO(rows_of_frames({"source": clip, "edit": 1 - clip}, count=4))))
    assert picture.shape == (2 * (20 + 20) + 4, 4 * 34 - 4, 3)
    assert [int(picture[25, column, 0]) for column in (0, 34, 68, 102)] == [0, 5, 10, 15]
    assert [int(picture[67, column, 0]) for column in (0, 34, 68, 102)] == [255, 250, 245, 240]
    assert (picture[25, 30:34] == 255).all()
    assert picture[:18, :40].min() < 120  # a label


def test_a_short_clip_gives_a_short_row() -> None:
    picture = Image.open(io.BytesIO(rows_of_frames({"a": torch.zeros(3, 3, 8, 8)}, count=8)))
    assert picture.size == (3 * 12 - 4, 8 + 20)


def test_unequal_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="clips of one shape; got"):
        rows_of_frames({"a": torch.zeros(3, 3, 8, 8), "b": torch.zeros(4, 3, 8, 8)})
    with pytest.raises(UsageError, match="got no clip"):
        rows_of_frames({})
