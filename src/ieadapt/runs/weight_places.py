"""Where the weights lie that a user gives for metrics: folders, files, or hub ids."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import METRICS
from ieadapt.metrics.weights import GivenWeights, Places

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUFFIXES = ("", ".safetensors", ".pth")
_TAKEN = ["*.json", "*.txt", "*.safetensors", "*.model"]


def given_keys() -> list[str]:
    """The names under which weights may be given, such as `clip` and `dino`."""
    sets = (metric.weights.needs for metric in METRICS.values() if isinstance(metric.weights, GivenWeights))
    return list(dict.fromkeys(need.key for needs in sets for need in needs))


def read_places(text: str | None) -> Places:
    """Where weights are.

    Args:
        text: parts with commas: `clip=PLACE`, where PLACE is a folder, a file or a hub id, or a folder alone, in which
            folders and files named by their keys are looked for. None for nothing.

    Raises:
        UsageError: an unknown key, a place that is not there, or a folder without any known name in it.
        FailureError: the hub does not give the model.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "clip").mkdir()
        >>> read_places(str(folder)) == {"clip": folder / "clip"} == read_places(f"clip={folder / 'clip'}")
        True
    """
    places: dict[str, Path] = {}
    for part in (part.strip() for part in (text or "").split(",") if part.strip()):
        key, equals, place = part.partition("=")
        if not equals:
            places |= _in_folder(Path(part).expanduser())
            continue
        if key not in given_keys():
            near = difflib.get_close_matches(key, given_keys(), n=1)
            raise UsageError(
                f"no metric takes weights named {key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
                expected=", ".join(given_keys()),
                where="--weights",
            )
        places[key] = _place(place)
    return places


def _in_folder(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError("there is no such folder of weights", where=folder, remedy="or name one: --weights clip=PLACE")
    found = {
        key: folder / f"{key}{suffix}"
        for key in given_keys()
        for suffix in reversed(_SUFFIXES)
        if (folder / f"{key}{suffix}").exists()
    }
    if not found:
        expected = f"folders or files named {', '.join(given_keys())}"
        raise UsageError("the folder holds no weights that a metric takes", expected=expected, where=folder)
    return found


def _place(place: str) -> Path:
    path = Path(place).expanduser()
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(place):
        raise UsageError("these weights are not there", expected="a folder, a file or a hub id", got=place)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, allow_patterns=_TAKEN))
    except Exception as error:  # the hub client raises errors of many unrelated classes
        raise FailureError(
            f"{place!r} is nothing here and could not be fetched from the model hub",
            got=(str(error).strip().splitlines() or [type(error).__name__])[0],
            remedy="check the name and the network, or download the model and give its folder",
        ) from error
