"""Pipelines that are given a picture, a video or a control: every task, in Python and on the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ieadapt.attention import find_sites
from ieadapt.cli import main
from ieadapt.errors import UsageError
from ieadapt.files import sha256_of
from ieadapt.runs.folder import read_run
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import generate, videos_at_once
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.screen.config import ScreenConfig, ScreenRun
from ieadapt.tasks.screen.run import price_screen
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Condition, Setting
from ieadapt.tasks.study.run import study
from ieadapt.tasks.study.table import read_table
from tests.families import tiny_pipeline
from tests.tiny import build
from tests.tiny.from_inputs import CASES, inputs, picture, pipeline

RUNNING = [name for name in CASES if name != "i2vgenxl"]
QUICK = ("wan-i2v", "cogvideox-i2v", "ltx-condition", "svd", "animatediff-controlnet")
cases = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUNNING]
)
RUNS = {
    "mochi": {"num_inference_steps": 2, "num_frames": 13, "height": 64, "width": 96},
    "animatediff": {"num_inference_steps": 2, "num_frames": 5, "height": 16, "width": 24},
}
PROMPTS = ["a red ball", "a blue star"]


def config_for(name: str, **changes: object) -> GenerationConfig:
    """The smallest run of a case."""
    return GenerationConfig(**{"num_inference_steps": 2, **CASES[name].size, "call": inputs(name), **changes})


@cases
def test_the_input_decides_about_the_video(name: str) -> None:
    pipe, config = pipeline(name), config_for(name)
    videos = generate(pipe, PROMPTS, config, seeds=[3, 4])
    assert len(videos) == 2
    torch.testing.assert_close(videos[1:], generate(pipe, PROMPTS[1], config, seeds=4), rtol=0, atol=0.02)
    if CASES[name].call:
        argument, value = next(iter(config.call.items()))
        given = value.value
        changed = [picture(*frame.size, 9) for frame in given] if isinstance(given, list) else picture(*given.size, 9)
        other = dataclasses.replace(config, call={**config.call, argument: changed})
        assert not torch.equal(videos[:1], generate(pipe, PROMPTS[0], other, seeds=3))


@pytest.mark.parametrize(("name", "batch"), [("wan-i2v", 1), ("latte", 1), ("skyreels", 2)])
def test_a_screen_puts_as_many_prompts_into_a_call_as_a_run_does(name: str, batch: int) -> None:
    pipe, config = pipeline(name), config_for(name, batch_size=2)
    assert videos_at_once(pipe, config) == batch
    request = ScreenRun("m", tuple(PROMPTS), config, screen=ScreenConfig(at="0.5"), check=0)
    assert price_screen(request, pipe).batch == batch


@pytest.mark.parametrize("name", [name for name in RUNNING if CASES[name].needs])
def test_without_its_input_one_line_says_which(name: str) -> None:
    option = f"--{CASES[name].needs} FILE" if CASES[name].needs in ("image", "video") else "--input "
    config = config_for(name, call=CASES[name].beside)
    with pytest.raises(
        UsageError, match=rf"needs an input .*expected {CASES[name].needs}\b.*remedy: pass {option}"
    ) as said:
        generate(pipeline(name), PROMPTS[0], config)
    assert "\n" not in str(said.value)


def test_a_pipeline_that_diffusers_has_given_up_says_so() -> None:
    with pytest.raises(
        UsageError, match=r"refuses this call; got .*text_model.*maintains this pipeline up to 0.33.1 only"
    ):
        generate(pipeline("i2vgenxl"), PROMPTS[0], config_for("i2vgenxl"))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "mochi",
            {"num_inference_steps": 1},
            "cannot make a video in one step; expected --steps 2 or more; in MochiPipe",
        ),
        (
            "mochi",
            {"height": 72},
            r"cannot make a video of this size; expected height and .* multiples of 16; got 96x72",
        ),
        (
            "animatediff",
            {"num_frames": 33},
            r"more frames than the motion adapter has positions for; expected at most 32",
        ),
    ],
)
def test_settings_over_which_a_pipeline_breaks_inside(family: str, changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(tiny_pipeline(family), PROMPTS[0], GenerationConfig(**{**RUNS[family], **changes}))


@cases
def test_measured_sites_have_kinds(name: str) -> None:
    profile = measure(pipeline(name), PROMPTS[0], config_for(name))
    # tokens of Helios and Framepack hold the history of the video too, so that their sites are of no known kind
    known = {"spatial", "temporal", "joint", "cross"} | ({"unknown"} if name in ("helios", "framepack") else set())
    assert {site.kind for site in profile.sites} <= known
    assert set(profile.metadata.get("inputs", {})) == set(config_for(name).call)


@pytest.mark.slow
def test_free_noise_is_measured_in_its_windows() -> None:
    """More frames than a window: every temporal site is measured, over the frames of a window."""
    pipe = build("animatediff")
    pipe.enable_free_noise(context_length=4, context_stride=2)
    profile = measure(pipe, "a red ball", GenerationConfig(2, num_frames=8, height=16, width=24)).by_site()
    assert set(profile["site"]) == {site.name for site in find_sites(pipe)}
    temporal = profile.filter(profile["kind"] == "temporal")["ep"]
    assert temporal.is_between(0, 100).all()
    assert temporal.n_unique() > 1


def test_a_study_of_late_steps_with_a_picture(tmp_path: Path) -> None:
    """Runs begin at the window, with the latents and the picture of each video; the picture is part of a cell's key."""
    settings = StudyConfig("uniform", sites="blocks.0.attn1", window="0.5:1", metrics="psnr")
    table = study(pipeline("wan-i2v"), PROMPTS, tmp_path / "study", settings, config_for("wan-i2v"))
    assert table.height == 2
    assert table["psnr"].is_finite().all()
    assert read_table(tmp_path / "study" / "study.parquet").height == 2
    condition = Condition(("a",), "joint", "uniform")
    keys = {
        key
        for call in ({}, {"image": picture()}, {"image": picture(shade=1)})
        for key in Setting("m", "0", settings, config_for("wan-i2v", call=call), ("psnr",), ("a ball",)).cells(
            [condition]
        )
    }
    assert len(keys) == 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan-i2v")
    pipeline("wan-i2v").save_pretrained(folder / "model")
    picture().save(folder / "first.png")
    return folder


