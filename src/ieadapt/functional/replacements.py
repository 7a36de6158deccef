"""What attention would give if its map were another: identity, uniform, mixed, re-tempered, or another sequence's.

A map A is replaced in closed form, without being built. With `scope="all"` every row of the map is. With
`scope="video"` only the video-to-video block of the video rows is, and each of these rows keeps its mass on video and
on text: out = m_video * replacement + m_text * text output, with the masses from two log-sum-exps per row. Text rows
keep the ordinary output bit for bit. Where nothing but video is there (`video=None`, or no key that is not video) every
scope means "all", except that "video-renormalised" must be what the replacement offers.

Every function takes the attention, what the ordinary attention gave (None = computed, where it is kept) and the scope,
and raises a UsageError for a scope that it does not have. A row whose mask leaves it no key gives 0 in what is
replaced, as PyTorch's attention does; only an identity map gives its value.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import UsageError
from ieadapt.functional.attention import HIDDEN_LOGIT, Attention, Block, Scope
from ieadapt.functional.kernels import fused_rows, uses_kernel
from ieadapt.functional.logits import block_places, logit_blocks

Output = Float[Tensor, "batch head query channel"]


def identity_output(attention: Attention, output: Output | None = None, *, scope: Scope = "video") -> Output:
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
        return _with_video_rows(attention, output, _self_and_text(attention))
    own = attention.value[..., attention.layout.slice, :]
    return _with_replacement(attention, output, own, scope)


def uniform_output(attention: Attention, output: Output | None = None, *, scope: Scope = "video") -> Output:
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
    mean = _visible_mean(attention, rows, keys)
    return _with_replacement(attention, output, mean, scope)


def skip_output(attention: Attention, output: Output | None = None, *, scope: Scope = "video") -> Output:
    """Return the output without what the video tokens give: zero, and with scope "video" m_text * text output.

    Source: reconstruction (the attention skip of layer-skip guidance).

    Example:
        >>> import torch
        >>> query, value = torch.randn(1, 1, 2, 8), torch.tensor([[[[1.0], [3.0]]]])
        >>> skip_output(Attention(query, query, value)).flatten().tolist()
        [0.0, 0.0]
    """
    _check_scope(scope, "skip_output")
    return _with_replacement(attention, output, attention.value.new_zeros(1), scope)


def mix_output(attention: Attention, output: Output | None = None, *, weight: float, scope: Scope = "video") -> Output:
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
    uniform = uniform_output(attention, output, scope=scope)
    rows, _ = _replaced(attention, scope)
    own, other = (tensor[..., rows, :].to(attention.dtype) for tensor in (output, uniform))
    return _with_rows(output, rows, torch.lerp(own, other, weight), attention.value.dtype)


def temperature_output(
    attention: Attention, output: Output | None = None, *, temperature: float, scope: Scope = "video"
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
    tempered = _tempered(attention, temperature, rows, keys)
    return _with_replacement(attention, output, tempered, scope)


def inject_output(
    attention: Attention, output: Output | None = None, *, source: Attention, scope: Scope = "video"
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
    query, key = (tokens[..., source.layout.slice, :] for tokens in (source.query, source.key))
    value = attention.value[..., attention.layout.slice, :]
    injected = F.scaled_dot_product_attention(query, key, value, scale=attention.factor)
    return _with_replacement(attention, output, injected, scope)


def _check_scope(scope: Scope, where: str, allowed: tuple[Scope, ...] = ("video", "all")) -> None:
    if scope not in allowed:
        raise UsageError("this replacement has no such scope", expected=" or ".join(allowed), got=scope, where=where)


def _replaced(attention: Attention, scope: Scope) -> tuple[slice, slice]:
    """The query rows and the keys whose block of the map is replaced."""
    if attention.is_whole(scope):
        return slice(0, attention.query.shape[-2]), slice(0, attention.key.shape[-2])
    return attention.video_rows, attention.layout.slice


def _with_replacement(attention: Attention, output: Tensor | None, replacement: Tensor, scope: Scope) -> Tensor:
    """The ordinary output with a replacement for what the scope names: every row, or the video part of video rows."""
    if attention.is_whole(scope):
        shape = (*attention.query.shape[:-1], attention.value.shape[-1])
        whole = replacement.to(attention.value.dtype)
        return whole if whole.shape == shape else whole.expand(shape).contiguous()
    return _with_video_rows(attention, output, blend_by_attention_mass(attention, replacement))


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


def _place_in(block: Block, rows: slice) -> Block:
    """Where a block lies in a result that holds only the given rows."""
    return block._replace(query=slice(block.query.start - rows.start, block.query.stop - rows.start))


def blend_by_attention_mass(attention: Attention, replacement: Tensor) -> Tensor:
    """Return m_video * replacement + m_text * text output for the video rows, in the type logits have.

    A row whose mask leaves it no key gives 0, as in PyTorch's attention.
    """
    rows = replace(attention.of_rows(attention.video_rows), video=attention.layout)
    if uses_kernel(rows, output=False):
        return _blend_fused(rows, replacement)
    return _blend_streamed(attention, replacement)


def _blend_fused(rows: Attention, replacement: Tensor) -> Tensor:
    """With the share of text from the fused kernel, and the text output from an attention to the text alone."""
    fused = fused_rows(rows, output=False)
    mask = rows.mask
    if mask is not None:
        mask = rows.text_of(mask.expand(*mask.shape[:-1], rows.key.shape[-2]), axis=-1)
        mask = mask if mask.dtype == torch.bool else mask.to(rows.query.dtype)
    text = replace(
        rows, key=rows.text_of(rows.key), value=rows.text_of(rows.value), mask=mask, video=None, padding=None
    ).output()
    share = fused["text"][..., None]
    blended = (1 - share) * replacement + torch.where(share > 0, share * text, 0.0)
    return blended if rows.mask is None else torch.where(fused["keys"][..., None] > 0, blended, 0.0)


def _blend_streamed(attention: Attention, replacement: Tensor) -> Tensor:
    """With both from two log-sum-exps per row, in blocks of rows."""
    rows, text_value = attention.video_rows, attention.text_of(attention.value)
    shape = (*attention.query.shape[:2], rows.stop - rows.start, attention.value.shape[-1])
    result = replacement.to(attention.dtype).expand(shape).clone(memory_format=torch.contiguous_format)
    for block, values, counts in logit_blocks(attention, rows):
        text = attention.text_of(values, axis=-1)
        video_logsumexp = values[..., attention.layout.slice].logsumexp(dim=-1, keepdim=True)
        total = torch.logaddexp(video_logsumexp, text.logsumexp(dim=-1, keepdim=True))
        place = _place_in(block, rows)
        result[place] *= (video_logsumexp - total).exp()
        result[place] += (text - total).exp() @ text_value[block[:2]].to(attention.dtype)
        if counts is not None:
            result[place] *= (counts > 0)[..., None]
    return result


def _self_and_text(attention: Attention) -> Tensor:
    """The video rows' output of a softmax over {own token, text}."""
    rows, dtype = attention.video_rows, attention.dtype
    text_key, text_value = attention.text_of(attention.key), attention.text_of(attention.value)
    result = _empty(attention, rows, dtype)
    for block in block_places(attention, rows):
        query = attention.query[block].to(dtype) * attention.factor
        own = (query * attention.key[block].to(dtype)).sum(dim=-1, keepdim=True)
        joint = torch.cat([own, query @ text_key[block[:2]].to(dtype).transpose(-1, -2)], dim=-1)
        joint = _mask_self_and_text(attention, joint, block)
        weights = joint.softmax(dim=-1) * (joint.amax(dim=-1, keepdim=True) > HIDDEN_LOGIT / 2)
        mixed = weights[..., :1] * attention.value[block].to(dtype) + weights[..., 1:] @ text_value[block[:2]].to(dtype)
        result[_place_in(block, rows)] = mixed
    return result


