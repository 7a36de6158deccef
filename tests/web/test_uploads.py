"""Uploaded clips: ordinary ones become clean clips; bombs, playlists, pictures, stubs and wrong labels are refused."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ieadapt.errors import UsageError
from ieadapt.runs.videos import encode_video
from ieadapt.web.uploads import MEBIBYTE, Limits, Uploads
from tests.runs.files import decode_video


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder, Limits(seconds=20, frames=400))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def many_frames(path: Path, count: int, side: int = 16, rate: int = 24) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        picture = np.zeros((side, side, 3), np.uint8)
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def refused(uploads: Uploads, path: Path, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        uploads.take(path)
    assert str(path.parent) not in str(caught.value)
    assert not [left for left in uploads.folder.iterdir() if left.suffix != ".json"]


def test_a_clip_becomes_a_clean_one_and_is_found_again(uploads: Uploads, tmp_path: Path) -> None:
    frames = torch.nn.functional.interpolate(torch.rand(12, 3, 3, 4), (48, 64), mode="bilinear")
    clip = uploads.take(written(tmp_path / "<b>my clip<b>.mp4", encode_video(frames)))
    assert str(clip) == "12 frames of 64x48, 1.5 s at 8 per second"
    assert uploads.find(clip.name) == clip
    clean = decode_video(uploads.path(clip.name).read_bytes())
    assert clean.shape == frames.shape
    assert float((clean - frames).abs().mean()) < 0.02


def test_a_large_clip_is_shrunk_and_a_gif_is_read(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, Limits(side=64))
    large = uploads.take(written(tmp_path / "large.mp4", encode_video(torch.rand(4, 3, 60, 120))))
    assert (large.width, large.height, large.notes) == (64, 32, ("shrunk from 120x60",))
    pictures = [Image.fromarray(np.full((40, 40, 3), shade, np.uint8)) for shade in (0, 90, 180)]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=100)
    assert uploads.take(tmp_path / "clip.gif").frames == 3


def test_the_name_of_a_clip_is_no_path(uploads: Uploads) -> None:
    for name in ("../../etc/passwd", "", "0123456789abcdef", "0123456789abcdeg"):
        with pytest.raises(UsageError, match="there is no such clip"):
            uploads.find(name)


def test_one_pixel(uploads: Uploads, tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (1, 1), shade) for shade in ("red", "blue")]
    pictures[0].save(tmp_path / "dot.gif", save_all=True, append_images=pictures[1:])
    refused(uploads, tmp_path / "dot.gif", "the pictures of the clip are too small; expected 16 pixels a side; got 1x1")


def test_ten_thousand_frames(uploads: Uploads, tmp_path: Path) -> None:
    refused(
        uploads, many_frames(tmp_path / "a.mp4", 10_000), "the clip is too long; expected at most 20 s; got 416.7 s"
    )
    refused(uploads, many_frames(tmp_path / "b.mp4", 1000, rate=100), "too many frames; expected at most 400")


def test_a_truncated_file(uploads: Uploads, tmp_path: Path) -> None:
    whole = encode_video(torch.rand(24, 3, 64, 64))
    half = uploads.take(written(tmp_path / "half.mp4", whole[: len(whole) // 2]))
    assert 2 <= half.frames < 24
    assert half.notes[0].startswith(f"cut off: {half.frames} frames in ")
    assert half.notes[0].endswith(" s, of 24 that its header states")
    tail = written(tmp_path / "tail.mp4", whole[len(whole) // 2 :])
    with pytest.raises(UsageError, match="this is no video that can be read"):
        uploads.take(tail)
    uploads.path(half.name).unlink()
    refused(
        uploads, written(tmp_path / "stub.mp4", whole[:40]), "this is no video that can be read; got no video track"
    )
    refused(uploads, written(tmp_path / "empty.mp4", b""), "the video is empty")


def test_mislabelled_files(uploads: Uploads, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, format="PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(30 * MEBIBYTE))
    for name, content in (
        ("text.mp4", b"not a video at all\n" * 50),
        ("picture.mp4", picture.getvalue()),
        ("archive.mp4", archive.getvalue()),
        ("page.mp4", b"<html><script>alert(1)</script></html>"),
    ):
        refused(uploads, written(tmp_path / name, content), "this is no video that can be read")


def test_a_playlist_that_names_other_files_is_not_followed(uploads: Uploads, tmp_path: Path) -> None:
    secret = written(tmp_path / "secret.mp4", encode_video(torch.rand(8, 3, 32, 32)))
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{secret}'\n"
    for name, text in (("a.mp4", hls), ("a.m3u8", hls), ("b.mp4", concat), ("b.ffconcat", concat)):
        refused(uploads, written(tmp_path / name, text.encode()), "this is no video that can be read")


def test_pictures_that_are_huge_by_their_header(uploads: Uploads, tmp_path: Path) -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 60000, 60000, 0) + b"\x02\x02\x4c\x01\x00"
    refused(uploads, written(tmp_path / "bomb.gif", screen + frame * 2 + b"\x3b"), "too large|no video that can")
    large = many_frames(tmp_path / "wide.mp4", 2, 4096)
    refused(uploads, large, "the pictures of the clip are too large; expected at most 9437184 pixels; got 4096x4096")


def test_decoding_that_takes_too_much_memory_or_time_ends(tmp_path: Path) -> None:
    clip = many_frames(tmp_path / "clip.mp4", 3000, 256)
    (tmp_path / "out").mkdir()
    short = Uploads(tmp_path / "out", Limits(frames=10_000, seconds=1000, patience=1))
    refused(short, clip, "the clip takes more memory or time to decode than an upload may")
    small = Uploads(tmp_path / "out", Limits(memory=300 * MEBIBYTE))
    refused(
        small,
        many_frames(tmp_path / "wide.mp4", 4, 3000),
        "the clip takes more memory or time to decode than an upload may",
    )


def test_a_file_that_is_too_large_is_not_decoded(tmp_path: Path) -> None:
    clip = written(tmp_path / "clip.mp4", bytes(3 * MEBIBYTE))
    with pytest.raises(UsageError, match="the file is too large to upload; expected at most 1 MB"):
        Uploads(tmp_path, Limits(bytes=MEBIBYTE)).take(clip)
