"""Blocks that a pass of ours leaves out, and what of others answers for a denoiser: step caches, attention backends."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention.discovery import denoisers_of, site_modules
from ieadapt.attention.restore import attribute
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError, UsageError

NATIVE_BACKENDS = (None, "native", "_native_math", "_native_efficient", "_native_flash", "_native_cudnn")
CACHE_HOOKS = ("cache", "pyramid_attention_broadcast")
"""Ends of the names of diffusers' modules (`diffusers.hooks.*`) whose hooks answer from earlier steps."""


class Bypass(partial[Any]):
    """A `forward` that answers for a block of which a pass of ours computes nothing; its type tells it from others."""


def passed_over(denoiser: nn.Module) -> set[nn.Module]:
    """The modules that a pass of ours does not run: those inside blocks with a `Bypass`."""
    blocks = (block for block in denoiser.modules() if isinstance(vars(block).get("forward"), Bypass))
    return {module for block in blocks for module in block.modules()}


def bound_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a module's call by name.

    By the signature of the class: on the instance, `forward` may be a wrapper of ours or of accelerate.
    """
    arguments = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
    named = {name: value for name, value in arguments.items() if name not in ("self", "kwargs")}
    return named | arguments.get("kwargs", {})


def block_around(model: DiffusionPipeline | nn.Module, site: AttentionSite) -> nn.Module:
    """The transformer block that a site is part of: the nearest module around it that stands in a list of modules.

    Raises:
        UsageError: there is none.

    Example:
        >>> from diffusers import WanTransformer3DModel
        >>> from ieadapt.attention import find_sites
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, text_dim=16, ffn_dim=32,
        ...     freq_dim=32, num_layers=1)
        >>> type(block_around(wan, find_sites(wan)[0])).__name__
        'WanTransformerBlock'
    """
    denoisers = denoisers_of(model)
    sites = {each.name: module for module, each in site_modules(denoisers).items()}
    for denoiser in denoisers.values():
        path = next((path for path, module in denoiser.named_modules() if module is sites.get(site.name)), None)
        parts = path.split(".") if path else []
        for length in range(len(parts) - 1, 1, -1):
            parent = denoiser.get_submodule(".".join(parts[: length - 1]))
            if isinstance(parent, nn.ModuleList):
                return denoiser.get_submodule(".".join(parts[:length]))
    raise UsageError("no transformer block is around this site", where=site.name, remedy="choose other sites")


class SkippedBlocks:
    """Blocks that a pass can leave out: their input goes on unchanged, as if only the residual path were there.

    Args:
        blocks: transformer blocks that return what they were given: hidden states, or hidden states and text states.

    Source: STG-R (arXiv 2411.18664), by its code: the block returns its inputs.
    """

    def __init__(self, blocks: Collection[nn.Module]) -> None:
        self.blocks = list(dict.fromkeys(blocks))
        self._outputs: dict[nn.Module, int] = {}  # how many tensors a block returns as a tuple, 0 for a bare tensor

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Notice, in the passes inside the block, what each of the blocks returns."""
        with ExitStack() as stack:
            for block in self.blocks:
                stack.callback(block.register_forward_hook(self._notice, with_kwargs=True).remove)
            yield

    def _notice(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        inputs = _streams(block, args, kwargs)[: len(outputs)]
        expected, got = ([getattr(tensor, "shape", None) for tensor in tensors] for tensors in (inputs, outputs))
        if expected != got:
            raise FailureError(
                "this block cannot be left out: what it returns has not the form of what it is given",
                expected=expected,
                got=got,
                where=type(block).__name__,
            )
        self._outputs[block] = len(outputs) if isinstance(output, tuple) else 0

    @contextmanager
    def skipped(self, blocks: Collection[nn.Module] | None = None) -> Iterator[None]:
        """Leave the blocks, or only some of them, out of the passes inside the block."""
        with ExitStack() as stack:
            for block in self.blocks if blocks is None else blocks:
                stack.enter_context(attribute(block, "forward", Bypass(_inputs, block, self._outputs.get(block, 0))))
            yield


def _streams(block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor | None]:
    """What the residual path of a block carries: hidden states, and text states where it has them."""
    arguments = bound_arguments(block, args, kwargs)
    return [arguments[name] for name in ("hidden_states", "encoder_hidden_states") if name in arguments]


def _inputs(block: nn.Module, outputs: int, /, *args: Any, **kwargs: Any) -> Any:
    streams = _streams(block, args, kwargs)
    return tuple(streams[:outputs]) if outputs else streams[0]


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
