"""Damaged files: a sign, a refusal, or the very frames of the sound file; and sound files are never suspected."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ieadapt.errors import UsageError
from ieadapt.runs.clip_reading import open_clip
from ieadapt.runs.decoding import open_video
from ieadapt.runs.videos import encode_video
from tests.runs.files import damaged_copy, greys, write

SEEDED = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KINDS: dict[str, dict[str, object]] = {
    "a.mp4": {},
    "fragments.mp4": {},
    "a.mkv": {},
    "b.mkv": {"codec": "ffv1", "pixels": "bgr0"},
    "sound.mkv": {"tone": 440.0},
    "a.webm": {"codec": "libvpx-vp9", "crf": "20", "b": "0"},
    "a.avi": {"codec": "mpeg4"},
    "a.gif": {"codec": "gif", "pixels": "rgb8"},
    "a.ts": {},
}


def moving(number: int = 16) -> list[np.ndarray]:
    """Pictures of which every part changes."""
    rows, columns = np.mgrid[0:48, 0:64]
    parts = [[columns * 2 + 7 * index, rows * 3 + 5 * index, columns + rows + 3 * index] for index in range(number)]
    return [np.stack(part, axis=2).astype(np.uint8) for part in parts]


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    files = {name: write(folder / name, moving(), **keywords) for name, keywords in KINDS.items()}  # type: ignore[arg-type]
    frames = torch.from_numpy(np.stack(moving())).permute(0, 3, 1, 2).float() / 255
    files["a.mp4"].write_bytes(encode_video(frames))  # its header comes first, as in files from the web
    fragmented(files["fragments.mp4"], moving())
    return files


def fragmented(path: Path, pictures: list[np.ndarray]) -> None:
    """An MP4 as it is streamed: one header per second, none that states the length."""
    with av.open(path, "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "6"})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def read(path: Path) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """The frames of a file and the signs of damage; None where it is refused."""
    try:
        with open_clip(path) as clip:
            frames = np.stack([frame.picture for frame in clip.pictures()])
            return frames, clip.damage
    except UsageError:
        return None


def verdict(path: Path, whole: np.ndarray) -> str:
    found = read(path)
    if found is None:
        return "refused"
    frames, signs = found
    return "noted" if signs else "equal" if np.array_equal(frames, whole) else "silent"


@pytest.mark.parametrize("name", KINDS)
def test_a_sound_file_shows_no_sign(name: str, sound_files: dict[str, Path]) -> None:
    with open_clip(sound_files[name], strict=True) as clip:
        assert len(list(clip.pictures())) == 16
        assert clip.notes == ()
    with open_clip(sound_files[name], strict=True) as clip:  # from the middle on, where decoders lack references
        assert len(list(clip.pictures_at([1.15, 1.25]))) == 2
        assert clip.damage == ()


@pytest.mark.parametrize("name", KINDS)
@SEEDED
@given(share=st.floats(0.001, 0.999))
def test_a_file_cut_off_anywhere_is_never_silent(name: str, share: float, sound_files: dict[str, Path]) -> None:
    whole, copy = sound_files[name], sound_files[name].with_stem("cut")
    content = whole.read_bytes()
    copy.write_bytes(content[: round(share * len(content))])
    frames, _ = read(whole) or pytest.fail("the sound file is refused")
    state = verdict(copy, frames)
    # A stream whose header states no length may end after any packet, or after any fragment.
    boundary = name == "a.ts" and copy.stat().st_size % 188 == 0
    boundary |= name == "fragments.mp4" and content[copy.stat().st_size + 4 :][:4] in (b"moof", b"mdat", b"mfra")
    assert state != "silent" or boundary, f"{copy.stat().st_size} of {len(content)} bytes"


def flipped(content: bytes, numbers: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(numbers.choice((1, 3, 20))):
        changed[numbers.randrange(len(changed))] ^= 1 << numbers.randrange(8)
    return bytes(changed)


def holed(content: bytes, numbers: random.Random) -> bytes:
    first, length = numbers.randrange(len(content)), numbers.randrange(1, len(content) // 10)
    hole = len(content[first : first + length])
    return content[:first] + bytes(hole) + content[first + hole :]


@pytest.mark.parametrize("spoil", [flipped, holed])
@SEEDED
@given(seed=st.integers(0, 10_000))
def test_damage_under_a_checksum_is_never_silent(
    spoil: Callable[[bytes, random.Random], bytes], seed: int, sound_files: dict[str, Path]
) -> None:
    whole = sound_files["b.mkv"]  # FFV1 has a checksum in every slice
    copy = whole.with_stem("spoilt")
    copy.write_bytes(spoil(whole.read_bytes(), random.Random(seed)))
    frames, _ = read(whole) or pytest.fail("the sound file is refused")
    assert verdict(copy, frames) != "silent"


@pytest.mark.parametrize(("name", "least"), [("a.mp4", 0.8), ("a.mkv", 0.8), ("a.ts", 0.8), ("a.avi", 0.6)])
def test_most_damage_without_a_checksum_is_seen(name: str, least: float, sound_files: dict[str, Path]) -> None:
    whole, copy = sound_files[name], sound_files[name].with_stem("spoilt")
    frames, _ = read(whole) or pytest.fail("the sound file is refused")
    states = []
    for seed in range(40):
        copy.write_bytes((flipped, holed)[seed % 2](whole.read_bytes(), random.Random(seed)))
        states.append(verdict(copy, frames))
    changed = [state for state in states if state != "equal"]
    assert len(changed) > 15
    assert changed.count("silent") <= (1 - least) * len(changed)


def test_what_the_signs_say(sound_files: dict[str, Path], tmp_path: Path) -> None:
    content = sound_files["a.mp4"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    _, signs = read(tmp_path / "cut.mp4") or pytest.fail("it is refused")
    assert signs[0].startswith("cut off: ")
    assert signs[0].endswith(" s, of 16 that its header states")
    _, signs = read(damaged_copy(sound_files["b.mkv"], tmp_path / "b.mkv")) or pytest.fail("it is refused")
    assert signs[-1].startswith("damaged: the decoder reports ")
    gif = sound_files["a.gif"].read_bytes()
    (tmp_path / "cut.gif").write_bytes(gif[:-200])
    _, signs = read(tmp_path / "cut.gif") or pytest.fail("it is refused")
    assert "then the file ends within a block" in signs[0]
    with (
        pytest.raises(UsageError, match=r"damaged or cut off; got cut off: .*16 that its header states.*in .*cut.mp4"),
        open_clip(tmp_path / "cut.mp4", strict=True) as clip,
    ):
        list(clip.pictures())


def test_two_files_that_end_in_the_same_message_both_show_it(sound_files: dict[str, Path], tmp_path: Path) -> None:
    copy = damaged_copy(sound_files["b.mkv"], tmp_path / "b.mkv")
    (_, first), (_, second) = (read(copy) or pytest.fail("it is refused") for _ in range(2))
    assert first == second != ()


def test_damage_before_the_span_or_behind_it_is_no_sign(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", moving(60), g="10")
    late = damaged_copy(path, tmp_path / "late.mkv", at=0.7)
    early = damaged_copy(path, tmp_path / "early.mkv", at=0.15)
    for copy, start in ((late, 0.0), (early, 4.0)):
        with open_clip(copy) as clip:
            assert list(clip.pictures_at([start, start + 0.5]))
            assert clip.damage == ()
        with open_clip(copy) as clip:
            list(clip.pictures())
            assert clip.damage


def test_the_log_of_the_process_is_as_before(sound_files: dict[str, Path], tmp_path: Path, caplog: object) -> None:
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    copy = damaged_copy(sound_files["a.mp4"], tmp_path / "a.mp4", at=0.5)
    with caplog.at_level(logging.DEBUG):  # type: ignore[attr-defined]
        found = list[object]()
        threads = [threading.Thread(target=lambda: found.append(read(copy))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({signs for _, signs in found}) == 1  # type: ignore[attr-defined]
    assert caplog.records == []  # type: ignore[attr-defined]
    assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before


def test_a_damaged_file_gives_the_same_frames_each_time(sound_files: dict[str, Path], tmp_path: Path) -> None:
    copy = damaged_copy(sound_files["a.mp4"], tmp_path / "a.mp4", at=0.4)
    (first, _), (second, _) = (read(copy) or pytest.fail("it is refused") for _ in range(2))
    assert np.array_equal(first, second)


def test_a_file_without_a_picture_names_what_the_decoder_says(tmp_path: Path) -> None:
    whole = greys(tmp_path / "whole.mkv", 20, codec="mjpeg", pixels="yuvj420p").read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[:100] + bytes(len(whole) - 100))
    with (
        pytest.raises(UsageError, match=r"no video that can be read|damaged or cut off; got no picture can be decoded"),
        open_video(tmp_path / "a.mkv") as video,
    ):
        list(video.pictures())
