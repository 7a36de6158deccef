"""Metrics on models that the user gives: tiny random ones of the right class, against the libraries' own numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import METRICS, evaluate, missing_metrics, select_metrics
from ieadapt.metrics.consistency import all_pairs, neighbours, neighbours_and_first
from ieadapt.metrics.networks.lpips import ALEXNET, VGG16
from ieadapt.metrics.networks.raft import SMALL
from ieadapt.metrics.text import improved_head
from ieadapt.metrics.weights import UserWeights
from tests.metrics import clips, given, raft_weights

CLIP = clips.pan(40, 56, 4, 3, 2)
LARGE_CLIP = clips.pan(128, 128, 4, 3, 2)
GIVEN = [name for name, metric in METRICS.items() if isinstance(metric.weights, UserWeights)]
WORDS = "a red ball"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("given")
    places = {"clip": given.clip(folder / "clip"), "pickscore": given.clip(folder / "pickscore", seed=3)}
    places["dino"] = given.dino(folder / "dino")
    save_file({"weight": torch.randn(1, 8), "bias": torch.tensor([5.0])}, folder / "aesthetic.safetensors")
    places["aesthetic"] = folder / "aesthetic.safetensors"
    for key, trunk in (("lpips_alex", ALEXNET), ("lpips_vgg", VGG16)):
        places[key] = given.trunk(folder / f"{key}.pth", trunk.layers())
    save_file(raft_weights.state(SMALL), folder / "raft.safetensors")
    return places | {"raft": folder / "raft.safetensors"}


def _value(name: str, frames: Tensor, places: dict[str, Path]) -> float:
    metric = METRICS[name].with_weights(places)
    others = {"pair": (CLIP,), "single": (), "timed": (8.0,), "text": (WORDS,)}[metric.compares]
    return metric(frames, *others)


def _pixels(folder: Path) -> Tensor:
    from transformers import CLIPImageProcessor

    pictures = [Image.fromarray((frame * 255).round().byte().movedim(0, -1).numpy()) for frame in CLIP]
    return CLIPImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")["pixel_values"]


@torch.no_grad()
def _cosines(folder: Path) -> tuple[Tensor, Tensor]:
    """Cosines of each frame to the words, and the frames' features, by CLIPModel's own forward pass."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)([WORDS], return_tensors="pt")
    out = model(pixel_values=_pixels(folder), **tokens)
    return out.logits_per_image[:, 0] / model.logit_scale.exp(), out.image_embeds


def test_clip_metrics_are_clips_own_numbers(places: dict[str, Path]) -> None:
    cosines, features = _cosines(places["clip"])
    assert cosines.std() > 1e-3
    assert _value("clip_text", CLIP, places) == pytest.approx(100 * float(cosines.mean()), abs=1e-3)
    assert _value("clip_consistency", CLIP, places) == pytest.approx(neighbours(features), abs=1e-5)
    assert _value("clip_pairs", CLIP, places) == pytest.approx(all_pairs(features), abs=1e-5)


def test_pickscore_is_the_scaled_cosine_of_its_own_model(places: dict[str, Path]) -> None:
    from transformers import CLIPModel

    scale = float(CLIPModel.from_pretrained(places["pickscore"]).logit_scale.exp())
    expected = scale * float(_cosines(places["pickscore"])[0].mean())
    assert _value("pickscore", CLIP, places) == pytest.approx(expected, abs=1e-3)
    assert _value("pickscore", CLIP, places) != _value("pickscore", CLIP, {**places, "pickscore": places["clip"]})


