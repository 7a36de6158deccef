"""Replaced maps that keep their masses on video and text: the same from the kernel as from the streaming path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from ieadapt.functional import Attention, VideoTokens, identity_output, inject_output, skip_output, temperature_output
from tests.functional.test_statistics import random

VIDEO = VideoTokens(start=5, frames=3, positions=20)
TOKENS = VIDEO.stop + 9
SOURCE = random(2, 3, TOKENS, 16, seed=9)
REPLACEMENTS: dict[str, Callable[..., Tensor]] = {
    "identity": identity_output,
    "skip": skip_output,
    "temperature": partial(temperature_output, temperature=2.0),
    "inject": lambda attention, output: inject_output(
        attention, output, source=Attention(*[SOURCE.to(output.device)] * 3, video=VIDEO)
    ),
}
MASKS = {
    "no mask": None,
    "keys": random(2, 1, 1, TOKENS, seed=3) > -1,
    "pairs": random(2, 1, TOKENS, TOKENS, seed=4) > -1,
    "no text": torch.arange(TOKENS) >= 5,
    "no text at all": (torch.arange(TOKENS) >= 5) & (torch.arange(TOKENS) < VIDEO.stop),
    "additive": random(1, 3, TOKENS, TOKENS, seed=5),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_equals_the_streaming_path(name: str, mask: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, output = (random(2, 3, TOKENS, 16, seed=seed, spread=2).to(device) for seed in range(4))
    chosen = MASKS[mask]
    attention = Attention(query, key, value, None if chosen is None else chosen.to(device), video=VIDEO)
    found = {}
    for choice in ("on", "off"):
        monkeypatch.setenv("IEADAPT_KERNEL", choice)
        found[choice] = REPLACEMENTS[name](attention, output)
    assert torch.isfinite(found["on"]).all()
    assert torch.allclose(found["on"], found["off"], atol=2e-5)
    assert torch.equal(found["on"][..., : VIDEO.start, :], output[..., : VIDEO.start, :])


def test_a_row_without_keys_gives_nothing(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEADAPT_KERNEL", "on")
    query = random(1, 2, TOKENS, 16).to(device)
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool, device=device)
    mask[VIDEO.start + 4] = False
    found = identity_output(Attention(query, query, query, mask, video=VIDEO))
    assert (found[..., VIDEO.start + 4, :] == 0).all()
    assert torch.isfinite(found).all()
