"""A pipeline comes back from a folder as it was saved; what cannot be loaded is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AnimateDiffPipeline

from ieadapt.errors import FailureError, UsageError
from ieadapt.models import known_models, load, model_folder
from ieadapt.models.location import RETIRED
from tests.tiny import build, call_arguments


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build("animatediff").save_pretrained(folder, safe_serialization=True)
    return folder


def _frames(pipe: AnimateDiffPipeline) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    pipe.set_progress_bar_config(disable=True)
    arguments = call_arguments("animatediff") | {"num_inference_steps": 2, "output_type": "pt"}
    return pipe("a red ball", generator=generator, **arguments).frames


def test_a_folder_gives_the_pipeline_that_was_saved(saved: Path) -> None:
    assert torch.equal(_frames(load(saved)), _frames(build("animatediff")))


def test_half_precision_weights_are_float32_on_the_cpu(tmp_path: Path) -> None:
    build("animatediff").to(torch.float16).save_pretrained(tmp_path, safe_serialization=True)
    pipe = load(str(tmp_path))
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert load(tmp_path, dtype=torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("model", ["scened", "no such thing", "./missing", "a/b/c", ""])
def test_an_unknown_model_lists_what_there_is(model: str) -> None:
    with pytest.raises(UsageError, match=r"unknown model .*expected a bundled model \(scenes, .*\), a folder .*hub"):
        load(model)


def test_a_bundled_model_without_its_weights_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ieadapt.models.location.SHIPPED", tmp_path)
    with pytest.raises(UsageError, match=r"weights of the bundled model 'scenes' are not in this installation.*train"):
        load("scenes")


@pytest.mark.parametrize(("gone", "instead"), [("shapes", "scenes"), ("shapes-dit", "scenes-dit")])
def test_a_model_that_has_left_says_so_in_one_line(gone: str, instead: str) -> None:
    with pytest.raises(UsageError, match=rf"'{gone}' no longer ships with the package.*take '{instead}'") as caught:
        load(gone)
    assert "\n" not in str(caught.value)


def test_what_has_left_is_not_bundled() -> None:
    assert not set(RETIRED) & set(known_models())


def test_an_unknown_model_names_a_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'scenes'"):
        load("scene")


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model_index\.json is missing.*save_pretrained"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_an_index_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(UsageError, match="does not say which pipeline"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["NoSuchPipeline", "UNetMotionModel", "__version__"])
def test_a_class_that_is_no_pipeline_of_diffusers_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(UsageError, match=f"has no pipeline '{name}'"):
        load(tmp_path)


def test_custom_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    with pytest.raises(UsageError, match="outside diffusers"):
        load(tmp_path)


def test_pickled_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    build("animatediff").save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(UsageError, match=r"weights of .* are pickled"):
        load(tmp_path)


def test_a_missing_component_is_named(saved: Path, tmp_path: Path) -> None:
    build("animatediff").save_pretrained(tmp_path)
    for file in (tmp_path / "vae").iterdir():
        file.unlink()
    with pytest.raises(FailureError, match=r"the component vae lacks a file; expected config\.json; got no file; in"):
        load(tmp_path)


def test_a_hub_id_that_cannot_be_fetched_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DiffusionPipeline

    def refuse(*arguments: object, **keywords: object) -> str:
        raise OSError("no network\nand more")

    monkeypatch.setattr(DiffusionPipeline, "download", refuse)
    with pytest.raises(FailureError, match=r"'someone/video'.*OSError: no network; remedy"):
        load("someone/video")


def test_a_hub_id_is_loaded_from_where_it_was_downloaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DiffusionPipeline

    monkeypatch.setattr(DiffusionPipeline, "download", lambda name, **options: str(saved))
    assert model_folder("someone/video") == saved


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(saved: Path, device: str) -> None:
    with pytest.raises(UsageError, match="device"):
        load(saved, device=device)


def test_every_bundled_model_has_a_summary() -> None:
    assert all(model.summary and model.name == name for name, model in known_models().items())
