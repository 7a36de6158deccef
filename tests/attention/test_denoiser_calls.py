"""A weak pass replays what it has in common with the full one, with the same result; and the clock of what it saves."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from ieadapt.attention import Clock, DenoiserCall, attention_modules, find_sites, intercept, wrap_denoiser
from ieadapt.interventions import Identity
from tests.families import captured, every_family, predict, run, tiny_pipeline


def _last_site(family: str) -> list:
    return [site for site in find_sites(captured(family)[0]) if site.kind not in ("text", "cross")][-1:]


class _Weak:
    """Keeps the prediction of a weak pass over the last row."""

    def __init__(self) -> None:
        self.predictions: list[Tensor] = []

    def __call__(self, call: DenoiserCall, prediction: Tensor) -> None:
        self.predictions.append(call.forward_rows([len(call.rows) - 1]))


@every_family
def test_replayed_equals_computed(family: str) -> None:
    denoiser, _ = captured(family)
    sites, results, stages = _last_site(family), [], []
    for perturbed in ((), sites):
        weak = _Weak()
        with (
            intercept(denoiser, Identity(), sites, guidance="weak"),
            wrap_denoiser(denoiser, weak, perturbed) as prefixes,
        ):
            plain = predict(family)
        results.append(weak.predictions[0])
        stages.append([(len(prefix.stages), prefix.replayed) for prefix in prefixes])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    assert (results[0] - plain[-1:]).abs().max() > 1e-4
    assert stages[0] == []
    assert stages[1][0][0] == stages[1][0][1] > 0


@every_family
def test_nothing_is_replayed_before_the_first_site(family: str) -> None:
    denoiser, _ = captured(family)
    first = [site for site in find_sites(denoiser) if site.kind != "cross"][:1]
    weak = _Weak()
    with intercept(denoiser, Identity(), first, guidance="weak"), wrap_denoiser(denoiser, weak, first) as (prefix,):
        predict(family)
    assert not prefix.stages
    assert prefix.replayed == 0


@pytest.mark.parametrize("family", ["animatediff", "wan", "cogvideox"])
def test_blocks_are_not_computed_twice(family: str) -> None:
    """Counted by the sites before the first perturbed one: they see no weak rows."""
    pipe, sites, seen = tiny_pipeline(family), _last_site(family), {}

    def count(call: object) -> None:
        seen.setdefault(call.site, set()).update(call.rows.guidance)

    with (
        intercept(pipe, count, guidance=("cond", "weak")),
        intercept(pipe, Identity(), sites, guidance="weak"),
        wrap_denoiser(pipe, _Weak(), sites) as (prefix,),
    ):
        run(family)
    assert "weak" in seen[sites[0]]
    replayed = {module for stage in prefix.stages for module in stage.modules()}
    first = next(iter(seen))
    assert "weak" not in seen[first]
    assert replayed


def test_two_weak_passes_in_one_step_replay_the_full_pass_both_times() -> None:
    denoiser, _ = captured("animatediff")
    sites, results = _last_site("animatediff"), []

    def twice(call: DenoiserCall, prediction: Tensor) -> None:
        results.extend([call.forward_rows([0]), call.forward_rows([len(call.rows) - 1]), call.forward_rows([0])])

    with intercept(denoiser, Identity(), sites, guidance="weak"), wrap_denoiser(denoiser, twice, sites):
        predict("animatediff")
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])


def test_a_chain_keeps_one_cut_for_all_its_stages() -> None:
    denoiser, _ = captured("hunyuanvideo")
    shapes: list[torch.Size] = []

    def cut(tensor: Tensor) -> Tensor:
        shapes.append(tensor.shape)
        return tensor

    with wrap_denoiser(denoiser, lambda call, prediction: None, _last_site("hunyuanvideo")) as (prefix,):
        predict("hunyuanvideo")
        with prefix.replaying(cut):
            outputs = [stage() for stage in prefix.stages]
    assert len(outputs) == 3
    assert all(output is outputs[0] for output in outputs)
    assert len(shapes) == len(outputs[0]) == 2  # the video's and the text's


def test_outputs_are_let_go_afterwards() -> None:
    denoiser, _ = captured("wan")
    sites = _last_site("wan")
    with wrap_denoiser(denoiser, lambda call, prediction: None, sites) as (prefix,):
        predict("wan")
        assert prefix._outputs
    assert not prefix._outputs


def test_a_prefix_aimed_elsewhere_follows() -> None:
    denoiser, _ = captured("wan")
    first, last = ([site for site in find_sites(denoiser) if site.kind == "joint"][at] for at in (0, -1))
    weak, expected = _Weak(), _Weak()
    with intercept(denoiser, Identity(), last, guidance="weak"):
        with wrap_denoiser(denoiser, expected):
            predict("wan")
        with wrap_denoiser(denoiser, weak, [first]) as (prefix,):
            predict("wan")
            assert (prefix.replayed, prefix.computed) == (0, 2)
            prefix.retarget(attention_modules(denoiser, [last]))
            predict("wan")
    assert (prefix.replayed, prefix.computed) == (1, 3)
    assert prefix.saved.seconds > 0
    for prediction in weak.predictions:
        torch.testing.assert_close(prediction, expected.predictions[0], rtol=1e-4, atol=1e-5)


def test_spans_add_up_with_their_weights() -> None:
    clock = Clock(torch.device("cpu"))
    assert clock.seconds == 0
    with clock.span():
        time.sleep(0.01)
    first = clock.seconds
    assert first >= 0.01
    clock.add(1.0, 3.0, 0.25)
    assert clock.seconds == pytest.approx(first + 0.5)
    assert clock.seconds == pytest.approx(first + 0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_timed_by_its_own_events() -> None:
    clock = Clock(torch.device("cuda"))
    with clock.span():
        torch.cuda._sleep(50_000_000)
    assert clock.seconds > 0.005
