"""What an attention call says of itself, where it was said wrongly: parts of a module, padding, precision, refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.errors import FailureError, UsageError
from ieadapt.interventions import Record, Uniform
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from ieadapt.tasks.generate import generate
from tests.families import captured, every_family, predict, run, tiny_pipeline
from tests.functional import dense
from tests.interventions.dense_maps import dense_logits
from tests.tiny import build, call_arguments, more

WITH_IMAGES = {"IP-Adapter": (more.animatediff_with_image, "text", 77), "Wan I2V": (more.wan_from_image, "text", 512)}


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_two_attentions_of_a_module_have_a_record_each(name: str) -> None:
    make, main, keys = WITH_IMAGES[name]
    pipe, run_it = make()
    with intercept(pipe, Record(), "cross") as record:
        run_it()
    rows = list(record.records())
    assert {row["keys_of"] for row in rows} == {"text", "image"}
    for row in rows:
        assert (row["n_keys"] == keys) == (row["keys_of"] == main)
        assert row["n_keys"] in (keys, 4, 5, 257)
        assert row["videos"] == 1


def test_words_are_looked_for_in_the_text_only() -> None:
    pipe, run_it = more.wan_from_image()
    seen: list[tuple[str, bool]] = []
    with intercept(pipe, lambda call: seen.append((call.keys_of, call.of_text)), "blocks.0.attn2"):
        run_it(num_inference_steps=1)
    assert seen == [("image", False), ("text", True)]


def test_padded_text_without_keys_is_measured_as_the_model_treats_it() -> None:
    pipe, run_it = more.hunyuanvideo15()
    sites = find_sites(pipe)
    with intercept(pipe, Record(), guidance="all") as record:
        run_it()
    rows = list(record.records())
    assert {row["site"] for row in rows} == {site.name for site in sites}
    assert {row["branch"] for row in rows} == {"cond", "uncond"}
    assert all(0 <= row["ep"] <= 100 for row in rows)


PADDED = {"cogvideox": 32, "hunyuanvideo": 20}


@pytest.mark.parametrize("family", PADDED)
def test_video_text_and_all_rows_of_joint_attention_without_padding(family: str) -> None:
    """Against dense maps whose rows are told apart here, from the prompt's own tokens."""
    pipe, expected = tiny_pipeline(family), []
    prompt, negative = "a ball", "dim"

    def keep(call: AttentionCall) -> None:
        if call.step == 0 and call.site.name == site.name:
            expected.append((call.rows.guidance, dense_logits(call), call.attention.padding, call.layout))

    site = next(site for site in find_sites(pipe) if site.kind == "joint")
    record = Record()
    with intercept(pipe, record, [site], guidance="all"), intercept(pipe, keep, [site], guidance="all"):
        run(family, prompt, negative_prompt=negative)
    lengths = {
        "cond": len(pipe.tokenizer(prompt).input_ids),
        "uncond": len(pipe.tokenizer(negative).input_ids),
    }
    found = [row for row in record.records() if row["step"] == 0]
    assert found
    for row in found:
        for guidance, logits, padding, layout in expected:
            for index, branch in enumerate(guidance):
                if branch != row["branch"]:
                    continue
                assert padding is not None
                video = layout.video
                first = 0 if layout.start else video.stop
                real = [place for place in range(first, first + layout.text) if not padding[index, place]]
                if family == "cogvideox":
                    assert real == list(range(lengths[branch]))
                    assert 0 < len(real) < layout.text
                else:
                    assert 0 < len(real) < layout.text
                rows = sorted([*real, *range(video.start, video.stop)])
                dense_figures = dense.statistics(logits[index : index + 1], video, rows=rows)
                for name in ("ep", "text_ep", "all_ep", "entropy", "text_mass"):
                    assert row[name] == pytest.approx(dense_figures[name][0, row["head"]].item(), abs=2e-3), name


def test_texts_that_were_encoded_elsewhere_have_unknown_padding() -> None:
    pipe = tiny_pipeline("cogvideox")
    states = torch.randn(1, 32, 16)
    seen: list[Any] = []
    with intercept(pipe, lambda call: seen.append(call.attention.padding), "joint"):
        run("cogvideox", None, prompt_embeds=states, negative_prompt_embeds=states)
    assert set(seen) == {None}


@every_family
def test_autocast_does_not_reach_what_is_measured(family: str) -> None:
    """The queries and keys are what autocast makes of them; entropies of these are computed in float32."""
    rows: list[Any] = []

    def compare(call: AttentionCall) -> None:
        found = call.measured()
        if call.attention.padding is None:
            logits = dense.logits(call.query, call.key, call.mask, call.scale)
            exact = dense.statistics(logits, call.attention.video)
            assert (found.all_ep.double() - exact["all_ep"]).abs().max() < 1e-3
        rows.append(call.query.dtype)
        assert found.entropy.dtype == torch.float32

    denoiser, _ = captured(family)
    with torch.autocast("cpu", torch.bfloat16):
        plain = predict(family)
        with intercept(denoiser, compare):
            assert torch.equal(predict(family), plain)
        with intercept(denoiser, Uniform()):
            assert torch.isfinite(predict(family)).all()
    assert set(rows) == {torch.bfloat16}


