"""Forms are made from configs: what a form sends is the config, and what a run was asked fills the form again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from ieadapt.errors import UsageError
from ieadapt.runs.flags import flags
from ieadapt.runs.folder import open_run
from ieadapt.tasks.edit.config import EditRun
from ieadapt.tasks.enhance.run import EnhanceRun
from ieadapt.tasks.measure.run import MeasureRun
from ieadapt.tasks.perturb import PerturbRun
from ieadapt.web.edit import EDIT
from ieadapt.web.forms import Form, model_field, profile_field, prompts_field
from ieadapt.web.videos import ENHANCE, PERTURB
from ieadapt.web.workspace import Workspace

CONFIGS = {MeasureRun: ("steps",), PerturbRun: PERTURB.shown, EnhanceRun: ENHANCE.shown, EditRun: EDIT.shown}
PATHS = {"profile", "video", "jobs", "cache", "image", "input"}
"""Never typed in a browser."""


def made(config: type) -> Form:
    with gr.Blocks():
        prompts = prompts_field("Prompts", "", "a red ball\na blue ball")
        fields = [prompts, model_field(["scenes", "other"])]
        return Form(config, fields, CONFIGS[config], sorted(PATHS))


def sent(form: Form, **changed: Any) -> list[Any]:
    """What the browser sends of a form as it stands, some fields changed."""
    return [changed.get(field.name, field.component.value) for field in form.fields]


def extra(config: type) -> dict[str, Any]:
    return {"source_seed": 0, "source_prompt": "a star"} if config is EditRun else {}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_flag_has_a_field_and_no_path_is_typed(config: type) -> None:
    form = made(config)
    names = [field.name for field in form.fields]
    assert len(set(names)) == len(names)
    assert set(names) - {"model", "prompts"} == {flag.name for flag in flags(config)} - PATHS
    assert all(field.component.label for field in form.fields)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_form_as_it_stands_is_the_config_with_its_defaults(config: type) -> None:
    expected = config("scenes", ("a red ball", "a blue ball"), **extra(config))
    form = made(config)
    assert form.config_of(sent(form, **extra(config))) == expected


@pytest.mark.parametrize("config", CONFIGS)
def test_the_record_of_a_run_fills_the_form_so_that_it_asks_for_the_same(config: type) -> None:
    form = made(config)
    changes = {"steps": 3, "frames": "7", "height": "64", "dtype": "float32", "seed": 5, **extra(config)}
    asked = form.config_of(sent(form, prompts="a <b>star</b>\n\n", model="other", **changes))
    assert asked.prompts == ("a <b>star</b>",)
    record = json.loads(json.dumps(dataclasses.asdict(asked), default=str))
    assert form.config_of(form.filled(record)) == asked


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "/etc"}, "the app was not started with this model; expected scenes, other; got '/etc'"),
        ({"dtype": "int4"}, "unknown Dtype; expected auto, float32, bfloat16, float16; got 'int4'"),
        ({"frames": "many"}, "this is no number; got 'many'; in Frames"),
        ({"frames": "1e9"}, "this is no number"),
        ({"steps": 100_000}, "Steps is more than this page takes; expected at most 1000; got 100000"),
        ({"prompts": "a\n" * 101}, "too many prompts for one run; expected at most 100; got 101"),
        ({"prompts": "a" * 2001}, "a prompt is too long; expected at most 2000 characters"),
        ({"prompts": " \n "}, "there is no prompt"),
        ({"steps": 0}, "num_inference_steps must be positive"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict, message: str) -> None:
    form = made(MeasureRun)
    with pytest.raises(UsageError, match=message):
        form.config_of(sent(form, **changed))


@pytest.mark.parametrize("preset", ["/etc/preset.json", "../preset.json", "best"])
def test_a_page_takes_presets_by_name_alone(preset: str) -> None:
    with pytest.raises(UsageError, match=r"unknown Preset; expected pag, seg, .*, freeu; got"):
        form = made(EnhanceRun)
        form.config_of(sent(form, prompts="a", preset=preset, **extra(EnhanceRun)))


def test_a_run_is_chosen_from_the_list_alone(tmp_path: Path) -> None:
    with open_run(tmp_path / "measure-1", "measure", {"prompts": ["a"]}), gr.Blocks():
        field = profile_field(Workspace(tmp_path))
    assert field.read("measure-1") == tmp_path / "measure-1"
    assert field.read("") is None
    with pytest.raises(UsageError, match=r"there is no such run; got '\.\./secret'"):
        field.read("../secret")
    assert field.show("/somewhere/root/measure-1")["value"] == "measure-1"
    assert field.show("/somewhere/root/measure-2")["value"] == ""
