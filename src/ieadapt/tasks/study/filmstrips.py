"""Strips: a few frames of chosen videos of a study, kept to draw the figures from."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.files import difference
from ieadapt.runs.fingerprints import write_whole

FRAMES = 8


@dataclass(frozen=True)
class Strip:
    """Evenly spaced frames of one video.

    Attributes:
        frames: up to eight, first and last among them.
        prompt: of the video.
        seed: of the video.
        sites: names of the perturbed sites with commas; None for the unperturbed twin, as are the next ones.
        kind: of the sites.
        perturbation: by name and amount.
        head: the one perturbed head, or None.
        rank: `each`, `top` or `bottom`.
    """

    frames: UInt8[np.ndarray, "frame height width channel"]
    prompt: str
    seed: int
    sites: str | None = None
    kind: str | None = None
    perturbation: str | None = None
    head: int | None = None
    rank: str | None = None


def to_strip_frames(
    frames: Float[Tensor, "frame channel height width"],
) -> UInt8[np.ndarray, "strip_frame height width channel"]:
    """Evenly spaced frames as bytes.

    Example:
        >>> import torch
        >>> to_strip_frames(torch.ones(16, 3, 4, 6)).shape
        (8, 4, 6, 3)
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int))
    picked = rearrange(frames[chosen.tolist()], "frame channel height width -> frame height width channel")
    return (picked.clamp(0, 1) * 255).round().byte().numpy()


def write_strip(folder: Path, key: str, strip: Strip) -> None:
    """Store a strip of a study under the key of its cell or twin."""
    told = {name: value for name, value in vars(strip).items() if name != "frames"}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, frames=strip.frames, told=np.frombuffer(json.dumps(told).encode(), dtype=np.uint8))
    write_whole(folder / "strips" / f"{key}.npz", buffer.getvalue())


def read_strips(folder: str | Path) -> Iterator[Strip]:
    """Every strip of a study folder, twins first.

    Example:
        >>> list(read_strips("no-such-folder"))
        []
    """
    found = [_read(path) for path in sorted(Path(folder, "strips").glob("*.npz"))]
    yield from sorted(found, key=lambda strip: strip.sites is not None)


def _read(path: Path) -> Strip:
    try:
        with np.load(path, allow_pickle=False) as file:
            frames, told = file["frames"], json.loads(file["told"].tobytes())
        said = {name: kind for name, kind in get_type_hints(Strip).items() if name != "frames"}
        shaped = frames.ndim == 4 and frames.dtype == np.uint8
        if problem := difference(told, said) if shaped else "no frames of a video":
            raise ValueError(problem)
        return Strip(frames=frames, **told)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FailureError(
            "a strip of the study is damaged",
            got=" ".join(str(error).split())[:120],
            where=path,
            remedy="remove the file; the report is drawn without it",
        ) from error
