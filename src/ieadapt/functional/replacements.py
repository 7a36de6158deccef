"""What attention would give if its map were another: identity, uniform, mixed, sharper or flatter. In closed form.

A map A is replaced without being built. With `scope="all"` every row of the map is. With `scope="video"` only the
video-to-video block of the video rows is, and each of these rows keeps its mass on video and on text: out =
m_video * replacement + m_text * text_output, with the masses from two log-sum-exps per row. Text rows keep the
ordinary output bit for bit. Where nothing but video is there (`video=None`, or no key that is not video) every scope
means "all", except that "video-renormalised" must be what the replacement offers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT
from ieadapt.functional.masks import HIDDEN_LOGIT, Block, KeyMask, Mask, check_rows
from ieadapt.functional.masses import (
    Keys,
    Output,
    Queries,
    ReplacedCall,
    Scope,
    Values,
    check_scope,
    keep_masses,
    place_in,
)
from ieadapt.functional.video_tokens import VideoTokens


def identity_output(
    query: Queries,
    key: Keys,
    value: Values,
    output: Output,
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with an identity map: every token attends to itself alone, so it returns its own value.

    Scope "all" is the value itself. Scope "video" is m_video * own value + m_text * text output in video rows. Scope
    "video-renormalised" takes the softmax over the row's own token and the text, as perturbed-attention guidance does
    on joint attention: its mass on video is what one token earns, far less than m_video.

    Args:
        query: queries.
        key: keys, as many heads as the queries.
        value: values.
        output: what the ordinary attention gave.
        mask: which keys a row may attend to.
        scale: factor of the products; None = 1 / sqrt(dim).
        is_causal: query i sees keys 0..i only.
        video: which tokens are video; None = all.
        scope: what to replace.
        memory_limit: bytes of temporaries besides the result.

    Raises:
        UsageError: when there are not as many queries as keys, as in cross-attention.

    Source: arXiv 2403.17377 (identity map), arXiv 2504.12027.

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 4, 8)
        >>> bool((identity_output(query, query, value, value * 0) == value).all())
        True
    """
    if query.shape[-2] != key.shape[-2]:
        raise UsageError(
            "cross-attention has no identity map",
            expected="as many queries as keys",
            got=f"{query.shape[-2]} queries and {key.shape[-2]} keys",
            where="identity_output",
            remedy="choose self-attention sites, or the uniform map",
        )
    check_scope(scope, "identity_output", ("video", "video-renormalised", "all"))
    call = ReplacedCall(query, key, value, output, mask, scale, is_causal, video, memory_limit)
    if call.replaces_all(scope):
        return value.clone()
    if scope == "video-renormalised":
        return call.with_video_rows(_self_and_text(call))
    return call.with_video_rows(keep_masses(call, value[..., call.layout.slice, :]))