def _mask_self_and_text(attention: Attention, joint: Tensor, block: Block) -> Tensor:
    """Apply the mask to logits over {own token, text}."""
    if attention.mask is None:
        return joint
    offsets = joint.new_zeros((*joint.shape[:-1], attention.key.shape[-2]))
    attention.apply_mask(offsets, block)
    own = offsets.diagonal(offset=block.query.start, dim1=-2, dim2=-1).unsqueeze(-1)
    return joint + torch.cat([own, attention.text_of(offsets, axis=-1)], dim=-1)


def _visible_mean(attention: Attention, rows: slice, keys: slice) -> Tensor:
    """The mean value of the keys each row sees, among the given keys; one row where all rows see the same."""
    dtype = attention.dtype
    rows = rows if attention.masked_per_query else slice(rows.start, rows.start + 1)
    result = _empty(attention, rows, dtype)
    for block in block_places(attention, rows):
        kept, some = attention.visible(block, keys), attention.value[block[:2]][..., keys, :]
        if kept is None:
            result[_place_in(block, rows)] = some.mean(dim=-2, keepdim=True, dtype=dtype)
        else:
            weights = kept.to(dtype)
            result[_place_in(block, rows)] = (weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)) @ some.to(dtype)
    return result


def _tempered(attention: Attention, temperature: float, rows: slice, keys: slice) -> Tensor:
    """The attention of some rows on some keys with its logits divided by the temperature."""
    query, key, value = attention.query[..., rows, :], attention.key[..., keys, :], attention.value[..., keys, :]
    scale = attention.factor / temperature
    if attention.mask is None:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    result = _empty(attention, rows, value.dtype)
    for block in block_places(attention, rows):
        place, kept, bias = _place_in(block, rows), attention.visible(block, keys), attention.mask_of(block)
        if kept is not None and bias is not None and bias.dtype != torch.bool:
            kept = torch.where(kept, bias[..., keys] / temperature, -torch.inf).to(query.dtype)
        result[place] = F.scaled_dot_product_attention(
            query[place], key[block[:2]], value[block[:2]], attn_mask=kept, scale=scale
        )
    return result