@pytest.mark.parametrize("kind", [given.dino, given.dinov2])
def test_dino_compares_class_tokens(kind: object, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = kind(tmp_path / "model")
    with torch.no_grad():
        tokens = AutoModel.from_pretrained(folder).eval()(_pixels(folder)).last_hidden_state[:, 0]
    assert _value("dino_consistency", CLIP, {"dino": folder}) == pytest.approx(neighbours_and_first(tokens), abs=1e-5)


@pytest.mark.parametrize("name", ["clip_consistency", "clip_pairs", "dino_consistency"])
def test_a_still_clip_is_wholly_consistent(name: str, places: dict[str, Path]) -> None:
    assert _value(name, CLIP[:1].repeat(3, 1, 1, 1), places) == pytest.approx(1.0, abs=1e-6)
    assert _value(name, CLIP, places) < 1 - 1e-5


def test_both_aesthetic_heads_are_linear_in_the_features(places: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    features = _cosines(places["clip"])[1]
    head = load_file(places["aesthetic"])
    assert _value("aesthetic", CLIP, places) == pytest.approx(float((features @ head["weight"].T + 5).mean()), abs=1e-4)
    improved = improved_head(8).eval()
    assert [name for name in improved.state_dict() if name.endswith("weight")] == [
        f"layers.{k}.weight" for k in (0, 2, 4, 6, 7)
    ]
    torch.save(improved.state_dict(), tmp_path / "head.pth")
    with torch.no_grad():
        expected = float(improved(features).mean())
    assert _value("aesthetic", CLIP, {**places, "aesthetic": tmp_path / "head.pth"}) == pytest.approx(
        expected, abs=1e-5
    )


def test_a_head_for_another_clip_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "head.safetensors")
    text = r"do not fit each other; expected a head for 8 features, .*; got one for 768; in .*head.safetensors"
    with pytest.raises(FailureError, match=text):
        _value("aesthetic", CLIP, {**places, "aesthetic": tmp_path / "head.safetensors"})


@pytest.mark.parametrize(("name", "published", "trunk"), [("lpips_alex", "alex", ALEXNET), ("lpips_vgg", "vgg", VGG16)])
def test_lpips_is_that_of_torchmetrics(
    name: str, published: str, trunk: object, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchmetrics takes its classifier from torchvision, which is not here: it is given the same random one."""
    import torchmetrics.functional.image.lpips as theirs

    layers = trunk.layers()
    layers.load_state_dict(
        {k.removeprefix("features."): v for k, v in torch.load(places[name]).items() if "features" in k}
    )
    layers.append(nn.MaxPool2d(2))
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained=False: layers)
    network = theirs._LPIPS(net=published)
    clip = clips.pan(64, 72, 3, 3, 2)
    other = clips.noise(clips.blur(clip, 1.0), 0.1)
    with torch.no_grad():
        expected = float(network(other, clip, normalize=True).mean())
    assert expected > 1e-3
    assert METRICS[name].with_weights(places)(other, clip) == pytest.approx(expected, rel=1e-4)
    assert METRICS[name].with_weights(places)(clip, clip) == 0.0


@pytest.mark.parametrize("name", GIVEN)
def test_without_its_weights_a_metric_says_which_option_gives_them(name: str) -> None:
    assert name in [metric.name for metric in missing_metrics()]
    assert name not in [metric.name for metric in select_metrics()]
    with pytest.raises(UsageError, match=rf"the metric {name} needs .*; remedy: add --weights .*=PLACE"):
        select_metrics([name])
    metric = METRICS[name]
    clip = clips.pan(128, 128, 3, 1, 0)
    with pytest.raises(UsageError, match=r"remedy: add --weights"):
        evaluate(clip, clip, [metric], prompt=WORDS)


def test_given_weights_make_metrics_available(places: dict[str, Path]) -> None:
    assert {*GIVEN} <= {metric.name for metric in select_metrics(None, places)}
    assert [metric.name for metric in select_metrics(["clip_text"], {"clip": places["clip"]})] == ["clip_text"]
    with pytest.raises(UsageError, match="aesthetic needs LAION's aesthetic head; remedy: add --weights aesthetic="):
        select_metrics(["aesthetic"], {"clip": places["clip"]})


def test_a_metric_of_text_needs_a_prompt(places: dict[str, Path]) -> None:
    chosen = select_metrics(["clip_text"], places)
    assert evaluate(CLIP, metrics=chosen) == {}
    values = evaluate(CLIP, clips.noise(CLIP, 0.3), chosen, prompt=WORDS)
    assert set(values) == {"clip_text", "clip_text_change"}


def test_a_folder_of_something_else_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FailureError, match="the given model cannot be read; expected a folder of CLIPModel"):
        _value("clip_text", CLIP, {"clip": tmp_path})
    cut = given.clip(tmp_path / "cut", seed=4)
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:99])
    with pytest.raises(FailureError, match="the given model cannot be read"):
        _value("clip_text", CLIP, {"clip": cut})
    with pytest.raises(FailureError, match="the given weights cannot be read; expected the published weights of alex"):
        METRICS["lpips_alex"].with_weights({"lpips_alex": places["aesthetic"]})(*[clips.pan(64, 64, 1, 0, 0)] * 2)


def test_a_model_whose_file_lacks_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = given.clip(tmp_path / "clip", seed=5)
    state = load_file(folder / "model.safetensors")
    state.pop("visual_projection.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FailureError, match=r"lacks weights; got visual_projection.weight and 0 others missing"):
        _value("clip_text", CLIP, {"clip": folder})


def test_torchvision_is_never_imported(places: dict[str, Path]) -> None:
    for name in GIVEN:
        if "lpips" not in name:
            _value(name, LARGE_CLIP, places)
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
