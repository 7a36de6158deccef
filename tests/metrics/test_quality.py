"""Sharpness, NIQE and BRISQUE: against formulas written out, and values of the packages that carry their parameters."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics.metric import Metric, luma
from ieadapt.metrics.quality import (
    FEATURES,
    Regression,
    brisque,
    contrast_normalised,
    fit_asymmetric,
    naturalness,
    niqe,
    read_mat,
    sharpness,
)
from ieadapt.metrics.weights import PackagedWeights
from tests.metrics import clips
from tests.metrics.needs import needs
from tests.metrics.photographs import jpeg, photograph

CLIP = clips.pan(48, 64, 8, 2, 1)


def _normalised_pixel_by_pixel(grey: np.ndarray) -> np.ndarray:
    offsets = np.arange(-3, 4)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()
    padded, found = np.pad(grey, 3), np.zeros_like(grey)
    for row, column in np.ndindex(grey.shape):
        part = padded[row : row + 7, column : column + 7]
        mean = (weights * part).sum()
        deviation = np.sqrt(abs((weights * part**2).sum() - mean**2))
        found[row, column] = (grey[row, column] - mean) / (deviation + 1)
    return found


def test_contrast_is_normalised_at_every_pixel() -> None:
    grey = luma(clips.noise(clips.texture(12, 17)[None], 0.1))[0].double().numpy() * 255
    assert np.allclose(contrast_normalised(grey), _normalised_pixel_by_pixel(grey), atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "left", "right"), [(2.0, 1.0, 1.0), (1.0, 0.5, 2.0), (0.5, 1.0, 0.3), (4.0, 2.0, 1.0)]
)
def test_a_curve_is_fitted_to_what_was_drawn_from_it(shape: float, left: float, right: float) -> None:
    """|x / scale|^shape of a generalised Gaussian is gamma distributed; each side has the weight of its scale."""
    random = np.random.default_rng(0)
    sides = np.where(random.random(400_000) < left / (left + right), -left, right)
    values = sides * random.gamma(1 / shape, size=len(sides)) ** (1 / shape)
    fit = fit_asymmetric(values[None])
    assert fit.shape[0] == pytest.approx(shape, rel=0.02)
    assert (fit.left[0], fit.right[0]) == pytest.approx((left, right), rel=0.03)
    assert fit.mean[0] == pytest.approx(values.mean(), rel=0.02, abs=0.02 * max(left, right))


def test_flat_values_are_fitted_without_a_warning() -> None:
    with np.errstate(all="raise"):
        fit = fit_asymmetric(np.zeros((1, 9)))
    assert np.isfinite(np.concatenate(fit)).all()


def _three_pictures() -> list[np.ndarray]:
    noisy = clips.noise(clips.texture(200, 300)[None], 0.05)
    pictures = clips.waves(200, 230), noisy[0, :, :, :230], clips.blur(noisy, 1.0)[0, :, :, :230]
    return [luma(picture[None].double())[0].numpy() * 255 for picture in pictures]


@needs("niqe")
def test_niqe_gives_the_values_of_scikit_video() -> None:
    """Values of skvideo.measure.niqe 1.1.11, whose removed scipy.misc.imresize was replaced by Pillow's bicubic."""
    published = (78.058685, 23.13138, 47.07318)
    for picture, value in zip(_three_pictures(), published, strict=True):
        assert naturalness(picture, niqe.weights.find()) == pytest.approx(value, rel=1e-4)


@needs("niqe")
def test_niqe_gives_the_values_that_scikit_videos_own_tests_state() -> None:
    """To 0.4 %: scikit-video computes in single precision, whose rounding counts in the flat parts of this clip."""
    path = niqe.weights.find()
    with av.open(path.parents[2] / "datasets" / "data" / "bigbuckbunny.mp4") as container:
        frames = container.decode(video=0)
        greys = [next(frames).to_ndarray(format="gray").astype(np.float64) for _ in range(2)]
    values = [naturalness(grey, path) for grey in greys]
    assert values == pytest.approx([11.197661399841, 11.055174827576], rel=5e-3)


@needs("brisque")
def test_brisque_gives_the_values_of_its_package() -> None:
    """Values of brisque 0.2.0 by libsvm; there the shape of a curve is a root, here the nearest 0.001."""
    texture, waves = clips.texture(120, 130)[None], clips.waves(120, 130)[None]
    published = {
        50.642883173471176: clips.noise(texture, 0.05),
        65.83520416184214: clips.blur(texture, 2.0),
        69.54883917575691: clips.noise(waves, 0.1),
    }
    for value, picture in published.items():
        assert brisque((picture * 255).round() / 255) == pytest.approx(value, abs=0.05)


