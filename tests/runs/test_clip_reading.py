"""The one reader of clips: every kind of video as frames, odd but sound files, and folders of frames."""

from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from PIL import Image

from ieadapt.errors import UsageError
from ieadapt.metrics.metric import USUAL_RATE
from ieadapt.runs.clip_reading import ReadClip, aligned, check_readable, open_clip, read_clip
from ieadapt.runs.decoding import VideoFile
from ieadapt.runs.settings import ReadConfig, SourceConfig
from ieadapt.runs.sources import Frames, read_source
from tests.runs.files import LEVELS, corner, grey, greys, write


def _read(path: Path, **config: object) -> ReadClip:
    return read_clip(path, ReadConfig(**config))  # type: ignore[arg-type]


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
        check_readable(empty)
    with pytest.raises(UsageError, match=r"no video that can be read; .*in .*broken.mp4"):
        check_readable(broken)
    check_readable(greys(tmp_path / "good.mp4"))


def test_a_damaged_frame_and_unequal_frames_are_refused(tmp_path: Path) -> None:
    Image.fromarray(grey(10)).save(tmp_path / "1.png")
    Image.fromarray(grey(10, (32, 32))).save(tmp_path / "2.png")
    with pytest.raises(UsageError, match="frames of a video differ in size; got frame 0 of 64x48 and frame 1 of 32x32"):
        _read(tmp_path)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:50])
    with pytest.raises(UsageError, match=r"a picture cannot be read; got .*; in .*2.png"):
        _read(tmp_path)


def test_a_video_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.runs.clip_reading.free_memory", lambda device: 100_000)
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


def levels(path: Path) -> list[int]:
    with open_clip(path) as clip:
        return [round(float(frame.picture.mean())) for frame in clip.pictures()]


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "mpeg4"), ("mp4", "libx264"), ("mkv", "libx264")])
def test_a_tag_in_latin_1_does_not_make_a_video_unreadable(suffix: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(path, "w") as container:
        container.metadata["title"] = "Caf@ d@Or"
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in LEVELS[:4]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(level), format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"Caf@ d@Or" in content
    path.write_bytes(content.replace(b"Caf@ d@Or", b"Caf\xe9 d\xe9Or"))
    assert levels(path) == pytest.approx(LEVELS[:4], abs=3)
    assert read_source(path, Frames(4, 48, 64)).chosen.startswith("4 frames")


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ffconcat", "a.gif"])
def test_a_text_that_names_another_file_is_not_followed(name: str, tmp_path: Path) -> None:
    secret = greys(tmp_path / "secret.mp4", 4)
    texts = {
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{secret}</BaseURL></MPD>',
    }
    for text in texts.values():
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="this is no video that can be read; got ") as caught:
            levels(tmp_path / name)
        assert "Traceback" not in str(caught.value)
    (tmp_path / name).write_text(texts["concat"])
    with pytest.raises(UsageError, match="got no container of a video, such as MP4, WebM or GIF"):
        read_source(tmp_path / name, Frames(4, 48, 64))


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "http:x.mp4", "img%02d.mp4", "a:b.mkv", "pipe:0.mp4"])
def test_a_name_is_the_name_of_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greys(tmp_path / f"plain{Path(name).suffix}", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert levels(Path(name)) == pytest.approx(LEVELS[:3], abs=3)


def test_several_tracks_give_the_one_that_a_player_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(3)]
        for stream, disposition in zip(streams, (0, Disposition.attached_pic, Disposition.default), strict=True):
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = Disposition(disposition)
        for index in range(4):
            for stream, level in zip(streams, (20, 90, 200), strict=True):
                frame = av.VideoFrame.from_ndarray(grey(level + index), format="rgb24")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert levels(path) == pytest.approx([200, 201, 202, 203], abs=3)
    assert "video track" in read_source(path, Frames(4, 48, 64)).chosen
    assert any(note.startswith("video track ") for note in read_clip(path).notes)


