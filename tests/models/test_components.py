"""A saved pipeline is loaded whole or refused by name: no weight and no vocabulary is ever made up."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

from ieadapt.errors import FailureError, IEAdaptError, IEAdaptWarning, UsageError
from ieadapt.models import load, loaded_size
from tests.families import every_family, tiny_pipeline

TRIALS = 2
"""Tensors of each component that are tried, drawn by a seed of its name."""
PROMPT = "a red ball, moving left; 12 of them!"

Tensors = dict[str, Tensor]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("components")

    def folder(family: str) -> Path:
        if not (root / family).is_dir():
            tiny_pipeline(family).save_pretrained(root / family)
        return root / family

    return folder


@pytest.fixture
def copied(saved: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda family: Path(shutil.copytree(saved(family), tmp_path / family))


def state(pipe: DiffusionPipeline) -> tuple[Tensors, list[Any]]:
    """Every weight of a pipeline, and how its tokenizers read a prompt."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    weights = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}
    tokens = [
        [part(PROMPT, truncation=True)["input_ids"], part.model_max_length, part.padding_side]
        for name, part in sorted(pipe.components.items())
        if name.startswith("tokenizer")
    ]
    return weights, tokens


def same(one: DiffusionPipeline, other: DiffusionPipeline) -> bool:
    (weights, tokens), (others, words) = state(one), state(other)
    return (
        weights.keys() == others.keys()
        and tokens == words
        and all(torch.equal(tensor, others[name]) for name, tensor in weights.items())
    )


def loaded_without_a_note(folder: Path, **options: Any) -> DiffusionPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("error", IEAdaptWarning)
        return load(folder, **options)


def attempted(folder: Path) -> tuple[DiffusionPipeline, None] | tuple[None, IEAdaptError]:
    try:
        return load(folder), None
    except IEAdaptError as error:
        return None, error


def weights_of(folder: Path) -> list[Path]:
    """One file of weights per component."""
    first = {file.parent: file for file in sorted(folder.glob("*/*.safetensors"))}
    return list(first.values())


