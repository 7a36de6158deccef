"""The settings of a perturb run, and what its report says."""

from __future__ import annotations

import pytest

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.interventions import Mix
from ieadapt.runs.flags import command_line
from ieadapt.tasks.perturb.run import Perturbed, PerturbResult, PerturbRun, describe_perturbed, perturbed_table

RED = ("a red ball",)


def test_the_perturbation_takes_amount_scope_and_branch() -> None:
    config = PerturbRun("scenes", RED, perturbation="mix:0.25", scope="all", branch="cond")
    assert config.intervention == Mix(0.25, scope="all")


def test_the_command_repeats_it() -> None:
    line = command_line("perturb", PerturbRun("scenes", RED, sites="temporal:top=3", stop=0.5), "runs/p")
    assert line == "ieadapt perturb scenes --prompt 'a red ball' --sites temporal:top=3 --stop 0.5 --out runs/p"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"perturbation": "blurr"}, "unknown perturbation; expected identity, identity:WEIGHT, uniform"),
        ({"perturbation": "mix"}, "unknown perturbation; expected identity, identity:WEIGHT, uniform, mix:WEIGHT"),
        ({"start": 0.5, "stop": 0.5}, "not a window of steps; expected fractions 0 <= start < stop <= 1"),
        ({"branch": "weak"}, "unknown guidance branch; expected both, cond, uncond; got weak"),
        ({"scope": "text"}, "unknown scope; expected video, video-renormalised, all; got text"),
        ({"prompts": ()}, "there is no prompt"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PerturbRun(**{"model": "scenes", "prompts": RED, **changed})


def test_the_sentences_say_what_was_replaced_when_and_how_far_it_moved() -> None:
    sites = [AttentionSite("a", "temporal", 0, 2), AttentionSite("b", "spatial", 1, 2)]
    videos = [Perturbed("00", "a", 0, {"psnr": 20.0}), Perturbed("01", "b", 1, {"psnr": 30.0, "ssim": 0.5})]
    config = PerturbRun("scenes", ("a", "b"), perturbation="uniform", start=0.25)
    text = describe_perturbed(config, PerturbResult(sites, videos))
    assert text[0] == "The maps of 2 attention sites (spatial, temporal) became uniform, from 25% to 100% of the steps."
    assert text[1] == "PSNR to the original: 25.0 dB on average."
    table = perturbed_table(videos)
    assert list(table.headings) == ["seed", "prompt", "PSNR dB", "SSIM"]
    assert [list(row) for row in table.rows] == [["0", "a", "20.0", "–"], ["1", "b", "30.0", "0.500"]]
