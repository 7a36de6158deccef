"""What a pipeline's call is given beside prompt, size, steps and guidance: pictures, videos, numbers, by content."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError, raised_as
from ieadapt.files import sha256_of
from ieadapt.runs.clip_folders import PICTURE_SUFFIXES, VIDEO_SUFFIXES, frames_of

MEDIA = (
    *("image", "video", "images", "conditioning_frames", "control_video", "controls", "conditions"),
    *("pose_video", "face_video", "reference_images", "last_image", "mask", "mask_video", "ip_adapter_image"),
)
"""Arguments of diffusers' video pipelines that hold pictures, the most usual first."""
FRAMES = ("num_frames", "frames", "video_length")
"""What pipelines of diffusers call the number of frames."""
OWN_SETTING = (
    *("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", *FRAMES, "height", "width", "generator"),
    *("output_type", "return_dict", "latents", "self"),
)
"""Arguments that ieadapt passes itself."""
_CONTENT = "sha256:"


class GivenInput(str):
    """A picture, a video or another object that a call is given; as a text, which records hold, it is its content.

    Attributes:
        source: the file as it was named, or what the object is.

    Example:
        >>> from PIL import Image
        >>> picture = GivenInput.of(Image.new("RGB", (8, 4)))
        >>> picture == GivenInput.of(Image.new("RGB", (8, 4))), picture.source
        (True, 'Image given in Python')
    """

    source: str
    _value: Any

    @classmethod
    def of(cls, value: Any) -> GivenInput:
        """The input that a file (as a `Path`), a picture, a tensor or any other object is.

        Raises:
            UsageError: the file is not there, or is neither a picture nor a video.
        """
        from ieadapt.runs.clip_reading import digest_of  # here, since the names of inputs are wanted without torch

        is_file = isinstance(value, Path)
        made = cls(_CONTENT + (_file_digest(value.expanduser()) if is_file else digest_of(value)))
        made.source = str(value) if is_file else f"{type(value).__name__} given in Python"
        made._value = None if is_file else value
        return made

    @property
    def value(self) -> Any:
        """As a pipeline takes it; a file is read each time: a picture, or a list of the pictures of a video."""
        from ieadapt.runs.clip_reading import read_media

        return read_media(Path(self.source).expanduser()) if self._value is None else self._value

    def __repr__(self) -> str:
        return repr(self.source)

    def __deepcopy__(self, memo: object) -> GivenInput:
        return self  # a value; `dataclasses.asdict` would copy every picture


def inputs_field(**options: str) -> Any:
    """A field of a config that holds inputs of the pipeline's call; `--input NAME=VALUE` sets any of them.

    Args:
        options: names of inputs that have an option of their own, and what it says.
    """
    parts = {**options, "input": "NAME=VALUE, any other argument of the pipeline's call; may be given several times"}
    text = "inputs of the pipeline's call beside prompt, size, steps and guidance"
    metadata = {"help": text, "parts": parts, "read": inputs_from_text, "write": typed}
    return dataclasses.field(default_factory=dict, hash=False, metadata=metadata)


