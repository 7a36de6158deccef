"""The transformer blocks around attention sites, and passes that leave them out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ieadapt.attention.bypasses import Bypass
from ieadapt.attention.discovery import denoisers_of, site_modules
from ieadapt.attention.restore import attribute
from ieadapt.attention.sites import AttentionSite
from ieadapt.errors import FailureError, UsageError

STREAMS = ("hidden_states", "encoder_hidden_states")


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
        self._returns: dict[nn.Module, int] = {}

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Notice, in the passes inside the block, what each of the blocks returns."""
        with ExitStack() as stack:
            for block in self.blocks:
                stack.callback(block.register_forward_hook(self._notice, with_kwargs=True).remove)
            yield

    def _notice(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        given = _streams(block, args, kwargs)[: len(outputs)]
        shapes = [getattr(tensor, "shape", None) for tensor in given]
        if shapes != [getattr(tensor, "shape", None) for tensor in outputs]:
            raise FailureError(
                "this block cannot be left out: what it returns has not the form of what it is given",
                expected=shapes,
                got=[getattr(tensor, "shape", None) for tensor in outputs],
                where=type(block).__name__,
            )
        self._returns[block] = len(outputs) if isinstance(output, tuple) else 0

    @contextmanager
    def skipped(self, blocks: Collection[nn.Module] | None = None) -> Iterator[None]:
        """Leave the blocks, or only some of them, out of the passes inside the block."""
        with ExitStack() as stack:
            for block in self.blocks if blocks is None else blocks:
                answer = Bypass(_passing_by(block, self._returns.get(block, 0)))
                stack.enter_context(attribute(block, "forward", answer))
            yield


def _streams(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor | None]:
    bound = inspect.signature(type(block).forward).bind(block, *args, **kwargs).arguments
    return [bound[name] for name in STREAMS if name in bound]


def _passing_by(block: nn.Module, outputs: int) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        given = _streams(block, args, kwargs)
        return tuple(given[:outputs]) if outputs else given[0]

    return forward
