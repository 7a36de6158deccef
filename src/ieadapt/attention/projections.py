"""After a site's output projection: what an attention module gives back, changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention.discovery import denoisers_of, site_modules
from ieadapt.attention.sites import AttentionSite

ProjectionChange = Callable[[AttentionSite, Tensor], Tensor]


def without_projection(model: DiffusionPipeline | nn.Module, sites: Collection[AttentionSite]) -> set[str]:
    """Names of the sites whose attention has no output projection of its own (it lies in the block around it)."""
    modules = site_modules(denoisers_of(model))
    return {site.name for module, site in modules.items() if site in sites and _projection(module) is None}


@contextmanager
def after_projection(
    model: DiffusionPipeline | nn.Module, sites: Collection[AttentionSite], change: ProjectionChange
) -> Iterator[None]:
    """Change what the output projections of some sites return, for the length of the block.

    Args:
        model: a pipeline or a bare denoiser.
        sites: those sites; the ones without a projection are passed over.
        change: given the site and the projected tokens (row, token, channel), returns what to use instead.
    """
    with ExitStack() as stack:
        for module, site in site_modules(denoisers_of(model)).items():
            projection = _projection(module) if site in sites else None
            if projection is not None:
                stack.callback(projection.register_forward_hook(_changing(site, change)).remove)
        yield


def _projection(module: Any) -> nn.Module | None:
    """The linear layer of diffusers' `to_out`, a list of it and a dropout."""
    found = getattr(module, "to_out", None)
    return found[0] if isinstance(found, nn.ModuleList) else None


def _changing(site: AttentionSite, change: ProjectionChange) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return change(site, output)

    return hook
