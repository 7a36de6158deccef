"""What answers for a denoiser in its place: other attention backends, step caches, and blocks that we leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import UsageError

NATIVE_BACKENDS = (None, "native", "_native_math", "_native_efficient", "_native_flash", "_native_cudnn")
CACHE_HOOKS = ("cache", "pyramid_attention_broadcast")
"""Ends of the names of diffusers' modules (`diffusers.hooks.*`) whose hooks answer from earlier steps."""


class Bypass:
    """A `forward` that answers for a block of which a pass of ours computes nothing.

    Args:
        answer: what the block returns.
    """

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The answer."""
        return self._answer(*args, **kwargs)


def passed_over(denoiser: nn.Module) -> set[nn.Module]:
    """The modules that a pass of ours does not run: those inside blocks with a `Bypass`."""
    blocks = (block for block in denoiser.modules() if isinstance(vars(block).get("forward"), Bypass))
    return {module for block in blocks for module in block.modules()}


def refuse_bypasses(denoiser: nn.Module, sites: Mapping[nn.Module, AttentionSite] | None = None) -> None:
    """Refuse a denoiser whose attention would not be computed, or not by PyTorch's function.

    Args:
        denoiser: the denoiser.
        sites: also look at the attention modules for another backend, and at every module for hooks of a cache; None
            looks only at what the denoiser itself says, which costs nothing.

    Raises:
        UsageError: a step cache is on, or an attention backend that bypasses PyTorch's scaled dot-product attention.
    """
    cache = _cache_name(denoiser, deep=sites is not None)
    if cache is not None:
        raise UsageError(
            "a step cache answers for this denoiser, so its attention is not computed in every step",
            expected="every attention site computed in every pass",
            got=cache,
            where=type(denoiser).__name__,
            remedy="switch it off first: pipe.transformer.disable_cache()",
        )
    for module, site in (sites or {}).items():
        backend = getattr(module.processor, "_attention_backend", None)
        if getattr(backend, "value", backend) not in NATIVE_BACKENDS:
            raise UsageError(
                "this attention backend bypasses ieadapt",
                expected="the native backend (PyTorch's scaled_dot_product_attention)",
                got=getattr(backend, "value", backend),
                where=site.name,
                remedy='call pipe.transformer.set_attention_backend("native") first',
            )


def _cache_name(denoiser: Any, deep: bool) -> str | None:
    """The name of the step cache that is on: by the model's own word, or by a hook on one of its modules."""
    if getattr(denoiser, "is_cache_enabled", False):
        return type(denoiser._cache_config).__name__
    for module in denoiser.modules() if deep else ():
        registry = getattr(module, "_diffusers_hook", None)
        for hook in registry.hooks.values() if registry is not None else ():
            if type(hook).__module__.endswith(CACHE_HOOKS):
                return type(hook).__name__
    return None
