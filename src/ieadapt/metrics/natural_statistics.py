"""Statistics of natural pictures: contrast-normalised brightness, and the curve that fits its histogram."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_REACH, _SIGMA = 3, 7 / 6
_SHAPES = np.arange(0.2, 10, 0.001)
Grey = Float[np.ndarray, "height width"]
Fitted = Float[np.ndarray, " set"]


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
