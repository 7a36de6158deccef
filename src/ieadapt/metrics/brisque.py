"""BRISQUE: how damaged a photograph looks, from its brightness statistics, fitted to what viewers said."""

from __future__ import annotations

import io
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.metrics.clips import ClipSize, check_clip
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.natural_statistics import contrast_normalised, fit_asymmetric
from ieadapt.metrics.weights import PackagedWeights

LEAST = ClipSize(1, 32, 32)
WEIGHTS = PackagedWeights(
    package="brisque",
    requirement="brisque==0.2.0",
    file="models/svm.txt",
    licence="Apache-2.0",
    kind="published parameters",
)
_GREY = np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, as where the parameters were fitted
FEATURES = 36


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


def brisque(frames: Float[Tensor, "frame channel height width"]) -> float:
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
    check_clip(frames, "brisque", LEAST)
    regression = _read(WEIGHTS.require("brisque"))
    pictures = frames.double().movedim(1, -1).numpy() @ _GREY
    return float(np.mean([regression.predict(_features(grey)) for grey in pictures]))


def _features(grey: Float[np.ndarray, "height width"]) -> Float[np.ndarray, " feature"]:
    """The 36 numbers of a picture in [0, 1]: 18 at full and 18 at half size."""
    import cv2

    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.array([number for picture in (grey, half) for number in _of_one_size(picture * 255)])


def _of_one_size(grey: np.ndarray) -> list[float]:
    normal = contrast_normalised(grey)
    neighbours = (
        normal[:, :-1] * normal[:, 1:],
        normal[:-1] * normal[1:],
        normal[:-1, :-1] * normal[1:, 1:],
        normal[1:, :-1] * normal[:-1, 1:],
    )
    alone = fit_asymmetric(normal.reshape(1, -1))
    found = [alone.shape, (alone.left_deviation**2 + alone.right_deviation**2) / 2]
    for product in neighbours:
        fit = fit_asymmetric(product.reshape(1, -1))
        found += [fit.shape, fit.mean, fit.left_deviation**2, fit.right_deviation**2]
    return [float(number[0]) for number in found]


@lru_cache(maxsize=1)
def _read(path: Path) -> Regression:
    try:
        ranges = _PlainUnpickler(io.BytesIO(path.with_name("normalize.pickle").read_bytes())).load()
        head, _, body = path.read_text().partition("SV\n")
        settings = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
        rows = [line.split() for line in body.splitlines()]
        vectors = np.zeros((len(rows), FEATURES))
        for index, row in enumerate(rows):
            for cell in row[1:]:
                column, value = cell.split(":")
                vectors[index, int(column) - 1] = float(value)
        low, high = (np.array(ranges[name], dtype=np.float64) for name in ("min_", "max_"))
        weights = np.array([float(row[0]) for row in rows])
        return Regression(low, high, weights, vectors, float(settings["gamma"]), float(settings["rho"]))
    except (OSError, KeyError, ValueError, IndexError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise FailureError("the parameters cannot be read", got=error, where=path, remedy="make weights") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts and numbers, and nothing that names code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"the file names {module}.{name}")

    def persistent_load(self, identity: Any) -> NoReturn:
        raise pickle.UnpicklingError("the file refers to something outside")


BRISQUE = Metric(
    name="brisque",
    definition="how damaged the frames look, by a regression on brightness statistics, mean over frames",
    range="about 0 to 100",
    better="lower",
    unit="",
    source="Mittal et al., IEEE TIP 2012, with the parameters of brisque 0.2.0",
    cost="0.5 s for 16 frames of 256x256",
    aspect="quality",
    compares="single",
    function=brisque,
    weights=WEIGHTS,
)
