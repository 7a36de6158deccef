"""RAFT without its published weights: each part against slow obvious references, the whole against published code.

The numbers of `PUBLISHED` are what princeton-vl's own network (as VBench 0.1.5 carries it) gave for the same weights.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import METRICS, evaluate
from ieadapt.metrics.consistency import mean_inside, warp_error_raft
from ieadapt.metrics.motion import dynamic_degree, fastest_motion, moves
from ieadapt.metrics.networks.raft import (
    LARGE,
    SMALL,
    Raft,
    RaftSize,
    correlation_pyramid,
    look_up,
    padded_flow,
    published_names,
    raft_flow,
    upsample_convex,
)
from tests.metrics import clips, raft_weights

# flow of every 45th row and 42nd column, right and down
PUBLISHED = {
    "large": (
        LARGE,
        [[-4.10196, -8.68950, -6.52785, -5.60681], [-3.74060, -0.40181, -3.14546, -5.40091]],
        [[7.30084, 8.38534, 7.23266, 2.49833], [15.62891, 18.45560, 11.63478, 2.96985]],
    ),
    "small": (
        SMALL,
        [[17.50478, 2.75983, 6.18207, -5.57568], [18.45825, 20.52608, 9.86023, 1.09891]],
        [[-2.55184, 0.54450, -4.41644, -5.15869], [-1.22677, -2.73150, -2.14580, -4.15772]],
    ),
}
CLIP = clips.pan(128, 136, 3, 2, 1)


@pytest.fixture(scope="module", params=["large", "small"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raft")
    save_file(raft_weights.state(PUBLISHED[request.param][0]), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_whole_network_is_the_published_one(name: str) -> None:
    size, right, down = PUBLISHED[name]
    first = clips.waves(136, 128)[None]
    second = torch.roll(first, (3, 5), (2, 3))
    with torch.no_grad():
        flow = raft_weights.network(size)(2 * first - 1, 2 * second - 1)
    assert flow.shape == (1, 2, 136, 128)
    assert torch.allclose(flow[0, :, :46:45, ::42], torch.tensor([right, down]), atol=0.01)


@pytest.mark.parametrize(("size", "weights"), [(LARGE, 5_257_536), (SMALL, 990_162)])
def test_it_has_as_many_weights_as_published(size: RaftSize, weights: int) -> None:
    assert sum(value.numel() for value in Raft(size).parameters()) == weights


def test_correlations_are_dot_products_with_averaged_features() -> None:
    first, second = torch.randn(2, 2, 5, 16, 24, generator=torch.Generator().manual_seed(0)).unbind()
    levels = correlation_pyramid(first, second)
    assert [tuple(level.shape) for level in levels] == [(2 * 16 * 24, 1, 16 // 2**k, 24 // 2**k) for k in range(4)]
    for k, level in enumerate(levels):
        averaged = F.avg_pool2d(second, 2**k)
        for pair, row, column, y, x in ((0, 0, 0, 0, 0), (1, 3, 7, 1, 2), (1, 15, 23, 1, 0)):
            place = (pair * 16 + row) * 24 + column
            expected = first[pair, :, row, column] @ averaged[pair, :, y, x] / 5**0.5
            assert level[place, 0, y, x] == pytest.approx(float(expected), abs=1e-5)


def _between(plane: np.ndarray, x: float, y: float) -> float:
    """A value between four places; nothing beyond the border."""
    total = 0.0
    for row, column in product((int(np.floor(y)), int(np.floor(y)) + 1), (int(np.floor(x)), int(np.floor(x)) + 1)):
        if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
            total += plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_windows_are_look_up_place_by_place() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 2, 3, 16, 16, generator=generator).unbind()
    places = 20 * torch.rand(2, 2, 16, 16, generator=generator) - 2
    found = look_up(correlation_pyramid(first, second), places, radius=2)
    assert found.shape == (2, 4 * 25, 16, 16)
    for pair, row, column in ((0, 0, 0), (0, 9, 4), (1, 15, 15)):
        x, y = places[pair, :, row, column].tolist()
        expected = []
        for level in range(4):
            averaged = F.avg_pool2d(second, 2**level)[pair]
            plane = torch.einsum("f,fij->ij", first[pair, :, row, column], averaged).numpy() / 3**0.5
            reach = range(-2, 3)
            expected += [
                _between(plane, x / 2**level + right, y / 2**level + down) for right in reach for down in reach
            ]
        assert found[pair, :, row, column].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_place_that_looks_like_itself_alone_is_found_at_once() -> None:
    """With features of one length the middle of the window is the largest where the flow is right."""
    features = F.normalize(torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    moved = torch.roll(features, (1, 2), (2, 3))
    right, down = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="xy")
    places = torch.stack((right + 2, down + 1))[None]
    window = look_up(correlation_pyramid(features, moved)[:1], places, radius=3)[0, :, 3:12, 3:10]
    assert (window.argmax(dim=0) == 24).all()


def test_convex_upsampling_weighs_the_nine_places_around_each_pixel() -> None:
    generator = torch.Generator().manual_seed(3)
    flow, mask = torch.randn(1, 2, 3, 4, generator=generator), torch.randn(1, 576, 3, 4, generator=generator)
    found = upsample_convex(flow, mask)
    assert found.shape == (1, 2, 24, 32)
    padded, shares = F.pad(flow, (1, 1, 1, 1))[0].numpy(), mask.view(9, 8, 8, 3, 4).softmax(0).numpy()
    for row, column in product(range(24), range(32)):
        y, x = row // 8, column // 8
        expected = sum(
            shares[near, row % 8, column % 8, y, x] * 8 * padded[:, y + near // 3, x + near % 3] for near in range(9)
        )
        assert found[0, :, row, column].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_without_a_change_there_is_no_flow() -> None:
    network = raft_weights.network(LARGE)
    network.update_block.flow_head.conv2.weight.data.zero_()
    network.update_block.flow_head.conv2.bias.data.zero_()
    with torch.no_grad():
        assert network(2 * CLIP[:1] - 1, 2 * CLIP[1:2] - 1, 3).abs().max() == 0


def test_margins_are_filled_evenly_and_cut_off_again(weights: Path) -> None:
    clip = clips.pan(131, 141, 2, 2, 1)
    whole = padded_flow(clip, weights)
    assert whole.shape == (1, 2, 136, 144)
    assert torch.equal(raft_flow(clip, weights), whole[..., 2:133, 1:142])
    filled = torch.stack([_replicated(frame, 2, 3, 1, 2) for frame in clip])
    assert torch.allclose(raft_flow(filled, weights), whole, atol=1e-4)


def _replicated(frame: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    return torch.from_numpy(np.pad(frame.numpy(), ((0, 0), (top, bottom), (left, right)), mode="edge"))


def test_every_pair_of_frames_is_seen_by_itself(weights: Path) -> None:
    whole = raft_flow(CLIP, weights)
    assert whole.shape == (2, 2, 128, 136)
    assert torch.allclose(whole[1:], raft_flow(CLIP[1:], weights), atol=1e-4)


def test_the_metrics_read_its_flow(weights: Path) -> None:
    flow = raft_flow(CLIP, weights)
    assert warp_error_raft.with_weights({"raft": weights})(CLIP) == mean_inside(CLIP, flow, "warp_error_raft")
    fastest = fastest_motion(flow)
    rows = [METRICS[name].with_weights({"raft": weights}) for name in ("warp_error_raft", "dynamic_degree")]
    values = evaluate(CLIP, None, rows, rate=8.0)
    assert values["dynamic_degree"] == float(moves(fastest, 8.0, 128)) == 1.0
    assert float(fastest.min()) > 3.0


def test_dynamic_degree_takes_about_eight_frames_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def flow(frames: Tensor, place: Path) -> Tensor:
        seen.append(len(frames))
        return torch.full((len(frames) - 1, 2, 8, 8), 3.1 / 2**0.5)

    monkeypatch.setattr("ieadapt.metrics.motion.padded_flow", flow)
    clip, metric = CLIP[:1].repeat(12, 1, 1, 1), dynamic_degree.with_weights({"raft": Path("weights")})
    assert [metric(clip, rate) for rate in (8.0, 24.0, 30.0, 4.0)] == [1.0, 1.0, 1.0, 0.0]
    assert seen == [12, 4, 3, 12]
    with pytest.raises(UsageError, match=r"a video has a rate; expected > 0; got 0\.0; in the metric dynamic_degree"):
        metric(clip, 0.0)


@pytest.mark.parametrize(
    ("fast", "still", "rate", "side", "expected"),
    [
        ((6.1,) * 4, 11, 8.0, 256, True),
        ((6.1,) * 3, 12, 8.0, 256, False),
        ((6.0,) * 15, 0, 8.0, 256, False),
        ((12.1,) * 4, 11, 8.0, 512, True),
        ((11.9,) * 15, 0, 4.0, 256, False),
        ((6.1,) * 4, 11, 30.0, 256, True),
    ],
)
def test_the_rule_is_vbenchs(fast: tuple[float, ...], still: int, rate: float, side: int, expected: bool) -> None:
    """Four of the pairs of sixteen frames beyond 6 pixels at 256, in proportion to length, size and a slow rate."""
    assert moves(torch.tensor([*fast, *([0.0] * still)]), rate, side) is expected


def test_the_fastest_twentieth_counts() -> None:
    flow = torch.randn(2, 2, 30, 41, generator=torch.Generator().manual_seed(4))
    lengths = np.sort(np.hypot(*flow.numpy().swapaxes(0, 1)).reshape(2, -1))[:, ::-1]
    expected = lengths[:, : int(30 * 41 * 0.05)].mean(axis=1)
    assert fastest_motion(flow).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_published_names_are_read(tmp_path: Path) -> None:
    """Those of a parallel run, with one normalisation listed twice, and those of torchvision."""
    state = raft_weights.state(LARGE)
    parallel = {f"module.{name}": value for name, value in state.items()}
    for name in [name for name in parallel if ".downsample.1." in name and "cnet" in name]:
        parallel[name.replace("downsample.1", "norm3")] = parallel[name]
    torch.save(parallel, tmp_path / "raft-things.pth")
    save_file({_torchvision(name): value for name, value in state.items()}, tmp_path / "raft_large.safetensors")
    assert not {_torchvision(name) for name in state} & set(state) - {
        name for name in state if "flow_head" in name or "num_batches" in name
    }
    expected = raft_flow(CLIP[:2], _saved(state, tmp_path / "own"))
    for file in ("raft-things.pth", "raft_large.safetensors"):
        assert torch.equal(raft_flow(CLIP[:2], tmp_path / file), expected)
    assert list(published_names(parallel)) == list(state)


def _saved(state: dict[str, Tensor], folder: Path) -> Path:
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    return folder


def _torchvision(name: str) -> str:
    """Its name for a weight, spelled out part by part."""
    part, _, rest = name.partition(".")
    if part in ("fnet", "cnet"):
        lead = {"fnet": "feature_encoder", "cnet": "context_encoder"}[part]
        words = rest.split(".")
        if words[0] == "conv2":
            return f"{lead}.conv.{words[-1]}"
        if words[0] in ("conv1", "norm1"):
            return f"{lead}.convnormrelu.{'01'[words[0] == 'norm1']}.{words[-1]}"
        if words[2] == "downsample":
            return f"{lead}.{rest}"
        return f"{lead}.{words[0]}.{words[1]}.convnormrelu{words[2][-1]}.{'01'[words[2][:-1] == 'norm']}.{words[-1]}"
    where, layer, *ends = rest.split(".")
    if where == "encoder":
        named = {"c": "convcorr", "f": "convflow"}
        layer = layer if layer == "conv" else f"{named[layer[4]]}{layer[5]}"
        return f"update_block.motion_encoder.{layer}.0.{ends[-1]}"
    if where == "gru":
        return f"update_block.recurrent_block.convgru{layer[5]}.{layer[:5]}.{ends[-1]}"
    if where == "mask":
        return f"mask_predictor.{'convrelu.0' if layer == '0' else 'conv'}.{ends[-1]}"
    return name


@pytest.mark.parametrize("damage", ["foreign", "cut", "empty folder"])
def test_what_are_no_weights_of_raft_is_refused(damage: str, tmp_path: Path) -> None:
    place = tmp_path / "raft.safetensors"
    save_file({"weight": torch.zeros(3)}, place)
    if damage == "cut":
        place.write_bytes(place.read_bytes()[:9])
    if damage == "empty folder":
        place = tmp_path / "none"
        place.mkdir()
    reason = {"foreign": "Missing key|Error", "cut": "SafetensorError", "empty folder": "holds 0 .safetensors files"}
    with pytest.raises(FailureError, match=rf"cannot be read; expected those of RAFT: .*; got .*({reason[damage]})"):
        warp_error_raft.with_weights({"raft": place})(CLIP)
