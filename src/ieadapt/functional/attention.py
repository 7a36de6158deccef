"""One attention: queries, keys, values, mask, scale, and which tokens are video. All else is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.notation import Scope

Mask = Shaped[Tensor, "..."]
"""A boolean (True = attend) or additive mask, broadcastable to (batch, head, query, key)."""

MASKED_BIAS = -9984.0
"""An additive bias at or below this hides its key: -1e4, the bias that diffusers uses, as bfloat16 rounds it."""

HIDDEN_LOGIT = -1e30
"""Logit of a hidden key: finite, so that zero probability times logit stays zero."""


DEFAULT_MEMORY_LIMIT = 256 * 2**20
"""Bytes that temporaries may take where the caller does not say."""


class Block(NamedTuple):
    """A rectangle of query rows: slices of batch, head and query."""

    batch: slice
    head: slice
    query: slice


Span = slice
"""A range of tokens; the class below has a property called slice."""


@dataclass(frozen=True)
class VideoTokens:
    """The video tokens of a sequence: `start .. start + frames * positions`, frame after frame.

    Args:
        start: index of the first video token; 0 where video comes first, the text length where text does.
        frames: latent frames, at least 1.
        positions: tokens of one frame (rows times columns), at least 1.

    Raises:
        UsageError: when a count is below its least value.

    Example:
        >>> video = VideoTokens(start=226, frames=13, positions=30 * 45)
        >>> video.count, video.slice
        (17550, slice(226, 17776, None))
    """

    start: int
    frames: int
    positions: int

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("frames", 1), ("positions", 1)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"{name} of the video tokens is out of range",
                    expected=f">= {least}",
                    got=getattr(self, name),
                    where="VideoTokens",
                )

    @property
    def count(self) -> int:
        """Number of video tokens."""
        return self.frames * self.positions

    @property
    def stop(self) -> int:
        """Index after the last video token."""
        return self.start + self.count

    @property
    def slice(self) -> Span:
        """The video tokens as a slice of the sequence."""
        return slice(self.start, self.stop)

    def text_slices(self, n_keys: int) -> tuple[Span, ...]:
        """Return the ranges of a sequence of `n_keys` tokens that are not video, empty ones left out.

        Raises:
            UsageError: when the video tokens do not fit into the sequence.

        Example:
            >>> VideoTokens(start=2, frames=2, positions=3).text_slices(10)
            (slice(0, 2, None), slice(8, 10, None))
        """
        if self.stop > n_keys:
            raise UsageError(
                "the video tokens reach past the end of the keys",
                expected=f"start + frames * positions <= {n_keys}",
                got=f"{self.start} + {self.frames} * {self.positions} = {self.stop}",
                where="VideoTokens",
                remedy="pass the layout of this call's own latents",
            )
        ranges = (slice(0, self.start), slice(self.stop, n_keys))
        return tuple(part for part in ranges if part.start < part.stop)


Rows = slice | Sequence[int] | Tensor
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Attention:
    """The map softmax(scale * query . key + mask), which is never built, and the values it weighs.

    Tensors are (batch, head, token, dim), after rotary embedding and normalisation of queries and keys.

    Attributes:
        query: queries.
        key: keys, as many heads as the queries: repeat grouped key heads (GQA) first.
        value: values, one per key.
        mask: boolean (True = attend) or additive, broadcastable to (batch, head, query, key), and kept with four axes;
            None hides nothing. A key that is masked, or biased by -1e4 or less, does not count as a key.
        scale: factor of the products; None = 1 / sqrt(dim).
        video: which keys are video where text tokens or several frames share the sequence; None = no such difference.
        padding: query tokens that only fill up a text (True), per batch entry; no statistic counts their rows.
        memory_limit: bytes that the temporaries of whatever is computed from it may take together, besides the result.

    Raises:
        UsageError: shapes that do not fit, a mask of another size, or video tokens past the keys.

    Example:
        >>> import torch
        >>> tokens = torch.randn(1, 2, 6, 4)
        >>> attention = Attention(tokens, tokens, tokens, video=VideoTokens(start=2, frames=2, positions=2))
        >>> attention.video_rows, attention.text
        (slice(2, 6, None), (slice(0, 2, None),))
    """

    query: Float[Tensor, "batch head query dim"]
    key: Float[Tensor, "_ _ key _"]
    value: Float[Tensor, "_ _ _ channel"]
    mask: Mask | None = None
    scale: float | None = None
    video: VideoTokens | None = None
    padding: Bool[Tensor, "batch query"] | None = None
    memory_limit: int = DEFAULT_MEMORY_LIMIT

    def __post_init__(self) -> None:
        query, key, value = self.query, self.key, self.value
        same = query.ndim == key.ndim == value.ndim == 4 and query.shape[:2] == key.shape[:2] == value.shape[:2]
        if not same or query.shape[-1] != key.shape[-1] or not key.shape[2] == value.shape[2] > 0:
            raise UsageError(
                "queries, keys and values do not fit each other",
                expected="(batch, head, query, dim), (batch, head, key, dim) and (batch, head, key, channel)",
                got=", ".join(str(tuple(tensor.shape)) for tensor in (query, key, value)),
                where="query, key, value",
                remedy="repeat grouped key heads to the number of query heads (repeat_interleave on axis 1)",
            )
        if self.mask is not None and (self.mask.ndim > 4 or self.mask.shape[-1:] not in {(1,), key.shape[2:3]}):
            raise UsageError(
                "the attention mask does not fit the keys",
                expected=f"a shape that broadcasts to (batch, head, query, {key.shape[2]})",
                got=tuple(self.mask.shape),
                where="mask",
            )
        if self.mask is not None:
            object.__setattr__(self, "mask", self.mask[(None,) * (4 - self.mask.ndim)])
        self.layout.text_slices(key.shape[2])  # raises where video tokens reach past the keys

    @property
    def dtype(self) -> torch.dtype:
        """Type of logits and of everything summed over them: float32, or float64 for float64 inputs."""
        return torch.promote_types(self.query.dtype, torch.float32)

    @property
    def factor(self) -> float:
        """The scale that applies."""
        return self.query.shape[-1] ** -0.5 if self.scale is None else self.scale

    @property
    def layout(self) -> VideoTokens:
        """The video tokens; without a difference every key is one."""
        return VideoTokens(0, 1, self.key.shape[-2]) if self.video is None else self.video

    @property
    def video_rows(self) -> slice:
        """The query rows that are video: the video tokens in self-attention, all rows in cross-attention."""
        queries, keys = self.query.shape[-2], self.key.shape[-2]
        return self.layout.slice if queries == keys else slice(0, queries)

    @property
    def text(self) -> tuple[slice, ...]:
        """The ranges of keys that are not video."""
        return self.layout.text_slices(self.key.shape[-2])

    @property
    def has_text_rows(self) -> bool:
        """Whether some query rows are text: in self-attention over video and text."""
        return self.video is not None and bool(self.text) and self.query.shape[-2] == self.key.shape[-2]

    def is_whole(self, scope: Scope) -> bool:
        """Whether a replacement of this scope takes over the whole map: asked for, or nothing but video is there."""
        return scope == "all" or not self.text

    def text_of(self, tokens: Tensor, axis: int = -2) -> Tensor:
        """What a tensor holds at the text keys."""
        return torch.cat([tokens.narrow(axis, part.start, part.stop - part.start) for part in self.text], dim=axis)

    @property
    def masked_per_query(self) -> bool:
        """Whether query rows of one head may see different keys."""
        return self.mask is not None and self.mask.shape[-2] > 1

    def mask_of(self, block: Block) -> Tensor | None:
        """The part of the mask for a block; axes of length 1 are kept, but for that of the keys."""
        if self.mask is None:
            return None
        parts = (part if size > 1 else slice(None) for part, size in zip(block, self.mask.shape, strict=False))
        return self.mask[tuple(parts)].expand(-1, -1, -1, self.key.shape[-2])

    def visible(self, block: Block, keys: slice = slice(None)) -> Bool[Tensor, "_ _ _ key"] | None:
        """Which of the given keys a block's rows may attend to; None for all of them."""
        mask = self.mask_of(block)
        if mask is None:
            return None
        return (mask if mask.dtype == torch.bool else mask > MASKED_BIAS)[..., keys]

    def apply_mask(self, logits: Float[Tensor, "_ _ _ key"], block: Block) -> Int[Tensor, "_ _ _"] | None:
        """Add the bias to a block's logits in place, hide what is masked, and return the keys left of each row."""
        mask, visible = self.mask_of(block), self.visible(block)
        if mask is None or visible is None:
            return None
        if mask.dtype != torch.bool:
            logits.add_(mask)
        logits.masked_fill_(~visible, HIDDEN_LOGIT)
        return visible.sum(dim=-1)

    def of_rows(self, rows: Rows) -> Attention:
        """The same attention of some of its query rows; video keys stay, and all of these rows count as video."""
        mask = self.mask[..., rows, :] if self.mask is not None and self.masked_per_query else self.mask
        padding = None if self.padding is None else self.padding[:, rows]
        return replace(self, query=self.query[..., rows, :], mask=mask, padding=padding)

    def part(self, batch: Rows = slice(None), heads: Rows = slice(None)) -> Attention:
        """The same attention of some entries of the batch, and of some heads."""
        mask = self.mask
        if mask is not None:
            mask = mask[batch] if mask.shape[0] > 1 else mask
            mask = mask[:, heads] if mask.shape[1] > 1 else mask
        query, key, value = (tensor[batch][:, heads] for tensor in (self.query, self.key, self.value))
        padding = None if self.padding is None else self.padding[batch]
        return replace(self, query=query, key=key, value=value, mask=mask, padding=padding)

    def output(self) -> Float[Tensor, "batch head query channel"]:
        """What PyTorch's attention gives."""
        return F.scaled_dot_product_attention(self.query, self.key, self.value, attn_mask=self.mask, scale=self.factor)

    def outside_video(self) -> Float[Tensor, "batch head query channel"]:
        """PyTorch's attention in the rows that are not video, zero in all others, which are not computed."""
        output = self.value.new_zeros((*self.query.shape[:-1], self.value.shape[-1]))
        video = self.video_rows
        for rows in (slice(0, video.start), slice(video.stop, self.query.shape[-2])):
            if rows.start < rows.stop:
                output[..., rows, :] = self.of_rows(rows).output()
        return output


def measuring(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run a function without gradients and in full precision, also where the caller is under `torch.autocast`.

    Autocast would compute logits in bfloat16, whose 8 bits move an entropy percentage by .3.
    """

    @wraps(function)
    def measured(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return measured
