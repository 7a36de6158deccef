"""What attention would give if its map were another: identity, uniform, mixed, re-tempered, or another sequence's.

A map A is replaced in closed form, without being built. With `scope="all"` every row of the map is. With
`scope="video"` only the video-to-video block of the video rows is, and each of these rows keeps its mass on video and
on text: out = m_video * replacement + m_text * text output, with the masses from two log-sum-exps per row. Text rows
keep the ordinary output bit for bit. Where nothing but video is there (`video=None`, or no key that is not video) every
scope means "all", except that "video-renormalised" must be what the replacement offers.

Every function takes the attention, what the ordinary attention gave (None = computed, where it is kept), the scope and
the bytes that temporaries may take, and raises a UsageError for a scope that it does not have. A row whose mask leaves
it no key gives 0 in what is replaced, as PyTorch's attention does; only an identity map gives its value.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.functional.attention import Attention, Scope
from ieadapt.functional.logits import DEFAULT_MEMORY_LIMIT, block_places
from ieadapt.functional.masks import HIDDEN_LOGIT, Block
from ieadapt.functional.masses import blend_by_attention_mass, place_in

Output = Float[Tensor, "batch head query channel"]


def identity_output(
    attention: Attention,
    output: Output | None = None,
    *,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with an identity map: every token attends to itself alone, so it returns its own value.

    Scope "all" is the value itself. Scope "video" is m_video * own value + m_text * text output in video rows. Scope
    "video-renormalised" takes the softmax over the row's own token and the text, as perturbed-attention guidance does
    on joint attention: its mass on video is what one token earns, far less than m_video.

    Raises:
        UsageError: when there are not as many queries as keys, as in cross-attention.

    Source: arXiv 2403.17377 (identity map), arXiv 2504.12027.

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 4, 8)
        >>> bool((identity_output(Attention(query, query, value)) == value).all())
        True
    """
    if attention.query.shape[-2] != attention.key.shape[-2]:
        raise UsageError(
            "cross-attention has no identity map",
            expected="as many queries as keys",
            got=f"{attention.query.shape[-2]} queries and {attention.key.shape[-2]} keys",
            where="identity_output",
            remedy="choose self-attention sites, or the uniform map",
        )
    _check_scope(scope, "identity_output", ("video", "video-renormalised", "all"))
    if attention.is_whole(scope):
        return attention.value.clone()
    if scope == "video-renormalised":
        return _with_video_rows(attention, output, _self_and_text(attention, memory_limit))
    own = attention.value[..., attention.layout.slice, :]
    return _with_video_rows(attention, output, blend_by_attention_mass(attention, own, memory_limit))


