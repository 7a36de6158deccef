"""The examples for published checkpoints run on tiny random pipelines that are saved in the same layout.

A checkpoint's hub id becomes the folder of the tiny pipeline; sizes, steps and the clip become its smallest ones.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from ieadapt.cli import main
from ieadapt.runs.videos import encode_video
from tests.docs.test_commands import commands
from tests.tiny import build, call_arguments
from tests.tiny.animatediff import small_motion_adapter, small_unet
from tests.tiny.weights import randomise

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
_HUB_IDS = {
    "cogvideox": "THUDM/CogVideoX-2b",
    "wan": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "ltx": "Lightricks/LTX-Video",
    "hunyuanvideo": "hunyuanvideo-community/HunyuanVideo",
    "mochi": "genmo/mochi-1-preview",
}
_ADAPTER, _BASE = "guoyww/animatediff-motion-adapter-v1-5-3", "stable-diffusion-v1-5/stable-diffusion-v1-5"
_FAST = "wan"
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def at_tiny_size(words: list[str], family: str) -> list[str]:
    """The same command for the family's tiny pipeline: its sizes, two steps."""
    call = call_arguments(family)
    tiny = {"--frames": call["num_frames"], "--height": call["height"], "--width": call["width"], "--steps": 2}
    if words[0] == "edit":
        tiny["--steps"] = 4
    before = [None, *words]
    return [str(tiny.get(flag, word)) for flag, word in zip(before, words, strict=False)]


def _clip(family: str) -> None:
    call = call_arguments(family)
    frames = torch.rand(call["num_frames"], 3, call["height"], call["width"])
    Path("clip.mp4").write_bytes(encode_video(frames))


def _run(page: str, family: str, ids: dict[str, str], capsys: pytest.CaptureFixture[str]) -> int:
    text = (EXAMPLES / f"{page}.md").read_text()
    for hub_id, folder in ids.items():
        assert hub_id in text
        text = text.replace(hub_id, folder)
    for block in _BLOCK.finditer(text):
        exec(compile(block["code"], page, "exec"), {"__name__": "example"})
    for words in commands(text):
        assert main(at_tiny_size(words, family)) == 0, capsys.readouterr().err
    return len(commands(text))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name == _FAST else [pytest.mark.slow]) for name in _HUB_IDS]
)
def test_the_commands_of_a_family_run(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    build(family).save_pretrained("tiny-model")
    _clip(family)
    assert _run(family, family, {_HUB_IDS[family]: "./tiny-model"}, capsys) == 4


@pytest.mark.slow
def test_animatediff_is_put_together_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _stable_diffusion().save_pretrained("base")
    _randomised(small_motion_adapter()).save_pretrained("adapter")
    _clip("animatediff")
    assert _run("animatediff", "animatediff", {_ADAPTER: "adapter", _BASE: "base"}, capsys) == 4


def _stable_diffusion() -> StableDiffusionPipeline:
    parts = {name: build("animatediff").components[name] for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    missing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**parts, unet=_randomised(small_unet()), **missing)


def _randomised(module: nn.Module) -> nn.Module:
    randomise(module, 0)
    return module


def test_sizes_and_steps_are_replaced_and_nothing_else() -> None:
    words = ["measure", "m", "--steps", "25", "--frames", "81", "--height", "480", "--width", "832", "--batch", "1"]
    tiny = at_tiny_size(words, "wan")
    assert tiny[:4] == ["measure", "m", "--steps", "2"]
    assert tiny[-2:] == ["--batch", "1"]
