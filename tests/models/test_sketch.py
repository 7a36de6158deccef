"""A pipeline without weights has the sites of the real one, and says how many tokens each of them will see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ieadapt.attention import denoisers_of, find_sites, intercept
from ieadapt.attention.calls import AttentionCall
from ieadapt.errors import UsageError
from ieadapt.models import load
from ieadapt.models.sketch import requested_size, sketch, tokens_of
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import generate
from tests.families import every_family, tiny_pipeline
from tests.tiny import build, call_arguments


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


def _configs_of(family: str, saved: Path) -> Path:
    """The family's tiny pipeline, saved, and every weight removed."""
    folder = saved / family
    if not folder.exists():
        build(family).save_pretrained(folder)
        for file in folder.rglob("*.safetensors"):
            file.unlink()
    return folder


@every_family
def test_configs_alone_give_the_sites(family: str, saved: Path) -> None:
    pipe = sketch(_configs_of(family, saved))
    assert find_sites(pipe) == find_sites(tiny_pipeline(family))
    assert {weight.device.type for part in denoisers_of(pipe).values() for weight in part.parameters()} == {"meta"}


@every_family
@pytest.mark.slow
def test_tokens_are_those_that_a_run_has(family: str, saved: Path) -> None:
    """Against what the seam sees: video tokens of a call, and calls per video."""
    arguments = call_arguments(family)
    size = tuple(arguments[name] for name in ("num_frames", "height", "width"))
    pipe, seen = tiny_pipeline(family), {}

    def look(call: AttentionCall) -> None:
        if call.layout is not None and call.site.kind != "text":
            seen[call.site] = (call.rows.repeats, call.layout.tokens - call.layout.text)

    with intercept(pipe, look):
        generate(
            pipe,
            "a ball",
            GenerationConfig(1 if family != "mochi" else 2, num_frames=size[0], height=size[1], width=size[2]),
        )
    assert tokens_of(sketch(_configs_of(family, saved)), size) == seen


def test_the_models_own_size_is_taken_where_none_is_given() -> None:
    pipe = sketch("scenes")
    assert requested_size(pipe, None, None, 64) == (16, 128, 64)


def test_a_config_that_does_not_fit_its_class(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    build("wan").save_pretrained(folder)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": "two"}))
    with pytest.raises(UsageError, match=r"the configs of this model do not make a pipeline; got .*in "):
        sketch(folder)


def test_a_folder_of_a_modular_pipeline_says_what_to_name_instead(tmp_path: Path) -> None:
    (tmp_path / "modular_model_index.json").write_text('{"_class_name": "WanModularPipeline"}')
    with pytest.raises(UsageError, match=r"model_index.json is missing; .*remedy: a modular pipeline is not loaded"):
        sketch(tmp_path)


def _pickle_weights(folder: Path) -> None:
    for file in folder.glob("transformer/*.safetensors"):
        file.with_suffix(".bin").write_bytes(b"")
        file.unlink()


def test_pickled_weights_get_the_line_that_converts_them(tmp_path: Path) -> None:
    build("wan").save_pretrained(tmp_path / "model")
    _pickle_weights(tmp_path / "model")
    with pytest.raises(
        UsageError, match=r"the weights of transformer are pickled.*expected a \.safetensors file"
    ) as said:
        load(tmp_path / "model")
    assert f"python -c \"from diffusers import DiffusionPipeline as P; P.from_pretrained('{tmp_path}/model'" in str(
        said.value
    )
    assert len(find_sites(sketch(tmp_path / "model"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_variants_on_disk_load(variant: str, tmp_path: Path) -> None:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    build("wan").to(dtype).save_pretrained(tmp_path, variant=variant)
    pipe: Any = load(tmp_path, dtype=dtype)
    assert isinstance(pipe.transformer, nn.Module)
    assert pipe.transformer.dtype == dtype