def _command(saved: Path, *words: str) -> list[str]:
    size = ["--steps", "2", "--frames", "9", "--height", "32", "--width", "48", "--device", "cpu"]
    return [words[0], str(saved / "model"), "--prompt", "a red ball", *size, *words[1:]]


def test_a_command_records_the_picture_by_its_content(saved: Path, tmp_path: Path) -> None:
    image, out = str(saved / "first.png"), str(tmp_path / "run")
    assert main(_command(saved, "measure", "--image", image, "--out", out)) == 0
    record = read_run(out)
    assert record["config"]["generation"]["call"] == {"image": f"sha256:{sha256_of(Path(image))}"}
    assert f"--image {image}" in record["command"]
    assert json.loads((tmp_path / "run" / "profile.json").read_text())["inputs"] == {
        "image": f"sha256:{sha256_of(Path(image))}"
    }


def test_a_command_without_the_picture_is_a_bad_request(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(_command(saved, "measure", "--out", str(tmp_path / "run"))) == 2
    assert "ieadapt: the pipeline needs an input that it was not given; expected image" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_keeps_pairs_of_the_same_picture_and_makes_those_of_another(saved: Path, tmp_path: Path) -> None:
    out = ["--sites", "blocks.0.attn1", "--out", str(tmp_path / "run")]
    image = saved / "first.png"
    assert main(_command(saved, "enhance", "--image", str(image), *out)) == 0
    copied = tmp_path / "copy.png"
    copied.write_bytes(image.read_bytes())
    assert main(_command(saved, "enhance", "--image", str(copied), "--resume", *out)) == 0
    assert read_run(tmp_path / "run")["kept"] == 1
    picture(shade=7).save(copied)
    assert main(_command(saved, "enhance", "--image", str(copied), "--resume", *out)) == 0
    assert read_run(tmp_path / "run")["kept"] == 0
