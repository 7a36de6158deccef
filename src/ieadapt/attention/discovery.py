"""Finding denoisers in a pipeline, attention sites in a denoiser, and the output projections of sites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention.families import UNLISTED, Family, family_of
from ieadapt.attention.sites import AttentionSite, Kind, SiteList
from ieadapt.errors import UsageError

QUERY_PROJECTIONS = ("to_q", "to_query")
"""What diffusers calls an attention's own query projection; the second name is Kandinsky's."""

USUAL_COMPONENTS = ("unet", "transformer", "transformer_2", "denoiser")


def first_denoiser(model: DiffusionPipeline | nn.Module) -> Any:
    """The denoiser that stands for a pipeline: its first; where there are two, both are of one family and size.

    Raises:
        UsageError: as `denoisers_of` does.
    """
    return next(iter(denoisers_of(model).values()))


def denoisers_of(model: DiffusionPipeline | nn.Module) -> dict[str, nn.Module]:
    """The denoisers of a pipeline by component name, or the bare denoiser under the name "".

    A component counts as a denoiser if the family table knows it, or else if it has one of the usual names.

    Raises:
        UsageError: `model` is neither a pipeline with a denoiser nor a module.
    """
    if isinstance(model, nn.Module):
        return {"": uncompiled(model)}
    if not isinstance(model, DiffusionPipeline):
        parts = [name for name in USUAL_COMPONENTS if isinstance(getattr(model, name, None), nn.Module)]
        raise UsageError(
            "not a model",
            expected="a diffusers pipeline or a denoiser (torch.nn.Module)",
            got=type(model).__name__,
            remedy=f"of a modular pipeline, give `find_sites` and `intercept` its {parts[0]}; what makes videos itself "
            "takes the standard pipeline of the same components"
            if parts
            else None,
        )
    modules = {name: uncompiled(part) for name, part in model.components.items() if isinstance(part, nn.Module)}
    listed = {name: part for name, part in modules.items() if family_of(part) is not UNLISTED}
    denoisers = listed or {name: part for name, part in modules.items() if name in USUAL_COMPONENTS}
    if not denoisers:
        raise UsageError(
            "the pipeline has no denoiser",
            expected=f"a component named {', '.join(USUAL_COMPONENTS)}, or of a known family",
            got=", ".join(modules) or "no modules at all",
            where=type(model).__name__,
            remedy="pass the denoiser itself",
        )
    return denoisers


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself: paths in the wrapper begin with `_orig_mod`."""
    return getattr(module, "_orig_mod", module)


def find_sites(model: DiffusionPipeline | nn.Module) -> SiteList:
    """Every attention site of a pipeline's denoiser, or of a bare denoiser, in order of execution.

    Raises:
        UsageError: there is no denoiser, or it has no attention modules that the seam can see.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> small = dict(num_attention_heads=2, attention_head_dim=12, text_dim=16, ffn_dim=32, freq_dim=32)
        >>> find_sites(WanTransformer3DModel(num_layers=1, **small))
        2 attention sites: joint (1), cross (1)
           0 joint    blocks.0.attn1, 2 heads
           1 cross    blocks.0.attn2, 2 heads
    """
    return SiteList(site_modules(denoisers_of(model)).values())


def active_sites(pipeline: DiffusionPipeline, timesteps: Sequence[int | float]) -> list[AttentionSite]:
    """The sites that a run of these timesteps reaches; all of them unless the pipeline has several denoisers.

    Args:
        pipeline: the pipeline.
        timesteps: the timestep of each step of the run.
    """
    denoisers = denoisers_of(pipeline)
    names = family_of(next(iter(denoisers.values()))).active(pipeline, timesteps)
    reached = {module for name, part in denoisers.items() if name in names for module in part.modules()}
    return [site for module, site in site_modules(denoisers).items() if module in reached]


def site_modules(denoisers: dict[str, nn.Module]) -> dict[nn.Module, AttentionSite]:
    """The attention modules of these denoisers and their sites, in order of execution."""
    sites: dict[nn.Module, AttentionSite] = {}
    for component, denoiser in denoisers.items():
        family = family_of(denoiser)
        # What every attention of diffusers has, whatever its class: a processor and its own query projection. Names of
        # classes and paths differ between families and versions, and the blocks around such a module have neither.
        paths = {
            path: module
            for path, module in denoiser.named_modules()
            if hasattr(module, "processor") and any(hasattr(module, name) for name in QUERY_PROJECTIONS)
        }
        if not paths:
            raise UsageError(
                "no attention sites found",
                expected="modules with a `processor` and a `to_q` projection, as diffusers builds them",
                got=type(denoiser).__name__,
                remedy="attention written by hand must be wrapped in such a module before it can be measured",
            )
        prefix = f"{component}." if len(denoisers) > 1 else ""
        for path in sorted(paths, key=family.order):
            module: Any = paths[path]
            heads = int(getattr(module, "heads", 0) or getattr(module, "num_heads", 0))
            sites[module] = AttentionSite(prefix + path, _kind(family, path, module), len(sites), heads)
    return sites


def attention_modules(model: DiffusionPipeline | nn.Module, sites: Collection[AttentionSite]) -> list[nn.Module]:
    """The modules of some sites of a model, in order of execution."""
    return [module for module, site in site_modules(denoisers_of(model)).items() if site in sites]


def _kind(family: Family, path: str, module: nn.Module) -> Kind:
    if getattr(module, "is_cross_attention", False):
        return "cross"
    return next((kind for pattern, kind in family.kinds if fnmatchcase(path, pattern)), "unknown")


def _projections(
    model: DiffusionPipeline | nn.Module, sites: Collection[AttentionSite]
) -> dict[AttentionSite, nn.Module | None]:
    """The linear layer of diffusers' `to_out`, a list of it and a dropout; some blocks hold it themselves."""
    layers = {site: getattr(module, "to_out", None) for module, site in site_modules(denoisers_of(model)).items()}
    return {site: out[0] if isinstance(out, nn.ModuleList) else None for site, out in layers.items() if site in sites}


def without_projection(model: DiffusionPipeline | nn.Module, sites: Collection[AttentionSite]) -> set[str]:
    """Names of the sites whose attention has no output projection of its own (it lies in the block around it)."""
    return {site.name for site, projection in _projections(model, sites).items() if projection is None}


@contextmanager
def after_projection(
    model: DiffusionPipeline | nn.Module,
    sites: Collection[AttentionSite],
    change: Callable[[AttentionSite, Tensor], Tensor],
) -> Iterator[None]:
    """Change what the output projections of some sites return, for the length of the block.

    Args:
        model: a pipeline or a bare denoiser.
        sites: those sites; the ones without a projection are passed over.
        change: given the site and the projected tokens (row, token, channel), returns what to use instead.
    """
    with ExitStack() as stack:
        for site, projection in _projections(model, sites).items():
            if projection is not None:
                stack.callback(projection.register_forward_hook(partial(_changed, site, change)).remove)
        yield


def _changed(site: AttentionSite, change: Callable[..., Tensor], layer: nn.Module, args: Any, output: Tensor) -> Tensor:
    return change(site, output)
