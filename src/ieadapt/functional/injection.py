"""What attention would give with another sequence's map: that one's queries and keys, this one's values."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT
from ieadapt.functional.masks import Mask
from ieadapt.functional.masses import (
    Keys,
    Output,
    Queries,
    ReplacedCall,
    Scope,
    Values,
    check_scope,
    keep_masses,
)
from ieadapt.functional.video_tokens import VideoTokens


def inject_output(
    query: Queries,
    key: Keys,
    value: Values,
    output: Output,
    *,
    source_query: Float[Tensor, "batch head source dim"],
    source_key: Float[Tensor, "batch head source dim"],
    source_video: VideoTokens | None = None,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with the source's attention map on this sequence's values: softmax(Q_source K_source) V.

    With scope "video" only the video-to-video block is the source's; the rows keep their own mass on video and text,
    so that source and target may have texts of different length. With scope "all" the whole map is.

    Args:
        query: queries; with scope "video" they decide the masses.
        key: keys.
        value: values.
        output: what the ordinary attention gave.
        source_query: the source's queries.
        source_key: the source's keys.
        source_video: which of the source's tokens are video; None = as `video` says.
        mask: which keys a row may attend to.
        scale: factor of the products; None = 1 / sqrt(dim).
        is_causal: query i sees keys 0..i only (refused: an injected map is the source's).
        video: which tokens are video; None = all.
        scope: what to replace.
        memory_limit: bytes of temporaries besides the result.

    Raises:
        UsageError: for scope "video-renormalised", and for a causal call.

    Source: arXiv 2403.03431 (self-attention maps replaced), in the form of UniEdit (source queries and keys).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 3, 8)
        >>> same = inject_output(query, query, value, value, source_query=query, source_key=query)
        >>> bool(torch.allclose(same, F.scaled_dot_product_attention(query, query, value), atol=1e-6))
        True
    """
    check_scope(scope, "inject_output")
    if is_causal:
        raise UsageError("an injected map has no causal order of its own", got="is_causal=True", where="inject_output")
    call = ReplacedCall(query, key, value, output, mask, scale, is_causal, video, memory_limit)
    if call.replaces_all(scope):
        return F.scaled_dot_product_attention(source_query, source_key, value, attn_mask=mask, scale=scale)
    where = (source_video or call.layout).slice
    taken = F.scaled_dot_product_attention(
        source_query[..., where, :], source_key[..., where, :], value[..., call.layout.slice, :], scale=scale
    )
    return call.with_video_rows(keep_masses(call, taken))
