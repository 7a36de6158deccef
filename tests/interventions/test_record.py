"""Recording: entropy and energy per site, head, step and branch, against dense maps, in every family."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from ieadapt.attention import AttentionCall, intercept
from ieadapt.errors import FailureError
from ieadapt.interventions import Record
from tests.families import PROMPTS, captured, every_family, predict, run, tiny_pipeline
from tests.interventions.dense_maps import allowed, dense_logits
from tests.interventions.test_perturbation import make_call


class _DenseRecord:
    """The same figures from dense float64 maps, averaged naively."""

    def __init__(self) -> None:
        self.ep: dict[tuple[str, int, int, str], list[torch.Tensor]] = defaultdict(list)
        self.energy: dict[tuple[str, int, int, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def __call__(self, call: AttentionCall) -> None:
        weights = dense_logits(call).softmax(-1)
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        keys = allowed(call).sum(-1)
        ep = torch.where(keys > 1, 100 * entropy / keys.clamp(min=2).log(), 0.0)
        energy = call.output.double().square().sum(3)
        joint = call.layout is not None and call.site.kind == "joint"
        own = call.layout.video.slice if joint else slice(None)
        padding = call.attention.padding  # of text refiners, whose every token is text
        own = ~padding[0] if padding is not None and not joint else own
        for index, branch in enumerate(call.rows.guidance):
            for row in range(*call.rows.index([index]).indices(call.query.shape[0])):
                for head in range(ep.shape[1]):
                    place = (call.site.name, head, call.step, branch)
                    self.ep[place].append(ep[row, head, own].mean())
                    self.energy[place][call.rows.video[index]] += energy[row, head, own].sum().item()


@every_family
def test_equals_dense_maps_over_a_guided_run(family: str) -> None:
    with (
        intercept(tiny_pipeline(family), Record(), guidance="all") as record,
        intercept(tiny_pipeline(family), _DenseRecord(), guidance="all") as dense,
    ):
        run(family, PROMPTS)
    rows = list(record.records())
    assert len(rows) == len(dense.ep)
    for row in rows:
        place = (row["site"], row["head"], row["step"], row["branch"])
        assert abs(row["ep"] - torch.stack(dense.ep[place]).mean().item()) < 1e-3
        energies = dense.energy[place]
        assert row["videos"] == len(energies) == len(PROMPTS)
        assert row["energy"] == pytest.approx(sum(energies.values()) / len(energies), rel=1e-4)


def test_joint_attention_with_text_has_parts() -> None:
    with intercept(tiny_pipeline("cogvideox"), Record()) as record:
        run("cogvideox")
    for row in record.records():
        assert 0 <= row["temporal_ep"] <= 100
        assert 0 <= row["spatial_ep"] <= 100
        assert 0 < row["text_mass"] < 1


def test_spatial_attention_has_no_parts() -> None:
    with intercept(captured("animatediff")[0], Record(), "spatial") as record:
        predict("animatediff")
    assert {row["text_mass"] for row in record.records()} == {None}


def test_a_second_call_of_a_site_for_the_same_rows_does_not_count_its_videos_twice() -> None:
    record, first = Record(), make_call()
    record(first)
    record(make_call(earlier=(first,)))
    assert {row["videos"] for row in record.records()} == {1}


def test_attention_that_is_not_finite_names_its_place() -> None:
    record = Record()
    record(make_call(attend=lambda: torch.full((4, 2, 6, 4), torch.inf)))
    with pytest.raises(FailureError, match=r"not finite; in block\.attn1, head 0, step 0, (un)?cond branch"):
        list(record.records())
