"""Finding denoisers in a pipeline and attention sites in a denoiser."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from ieadapt.attention.families import UNLISTED, Family, family_of
from ieadapt.attention.sites import AttentionSite, Kind
from ieadapt.errors import UsageError

USUAL_COMPONENTS = ("unet", "transformer", "transformer_2", "denoiser")


def denoisers_of(model: DiffusionPipeline | nn.Module) -> dict[str, nn.Module]:
    """The denoisers of a pipeline by component name, or the bare denoiser under the name "".

    A component counts as a denoiser if the family table knows it, or else if it has one of the usual names.

    Raises:
        UsageError: `model` is neither a pipeline with a denoiser nor a module.
    """
    if isinstance(model, nn.Module):
        return {"": uncompiled(model)}
    if not isinstance(model, DiffusionPipeline):
        raise UsageError(
            "not a model", expected="a diffusers pipeline or a denoiser (torch.nn.Module)", got=type(model).__name__
        )
    modules = {name: uncompiled(part) for name, part in model.components.items() if isinstance(part, nn.Module)}
    listed = {name: part for name, part in modules.items() if family_of(part) is not UNLISTED}
    found = listed or {name: part for name, part in modules.items() if name in USUAL_COMPONENTS}
    if not found:
        raise UsageError(
            "the pipeline has no denoiser",
            expected=f"a component named {', '.join(USUAL_COMPONENTS)}, or of a known family",
            got=", ".join(modules) or "no modules at all",
            where=type(model).__name__,
            remedy="pass the denoiser itself",
        )
    return found


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)


def find_sites(model: DiffusionPipeline | nn.Module) -> list[AttentionSite]:
    """Every attention site of a pipeline's denoiser, or of a bare denoiser, in order of execution.

    Raises:
        UsageError: there is no denoiser, or it has no attention modules that the seam can see.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> small = dict(num_attention_heads=2, attention_head_dim=12, text_dim=16, ffn_dim=32, freq_dim=32)
        >>> find_sites(WanTransformer3DModel(num_layers=1, **small))
        [<joint #0 blocks.0.attn1, 2 heads>, <cross #1 blocks.0.attn2, 2 heads>]
    """
    return list(site_modules(denoisers_of(model)).values())


def active_sites(pipeline: DiffusionPipeline, timesteps: Sequence[int | float]) -> list[AttentionSite]:
    """The sites that a run of these timesteps reaches; all of them unless the pipeline has several denoisers.

    Args:
        pipeline: the pipeline.
        timesteps: what the denoiser is told at each step of the run.
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
        found = [(path, module) for path, module in denoiser.named_modules() if _is_attention(module)]
        if not found:
            raise UsageError(
                "no attention sites found",
                expected="modules with a `processor` and a `to_q` projection, as diffusers builds them",
                got=type(denoiser).__name__,
                remedy="attention written by hand must be wrapped in such a module before it can be measured",
            )
        prefix = f"{component}." if len(denoisers) > 1 else ""
        for path, module in sorted(found, key=lambda item: family.order(item[0])):
            sites[module] = AttentionSite(prefix + path, _kind(family, path, module), len(sites), _heads(module))
    return sites


def attention_modules(model: DiffusionPipeline | nn.Module, sites: Collection[AttentionSite]) -> list[nn.Module]:
    """The modules of some sites of a model, in order of execution."""
    return [module for module, site in site_modules(denoisers_of(model)).items() if site in sites]


def _is_attention(module: nn.Module) -> bool:
    return hasattr(module, "processor") and hasattr(module, "to_q")


def _kind(family: Family, path: str, module: nn.Module) -> Kind:
    if getattr(module, "is_cross_attention", False):
        return "cross"
    return next((kind for pattern, kind in family.kinds if fnmatchcase(path, pattern)), "unknown")


def _heads(module: Any) -> int:
    return int(getattr(module, "heads", 0) or getattr(module, "num_heads", 0))
