"""Published models from their configurations alone: which sites they have, and how many tokens each will see.

`published/` holds a file per model: where its values are from, those that could not be verified, the configs, and what
is expected of them. Nothing of it is downloaded, and no weight is made: modules stand on the meta device.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch.overrides import TorchFunctionMode

from ieadapt.attention import denoisers_of, family_of, find_sites
from ieadapt.attention.families import FAMILIES
from ieadapt.errors import UsageError
from ieadapt.models.memory import memory_estimate
from ieadapt.models.sketch import requested_size, sketch, tokens_of
from ieadapt.models.video_latents import sizes_of

FILES = sorted((Path(__file__).parent / "published").glob("*.json"))
CASES: dict[str, Any] = {file.stem: json.loads(file.read_text()) for file in FILES}
WITHOUT_CONFIG = {"ConsisID", "EasyAnimate", "ChronoEdit", "Latte", "Kandinsky 5"}
"""Families of whose published configurations no source was at hand."""
REFUSED = {"cosmos-1.0-7b-text2world": "`cosmos_guardrail` is not installed"}
"""Models whose pipelines cannot be made here, and what they lack."""


def _folder(name: str, root: Path) -> Path:
    """The configs of a published model, as its folder holds them."""
    case = CASES[name]
    index: dict[str, Any] = {"_class_name": case["pipeline"]}
    for part, value in case["components"].items():
        index[part] = value
        if isinstance(value, list):
            class_name, config = value
            index[part] = ["diffusers", class_name]
            (root / part).mkdir(parents=True)
            (root / part / "config.json").write_text(json.dumps({"_class_name": class_name, **config}))
    for part, parameter in inspect.signature(getattr(diffusers, case["pipeline"])).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            index.setdefault(part, [None, None])
    (root / "model_index.json").write_text(json.dumps(index))
    return root


def _pipe(name: str, root: Path) -> Any:
    if not hasattr(diffusers, CASES[name]["pipeline"]):
        pytest.skip(f"diffusers {diffusers.__version__} has no {CASES[name]['pipeline']}")
    return sketch(_folder(name, root))


def test_every_family_of_the_table_has_a_published_model() -> None:
    classes = {value[0] for case in CASES.values() for value in case["components"].values() if isinstance(value, list)}
    listed = {family.name for family in FAMILIES if family.denoiser.__name__ in classes}
    assert {family.name for family in FAMILIES} == listed | WITHOUT_CONFIG
    assert all(case["source"] for case in CASES.values())


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED])
def test_sites_and_tokens_of_a_published_model(name: str, tmp_path: Path) -> None:
    case, pipe = CASES[name], _pipe(name, tmp_path)
    sites = find_sites(pipe)
    assert Counter(site.kind for site in sites) == case["sites"]
    parameters = sum(weight.numel() for part in denoisers_of(pipe).values() for weight in part.parameters())
    assert parameters / 1e9 == pytest.approx(case["billions"], rel=0.01)
    if case["tokens"]:
        assert memory_estimate(pipe, *case["size"]) > 0
        frames, height, width = case["size"]
        assert requested_size(pipe, frames, height, width) == (frames, height, width)
        found = Counter((site.kind, *shape) for site, shape in tokens_of(pipe, (frames, height, width)).items())
        assert found == {(kind, *shape): number for kind, *shape, number in case["tokens"]}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_needs_a_package_says_so_in_a_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"the configs of this model do not make a pipeline; got {REFUSED[name]}"):
        _pipe(name, tmp_path)


def test_a_denoiser_whose_pipeline_is_refused_has_its_sites(tmp_path: Path) -> None:
    case = CASES["cosmos-1.0-7b-text2world"]
    class_name, config = case["components"]["transformer"]
    with torch.device("meta"):
        denoiser = getattr(diffusers, class_name)(**config)
    assert Counter(site.kind for site in find_sites(denoiser)) == case["sites"]


class _QueryTokens(TorchFunctionMode):
    """Counts the attentions that run, by their number of query tokens; the seam itself cannot work without values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[int] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            self.seen[query.shape[2]] += 1
        return function(*args, **(kwargs or {}))


TEXT = 226


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("wan2.1-t2v", "wan2.2-ti2v", "cogvideox"))]
)
def test_a_call_at_the_published_size_has_these_tokens(name: str, tmp_path: Path) -> None:
    """The denoiser itself, called on the meta device: no arithmetic, but every shape that a run would have."""
    case, pipe = CASES[name], _pipe(name, tmp_path)
    denoiser, (frames, height, width) = pipe.transformer, case["size"]
    row, config = sizes_of(pipe), denoiser.config
    rows, columns = (side // int(getattr(pipe, row.space)) for side in (height, width))
    length, joint_text = (frames - 1) // row.stride(pipe) + 1, TEXT if family_of(denoiser).text == "before" else 0
    axes = (length, config.in_channels) if joint_text else (config.in_channels, length)
    with torch.device("meta"), torch.no_grad(), _QueryTokens() as queries:
        arguments: dict[str, Any] = {
            "hidden_states": torch.empty(1, *axes, rows, columns),
            "encoder_hidden_states": torch.empty(1, TEXT, 4096),
            "timestep": torch.empty(1),
        }
        if joint_text:
            size = length * rows * columns // config.patch_size**2
            arguments["image_rotary_emb"] = tuple(torch.empty(size, config.attention_head_dim) for _ in range(2))
        denoiser(**arguments)
    expected: Counter[int] = Counter()
    for _, _, tokens, number in case["tokens"]:
        expected[tokens + joint_text] += number
    assert queries.seen == expected
