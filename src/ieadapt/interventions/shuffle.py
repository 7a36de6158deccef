"""Shuffle: every video token gets what attention has for another one. Token perturbation guidance's weak pass."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall
from ieadapt.attention.layouts import TokenLayout
from ieadapt.errors import UsageError
from ieadapt.interventions.perturbation import QueryPerturbation


@dataclass(frozen=True, repr=False)
class Shuffle(QueryPerturbation):
    """Put the video queries in a random order, which puts the rows of the attention's result in that order.

    The order is drawn anew at every site in every step, from the seed, the site's name and the step alone: the rows of
    a batch share it, and a video does not depend on its batch. Where a call holds one frame or one position (spatial
    and temporal attention) tokens are shuffled within it. Text queries stay.

    Attributes:
        seed: of the orders; a whole number.

    Raises:
        UsageError: a seed that is no whole number, or a model whose token layout is not known.

    Source: TPG (arXiv 2506.10036); TaatiTeam/Token-Perturbation-Guidance pipeline_sdxl_tpg.py, which permutes the
    tokens that a transformer block is given, by a new order in every block and step. A permutation of all tokens
    permutes queries, keys and values; that of keys with values changes nothing, so for attention without positions
    (Stable Diffusion's) the result with scope `all` is the source's. What differs: the residual path keeps its order
    here, as does the text in joint attention, and in a model with rotary embedding positions travel with the queries.

    Example:
        >>> Shuffle()
        Shuffle(scope='video')
    """

    seed: int | float = 0

    def __post_init__(self) -> None:
        if not float(self.seed).is_integer():
            raise UsageError("the seed of a shuffle must be a whole number", expected="0, 1, ...", got=self.seed)

    def changed(self, query: Tensor, layout: TokenLayout, call: AttentionCall) -> Tensor:
        """The queries in the order of this site and step."""
        drawn = random.Random(f"{self.seed:g} {call.site.name} {call.step}")  # noqa: S311 (an order, not a secret)
        generator = torch.Generator().manual_seed(drawn.getrandbits(32))
        return query[:, :, torch.randperm(query.shape[2], generator=generator).to(query.device)]