def rewrite(file: Path, change: Callable[[Tensors], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@every_family
def test_a_sound_folder_is_loaded_as_it_was_saved(family: str, saved: Callable[[str], Path]) -> None:
    assert same(loaded_without_a_note(saved(family)), tiny_pipeline(family))


@every_family
@pytest.mark.parametrize("options", [{"variant": "fp16"}, {"max_shard_size": "30KB"}])
def test_variants_and_shards_are_sound(family: str, options: dict[str, str], tmp_path: Path) -> None:
    pipe = tiny_pipeline(family)
    pipe.save_pretrained(tmp_path, **options)
    assert len(list(tmp_path.glob("*/*.safetensors*"))) > len(weights_of(tmp_path)) or "variant" in options
    assert same(loaded_without_a_note(tmp_path), pipe)
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    assert loaded_size(tmp_path) >= 0.9 * sum(4 * each.numel() for part in parts for each in part.parameters())


def test_two_variants_alone_are_refused(tmp_path: Path) -> None:
    for variant in ("fp16", "ema"):
        tiny_pipeline("wan").save_pretrained(tmp_path, variant=variant)
    with pytest.raises(UsageError, match=r"several variants only; got ema, fp16; in .*; remedy: keep"):
        load(tmp_path)


def _remove(tensors: Tensors, name: str) -> None:
    del tensors[name]


def _rename(tensors: Tensors, name: str) -> None:
    tensors[f"{name}_"] = tensors.pop(name)


def _reshape(tensors: Tensors, name: str) -> None:
    tensors[name] = torch.cat([tensors[name], tensors[name]])


@every_family
@pytest.mark.parametrize("change", [_remove, _rename, _reshape])
def test_a_tensor_that_is_gone_or_of_another_shape_is_named(
    family: str, change: Callable[[Tensors, str], None], copied: Callable[[str], Path]
) -> None:
    folder = copied(family)
    for file in weights_of(folder):
        whole, draw = file.read_bytes(), random.Random(f"{family} {file.parent.name} {change.__name__}")
        for name in draw.sample(sorted(load_file(file)), TRIALS):
            rewrite(file, lambda tensors, name=name: change(tensors, name))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", IEAdaptWarning)  # of the new name, which is unexpected
                with pytest.raises(FailureError) as refused:
                    load(folder)
            error = str(refused.value)
            assert error.startswith(f"the weights of {file.parent.name} do not fit its model; expected every tensor of")
            assert ("1 of another shape: " if change is _reshape else " missing: ") in error
            assert name.removeprefix("text_model.") in error
            file.write_bytes(whole)


@every_family
def test_a_file_that_is_gone_is_refused_or_was_not_needed(family: str, copied: Callable[[str], Path]) -> None:
    folder = copied(family)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        kept = file.read_bytes()
        file.unlink()
        pipe, error = attempted(folder)
        if pipe is None:
            assert file.parent.name in str(error), (file, error)
            assert error.remedy, (file, error)
        else:
            assert same(pipe, tiny_pipeline(family)), file
        file.write_bytes(kept)


@every_family
def test_a_tensor_lost_from_a_shard_is_named(family: str, tmp_path: Path) -> None:
    tiny_pipeline(family).save_pretrained(tmp_path, max_shard_size="30KB")
    shards = {file.parent: file for file in sorted(tmp_path.glob("*/*-of-*.safetensors"))}
    assert shards
    for file in shards.values():
        whole, name = file.read_bytes(), sorted(load_file(file))[0]
        rewrite(file, lambda tensors, name=name: _remove(tensors, name))
        with pytest.raises(FailureError, match=rf"weights of {file.parent.name} do not fit .*1 missing: {name}"):
            load(tmp_path)
        file.write_bytes(whole)


def test_many_missing_tensors_are_counted(copied: Callable[[str], Path]) -> None:
    folder = copied("wan")

    def lose(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith("encoder.block")]:
            del tensors[name]

    rewrite(folder / "text_encoder" / "model.safetensors", lose)
    with pytest.raises(
        FailureError, match=r"got 10 missing: encoder\.block\.0.* and 7 more; in .*text_encoder; remedy"
    ):
        load(folder)


@every_family
def test_tensors_that_nobody_uses_are_told(family: str, copied: Callable[[str], Path]) -> None:
    folder = copied(family)
    file = weights_of(folder)[-1]
    rewrite(file, lambda tensors: tensors.update({f"extra.{index}": torch.zeros(2) for index in range(5)}))
    with pytest.warns(IEAdaptWarning, match=rf"{file.parent.name} hold tensors .*: extra\.0, extra\.1, extra\.2 and 2"):
        pipe = load(folder)
    assert same(pipe, tiny_pipeline(family))


@pytest.mark.parametrize(
    ("family", "model"),
    [
        ("cogvideox", lambda fields: T5ForConditionalGeneration(T5Config(**fields))),
        ("wan", lambda fields: UMT5ForConditionalGeneration(UMT5Config(**fields))),
    ],
)
def test_a_whole_t5_is_read_as_an_encoder(
    family: str, model: Callable[[dict[str, Any]], nn.Module], copied: Callable[[str], Path]
) -> None:
    folder = copied(family) / "text_encoder"
    fields = json.loads((folder / "config.json").read_text())
    encoder = tiny_pipeline(family).text_encoder
    whole = model({name: fields[name] for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")})
    whole.load_state_dict(encoder.state_dict(), strict=False)
    whole.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IEAdaptWarning)  # of lm_head, where the class does not ignore it
        pipe = load(folder.parent)
    assert all(torch.equal(encoder.state_dict()[name], each) for name, each in pipe.text_encoder.state_dict().items())


@pytest.mark.parametrize("name", ["shared.weight", "encoder.embed_tokens.weight"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_tied_embeddings_may_be_saved_under_either_name(
    family: str, tied: bool, name: str, copied: Callable[[str], Path]
) -> None:
    folder = copied(family)
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": tied}))
    rewrite(
        folder / "text_encoder" / "model.safetensors",
        lambda tensors: tensors.update({name: tensors.pop("shared.weight")}),
    )
    assert same(loaded_without_a_note(folder), tiny_pipeline(family))


def test_position_ids_of_an_earlier_release_are_ignored(copied: Callable[[str], Path]) -> None:
    folder = copied("animatediff")
    name = "text_model.embeddings.position_ids"
    file = folder / "text_encoder" / "model.safetensors"
    rewrite(file, lambda tensors: tensors.update({name: torch.arange(77)[None]}))
    assert same(loaded_without_a_note(folder), tiny_pipeline("animatediff"))


def test_earlier_names_of_attention_weights_are_known(copied: Callable[[str], Path]) -> None:
    folder = copied("modelscope")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def as_in_2022(tensors: Tensors) -> None:
        for name in [name for name in tensors if "attentions" in name]:
            new = next(
                (name.replace(f".{now}.", f".{then}.") for now, then in names.items() if f".{now}." in name), name
            )
            tensors[new] = tensors.pop(name)

    rewrite(folder / "vae" / "diffusion_pytorch_model.safetensors", as_in_2022)
    assert same(loaded_without_a_note(folder), tiny_pipeline("modelscope"))


def test_an_image_model_with_a_motion_adapter_is_whole(copied: Callable[[str], Path]) -> None:
    from tests.tiny.animatediff import small_unet
    from tests.tiny.weights import randomise

    folder = copied("animatediff")
    unet = small_unet()
    randomise(unet, 2)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["diffusers", "UNet2DConditionModel"]}))
    assert same(loaded_without_a_note(folder), tiny_pipeline("animatediff"))


def test_an_image_adapter_saved_into_the_denoiser_is_told(copied: Callable[[str], Path]) -> None:
    folder = copied("animatediff")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_ip.0.weight"
    rewrite(file, lambda tensors: tensors.update({name: torch.zeros(16, 16)}))
    with pytest.warns(IEAdaptWarning, match=r"the weights of unet hold tensors .*processor\.to_k_ip"):
        load(folder)


def test_a_vocabulary_in_parts_is_whole(copied: Callable[[str], Path]) -> None:
    folder = copied("animatediff")
    content = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(
        FailureError,
        match=r"the component tokenizer lacks a file; expected tokenizer.json or vocab.json and merges.txt; got",
    ):
        load(folder)
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    assert same(loaded_without_a_note(folder), tiny_pipeline("animatediff"))


@pytest.mark.parametrize("library", ["os", "tests.families", "here"])
def test_a_component_from_elsewhere_is_not_imported(library: str, copied: Callable[[str], Path]) -> None:
    folder = copied("wan")
    (folder / "vae" / f"{library}.py").write_text("raise SystemExit")
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": [library, "Mine"]}))
    with pytest.raises(UsageError, match=rf"outside diffusers and transformers is not loaded; got {library}\.Mine"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "null", "3", "[" * 100_000, '{"a": "b"}', "\x00"])
@pytest.mark.parametrize("file", ["text_encoder/config.json", "tokenizer/tokenizer.json", "vae/config.json"])
def test_a_damaged_description_is_one_clear_error(file: str, content: str, copied: Callable[[str], Path]) -> None:
    folder = copied("wan")
    (folder / file).write_text(content)
    with pytest.raises(IEAdaptError, match=r"no complete pipeline|do not fit its model|lacks a file"):
        load(folder)


@pytest.mark.parametrize("dtype", ["float16", torch.float16])
def test_a_precision_may_be_a_name(dtype: Any, saved: Callable[[str], Path]) -> None:
    assert load(saved("wan"), dtype=dtype).vae.dtype == torch.float16


@pytest.mark.parametrize("dtype", ["half", "", "torch.float32", torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_anything_else_is_no_precision(dtype: Any, saved: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match=r"unknown precision; expected auto, float32, bfloat16, float16; got .*remedy"):
        load(saved("wan"), dtype=dtype)