def test_a_refused_pipeline_is_left_as_it_was() -> None:
    pipe, run_it = more.animatediff_pag()
    before = {name: id(processor) for name, processor in pipe.unet.attn_processors.items()}
    with (
        pytest.raises(FailureError, match=r"more than the two branches.*use the plain pipeline"),
        intercept(pipe, lambda call: None),
    ):
        run_it()
    assert {name: id(processor) for name, processor in pipe.unet.attn_processors.items()} == before
    with intercept(pipe, lambda call: None):
        run_it(pag_scale=0.0)


WRONG = """
from ieadapt import EnhanceConfig, GenerationConfig, StudyConfig, UsageError, intercept
from tests.families import captured, predict
denoiser, _ = captured("wan")
def returning(value):
    with intercept(denoiser, lambda call: value, "joint"):
        predict("wan")
attempts = {
    "a number": lambda: returning(3.0), "words": lambda: returning("output"), "true": lambda: returning(True),
    "site 0": lambda: intercept(denoiser, print, [0]).__enter__(),
    "no site": lambda: intercept(denoiser, print, [None]).__enter__(),
    "one number": lambda: intercept(denoiser, print, 3.5).__enter__(),
    "guidance": lambda: intercept(denoiser, print, guidance=1).__enter__(),
    "steps": lambda: intercept(denoiser, print, steps=3).__enter__(),
    "perturbation": lambda: EnhanceConfig(perturbation=print), "sites": lambda: EnhanceConfig(sites=["joint"]),
    "perturb": lambda: StudyConfig(perturb=print), "num_inference_steps": lambda: GenerationConfig("25"),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "| nothing was raised")
    except UsageError as error:
        print(name, "|", error)
"""
REFUSALS = {
    "a number": "an intervention returned neither a tensor nor None; expected None (it looked), or",
    "words": "an intervention returned neither a tensor nor None",
    "true": "an intervention returned neither a tensor nor None",
    "site 0": "not a selection of attention sites; expected names, patterns or kinds",
    "no site": "not a selection of attention sites",
    "one number": "not a selection of attention sites",
    "guidance": "not a choice of guidance",
    "steps": "not a window of steps",
    "perturbation": "perturbation cannot be this; expected str; got builtin_function_or_method",
    "sites": "sites cannot be this; expected str; got list ['joint']; in EnhanceConfig",
    "perturb": "perturb cannot be this; expected str",
    "num_inference_steps": "num_inference_steps cannot be this; expected int; got str '25'; in GenerationConfig",
}


def test_things_of_another_type_are_refused_in_one_line() -> None:
    """In a process without the checks of types that run under pytest."""
    done = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=True, timeout=300)
    found = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    assert found.keys() == REFUSALS.keys()
    for name, message in found.items():
        assert message.startswith(REFUSALS[name]), (name, message)


def test_looking_at_progress_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain run with a progress bar opens no seam: another backend runs, and compiled code stays compiled."""
    opened: list[int] = []
    monkeypatch.setattr("ieadapt.attention.seam.Seam.__init__", lambda self, denoisers: opened.append(1))
    pipe, told = build("wan"), []
    size = {name: call_arguments("wan")[name] for name in ("height", "width", "num_frames")}
    generate(pipe, ["a", "b", "c"], GenerationConfig(3, batch_size=2, **size), progress=lambda *done: told.append(done))
    assert told == [(step, 6) for step in range(1, 7)]
    assert not opened
    assert "progress_bar" not in vars(pipe)


@pytest.mark.parametrize("family", ["wan", "cogvideox", "ltx", "hunyuanvideo", "mochi"])
def test_what_was_made_is_said(family: str) -> None:
    size = {name: call_arguments(family)[name] for name in ("height", "width")}
    made = {"mochi": 7}.get(family, 9)
    with pytest.warns(UserWarning, match=rf"made num_frames {made} instead of 10: the nearest that it can make"):
        videos = generate(build(family), "a red ball", GenerationConfig(2, num_frames=10, **size))
    assert videos.shape[1] == made


@pytest.mark.parametrize("family", ["animatediff", "wan"])
def test_long_negative_prompts_are_refused_like_prompts(family: str) -> None:
    config = GenerationConfig(1, negative_prompt="very blurry " * 400)
    with pytest.raises(UsageError, match=r"the negative prompt is too long for the text encoder; .*would be dropped"):
        generate(tiny_pipeline(family), "a red ball", config)


def test_enhancement_counts_the_passes_in_which_its_site_fired() -> None:
    pipe, weak = tiny_pipeline("wan"), []

    def count(call: AttentionCall) -> Tensor | None:
        weak.append(call.step)
        return None

    with (
        enhancement(pipe, EnhanceConfig(sites="blocks.1.attn1", start=0.0)) as done,
        intercept(pipe, count, "blocks.1.attn1", guidance="weak"),
    ):
        run("wan", steps=4)
    assert done.weak_passes == len(weak) == 4