def uniform_output(
    attention: Attention,
    output: Output | None = None,
    *,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with a uniform map: every token attends to all its keys alike, so it returns their mean value.

    Masked keys are left out of the mean. Works on cross-attention too.

    Source: arXiv 2504.12027.

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> uniform_output(Attention(query, query, value)).flatten().tolist()
        [2.0, 2.0]
    """
    _check_scope(scope, "uniform_output")
    rows, keys = _replaced(attention, scope)
    mean = _visible_mean(attention, rows, keys, memory_limit)
    if attention.is_whole(scope):
        shape = (*attention.query.shape[:-1], attention.value.shape[-1])
        return mean.to(attention.value.dtype).expand(shape).contiguous()
    return _with_video_rows(attention, output, blend_by_attention_mass(attention, mean, memory_limit))


def skip_output(
    attention: Attention,
    output: Output | None = None,
    *,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output without what the video tokens give: zero, and with scope "video" m_text * text output.

    Source: reconstruction (the attention skip of layer-skip guidance).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> skip_output(Attention(query, query, value)).flatten().tolist()
        [0.0, 0.0]
    """
    _check_scope(scope, "skip_output")
    if attention.is_whole(scope):
        return attention.value.new_zeros((*attention.query.shape[:-1], attention.value.shape[-1]))
    nothing = attention.value.new_zeros(1)
    return _with_video_rows(attention, output, blend_by_attention_mass(attention, nothing, memory_limit))


def mix_output(
    attention: Attention,
    output: Output | None = None,
    *,
    weight: float,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with the map (1 - weight) A + weight U, U uniform; entropy never falls as the weight grows.

    The weight is in [0, 1]: 0 is the ordinary output, 1 the uniform map's.

    Raises:
        UsageError: for a weight outside [0, 1].

    Source: reconstruction of arXiv 2504.12027 (the direction from A to U is its, the mixture is ours).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> mix_output(Attention(query, query, value), weight=1.0).flatten().tolist()
        [2.0, 2.0]
    """
    if not 0 <= weight <= 1:
        raise UsageError("the mixing weight is out of range", expected="in [0, 1]", got=weight, where="mix_output")
    output = attention.output() if output is None else output
    uniform = uniform_output(attention, output, scope=scope, memory_limit=memory_limit)
    rows, _ = _replaced(attention, scope)
    own, other = (tensor[..., rows, :].to(attention.dtype) for tensor in (output, uniform))
    mixed = torch.lerp(own, other, weight)
    return _with_rows(output, rows, mixed, attention.value.dtype)


def temperature_output(
    attention: Attention,
    output: Output | None = None,
    *,
    temperature: float,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with the map softmax(logits / temperature): above 1 flatter, below 1 sharper, 1 as it is.

    A finite bias is part of the logits; a masked key stays masked at any temperature.

    Raises:
        UsageError: for a temperature that is not positive.

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> flat = temperature_output(Attention(query, query, value), temperature=1e9)
        >>> flat.round(decimals=4).flatten().tolist()
        [2.0, 2.0]
    """
    if not temperature > 0:
        raise UsageError(
            "the temperature must be positive", expected="> 0", got=temperature, where="temperature_output"
        )
    _check_scope(scope, "temperature_output")
    rows, keys = _replaced(attention, scope)
    tempered = _tempered(attention, temperature, rows, keys, memory_limit)
    if attention.is_whole(scope):
        return tempered.to(attention.value.dtype)
    return _with_video_rows(attention, output, blend_by_attention_mass(attention, tempered, memory_limit))


def inject_output(
    attention: Attention,
    output: Output | None = None,
    *,
    source: Attention,
    scope: Scope = "video",
    memory_limit: int = DEFAULT_MEMORY_LIMIT,
) -> Output:
    """Return the output with another sequence's map on this one's values: softmax(Q_source K_source) V.

    With scope "video" only the video-to-video block is the source's; the rows keep their own mass on video and text,
    so that source and target may have texts of different length. With scope "all" the whole map is, its mask too.

    Raises:
        UsageError: source and target differ in their number of tokens, where the whole map is taken.

    Source: arXiv 2403.03431 (self-attention maps replaced), in the form of UniEdit (source queries and keys).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 3, 8)
        >>> own = Attention(query, query, value)
        >>> bool(torch.allclose(inject_output(own, source=own), own.output(), atol=1e-6))
        True
    """
    _check_scope(scope, "inject_output")
    if attention.is_whole(scope):
        if (source.query.shape, source.key.shape) != (attention.query.shape, attention.key.shape):
            raise UsageError(
                "source and target differ in their number of tokens",
                expected=tuple(source.query.shape),
                got=tuple(attention.query.shape),
                where="inject_output",
                remedy='use scope="video"',
            )
        return replace(source, value=attention.value, scale=attention.scale).output()
    of_source, of_target = source.layout.slice, attention.layout.slice
    taken = F.scaled_dot_product_attention(
        source.query[..., of_source, :],
        source.key[..., of_source, :],
        attention.value[..., of_target, :],
        scale=attention.factor,
    )
    return _with_video_rows(attention, output, blend_by_attention_mass(attention, taken, memory_limit))


def _check_scope(scope: Scope, where: str, allowed: tuple[Scope, ...] = ("video", "all")) -> None:
    if scope not in allowed:
        raise UsageError("this replacement has no such scope", expected=" or ".join(allowed), got=scope, where=where)


def _replaced(attention: Attention, scope: Scope) -> tuple[slice, slice]:
    """The query rows and the keys whose block of the map is replaced."""
    if attention.is_whole(scope):
        return slice(0, attention.query.shape[-2]), slice(0, attention.key.shape[-2])
    return attention.video_rows, attention.layout.slice


def _with_video_rows(attention: Attention, output: Tensor | None, rows: Tensor) -> Tensor:
    """The ordinary output with the video rows replaced; all others bit for bit."""
    if output is None:
        output = attention.outside_video()
    return _with_rows(output, attention.video_rows, rows, attention.value.dtype)


def _with_rows(output: Tensor, where: slice, rows: Tensor, dtype: torch.dtype) -> Tensor:
    result = output.to(dtype, copy=True)
    result[..., where, :] = rows.to(dtype)
    return result


def _empty(attention: Attention, rows: slice, dtype: torch.dtype) -> Tensor:
    """An output of some query rows, to be filled."""
    shape = (*attention.query.shape[:2], rows.stop - rows.start, attention.value.shape[-1])
    return attention.value.new_empty(shape, dtype=dtype)


def _self_and_text(attention: Attention, memory_limit: int) -> Tensor:
    """The video rows' output of a softmax over {own token, text}."""
    rows, dtype = attention.video_rows, attention.dtype
    text_key, text_value = attention.text_of(attention.key), attention.text_of(attention.value)
    result = _empty(attention, rows, dtype)
    for block in block_places(attention, rows, memory_limit):
        query = attention.query[block].to(dtype) * attention.factor
        own = (query * attention.key[block].to(dtype)).sum(dim=-1, keepdim=True)
        joint = torch.cat([own, query @ text_key[block[:2]].to(dtype).transpose(-1, -2)], dim=-1)
        joint = _mask_self_and_text(attention, joint, block)
        weights = joint.softmax(dim=-1) * (joint.amax(dim=-1, keepdim=True) > HIDDEN_LOGIT / 2)
        mixed = weights[..., :1] * attention.value[block].to(dtype) + weights[..., 1:] @ text_value[block[:2]].to(dtype)
        result[place_in(block, rows)] = mixed
    return result


def _mask_self_and_text(attention: Attention, joint: Tensor, block: Block) -> Tensor:
    """Apply the mask to logits over {own token, text}."""
    if attention.mask is None:
        return joint
    offsets = joint.new_zeros((*joint.shape[:-1], attention.key.shape[-2]))
    attention.keys.apply(offsets, block)
    own = offsets.diagonal(offset=block.query.start, dim1=-2, dim2=-1).unsqueeze(-1)
    return joint + torch.cat([own, attention.text_of(offsets, axis=-1)], dim=-1)


def _visible_mean(attention: Attention, rows: slice, keys: slice, memory_limit: int) -> Tensor:
    """The mean value of the keys each row sees, among the given keys; one row where all rows see the same."""
    dtype = attention.dtype
    rows = rows if attention.keys.per_query else slice(rows.start, rows.start + 1)
    result = _empty(attention, rows, dtype)
    for block in block_places(attention, rows, memory_limit):
        kept, some = attention.keys.keep(block, keys), attention.value[block[:2]][..., keys, :]
        if kept is None:
            result[place_in(block, rows)] = some.mean(dim=-2, keepdim=True, dtype=dtype)
        else:
            weights = kept.to(dtype)
            result[place_in(block, rows)] = (weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)) @ some.to(dtype)
    return result


def _tempered(attention: Attention, temperature: float, rows: slice, keys: slice, memory_limit: int) -> Tensor:
    """The attention of some rows on some keys with its logits divided by the temperature."""
    query, key, value = attention.query[..., rows, :], attention.key[..., keys, :], attention.value[..., keys, :]
    scale = attention.factor / temperature
    if attention.mask is None:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    result = _empty(attention, rows, value.dtype)
    for block in block_places(attention, rows, memory_limit):
        place, kept, bias = place_in(block, rows), attention.keys.keep(block, keys), attention.keys.of_block(block)
        if kept is not None and bias is not None and bias.dtype != torch.bool:
            kept = torch.where(kept, bias[..., keys] / temperature, -torch.inf).to(query.dtype)
        result[place] = F.scaled_dot_product_attention(
            query[place], key[block[:2]], value[block[:2]], attn_mask=kept, scale=scale
        )
    return result