def uniform_output(
    query: Queries,
    key: Keys,
    value: Values,
    output: Output,
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with a uniform map: every token attends to all its keys alike, so it returns their mean value.

    Arguments as `identity_output`; masked keys are left out of the mean. Works on cross-attention too.

    Raises:
        UsageError: for scope "video-renormalised", which only the identity has.
        FailureError: when the mask leaves a row no key.

    Source: arXiv 2504.12027.

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> uniform_output(query, query, value, value).flatten().tolist()
        [2.0, 2.0]
    """
    call = ReplacedCall(query, key, value, output, mask, scale, is_causal, video, memory_limit)
    check_scope(scope, "uniform_output")
    if call.replaces_all(scope):
        mean = _visible_mean(call, slice(0, query.shape[-2]), slice(0, key.shape[-2]))
        return mean.to(value.dtype).expand_as(output).contiguous()
    return call.with_video_rows(keep_masses(call, _visible_mean(call, call.video_rows, call.layout.slice)))


def skip_output(
    query: Queries,
    key: Keys,
    value: Values,
    output: Output,
    *,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output without what the video tokens give: zero, and with scope "video" m_text * text output.

    Arguments as `uniform_output`.

    Raises:
        UsageError: for scope "video-renormalised", which only the identity has.

    Source: reconstruction (the attention skip of layer-skip guidance).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> skip_output(query, query, value, value).flatten().tolist()
        [0.0, 0.0]
    """
    call = ReplacedCall(query, key, value, output, mask, scale, is_causal, video, memory_limit)
    check_scope(scope, "skip_output")
    if call.replaces_all(scope):
        return torch.zeros_like(output, dtype=value.dtype)
    return call.with_video_rows(keep_masses(call, value.new_zeros(1)))


def mix_output(
    query: Queries,
    key: Keys,
    value: Values,
    output: Output,
    *,
    weight: float,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with the map (1 - weight) A + weight U, U uniform; entropy never falls as the weight grows.

    Arguments as `uniform_output`, and the weight in [0, 1]: 0 is the ordinary output, 1 the uniform map's.

    Raises:
        UsageError: for a weight outside [0, 1], and for scope "video-renormalised".
        FailureError: when the mask leaves a row no key.

    Source: reconstruction of arXiv 2504.12027 (the direction from A to U is its, the mixture is ours).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> mix_output(query, query, value, value, weight=0.5).flatten().tolist()
        [1.5, 2.5]
    """
    if not 0 <= weight <= 1:
        raise UsageError("the mixing weight is out of range", expected="in [0, 1]", got=weight, where="mix_output")
    uniform = uniform_output(
        query,
        key,
        value,
        output,
        mask=mask,
        scale=scale,
        is_causal=is_causal,
        video=video,
        scope=scope,
        memory_limit=memory_limit,
    )
    call = ReplacedCall(query, key, value, output, mask, scale, is_causal, video, memory_limit)
    rows = slice(0, query.shape[-2]) if call.replaces_all(scope) else call.video_rows
    dtype = call.logits.dtype
    mixed = torch.lerp(output[..., rows, :].to(dtype), uniform[..., rows, :].to(dtype), weight)
    return call.with_rows(rows, mixed)


def temperature_output(
    query: Queries,
    key: Keys,
    value: Values,
    output: Output,
    *,
    temperature: float,
    mask: Mask | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    video: VideoTokens | None = None,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with the map softmax(logits / temperature): above 1 flatter, below 1 sharper, 1 as it is.

    Arguments as `uniform_output`, and the temperature, positive. A finite bias is part of the logits; a masked key
    stays masked at any temperature.

    Raises:
        UsageError: for a temperature that is not positive, and for scope "video-renormalised".
        FailureError: when the mask leaves a row no key.

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> temperature_output(query, query, value, value, temperature=1e9).round(decimals=4).flatten().tolist()
        [2.0, 2.0]
    """
    if not temperature > 0:
        raise UsageError(
            "the temperature must be positive", expected="> 0", got=temperature, where="temperature_output"
        )
    check_scope(scope, "temperature_output")
    call = ReplacedCall(query, key, value, output, mask, scale, is_causal, video, memory_limit)
    if call.replaces_all(scope):
        return _heated(call, temperature, slice(0, query.shape[-2]), slice(0, key.shape[-2])).to(value.dtype)
    return call.with_video_rows(keep_masses(call, _heated(call, temperature, call.video_rows, call.layout.slice)))


def _self_and_text(call: ReplacedCall) -> Tensor:
    """Return the video rows' output of a softmax over {own token, text}."""
    logits, rows, dtype = call.logits, call.video_rows, call.logits.dtype
    text_key, text_value = call.text_of(call.key), call.text_of(call.value)
    result = call.value.new_empty(call.shape_of(rows), dtype=dtype)
    for block in logits.places(rows):
        query = call.query[block].to(dtype) * logits.factor
        own = (query * call.key[block].to(dtype)).sum(dim=-1, keepdim=True)
        joint = torch.cat([own, query @ text_key[block[:2]].to(dtype).transpose(-1, -2)], dim=-1)
        weights = _mask_self_and_text(call, joint, block).softmax(dim=-1)
        mixed = weights[..., :1] * call.value[block].to(dtype) + weights[..., 1:] @ text_value[block[:2]].to(dtype)
        result[place_in(block, rows)] = mixed
    return result


def _mask_self_and_text(call: ReplacedCall, joint: Tensor, block: Block) -> Tensor:
    """Apply the mask to logits over {own token, text}."""
    if not call.key_mask.hides:
        return joint
    offsets = joint.new_zeros((*joint.shape[:-1], call.key.shape[-2]))
    call.key_mask.apply(offsets, block)
    own = offsets.diagonal(offset=block.query.start, dim1=-2, dim2=-1).unsqueeze(-1)
    masked = joint + torch.cat([own, *(offsets[..., part] for part in call.text_slices)], dim=-1)
    check_rows(masked.amax(dim=-1) > HIDDEN_LOGIT / 2, block)
    return masked


def _visible_mean(call: ReplacedCall, rows: slice, keys: slice) -> Tensor:
    """Return the mean value of the keys each row sees, among the given keys; one row where all rows see the same."""
    mask, value, dtype = call.key_mask, call.value, call.logits.dtype
    rows = rows if mask.per_query else slice(rows.start, rows.start + 1)
    result = value.new_empty(call.shape_of(rows), dtype=dtype)
    for block in call.logits.places(rows):
        kept, some = mask.keep(block, value.device, keys), value[block[:2]][..., keys, :]
        if kept is None:
            result[place_in(block, rows)] = some.mean(dim=-2, keepdim=True, dtype=dtype)
        else:
            weights = kept.to(dtype)
            result[place_in(block, rows)] = (weights / weights.sum(dim=-1, keepdim=True)) @ some.to(dtype)
    return result


def _heated(call: ReplacedCall, temperature: float, rows: slice, keys: slice) -> Tensor:
    """Return the attention of some rows on some keys with its logits divided by the temperature."""
    query, key, value = call.query[..., rows, :], call.key[..., keys, :], call.value[..., keys, :]
    scale = call.logits.factor / temperature
    if not call.key_mask.hides:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    result = value.new_empty(call.shape_of(rows))
    for block in call.logits.places(rows):
        place = place_in(block, rows)
        mask = _heated_mask(call.key_mask, temperature, block, keys, query)
        result[place] = F.scaled_dot_product_attention(
            query[place], key[block[:2]], value[block[:2]], attn_mask=mask, scale=scale
        )
    return result


def _heated_mask(mask: KeyMask, temperature: float, block: Block, keys: slice, like: Tensor) -> Tensor | None:
    """Return a block's mask with finite biases divided by the temperature and masked keys masked for good."""
    kept, bias = mask.keep(block, like.device, keys), mask.of_block(block)
    if kept is None or bias is None or bias.dtype == torch.bool:
        return kept
    return torch.where(kept, bias[..., keys] / temperature, -torch.inf).to(like.dtype)
