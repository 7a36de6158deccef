"""`intercept`: look at, or change, what happens at chosen attention sites for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention.calls import Intervention
from ieadapt.attention.denoiser_calls import DenoiserWrapper, Prefix
from ieadapt.attention.discovery import denoisers_of
from ieadapt.attention.seam import Interception, Seam, open_seam
from ieadapt.attention.sites import (
    AttentionSite,
    GuidanceChoice,
    Selection,
    StepWindow,
    Stream,
    guidance_branches,
    select_sites,
)
from ieadapt.errors import FailureError, UsageError

AnyIntervention = TypeVar("AnyIntervention", bound=Intervention)


@contextmanager
def intercept(
    model: DiffusionPipeline | nn.Module,
    intervention: AnyIntervention,
    sites: Selection = None,
    steps: StepWindow | Sequence[int | float] = (0.0, 1.0),
    *,
    guidance: GuidanceChoice = "cond",
    heads: Sequence[int] | None = None,
    streams: Sequence[Stream] | None = None,
) -> Iterator[AnyIntervention]:
    """Apply an intervention at some attention sites while the block is open; the model is restored afterwards.

    Blocks nest: an inner intervention sees the output that an outer one left, and its own result wins.

    Args:
        model: a pipeline, or a bare denoiser called by hand (then every call counts as one step).
        intervention: called with every attention call at the chosen sites.
        sites: which sites, as `select_sites` understands them; None for all.
        steps: window of the denoising run as fractions; a step acts if start <= step / number of steps < stop.
        guidance: the rows of the batch that the intervention is given, and that its result replaces: `cond` (all rows
            where no classifier-free guidance runs), `uncond`, `all` for both, `weak` for the extra passes of an
            enhancement, or a tuple of these.
        heads: the attention heads that it is given, counted from 0; None for all.
        streams: in an edit, the role of each prompt of the batch, such as `("source", "target")`.

    Raises:
        UsageError: a selection that matches nothing, a window outside 0..1, or an attention backend that bypasses
            PyTorch's scaled dot-product attention.
        FailureError: on leaving, if a chosen site never fired.

    Example:
        >>> import torch
        >>> from diffusers import WanTransformer3DModel
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        ...     text_dim=16, ffn_dim=32, freq_dim=32, num_layers=1)
        >>> seen = []
        >>> with intercept(wan, lambda call: seen.append(call.layout), sites="joint"):
        ...     _ = wan(torch.zeros(1, 4, 2, 4, 6), torch.tensor([1]), torch.zeros(1, 5, 16))
        >>> seen
        [TokenLayout(frames=2, height=2, width=3, start=0, text=0)]
    """
    window, branches = StepWindow.of(steps), guidance_branches(guidance)
    if isinstance(model, nn.Module) and not window.whole:
        raise UsageError(
            "a bare denoiser has no known number of steps, so no window of them",
            got=steps,
            remedy="pass the pipeline instead of its denoiser",
        )
    with open_seam(model) as seam:
        chosen = select_sites(_own_sites(seam, model), sites)
        entry = Interception(intervention, frozenset(chosen), window, branches, heads, streams)
        seam.interceptions.append(entry)
        before = seam.passes
        try:
            yield intervention
        finally:
            seam.interceptions.remove(entry)
        if not entry.fired and not getattr(seam.run.pipeline, "interrupt", False):
            raise _never_fired(entry, chosen, seam.passes - before)


@contextmanager
def wrap_denoiser(
    model: DiffusionPipeline | nn.Module, wrapper: DenoiserWrapper, perturbed: Collection[AttentionSite] = ()
) -> Iterator[list[Prefix]]:
    """Let a wrapper see, and replace, every prediction of the denoiser while the block is open.

    The wrapper may run weak passes with `DenoiserCall.forward_rows`; these are not wrapped again and count no step.

    Args:
        model: a pipeline or a bare denoiser.
        wrapper: called with every denoiser call and its prediction.
        perturbed: the only sites where a weak pass differs from the full one. Blocks before the first of them are
            replayed in weak passes, with the same result up to rounding; by default everything is computed.

    Yields:
        What the weak passes replay, one `Prefix` for each denoiser with perturbed sites.
    """
    with open_seam(model) as seam, seam.wrapping(wrapper, perturbed) as prefixes:
        yield prefixes


def _own_sites(seam: Seam, model: DiffusionPipeline | nn.Module) -> list[AttentionSite]:
    """The seam's sites that belong to this model, which may be one of a pipeline's two denoisers."""
    own = {module for denoiser in denoisers_of(model).values() for module in denoiser.modules()}
    return [site for module, site in seam.sites.items() if module in own]


def _never_fired(entry: Interception, chosen: list[AttentionSite], passes: int) -> FailureError:
    """Each pass that an intervention is meant for has been checked; this is for an intervention without any."""
    if not passes:
        why = "the denoiser was not called inside the block"
    elif entry.passes:
        why = "the passes it was meant for left out or replayed these sites"
    else:
        why = f"no {' or '.join(entry.guidance)} rows of their denoiser ran in the window {entry.window}"
    return FailureError(
        f"{len(chosen)} of {len(chosen)} chosen attention sites never fired",
        got=why,
        where=", ".join(site.name for site in chosen[:3]) + (", ..." if len(chosen) > 3 else ""),
        remedy="call the model inside the block; leave out sites that this run does not reach",
    )
