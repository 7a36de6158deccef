"""Attention maps to look at: where tokens look, in space, in time and in the prompt; the asked rows, nothing more."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionSite, find_sites, intercept, select_sites, wrap_denoiser
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import DEFAULT_MEMORY_LIMIT
from ieadapt.tasks.generate import GenerationConfig, Progress, generate
from ieadapt.tasks.maps.record import RecordMaps, StepMap, Token
from ieadapt.tasks.maps.words import PromptWords, prompt_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of one site at some steps of one run, and the video that the run made.

    Attributes:
        site: where.
        prompt: what the video shows.
        seed: of its noise.
        query: the token that looks; None for the mean over all.
        head: one head; None for the mean over heads.
        steps: denoising steps, rising.
        words: the words of the prompt and their tokens.
        maps: one per step; weights in [0, 1].
        frames: frames of the site's grid (latent frames), of which each stands for one or more of the video's.
        clip: the generated video, in [0, 1].
    """

    site: AttentionSite
    prompt: str
    seed: int
    query: Token | None
    head: int | None
    steps: tuple[int, ...]
    words: PromptWords
    maps: tuple[StepMap, ...]
    frames: int
    clip: Float[Tensor, "frame channel height width"]

    @property
    def first_frame(self) -> int:
        """Frame of the first video map: a token of a spatial site looks at its own frame only."""
        return self.query.frame if self.query is not None and self.site.kind == "spatial" else 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of `StepMap` that this kind of site has."""
        return tuple(name for name, _ in self.maps[0].tensors())

    def part(self, name: str) -> Float[np.ndarray, "step ..."]:
        """One part of `StepMap` over all steps.

        Raises:
            UsageError: the site has no such part.
        """
        if name not in self.parts:
            raise UsageError(f"{self.site.kind} maps have no such part", expected=", ".join(self.parts), got=name)
        return np.stack([getattr(each, name).numpy() for each in self.maps])

    def npz(self) -> bytes:
        """The numbers as a compressed NumPy archive: `steps`, `words` (labels) and the parts as `weights_PART`."""
        parts: dict[str, Any] = {f"weights_{name}": self.part(name) for name in self.parts}
        labels: dict[str, Any] = {"words": np.array(self.words.labels)} if "words" in self.parts else {}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, steps=np.array(self.steps), **labels, **parts)
        return buffer.getvalue()

    def figures(self, threshold: float | None = None) -> dict[str, Figure]:
        """The maps as pictures by name; with a threshold, each also with the weights below it left blank.

        Args:
            threshold: share of the largest weight of a map, in (0, 1).
        """
        from ieadapt.tasks.maps.plot import plot_maps

        return plot_maps(self, threshold)


def attention_maps(
    pipe: DiffusionPipeline,
    prompt: str,
    site: str | AttentionSite,
    config: GenerationConfig | None = None,
    *,
    steps: Sequence[int] | None = None,
    query: tuple[int, int, int] | None = None,
    head: int | None = None,
    seed: int = 0,
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
    progress: Progress | None = None,
) -> AttentionMaps:
    """Where tokens look at one attention site while a pipeline makes one video.

    Spatial, temporal and joint sites show one query token, or the mean over all; cross-attention shows, for every word
    of the prompt, which video tokens look at it. No map of a whole sequence is built.

    Args:
        pipe: any text-to-video pipeline of a known family.
        prompt: what the video shows.
        site: one attention site, by name.
        config: steps, size, guidance.
        steps: denoising steps to look at, from 0; None for the first, the middle and the last.
        query: (frame, row, column) of the token that looks, on the site's own grid; None for the mean over all.
        head: one head, from 0; None for the mean over heads.
        seed: of the noise.
        memory_limit: bytes that the temporaries of one attention call may take.
        progress: called with (denoising steps done, denoising steps in all).

    Raises:
        UsageError: no such site, step, head or token, or a query on a site whose queries are no video tokens.
        FailureError: the site did not run at a step, or attention is not finite.

    Example:
        >>> pipe = ieadapt.load("shapes")  # doctest: +SKIP
        >>> maps = ieadapt.attention_maps(pipe, "a big red ball moving left over bricks", site, query=(3, 8, 8))
        ... # doctest: +SKIP
    """
    config = config or GenerationConfig()
    chosen = one_site(find_sites(pipe), site)
    wanted = checked_steps(steps, config.num_inference_steps)
    token = None if query is None else Token(*query)
    _check_head(head, chosen)
    _check_kind(token, chosen)
    words = prompt_words(pipe, prompt)
    record = RecordMaps(wanted, words, token, head, memory_limit=memory_limit)
    with intercept(pipe, record, [chosen]), wrap_denoiser(pipe, record.see_grid):
        clip = generate(pipe, [prompt], config, seed, progress)[0]
    missing = [step for step in wanted if step not in record.maps]
    if missing:
        raise FailureError(
            "the site did not run at every asked step",
            got=f"nothing at {', '.join(map(str, missing))}",
            where=chosen.name,
            remedy="a pipeline with two denoisers runs each at some steps only: ask for others",
        )
    maps = tuple(record.placed(step) for step in wanted)
    return AttentionMaps(chosen, prompt, seed, token, head, wanted, words, maps, record.frames, clip)


def one_site(sites: Sequence[AttentionSite], asked: str | AttentionSite) -> AttentionSite:
    """The one site that a name means.

    Raises:
        UsageError: none (near names are given), or several.

    Example:
        >>> one_site([AttentionSite("mid.attn1", "spatial", 0, 2)], "mid.attn1").kind
        'spatial'
    """
    found = select_sites(sites, asked)
    if len(found) > 1:
        names = ", ".join(site.name for site in found[:3])
        raise UsageError(
            "maps are drawn for one site",
            got=f"{len(found)}: {names}, ...",
            where="--site",
            remedy="name one of them in full",
        )
    return found[0]


def checked_steps(steps: Sequence[int] | None, total: int) -> tuple[int, ...]:
    """The asked steps, rising, each once; None for the first, the middle and the last.

    Raises:
        UsageError: a step outside the run, or none.

    Example:
        >>> checked_steps(None, 25), checked_steps([4, 0], 8)
        ((0, 12, 24), (0, 4))
    """
    wanted = sorted(set([0, total // 2, total - 1] if steps is None else steps))
    outside = [step for step in wanted if not 0 <= step < total]
    if outside or not wanted:
        raise UsageError(
            "a step outside the run" if outside else "no step to look at",
            expected=f"steps within 0..{total - 1}",
            got=", ".join(map(str, outside)) or "none",
            where="--steps",
        )
    return tuple(wanted)


def _check_head(head: int | None, site: AttentionSite) -> None:
    if head is not None and not 0 <= head < site.heads:
        raise UsageError("the site has no such head", expected=f"0..{site.heads - 1}", got=head, where=site.name)


def _check_kind(query: Token | None, site: AttentionSite) -> None:
    if query is not None and site.kind in {"cross", "text"}:
        shown = {"cross": "for every word the video tokens that look at it", "text": "the words that words look at"}
        raise UsageError(
            f"a query on a {site.kind} attention site: its map shows {shown[site.kind]}",
            got=query,
            where=site.name,
            remedy="leave --query out",
        )
