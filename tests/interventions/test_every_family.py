"""Every perturbation in every family: it fires everywhere and equals the slow reference through the whole model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from ieadapt.attention import AttentionCall, AttentionSite, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.interventions import Identity, Mix, Perturbation, Shuffle, Skip, Temperature, Uniform
from tests.families import captured, every_family, predict
from tests.interventions import dense_maps


def _order(call: AttentionCall, tokens: int) -> torch.Tensor:
    """The order in which a shuffle puts the video tokens, seen from what it does to numbered ones."""
    numbers = torch.arange(tokens, dtype=torch.float32).view(1, 1, -1, 1)
    return Shuffle(3).changed(numbers, call.layout, call).flatten().long()


PERTURBATIONS: dict[str, tuple[Perturbation, Callable[[AttentionCall], torch.Tensor]]] = {
    "identity": (Identity(), dense_maps.identity),
    "identity, all": (Identity(scope="all"), partial(dense_maps.identity, scope="all")),
    "identity, half": (Identity(0.5), partial(dense_maps.identity, weight=0.5)),
    "uniform": (Uniform(), dense_maps.uniform),
    "uniform, all": (Uniform(scope="all"), partial(dense_maps.uniform, scope="all")),
    "skip": (Skip(), dense_maps.skip),
    "shuffle": (Shuffle(3), partial(dense_maps.shuffle, order=_order)),
    "shuffle, all": (Shuffle(3, scope="all"), partial(dense_maps.shuffle, order=_order, scope="all")),
    "mix": (Mix(0.3), partial(dense_maps.mix, weight=0.3)),
    "mix, all": (Mix(0.3, scope="all"), partial(dense_maps.mix, weight=0.3, scope="all")),
    "temperature": (Temperature(2.0), partial(dense_maps.temperature, value=2.0)),
    "temperature, all": (Temperature(0.5, scope="all"), partial(dense_maps.temperature, value=0.5, scope="all")),
}


def _sites(family: str, name: str) -> list[AttentionSite]:
    """All sites that the perturbation is defined on: identity has no meaning on cross-attention."""
    return [site for site in find_sites(captured(family)[0]) if "identity" not in name or site.kind != "cross"]


@every_family
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_fires_at_every_site_and_equals_the_dense_reference(family: str, name: str) -> None:
    perturbation, reference = PERTURBATIONS[name]
    denoiser, _ = captured(family)
    sites, fired = _sites(family, name), set()

    def counted(call: AttentionCall) -> torch.Tensor | None:
        fired.add(call.site)
        return perturbation(call)

    with intercept(denoiser, counted, sites):
        output = predict(family)
    with intercept(denoiser, reference, sites):
        expected = predict(family)
    assert fired == set(sites)
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)
    assert (output - predict(family)).abs().max() > 1e-3


@every_family
def test_identity_on_cross_attention_is_refused(family: str) -> None:
    denoiser, _ = captured(family)
    if not any(site.kind == "cross" for site in find_sites(denoiser)):
        with pytest.raises(UsageError, match=r"matches no attention site"):
            intercept(denoiser, Identity(), "cross").__enter__()
        return
    with (
        pytest.raises(UsageError, match=r"cross-attention has no identity map.*use uniform, mix or temperature"),
        intercept(denoiser, Identity(), "cross"),
    ):
        predict(family)


@every_family
def test_a_strength_of_nothing_changes_nothing(family: str) -> None:
    plain, (denoiser, _) = predict(family), captured(family)
    no_cross = [site for site in find_sites(denoiser) if site.kind != "cross"]
    for perturbation in (Mix(0.0), Temperature(1.0), Identity(0.0), Identity(0.0, scope="video-renormalised")):
        with intercept(denoiser, perturbation, no_cross):
            torch.testing.assert_close(predict(family), plain, rtol=1e-4, atol=1e-5)


@every_family
def test_full_mixing_is_uniform(family: str) -> None:
    denoiser, _ = captured(family)
    with intercept(denoiser, Mix(1.0)):
        mixed = predict(family)
    with intercept(denoiser, Uniform()):
        torch.testing.assert_close(mixed, predict(family), rtol=1e-4, atol=1e-5)