def bomb(path: Path, side: int, frames: int) -> Path:
    """A GIF of a few KiB that declares very large pictures."""
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00"
    path.write_bytes(screen + frame * frames + b"\x3b")
    return path


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ieadapt.runs.clip_reading.free_memory", lambda device: 2**33)
    small, large = bomb(tmp_path / "a.gif", 4000, 40), bomb(tmp_path / "b.gif", 12000, 2)
    monkeypatch.setattr(VideoFile, "_packets", lambda *arguments: pytest.fail("it was decoded"))
    with pytest.raises(
        UsageError, match=r"too large for the memory; expected at most 4.0 GiB; got .* 40 frames of 4000x"
    ):
        read_clip(small)
    with pytest.raises(
        UsageError, match=r"too large for the memory.*12000x12000 pictures and 2 frames of 64x48 pixels"
    ):
        read_source(large, Frames(2, 48, 64))
    bomb(tmp_path / "c.gif", 60000, 2)  # more than FFmpeg decodes
    with pytest.raises(UsageError, match="no video that can be read; got a video track that PyAV cannot decode"):
        levels(tmp_path / "c.gif")


@pytest.mark.slow
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.gif", 16000, 40)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from ieadapt.errors import UsageError\n"
        "from ieadapt.runs.clip_reading import read_clip\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    read_clip(Path(sys.argv[1]))\n"
        "except UsageError as error:\n"
        "    assert '40 frames of 16000x16000 pixels' in str(error), error\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50 * 1024  # KiB


def test_frames_that_no_header_counts_are_counted_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = greys(tmp_path / "a.h264", 20)
    monkeypatch.setattr("ieadapt.runs.clip_reading.free_memory", lambda device: 900_000)
    with pytest.raises(UsageError, match=r"too large for the memory.*got an estimated .* and \d+ frames of 64x48"):
        read_clip(path)


def test_an_edit_says_what_it_did_to_a_variable_rate(tmp_path: Path) -> None:
    path = greys(tmp_path / "a.mkv", 8, stamps=[0, 100, 200, 600, 700, 800, 900, 1000])
    chosen = read_source(path, Frames(4, 48, 64), SourceConfig(fps=5)).chosen
    assert "variable frame rate: frames taken at even times" in chosen
    assert "variable" not in read_source(greys(tmp_path / "b.mkv", 8), Frames(4, 48, 64)).chosen


def frames_in(folder: Path, number: int = 6, size: tuple[int, int] = (64, 48)) -> Path:
    folder.mkdir()
    for index in range(number):
        Image.fromarray(grey(LEVELS[index], size)).save(folder / f"f{index}.png")
    return folder


def test_a_folder_of_frames_is_a_clip_of_eight_frames_per_second(tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "frames", 12)
    source = read_source(folder, Frames(6, 48, 64))
    assert source.rate == Fraction(8)
    assert source.sound is None
    assert (255 * source.frames.mean(dim=(1, 2, 3))).tolist() == pytest.approx(LEVELS[:6])
    half = read_source(folder, Frames(4, 48, 64), SourceConfig(start=0.5, fps=4))
    assert (255 * half.frames.mean(dim=(1, 2, 3))).tolist() == pytest.approx([LEVELS[index] for index in (4, 6, 8, 10)])
    with pytest.raises(UsageError, match="the video is too short; expected 16 frames at 8 per second"):
        read_source(folder, Frames(16, 48, 64))


def test_a_folder_of_unequal_or_unreadable_frames_is_refused(tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "frames")
    Image.fromarray(grey(10, (32, 24))).save(folder / "f3.png")
    with pytest.raises(UsageError, match="differ in size; got frame 0 of 64x48 and frame 3 of 32x24 pixels"):
        read_source(folder, Frames(6, 48, 64))
    (folder / "f0.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"a picture cannot be read; .*f0.png"):
        read_source(folder, Frames(6, 48, 64))


def test_pictures_of_several_sizes_in_one_file_are_refused(tmp_path: Path) -> None:
    first, second = greys(tmp_path / "a.h264", 3), write(tmp_path / "b.h264", [grey(90, (96, 64))] * 3)
    (tmp_path / "c.h264").write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(UsageError, match="differ in size; got frame 0 of 64x48 and frame 3 of 96x64 pixels"):
        levels(tmp_path / "c.h264")


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="this is a picture, not a video; expected 2 frames or more"):
        levels(tmp_path / "a.png")
