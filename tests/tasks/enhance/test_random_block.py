"""Blocks left out by lot: S2-Guidance's weak pass, one draw per step."""

from __future__ import annotations

import dataclasses

import torch

from ieadapt.attention import AttentionCall, find_sites, intercept
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhancement
from tests.families import every_family, run, tiny_pipeline
from tests.tasks.enhance.test_guidance import EVERY, SITES, added


def _kind(family: str) -> str:
    return "temporal" if family in SITES else "joint"


def _skipped_by_step(family: str, config: EnhanceConfig) -> list[set[str]]:
    """Names of the blocks whose sites the weak pass of each step did not run."""
    pipe, kind, ran = tiny_pipeline(family), _kind(family), dict[int, set[str]]()

    def note(call: AttentionCall) -> None:
        if "weak" in call.rows.guidance:
            ran.setdefault(call.step, set()).add(call.site.name.rsplit(".", 1)[0])

    with enhancement(pipe, config), intercept(pipe, note, kind, guidance=EVERY):
        run(family, steps=6)
    blocks = {site.name.rsplit(".", 1)[0] for site in find_sites(pipe) if site.kind == kind}
    return [blocks - ran.get(step, set()) for step in range(6)]


@every_family
def test_random_blocks_are_drawn_anew_in_every_step_from_the_seed(family: str) -> None:
    config = EnhanceConfig(start=0, perturbation="random-block:1", sites=_kind(family))
    skipped = _skipped_by_step(family, config)
    assert [len(blocks) for blocks in skipped] == [1] * 6
    assert len({*map(frozenset, skipped)}) > 1
    assert skipped == _skipped_by_step(family, config)
    assert skipped != _skipped_by_step(family, dataclasses.replace(config, seed=1))


@every_family
def test_a_random_block_equals_a_pass_whose_block_returns_its_input(family: str) -> None:
    drawn = EnhanceConfig(start=0, perturbation="random-block:1", sites=_kind(family), scale=0.25)
    (name,) = _skipped_by_step(family, drawn)[0]
    _, _, delta = added(family, drawn)
    _, _, expected = added(family, dataclasses.replace(drawn, perturbation="skip-block", sites=f"{name}.*"))
    assert delta.abs().max() > 1e-5
    torch.testing.assert_close(delta, expected, rtol=1e-3, atol=1e-4)


def test_all_blocks_drawn_is_block_skip() -> None:
    drawn = EnhanceConfig(start=0, perturbation="random-block:9", sites="joint")
    _, _, delta = added("wan", drawn)
    _, _, expected = added("wan", dataclasses.replace(drawn, perturbation="skip-block"))
    assert torch.equal(delta, expected)
