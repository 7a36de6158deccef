"""Blocks around sites, and passes that leave them out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ieadapt.attention import SkippedBlocks, attention_modules, block_around, find_sites
from ieadapt.errors import FailureError
from tests.families import captured, every_family, predict


@every_family
def test_every_site_lies_in_a_block(family: str) -> None:
    denoiser, _ = captured(family)
    for site in find_sites(denoiser):
        block = block_around(denoiser, site)
        assert attention_modules(denoiser, [site])[0] in set(block.modules())
        assert sum(module is block for module in denoiser.modules()) == 1
        assert "Block" in type(block).__name__


@every_family
def test_a_pass_without_all_blocks_gives_what_they_were_given(family: str) -> None:
    """Every block's input goes through; afterwards the model is as before."""
    denoiser, _ = captured(family)
    plain = predict(family)
    blocks = [block_around(denoiser, site) for site in find_sites(denoiser) if site.kind != "text"]
    skipped = SkippedBlocks(blocks)
    assert len(skipped.blocks) == len(set(blocks))
    with skipped.observing():
        predict(family)
    with skipped.skipped():
        bare = predict(family)
    with skipped.skipped([skipped.blocks[-1]]):
        partly = predict(family)
    assert not torch.allclose(bare, plain)
    assert not torch.allclose(partly, bare)
    assert torch.equal(predict(family), plain)


class _Growing(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return torch.cat([hidden_states, hidden_states])


def test_a_block_of_another_form_is_refused() -> None:
    block = _Growing()
    with pytest.raises(FailureError, match="this block cannot be left out"), SkippedBlocks([block]).observing():
        block(torch.zeros(2, 3))
