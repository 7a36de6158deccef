"""What attention modules return, changed after their output projection."""

from __future__ import annotations

import torch
from torch import Tensor

from ieadapt.attention import AttentionSite, after_projection, find_sites, without_projection
from tests.families import captured, every_family, predict


@every_family
def test_every_projection_of_the_chosen_sites_is_seen_once(family: str) -> None:
    denoiser, _ = captured(family)
    plain, seen = predict(family), []

    def change(site: AttentionSite, projected: Tensor) -> Tensor:
        seen.append(site.name)
        return projected * 2

    sites = [site for site in find_sites(denoiser) if site.kind in ("temporal", "joint")]
    with after_projection(denoiser, sites, change):
        changed = predict(family)
    assert seen == [site.name for site in sites if site.name not in without_projection(denoiser, sites)]
    assert not torch.allclose(changed, plain)
    assert torch.equal(predict(family), plain)


def test_single_stream_blocks_project_outside() -> None:
    denoiser, _ = captured("hunyuanvideo")
    names = without_projection(denoiser, find_sites(denoiser))
    assert names == {"single_transformer_blocks.0.attn", "single_transformer_blocks.1.attn"}
