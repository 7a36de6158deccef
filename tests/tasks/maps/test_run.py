"""The maps run's configuration and the sentences of its report."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.runs.flags import assemble, command_line, flags
from ieadapt.tasks.maps.record import PromptWords, Token
from ieadapt.tasks.maps.result import AttentionMaps
from ieadapt.tasks.maps.run import MapsRun, describe_maps


def make(kind: Any, query: Token | None = None, **parts: torch.Tensor) -> AttentionMaps:
    words = PromptWords(("red", "ball"), ((1,), (2,)))
    site = AttentionSite("block", kind, 0, 2)
    weights = {name: part[None].numpy() for name, part in parts.items()}
    return AttentionMaps(site, "red ball", 0, query, None, (4,), words, weights, 2, torch.zeros(2, 3, 8, 8))


def test_a_spatial_token() -> None:
    video = torch.zeros(1, 6, 6)
    video[0, 3, 3], video[0, 1, 5], video[0, 0, 0] = 0.5, 0.25, 0.25
    assert describe_maps(make("spatial", Token(1, 3, 3), video=video))[0] == (
        "Step 4: the token gives itself 50.0 %, its neighbours up to two tokens away 75.0 % (a uniform map: 2.8 % and "
        "69.4 %)."
    )


def test_the_mean_of_a_spatial_site() -> None:
    video = torch.full((2, 2, 2), 0.25)
    video[1] = torch.tensor([[0.1, 0.1], [0.7, 0.1]])
    assert "is row 1, column 0 of frame 1, with 2.8 times the share" in describe_maps(make("spatial", video=video))[0]


def test_a_temporal_token_and_the_mean() -> None:
    video = torch.tensor([0.2, 0.8]).view(2, 1, 1).expand(2, 2, 2)
    assert describe_maps(make("temporal", Token(0, 1, 1), video=video))[0] == (
        "Step 4: the token gives its own frame 20.0 % of the weight (a uniform map: 50.0 %); most to frame 1 (80.0 %)."
    )
    between = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    sentence = describe_maps(make("temporal", video=video, frames=between))[0]
    assert sentence == "Step 4: tokens give their own frame 65.0 % of the weight (a uniform map: 50.0 %)."


def test_a_joint_token_and_the_mean() -> None:
    video, words = torch.full((2, 2, 2), 0.1), torch.tensor([0.1, 0.05, 0.05])
    assert describe_maps(make("joint", Token(0, 1, 1), video=video, words=words))[0] == (
        "Step 4: the token gives its own frame 40.0 % of the weight (a uniform map: 50.0 %), 20.0 % to its own "
        "position over all frames, 20.0 % to text."
    )
    sentence = describe_maps(make("joint", video=video, frames=torch.full((2, 2), 0.5)))[0]
    assert sentence.endswith("50.0 % of the weight (a uniform map: 50.0 %).")


@pytest.mark.parametrize("kind", ["cross", "text"])
def test_words_are_named_by_weight(kind: str) -> None:
    assert describe_maps(make(kind, words=torch.tensor([0.2, 0.5, 0.3])))[0] == (
        "Step 4: of the words most weight goes to “ball” 50.0 %, “red” 20.0 %; start, end and padding tokens take "
        "30.0 %."
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "there is no site; remedy: pass --site NAME"),
        ({"site": "a", "query": "1,2"}, "a query is one token; expected FRAME,ROW,COL; got 1,2"),
        ({"site": "a", "query": "1,2,x"}, r"not whole numbers; expected such as FRAME,ROW,COL; got '1,2,x'"),
        ({"site": "a", "query": "1,2,3", "mean": True}, "exclude each other"),
        ({"site": "a", "at_steps": "0;3"}, "not whole numbers; expected such as 0,12,24"),
        ({"site": "a", "at_steps": ""}, "no step to look at"),
        ({"site": "a", "threshold": 1.0}, "share of the largest weight; expected between 0 and 1; got 1.0"),
        ({"site": "a", "prompts": ("one", "two")}, "maps are drawn for one prompt; got 2"),
        ({"site": "a", "prompts": ()}, "there is no prompt"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MapsRun(**{"model": "scenes", "prompts": ("a ball",), **changed})


def test_steps_looked_at_and_steps_of_the_run_are_two_flags() -> None:
    assert [flag.option for flag in flags(MapsRun)].count("--steps") == 1
    values = {"at_steps": "0,3", "steps": 4, "mean": True, "site": "a"}
    config = assemble(MapsRun, {"model": "scenes", "prompts": ("a ball",), **values})
    assert config.generation.num_inference_steps == 4
    assert config.step_numbers == (0, 3)
    assert command_line("maps", config, "out") == (
        "ieadapt maps scenes --prompt 'a ball' --steps 4 --site a --at-steps 0,3 --mean --out out"
    )
