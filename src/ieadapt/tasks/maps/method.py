"""Attention maps to look at: where tokens look, in space, in time and in the prompt; only the requested rows."""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import DiffusionPipeline

from ieadapt.attention import AttentionSite, find_sites, intercept, select_sites
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import DEFAULT_MEMORY_LIMIT
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.generate import Progress, generate
from ieadapt.tasks.maps.record import RecordMaps, Token, prompt_words
from ieadapt.tasks.maps.result import AttentionMaps

_SHOWN_WITHOUT_QUERY = {
    "cross": "for every word the video tokens that look at it",
    "text": "the words that words look at",
}


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
        >>> pipe = ieadapt.load("scenes")  # doctest: +SKIP
        >>> maps = ieadapt.attention_maps(pipe, "a big red ball moving left over bricks", site, query=(3, 8, 8))
        ... # doctest: +SKIP
    """
    config = config or GenerationConfig()
    chosen = one_site(find_sites(pipe), site)
    step_numbers = checked_steps(steps, config.num_inference_steps)
    token = None if query is None else Token(*query)
    if head is not None and not 0 <= head < chosen.heads:
        raise UsageError("the site has no such head", expected=f"0..{chosen.heads - 1}", got=head, where=chosen.name)
    if token is not None and chosen.kind in _SHOWN_WITHOUT_QUERY:
        raise UsageError(
            f"a query on a {chosen.kind} attention site: its map shows {_SHOWN_WITHOUT_QUERY[chosen.kind]}",
            got=token,
            where=chosen.name,
            remedy="leave --query out",
        )
    words = prompt_words(pipe, prompt)
    record = RecordMaps(step_numbers, words, token, head, memory_limit=memory_limit)
    with intercept(pipe, record, [chosen]):
        clip = generate(pipe, [prompt], config, seed, progress)[0]
    missing = [step for step in step_numbers if step not in record.maps]
    if missing:
        raise FailureError(
            "the site did not run at every requested step",
            got=f"nothing at {', '.join(map(str, missing))}",
            where=chosen.name,
            remedy="a pipeline with two denoisers runs each at some steps only: ask for others",
        )
    return AttentionMaps(chosen, prompt, seed, token, head, step_numbers, words, record.weights(), record.frames, clip)


def one_site(sites: Sequence[AttentionSite], name: str | AttentionSite) -> AttentionSite:
    """The one site that a name means.

    Raises:
        UsageError: none (near names are given), or several.

    Example:
        >>> one_site([AttentionSite("mid.attn1", "spatial", 0, 2)], "mid.attn1").kind
        'spatial'
    """
    matches = select_sites(sites, name)
    if len(matches) > 1:
        names = ", ".join(site.name for site in matches[:3])
        raise UsageError(
            "maps are drawn for one site",
            got=f"{len(matches)}: {names}, ...",
            where="--site",
            remedy="name one of them in full",
        )
    return matches[0]


def checked_steps(steps: Sequence[int] | None, total: int) -> tuple[int, ...]:
    """The requested steps, rising, each once; None for the first, the middle and the last.

    Raises:
        UsageError: a step outside the run, or none.

    Example:
        >>> checked_steps(None, 25), checked_steps([4, 0], 8)
        ((0, 12, 24), (0, 4))
    """
    chosen = sorted(set([0, total // 2, total - 1] if steps is None else steps))
    outside = [step for step in chosen if not 0 <= step < total]
    if outside or not chosen:
        raise UsageError(
            "a step outside the run" if outside else "no step to look at",
            expected=f"steps within 0..{total - 1}",
            got=", ".join(map(str, outside)) or "none",
            where="--at-steps",
        )
    return tuple(chosen)