def given_inputs(call: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a call: numbers, texts and lists as they are, files and objects as `GivenInput`.

    A text that ends like a picture or a video names a file.

    Raises:
        UsageError: a name that has an option of its own, or a file that cannot be read.

    Example:
        >>> given_inputs({"strength": 0.6})
        {'strength': 0.6}
    """
    own = [name for name in call if name in OWN_SETTING]
    if own:
        remedy = "prompt, seed, steps, guidance and size have options of their own"
        raise UsageError("this argument of the call is no input", got=", ".join(own), remedy=remedy)
    return {name: _given(value) for name, value in call.items()}


def inputs_from_text(pairs: Iterable[str]) -> dict[str, Any]:
    """Inputs as they are typed, `NAME=VALUE`: a file, a number, true or false, JSON, or a text.

    Raises:
        UsageError: an entry without a name or a value.

    Example:
        >>> inputs_from_text(["strength=0.6", "mode=fast"])
        {'strength': 0.6, 'mode': 'fast'}
    """
    inputs = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not (sign and name.strip().isidentifier() and text.strip()):
            raise UsageError("not an input", expected="NAME=VALUE", got=repr(pair), where="--input")
        try:
            inputs[name.strip()] = json.loads(text)
        except ValueError:
            inputs[name.strip()] = text.strip()
    return inputs


def typed(value: Any) -> str:
    """An input as it is typed on a command line.

    Example:
        >>> typed(0.6), typed("fast")
        ('0.6', 'fast')
    """
    if isinstance(value, GivenInput):
        return value.source
    return value if isinstance(value, str) else json.dumps(value)


def call_values(pipeline: type, call: Mapping[str, Any], frames: int | None = None) -> dict[str, Any]:
    """The inputs as the pipeline's call takes them, checked against its signature.

    Args:
        pipeline: its class.
        call: what `given_inputs` returned.
        frames: the number of frames of the video that is made, where it is set: a longer `video` is cut to it.

    Raises:
        UsageError: an argument that the pipeline lacks, or one that it needs and does not get.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    unknown = [name for name in call if name not in parameters]
    if unknown:
        raise UsageError(
            "the pipeline has no such argument",
            expected=", ".join(name for name in inputs_of(pipeline)) or "none beside the settings",
            got=", ".join(unknown),
            where=pipeline.__name__,
        )
    missing = [name for name in inputs_of(pipeline) if parameters[name].default is inspect.Parameter.empty]
    if not any(name in parameters for name in FRAMES):  # then the video that it is given says how many there are
        missing += [name for name in media_of(pipeline) if "video" in name or "frames" in name][:1]
    missing = [name for name in dict.fromkeys(missing) if name not in call]
    if missing:
        raise no_input(pipeline, missing)
    lost = [name for name, value in call.items() if type(value) is str and value.startswith(_CONTENT)]
    if lost:
        raise UsageError("a record holds the digest of an input, not the input", got=", ".join(lost), remedy="name it")
    values = {name: value.value if isinstance(value, GivenInput) else value for name, value in call.items()}
    return {name: value[:frames] if isinstance(value, list) and frames else value for name, value in values.items()}


def inputs_of(pipeline: type) -> list[str]:
    """The arguments of a pipeline's call that are no setting of a run."""
    parameters = inspect.signature(pipeline.__call__).parameters.values()
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.name not in OWN_SETTING and each.kind not in stars]


def media_of(pipeline: type) -> list[str]:
    """The arguments of a pipeline's call that hold pictures."""
    return [name for name in MEDIA if name in inputs_of(pipeline)]


def no_input(pipeline: type, missing: list[str], reason: object = None) -> UsageError:
    """The error for a pipeline that was not given what it works on."""
    options = {name: f"--{name} FILE" if name in ("image", "video") else f"--input {name}=FILE" for name in missing}
    shown = " ".join(options.values())
    return UsageError(
        "the pipeline needs an input that it was not given",
        expected=" and ".join(missing),
        got=reason,
        where=pipeline.__name__,
        remedy=f"pass {shown}; in Python call={{{missing[0]!r}: ...}}",
    )


def _given(value: Any) -> Any:
    if isinstance(value, GivenInput) or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        is_file = Path(value).suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES or Path(value).expanduser().is_dir()
        return GivenInput.of(Path(value)) if is_file else value
    if isinstance(value, list | tuple | dict):
        try:
            return json.loads(json.dumps(value))
        except TypeError:
            return GivenInput.of(value)
    return GivenInput.of(value)


def _file_digest(path: Path) -> str:
    if path.is_dir():
        files = frames_of(path)
        return hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()
    if path.suffix.lower() not in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
        expected = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
        raise UsageError("an input of the call is neither a picture nor a video", expected=expected, where=path)
    with raised_as(UsageError, "an input of the call cannot be read", OSError, where=path):
        return sha256_of(path)
