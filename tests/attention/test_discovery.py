"""Finding sites in every family."""

from __future__ import annotations

from collections import Counter

import diffusers
import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from ieadapt.attention import (
    FAMILIES,
    AttentionSite,
    after_projection,
    family_of,
    find_sites,
    intercept,
    without_projection,
)
from ieadapt.errors import UsageError
from ieadapt.interventions import Record
from tests.attention.test_further_families import BARE
from tests.families import captured, every_family, predict, tiny_pipeline
from tests.tiny import build

KINDS = {
    "animatediff": {"spatial", "temporal", "cross"},
    "modelscope": {"spatial", "temporal", "cross"},
    "cogvideox": {"joint"},
    "mochi": {"joint"},
    "hunyuanvideo": {"joint", "text"},
    "wan": {"joint", "cross"},
    "ltx": {"joint", "cross"},
}


@every_family
def test_kinds(family: str) -> None:
    counts = Counter(site.kind for site in find_sites(tiny_pipeline(family)))
    assert set(counts) == KINDS[family]


def test_animatediff_second_motion_attention_is_temporal_self_attention() -> None:
    kinds = {site.name: site.kind for site in find_sites(tiny_pipeline("animatediff"))}
    second = [name for name in kinds if name.endswith("attn2")]
    assert {kinds[name] for name in second if "motion_modules" in name} == {"temporal"}
    assert {kinds[name] for name in second if "motion_modules" not in name} == {"cross"}


def test_hunyuan_text_refiner_is_text() -> None:
    sites = find_sites(tiny_pipeline("hunyuanvideo"))
    assert all((site.kind == "text") == ("token_refiner" in site.name) for site in sites)


@every_family
def test_order_is_the_order_of_execution(family: str) -> None:
    denoiser, _ = captured(family)
    ran: list[AttentionSite] = []
    with intercept(denoiser, lambda call: ran.append(call.site)):
        predict(family)
    assert list(dict.fromkeys(ran)) == find_sites(denoiser)


@every_family
def test_heads_are_those_of_the_calls(family: str) -> None:
    denoiser, _ = captured(family)
    heads: dict[AttentionSite, int] = {}
    with intercept(denoiser, lambda call: heads.update({call.site: call.query.shape[1]})):
        predict(family)
    assert all(site.heads == n for site, n in heads.items())


@every_family
def test_a_pipeline_and_its_denoiser_have_the_same_sites(family: str) -> None:
    denoiser, _ = captured(family)
    assert find_sites(denoiser) == find_sites(tiny_pipeline(family))


def test_every_family_of_the_table_is_tested() -> None:
    tested = {family_of(captured(family)[0]).name for family in KINDS} | set(BARE) | {"SVD"}
    assert tested == {family.name for family in FAMILIES}


def test_two_denoisers_put_their_component_in_front() -> None:
    pipe = tiny_pipeline("wan")
    names = [site.name for site in find_sites(pipe)]
    pipe.register_modules(transformer_2=pipe.transformer)
    try:
        # one module twice has each site once; a true second denoiser doubles them
        assert [site.name for site in find_sites(pipe)] == [f"transformer_2.{name}" for name in names]
    finally:
        pipe.register_modules(transformer_2=None)


def test_what_is_no_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # what a user meets, without type checks
    with pytest.raises(UsageError, match=r"expected a diffusers pipeline or a denoiser.*got str"):
        find_sites("wan")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no attention sites found.*got Linear"):
        find_sites(nn.Linear(2, 2))


def test_a_modular_pipeline_works_through_its_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(diffusers, "WanBlocks"):
        pytest.skip(f"diffusers {diffusers.__version__} has no modular Wan")
    modular, parts = diffusers.WanBlocks().init_pipeline(), build("wan").components
    names = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    modular.update_components(**{name: parts[name] for name in names})
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UsageError, match=r"got WanModularPipeline; remedy: of a modular pipeline, .* its transformer"):
        find_sites(modular)
    with intercept(modular.transformer, Record()) as record:
        modular(prompt="a ball", num_inference_steps=2, num_frames=9, height=32, width=48, output="latents")
    assert {row["site"] for row in record.records()} == {site.name for site in find_sites(modular.transformer)}


class _Foreign(nn.Module):
    """A denoiser that the table does not know, with diffusers-style attention."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.processor, self.heads, self.to_q = None, 2, nn.Linear(8, 8)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            query = self.to_q(tokens).unflatten(-1, (2, 4)).transpose(1, 2)
            return torch.nn.functional.scaled_dot_product_attention(query, query, query).transpose(1, 2).flatten(2)

    def __init__(self) -> None:
        super().__init__()
        self.attention = self.Attention()

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.attention(tokens),)


def test_a_denoiser_outside_the_table_works_by_name() -> None:
    from ieadapt.interventions import Identity, Record

    model, tokens = _Foreign(), torch.randn(3, 5, 8)
    assert [site.kind for site in find_sites(model)] == ["unknown"]
    with intercept(model, Record()) as record:
        model(tokens)
    assert [row["head"] for row in record.records()] == [0, 1]
    with intercept(model, Identity(), sites="attention"):
        (output,) = model(tokens)
    torch.testing.assert_close(output, model.attention.to_q(tokens))


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