@pytest.mark.parametrize(
    "metric", [pytest.param(niqe, marks=needs("niqe")), pytest.param(brisque, marks=needs("brisque"))]
)
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_damaged_photographs_read_worse(metric: Callable[[Tensor], float], name: str) -> None:
    sound = photograph(name)[None]
    damaged = (clips.blur(sound, 1.5), clips.noise(sound, 0.2), jpeg(sound, 10))
    assert all(metric(picture) > metric(sound) * 1.2 for picture in damaged)


def test_a_regression_is_its_formula() -> None:
    low, high = np.zeros(FEATURES), np.full(FEATURES, 2.0)
    vectors = np.stack([np.zeros(FEATURES), np.ones(FEATURES)])
    regression = Regression(low, high, np.array([2.0, 5.0]), vectors, 0.05, 1.0)
    assert regression.predict(np.ones(FEATURES)) == pytest.approx(2 + 5 * np.exp(-0.05 * FEATURES) - 1)


def _mat(**arrays: np.ndarray) -> bytes:
    """An uncompressed MATLAB 5 file, after the published description of the format."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    body = b""
    for name, array in arrays.items():
        parts = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<II", *array.shape))
        body += element(14, parts + element(1, name.encode()) + element(9, array.astype("<f8").tobytes("F")))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + body


def test_a_file_of_parameters_is_read() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    arrays = read_mat(_mat(pop_cov=matrix, mu=matrix[:1]))
    assert np.array_equal(arrays["pop_cov"], matrix)
    assert np.array_equal(arrays["mu"], matrix[:1])


@needs("niqe")
def test_the_parameters_are_those_that_scipy_reads() -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = niqe.weights.find()
    ours, theirs = read_mat(path.read_bytes()), scipy_io.loadmat(path)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ("pop_mu", "pop_cov"))


def _installed(place: Path, monkeypatch: pytest.MonkeyPatch, metric: Metric, files: dict[str, bytes]) -> Metric:
    """The metric with a package of parameters with these files."""
    package = f"parameters_{place.name}"
    (place / package).mkdir()
    (place / package / "__init__.py").touch()
    for name, content in files.items():
        (place / package / name).write_bytes(content)
    monkeypatch.syspath_prepend(place)
    return replace(metric, weights=PackagedWeights(package, "x==1", next(iter(files)), "none"))


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0".ljust(200), _mat(pop_mu=np.zeros((1, 36)))])
def test_damaged_parameters_of_niqe_are_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = _installed(tmp_path, monkeypatch, niqe, {"p.mat": content})
    with pytest.raises(FailureError, match=r"the parameters cannot be read; .*p.mat; remedy: make weights"):
        metric(torch.rand(1, 3, 288, 288))


@pytest.mark.parametrize("ranges", [b"", pickle.dumps({"min_": [0.0]}), pickle.dumps(Path("x"))])
def test_damaged_parameters_of_brisque_are_refused_and_run_nothing(
    ranges: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"svm.txt": b"gamma 0.05\nrho 1\nSV\n1 1:1\n", "normalize.pickle": ranges}
    metric = _installed(tmp_path, monkeypatch, brisque, files)
    with pytest.raises(FailureError, match=r"the parameters cannot be read; .*svm.txt; remedy: make weights"):
        metric(torch.rand(1, 3, 32, 32))


def test_small_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 frame of 288x288"):
        niqe(torch.rand(1, 3, 200, 300))


def test_sharpness_is_the_variance_of_opencv_s_laplacian() -> None:
    pictures = (CLIP * 255).round()
    values = []
    for picture in pictures.movedim(1, -1).numpy():
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        values.append(cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F, ksize=1)[1:-1, 1:-1].var())
    assert sharpness(pictures / 255) == pytest.approx(np.mean(values), rel=1e-4)


def test_a_chequerboard_by_hand() -> None:
    """Each white pixel has four black neighbours: Laplacian +-4 in units of 255."""
    board = ((torch.arange(10)[:, None] + torch.arange(10)) % 2.0).expand(2, 3, 10, 10)
    assert sharpness(board) == pytest.approx((4 * 255) ** 2, rel=1e-6)
    assert sharpness((torch.arange(10) / 10).expand(2, 3, 10, 10)) == pytest.approx(0.0, abs=1e-6)


def test_blur_lowers_sharpness_and_noise_raises_it() -> None:
    blurred = [sharpness(clips.blur(CLIP, sigma)) for sigma in (3.0, 1.5, 0.7)]
    noisy = [sharpness(clips.noise(CLIP, deviation)) for deviation in (0.02, 0.1, 0.3)]
    values = [*blurred, sharpness(CLIP), *noisy]
    assert values == sorted(values)


def test_the_order_of_frames_is_nothing_to_sharpness() -> None:
    assert sharpness(clips.shuffled(CLIP)) == pytest.approx(sharpness(CLIP))
