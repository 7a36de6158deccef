"""Bad input is one clear line, the right exit status and no traceback; a stopped run says that it is partial."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ieadapt.runs.folder import read_run
from tests.cli.conftest import SIZE, Done, Program


def _measure(program: Program, model: object, *words: object, prompt: str = "a red ball") -> Done:
    return program("measure", model, "--prompt", prompt, *SIZE, *words)


def test_an_unknown_model(program: Program, tmp_path: Path) -> None:
    line = _measure(program, "scened", "--out", tmp_path / "run").refused()
    assert "unknown model 'scened' (did you mean 'scenes'?)" in line
    assert "hub id" in line
    assert not (tmp_path / "run").exists()


def test_a_folder_without_an_index(program: Program, tmp_path: Path) -> None:
    assert "model_index.json is missing" in _measure(program, tmp_path, "--out", tmp_path / "run").refused()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("\n  \n", "is empty"),
        ("a\n\nb\n", "blank line; expected one prompt per line; in"),
        (None, "No such file"),
    ],
)
def test_a_prompts_file_that_holds_no_prompts(
    content: str | None, words: str, program: Program, tiny: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_text(content)
    assert words in program("measure", tiny, "--prompts", file, "--out", tmp_path / "run").refused()


def test_a_prompts_file_that_is_no_text(program: Program, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(b"\xff\xfe\x00\x81")
    assert "not UTF-8 text" in program("measure", tiny, "--prompts", file).refused()


def test_a_blank_prompt(program: Program, tiny: Path, tmp_path: Path) -> None:
    assert "a prompt is blank" in _measure(program, tiny, "--out", tmp_path / "run", prompt="  ").refused()


def test_no_prompt_at_all(program: Program, tiny: Path) -> None:
    assert "there is no prompt; remedy: pass --prompt" in program("measure", tiny).refused()


def test_sites_that_match_nothing_name_near_ones(program: Program, tiny: Path, tmp_path: Path) -> None:
    line = _measure(program, tiny, "--sites", "down_blocks.0.attentions.0.attn9", "--out", tmp_path / "run").refused()
    assert "matches no attention site" in line
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn" in line
    assert "temporal (" in line


def test_identity_on_cross_attention(program: Program, tiny: Path, tmp_path: Path) -> None:
    done = program("enhance", tiny, "--prompt", "a ball", *SIZE, "--sites", "cross", "--out", tmp_path / "run")
    assert done.status == 2
    assert "cross" in done.err
    assert "identity" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("steps", ["0", "-3"])
def test_no_steps(steps: str, program: Program, tiny: Path) -> None:
    line = program("measure", tiny, "--prompt", "a ball", "--steps", steps).refused()
    assert "expected >= 1" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "two"], "--steps"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--dtype", "float7"], "unknown precision"),
        (["--device", "tpu9"], "device"),
        (["--height", "0"], "height"),
    ],
)
def test_a_bad_flag(words: list[str], expected: str, program: Program, tiny: Path, tmp_path: Path) -> None:
    assert expected in _measure(program, tiny, *words, "--out", tmp_path / "run").refused()


def test_a_bad_enhancement(program: Program, tiny: Path, tmp_path: Path) -> None:
    words = ("enhance", tiny, "--prompt", "a ball", *SIZE, "--out", tmp_path / "run")
    assert "unknown perturbation" in program(*words, "--perturbation", "swap").refused()
    assert "not a window" in program(*words, "--start", "0.9", "--stop", "0.1").refused()
    assert "not a profile" in program(*words, "--profile", tmp_path).refused()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("study", "--seeds", 2**63), "a run makes too many videos; expected at most 1000000; got 9223372036854775808"),
        (("enhance", "--seeds", 2**63), "a run makes too many videos; expected at most 1000000"),
        (("study", "--strips", -1), "frames are kept of some prompts, or of none; expected >= 0; got -1; in --strips"),
        (("measure", "--seed", 2**63), "a seed is out of range; expected 64 bits.*; got 9223372036854775808"),
        (("perturb", "--seed", -(2**64)), "a seed is out of range"),
        (("maps", "--site", "x", "--seed", 2**63), "a seed is out of range"),
        (("study", "--seed", 2**63 - 1, "--seeds", 2), "a seed is out of range"),
        (("edit", "--source-seed", 2**63, "--source-prompt", "a sea"), "a seed is out of range"),
        (("enhance", "--sharpen-sites", "xxxx"), "nothing is sharpened at these sites; .*--sharpen below 1"),
    ],
)
def test_what_no_run_can_do_is_refused_before_a_model_is_loaded(
    words: tuple[object, ...], expected: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ieadapt import models

    monkeypatch.setattr(models, "load", lambda model, **keywords: pytest.fail("the model was loaded"))
    line = program(words[0], "scenes", "--prompt", "a ball", *words[1:], "--out", tmp_path / "run").refused()
    assert re.search(expected, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--sites", "--sharpen-sites"])
def test_sites_that_the_model_has_not_are_refused_before_it_is_measured(
    flag: str, program: Program, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ieadapt.tasks.enhance import run as enhancing

    monkeypatch.setattr(enhancing, "own_profile", lambda *arguments: pytest.fail("the model was measured"))
    words = ("--mode", "direct", "--scale", 0.5, "--sharpen", 0.5, flag, "xxxx")
    line = program("enhance", tiny, "--prompt", "a ball", *SIZE, *words, "--out", tmp_path / "run").refused()
    assert "'xxxx'" in line
    assert "matches no attention site" in line


def test_an_output_that_cannot_be_written(program: Program, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert "output folder cannot be written" in _measure(program, tiny, "--out", file / "run").refused()
    assert "output folder cannot be written" in _measure(program, tiny, "--out", "/proc/none").refused()


def test_an_output_that_holds_something_else(program: Program, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert "files of something else" in _measure(program, tiny, "--out", tmp_path).refused()


def test_an_unknown_command(program: Program) -> None:
    assert "mesure" in program("mesure").refused()


def test_an_attention_backend_that_bypasses_the_seam(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ieadapt import models
    from tests.tiny import build, call_arguments

    pipe = build("wan")
    pipe.transformer.set_attention_backend("flex")
    monkeypatch.setattr(models, "load", lambda model, **keywords: pipe)
    size = call_arguments("wan")
    words = ["--height", size["height"], "--width", size["width"], "--frames", size["num_frames"], "--steps", 2]
    try:
        done = program("measure", "wan", "--prompt", "a ball", *words, "--out", tmp_path / "run")
    finally:
        pipe.transformer.set_attention_backend("native")  # diffusers changes the process-wide default too
    assert "bypasses ieadapt; expected the native backend" in done.refused()


def test_what_nobody_expected_is_one_line_unless_asked_for(
    program: Program, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ieadapt import models

    def load(model: str, **keywords: object) -> object:
        raise ZeroDivisionError("deep\ninside")

    monkeypatch.setattr(models, "load", load)
    done = _measure(program, tiny, "--out", tmp_path / "run")
    assert (done.status, done.err) == (1, "ieadapt: ZeroDivisionError: deep inside (--debug shows where)\n")
    assert read_run(tmp_path / "run")["status"] == "partial"
    assert "Traceback" in _measure(program, tiny, "--out", tmp_path / "other", "--debug").err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_marked_partial(number: signal.Signals, tiny: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ieadapt", "measure", tiny, "--prompt", "a red ball", "--steps", "900"]
    size = ["--height", "16", "--width", "24", "--frames", "5", "--out", tmp_path / "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*words, *size], stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    assert process.stderr.readline() == "measuring: 900 steps\n"
    time.sleep(1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == "ieadapt: stopped\n"
    record = read_run(tmp_path / "run")
    assert (record["status"], record["error"]) == ("partial", "stopped by the user")


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from ieadapt.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "measure" in done.stdout


def test_a_model_that_lacks_weights_is_no_result(program: Program, tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    file = model / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    del tensors["embeddings.token_embedding.weight" if "embeddings.token_embedding.weight" in tensors else min(tensors)]
    save_file(tensors, file, metadata={"format": "pt"})
    done = _measure(program, model, "--out", tmp_path / "run")
    assert done.status == 1
    assert "ieadapt: the weights of text_encoder do not fit its model; expected every tensor" in done.err
    assert not (tmp_path / "run" / "profile.json").exists()


@pytest.mark.parametrize("options", [[], ["ignore"]])
def test_our_own_warnings_are_shown_whatever_python_is_told(
    options: list[str], program: Program, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "warnoptions", options)
    for option in options:
        warnings.simplefilter(option)  # type: ignore[arg-type]
    model = shutil.copytree(tiny, tmp_path / "model")
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"extra": torch.zeros(1)}, file, metadata={"format": "pt"})
    done = _measure(program, model, "--out", tmp_path / "run")
    assert done.status == 0
    assert "ieadapt: note: the weights of vae hold tensors that a AutoencoderKL does not use: extra; in" in done.err
