"""Inputs of a pipeline's call: from text and files, by content, and checked against the call's signature."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ieadapt.errors import UsageError
from ieadapt.files import sha256_of
from ieadapt.runs.flags import assemble, command_line, flags
from ieadapt.runs.inputs import GivenInput, call_values, given_inputs, inputs_from_text, media_of
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.measure.run import MeasureRun
from tests.tiny.from_inputs import picture


class ImagePipeline:
    """Has the signature of an image-to-video pipeline."""

    def __call__(
        self, image: Any, prompt: Any = None, num_frames: int = 9, strength: float = 1.0, last_image: Any = None
    ) -> None: ...


class VideoPipeline:
    """Has the signature of a video-to-video pipeline: it makes as many frames as it is given."""

    def __call__(self, video: Any = None, prompt: Any = None, strength: float = 1.0) -> None: ...


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "first.png"
    picture().save(path)
    return path


def test_a_file_is_known_by_its_content(file: Path) -> None:
    other = file.with_name("copy.png")
    other.write_bytes(file.read_bytes())
    one, same = given_inputs({"image": str(file)})["image"], given_inputs({"image": other})["image"]
    assert one == same == f"sha256:{sha256_of(file)}"
    assert (one.source, repr(one)) == (str(file), repr(str(file)))
    assert one.value.tobytes() == picture().tobytes()
    picture(shade=9).save(other)
    assert given_inputs({"image": other})["image"] != one


def test_objects_are_known_by_their_content_too() -> None:
    video, tensor = [picture(), picture(shade=1)], torch.ones(2, 3)
    assert GivenInput.of(video) == GivenInput.of([picture(), picture(shade=1)]) != GivenInput.of(video[::-1])
    assert GivenInput.of(tensor) == GivenInput.of(tensor.clone()) != GivenInput.of(tensor.T)
    assert GivenInput.of(video).source == "list given in Python"


def test_an_input_survives_copies_records_and_processes(file: Path) -> None:
    given = given_inputs({"image": file})["image"]
    assert copy.deepcopy({"call": given})["call"] is given
    assert json.loads(json.dumps({"call": given})) == {"call": str(given)}
    sent = pickle.loads(pickle.dumps(given))
    assert (sent, sent.source) == (given, given.source)
    assert sent.value.size == (48, 32)


def test_a_video_file_and_a_folder_of_frames_become_pictures(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_video(torch.rand(5, 3, 32, 48)))
    frames = given_inputs({"video": path})["video"].value
    assert [frame.size for frame in frames] == [(48, 32)] * 5
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames):
        frame.save(folder / f"{number}.png")
    assert len(given_inputs({"video": str(folder)})["video"].value) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"image": "gone.png"}, r"an input of the call cannot be read; got No such file or directory; in gone.png"),
        ({"image": Path("note.txt")}, r"neither a picture nor a video; expected .*\.png.*; in note.txt"),
        (
            {"prompt": "a ball"},
            r"this argument of the call is no input; got prompt; remedy: prompt, seed, .* have options",
        ),
        ({"output_type": "np"}, r"this argument of the call is no input; got output_type; remedy"),
    ],
)
def test_what_is_no_input_says_so(call: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        given_inputs(call)


@pytest.mark.parametrize("text", ["image", "=a.png", "image=", "my image=a.png"])
def test_an_entry_without_a_name_or_a_value(text: str) -> None:
    with pytest.raises(UsageError, match=r"not an input; expected NAME=VALUE; got .*; in --input"):
        inputs_from_text([text])


def test_the_call_is_checked_against_the_signature(file: Path) -> None:
    image = given_inputs({"image": file})
    assert call_values(ImagePipeline, {**image, "strength": 0.5})["strength"] == 0.5
    with pytest.raises(
        UsageError, match=r"needs an input .*expected image; in ImagePipeline; remedy: pass --image FILE"
    ):
        call_values(ImagePipeline, {})
    with pytest.raises(UsageError, match=r"no such argument; expected image, strength, last_image; got mask; in Image"):
        call_values(ImagePipeline, {**image, "mask": 1})
    with pytest.raises(
        UsageError, match=r"needs an input .*expected video; in VideoPipeline; remedy: pass --video FILE"
    ):
        call_values(VideoPipeline, {})
    with pytest.raises(UsageError, match="a record holds the digest of an input, not the input; got image"):
        call_values(ImagePipeline, {"image": str(image["image"])})
    assert media_of(ImagePipeline) == ["image", "last_image"]


def test_a_video_is_cut_to_the_frames_that_are_made() -> None:
    frames = given_inputs({"video": [picture(shade=shade) for shade in range(5)]})
    assert len(call_values(VideoPipeline, frames, 3)["video"]) == 3
    assert len(call_values(VideoPipeline, frames)["video"]) == 5


def test_the_command_line_says_the_inputs_and_brings_them_back(file: Path) -> None:
    options = {"image": str(file), "input": ["strength=0.5", f"last_image={file}"]}
    config = assemble(MeasureRun, {"model": "scenes", "prompts": ("a ball",), **options})
    assert config.generation.call["strength"] == 0.5
    assert isinstance(config.generation.call["last_image"].value, Image.Image)
    line = command_line("measure", config, "runs/x")
    assert f"--image {file} --input strength=0.5 --input last_image={file}" in line


def test_an_edits_video_is_its_source_and_a_picture_is_an_input() -> None:
    options = [flag.option for flag in flags(EditRun)]
    assert options.count("--video") == options.count("--image") == options.count("--input") == 1
    assert next(flag for flag in flags(EditRun) if flag.name == "video").path == ("video",)
