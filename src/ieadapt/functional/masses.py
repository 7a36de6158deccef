"""What a replacement of a part of the map needs: which rows and keys are video, and each row's mass on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.functional.kernels import fused_rows, uses_kernel
from ieadapt.functional.logits import Logits
from ieadapt.functional.masks import Block, KeyMask, check_rows
from ieadapt.functional.video_tokens import VideoTokens

Scope = Literal["video", "video-renormalised", "all"]
"""Which part of the map is replaced."""

Queries = Float[Tensor, "batch head query dim"]
Keys = Float[Tensor, "batch head key dim"]
Values = Float[Tensor, "batch head key channel"]
Output = Float[Tensor, "batch head query channel"]


@dataclass(frozen=True)
class ReplacedCall:
    """One attention call whose map is to be replaced."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    mask: Tensor | None
    scale: float | None
    is_causal: bool
    video: VideoTokens | None
    memory_limit: int

    @property
    def logits(self) -> Logits:
        """The call's logits, in blocks."""
        return Logits(self.query, self.key, self.key_mask, self.scale, self.memory_limit)

    @property
    def key_mask(self) -> KeyMask:
        """Which keys each row sees."""
        return KeyMask(self.mask, self.is_causal, self.key.shape[-2])

    @property
    def layout(self) -> VideoTokens:
        """The video tokens; without a layout every key is one."""
        return VideoTokens(0, 1, self.key.shape[-2]) if self.video is None else self.video

    @property
    def text_slices(self) -> tuple[slice, ...]:
        """The ranges of keys that are not video."""
        return self.layout.text_slices(self.key.shape[-2])

    @property
    def video_rows(self) -> slice:
        """The query rows whose map is replaced with scope video."""
        return self.layout.rows(self.query.shape[-2], self.key.shape[-2])

    def shape_of(self, rows: slice) -> tuple[int, int, int, int]:
        """Shape of an output that holds only the given rows."""
        return (*self.query.shape[:2], rows.stop - rows.start, self.value.shape[-1])

    def replaces_all(self, scope: Scope) -> bool:
        """Whether the whole map is replaced: asked for, or nothing but video is there."""
        return scope == "all" or not self.text_slices

    def with_video_rows(self, rows: Tensor) -> Tensor:
        """Return the ordinary output with the video rows replaced; all others bit for bit."""
        return self.with_rows(self.video_rows, rows)

    def with_rows(self, where: slice, rows: Tensor) -> Tensor:
        """Return the ordinary output with some rows replaced, in the value's type."""
        result = self.output.to(self.value.dtype, copy=True)
        result[..., where, :] = rows.to(result.dtype)
        return result

    def text_of(self, tokens: Tensor) -> Tensor:
        """Return what a tensor holds at the text keys, along its last but one axis."""
        return torch.cat([tokens[..., part, :] for part in self.text_slices], dim=-2)


def _mask_of(call: ReplacedCall, rows: slice) -> Tensor | None:
    """The mask of some query rows, for every key."""
    if call.mask is None:
        return None
    mask = torch.atleast_2d(call.mask)
    return mask[..., rows if mask.shape[-2] > 1 else slice(None), :].expand(
        *(-1,) * (mask.ndim - 1), call.key.shape[-2]
    )


def check_scope(scope: Scope, where: str, allowed: tuple[Scope, ...] = ("video", "all")) -> None:
    """Raise unless a replacement has the scope asked for.

    Raises:
        UsageError: naming the scopes it has.
    """
    if scope not in allowed:
        raise UsageError("this replacement has no such scope", expected=" or ".join(allowed), got=scope, where=where)


def place_in(block: Block, rows: slice) -> Block:
    """Return where a block lies in a result that holds only the given rows."""
    return block._replace(query=slice(block.query.start - rows.start, block.query.stop - rows.start))


def keep_masses(call: ReplacedCall, replacement: Tensor) -> Tensor:
    """Return m_video * replacement + m_text * text output for the video rows, in the type logits have."""
    query = call.query[..., call.video_rows, :]
    mask = _mask_of(call, call.video_rows)
    if uses_kernel(
        query,
        call.key,
        None,
        mask=mask,
        scale=call.logits.factor,
        is_causal=call.is_causal,
        video=call.layout,
        choice=None,
    ):
        return _keep_fused_masses(call, query, mask, replacement)
    return _keep_streamed_masses(call, replacement)


def _keep_fused_masses(call: ReplacedCall, query: Tensor, mask: Tensor | None, replacement: Tensor) -> Tensor:
    """With the share of text from the fused kernel, and the text output from an attention to the text alone."""
    rows = fused_rows(query, call.key, None, scale=call.logits.factor, mask=mask, video=call.layout)
    if call.key_mask.hides:
        check_rows(rows["keys"] > 0, Block(slice(0, None), slice(0, None), call.video_rows))
    text_mask = None
    if mask is not None:
        text_mask = torch.cat([mask[..., part] for part in call.text_slices], dim=-1)
        text_mask = text_mask if text_mask.dtype == torch.bool else text_mask.to(query.dtype)
    text = F.scaled_dot_product_attention(
        query, call.text_of(call.key), call.text_of(call.value), attn_mask=text_mask, scale=call.logits.factor
    )
    share = rows["text"][..., None]
    return (1 - share) * replacement + torch.where(share > 0, share * text, 0.0)


def _keep_streamed_masses(call: ReplacedCall, replacement: Tensor) -> Tensor:
    """With both from two log-sum-exps per row, in blocks of rows."""
    logits, rows, text_value = call.logits, call.video_rows, call.text_of(call.value)
    result = replacement.to(logits.dtype).expand(call.shape_of(rows)).clone(memory_format=torch.contiguous_format)
    for block, values, _ in logits.blocks(rows):
        text = torch.cat([values[..., part] for part in call.text_slices], dim=-1)
        video_logsumexp = values[..., call.layout.slice].logsumexp(dim=-1, keepdim=True)
        total = torch.logaddexp(video_logsumexp, text.logsumexp(dim=-1, keepdim=True))
        place = place_in(block, rows)
        result[place] *= (video_logsumexp - total).exp()
        result[place] += (text - total).exp() @ text_value[block[:2]].to(logits.dtype)
    return result
