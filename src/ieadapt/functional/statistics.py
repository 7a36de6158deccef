"""How spread out each head's attention is: entropy, its split into time, space and text; the energy of the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError
from ieadapt.functional.attention import HIDDEN_LOGIT, Attention, measuring
from ieadapt.functional.kernels import FusedRows, KernelChoice, fused_rows, uses_kernel
from ieadapt.functional.logits import RowMoments, logit_blocks, row_moments
from ieadapt.functional.row_sampling import RowSample, rows_of_blocks, standard_error

EP_DEFINITION = "video rows"
"""What `ep` and `energy` of joint attention are of. Earlier records are of `all rows`, text and padding included."""

PerHead = Float[Tensor, "batch head"]


@dataclass(frozen=True)
class AttentionStatistics:
    """Means over the query rows of one attention, per batch entry and head; float32 (float64 for float64 inputs).

    Where text tokens share the sequence, they are means over the video rows, unless named otherwise. Rows of padding,
    and rows whose mask leaves them no key, count nowhere; as keys, padding counts where the model attends to it.

    Attributes:
        entropy: in nats, >= 0.
        ep: entropy percentage 100 H / ln(keys of the row), 0..100: 0 for a map that copies one token, 100 for a uniform
            one, 0 by definition where a row has one key.
        n_keys: keys that a row may attend to.
        temporal_entropy: of the frame marginal of a video row, with its map renormalised over the video keys; None
            without video tokens, as all that follows.
        spatial_entropy: within a frame given the frame; both add up to the entropy over video keys.
        temporal_ep: in per cent of ln frames.
        spatial_ep: in per cent of ln positions.
        text_mass: share of a video row's attention on keys that are not video, 0..1.
        ep_error: standard error of `ep` where it was measured on a sample of the rows; None where it is exact.
        text_ep: `ep` of the text rows; None where the sequence holds no text, NaN where a sample holds none of them.
        all_ep: `ep` of all rows.
        energy: sum of the squared output over tokens and channels; None where no output was given.
        text_energy: that of the text rows; None where there are none. `energy + text_energy` is that of all rows.
    """

    entropy: PerHead
    ep: PerHead
    n_keys: PerHead
    temporal_entropy: PerHead | None = None
    spatial_entropy: PerHead | None = None
    temporal_ep: PerHead | None = None
    spatial_ep: PerHead | None = None
    text_mass: PerHead | None = None
    ep_error: PerHead | None = None
    text_ep: PerHead | None = None
    all_ep: PerHead | None = None
    energy: PerHead | None = None
    text_energy: PerHead | None = None


def row_energy(output: Float[Tensor, "batch head query dim"]) -> Float[Tensor, "batch head query"]:
    """Return the energy ||(A V)_i||^2 of every row of an attention output, heads apart; >= 0."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    return torch.linalg.vector_norm(output, dim=-1, dtype=dtype).square()


def energy(output: Float[Tensor, "batch head query dim"]) -> Float[Tensor, "batch head"]:
    """Return the energy sum ||(A V)_i||^2 of an attention output, over tokens and channels, heads apart; >= 0.

    Summed in float32 (float64 for float64 inputs), without a copy of the output.

    Source: arXiv 2504.12027 (energy of a layer; its share of the total over all sites follows from it).

    Example:
        >>> import torch
        >>> energy(torch.ones(1, 2, 3, 4, dtype=torch.float16)).tolist()
        [[12.0, 12.0]]
    """
    return row_energy(output).sum(dim=-1)


@measuring
def attention_statistics(
    attention: Attention,
    output: Float[Tensor, "batch head query channel"] | None = None,
    *,
    sample: RowSample | None = None,
    kernel: KernelChoice | None = None,
) -> AttentionStatistics:
    """Measure an attention map exactly, without ever holding a whole one.

    Args:
        attention: half precision is measured in float32.
        output: what the attention gave, for its energy.
        sample: measure only a random part of the rows, with a standard error; None = all.
        kernel: whether the fused GPU kernel is used, see `ieadapt.functional.kernels`; None = as IEADAPT_KERNEL says.

    Raises:
        UsageError: a limit below one row of logits.
        FailureError: the mask leaves none of the rows a key.

    Source: arXiv 2504.12027 (entropy of attention maps; the percentage is normalised by the row's own key count).

    Example:
        >>> import torch
        >>> from ieadapt.functional import VideoTokens
        >>> tokens = torch.zeros(1, 2, 6, 4)  # equal logits: a uniform map
        >>> video = VideoTokens(start=2, frames=2, positions=2)
        >>> statistics = attention_statistics(Attention(tokens, tokens, tokens, video=video))
        >>> statistics.ep.tolist()
        [[100.0, 100.0]]
        >>> statistics.text_mass  # 2 of 6 keys are text
        tensor([[0.3333, 0.3333]])
    """
    blocks = None if sample is None else sample.blocks(attention.query)
    index = None if blocks is None else rows_of_blocks(blocks)
    if uses_kernel(attention, output=False, choice=kernel):
        stats = _fused(fused_rows(attention, output=False, chosen=blocks), attention)
    elif index is None:
        stats = _streamed(attention, attention.video_rows)
    else:
        stats = _streamed(_gathered(attention, index), slice(0, index.shape[-1]))
    return _with_energy(_means(stats, attention, index), attention, None if output is None else row_energy(output))


@measuring
def measured_attention(
    attention: Attention,
    attend: Callable[[], Tensor] | None = None,
    *,
    sample: RowSample | None = None,
    kernel: KernelChoice | None = None,
) -> tuple[Float[Tensor, "batch head query channel"], AttentionStatistics]:
    """Return the attention output and its statistics, energy included.

    Where the fused kernel runs, and all rows are measured, it gives the output as well, as exact as PyTorch's attention
    in that type, and `attend` is not called. Everywhere else the output is what `attend` returns.

    Args:
        attention: as for `attention_statistics`, and so are the other arguments and what is raised.
        attend: computes the ordinary output; None = PyTorch's attention.
        sample: as there.
        kernel: as there.

    Example:
        >>> import torch
        >>> tokens = torch.zeros(1, 1, 4, 8)
        >>> output, statistics = measured_attention(Attention(tokens, tokens, tokens))
        >>> round(statistics.ep.item(), 3), statistics.energy.item()
        (100.0, 0.0)
    """
    every_row = sample is None or sample.takes_all(attention.query.shape[-2])
    if every_row and uses_kernel(attention, output=True, choice=kernel):
        rows = fused_rows(attention)
        assert rows.output is not None  # noqa: S101 - it was asked for
        return rows.output, _with_energy(_means(_fused(rows, attention), attention), attention, rows["energy"])
    output = (attend or attention.output)()
    return output, attention_statistics(attention, output, sample=sample, kernel=kernel)


def _fused(rows: FusedRows, attention: Attention) -> dict[str, Tensor]:
    """The kernel's statistics of every row it ran on, by name; it writes only those that the call has."""
    of_video, of_mask = attention.video is not None, attention.mask is not None
    names = ["entropy", *["temporal", "spatial", "text"] * of_video, *["keys"] * of_mask]
    return {name: rows[name] for name in [*names, *["video_keys"] * (of_video and of_mask)]}


def _streamed(attention: Attention, rows: slice) -> dict[str, Tensor]:
    """The same on any device in plain PyTorch, block by block of query rows; the split only of `rows`."""
    video, (n_queries, n_keys) = attention.video, (attention.query.shape[-2], attention.key.shape[-2])
    segments = (slice(0, n_keys),) if video is None else (video.slice, *attention.text)
    stats: dict[str, Tensor] = {}

    def keep(name: str, place: tuple[slice, ...], values: Tensor) -> None:
        if name not in stats:
            stats[name] = attention.query.new_zeros(attention.query.shape[:3], dtype=attention.dtype)
        stats[name][place] = values.to(attention.dtype)

    for block, logits, counts in logit_blocks(attention, slice(0, n_queries)):
        moments = [row_moments(logits[..., segment]) for segment in segments]
        entropy, masses = _join(moments)
        keep("entropy", block, entropy)
        if counts is not None:
            keep("keys", block, counts)
        low, high = (min(max(edge - block.query.start, 0), logits.shape[-2]) for edge in (rows.start, rows.stop))
        if video is None or low >= high:
            continue
        place = block._replace(query=slice(block.query.start + low, block.query.start + high))
        weights = moments[0].weights[..., low:high, :].unflatten(-1, (video.frames, video.positions)).sum(dim=-1)
        temporal = torch.special.entr(weights / weights.sum(dim=-1, keepdim=True)).sum(dim=-1)
        keep("temporal", place, temporal)
        keep("spatial", place, (moments[0].entropy[..., low:high] - temporal).clamp(min=0))
        keep("text", place, torch.zeros_like(temporal) if masses is None else masses[1:, ..., low:high].sum(dim=0))
        if counts is not None:
            keep("video_keys", place, moments[0].logsumexp[..., low:high] > HIDDEN_LOGIT / 2)
    return stats


def _join(moments: list[RowMoments]) -> tuple[Tensor, Tensor | None]:
    """Join a row's segments by the chain rule: its entropy, and each segment's mass (None where there is but one).

    The entropy is that of the masses plus the sum of mass times entropy within the segment.
    """
    if len(moments) == 1:
        return moments[0].entropy, None
    logsumexps = torch.stack([moment.logsumexp for moment in moments])
    log_masses = logsumexps - logsumexps.logsumexp(dim=0)
    masses = log_masses.exp()
    entropies = torch.stack([moment.entropy for moment in moments])
    return (masses * (entropies - log_masses)).sum(dim=0), masses


def _gathered(attention: Attention, index: Tensor) -> Attention:
    """The attention of query rows that differ by batch entry and head; rows past the end are the last one again."""
    query, mask = attention.query, attention.mask
    index = index.clamp(max=query.shape[-2] - 1).long()
    if attention.masked_per_query and mask is not None:
        n_keys = attention.key.shape[-2]
        every = mask.expand(*index.shape[:2], -1, n_keys)
        mask = every.gather(2, index[..., None].expand(*index.shape, n_keys))
    query = query.gather(2, index[..., None].expand(*index.shape, query.shape[-1]))
    return replace(attention, query=query, mask=mask, padding=None)


@dataclass(frozen=True)
class _Rows:
    """Which rows a mean is over: ranges of them, or a boolean for each."""

    of: tuple[slice, ...] | Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a statistic over these rows."""
        if isinstance(self.of, Tensor):
            return self.sum(values) / self.of.sum(dim=-1)
        return torch.cat([values[..., part] for part in self.of], dim=-1).mean(dim=-1)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a statistic over these rows."""
        if isinstance(self.of, Tensor):
            return torch.where(self.of, values, 0.0).sum(dim=-1)
        return torch.stack([values[..., part].sum(dim=-1) for part in self.of]).sum(dim=0)


def _rows(attention: Attention, index: Tensor | None = None, keys: Tensor | None = None) -> dict[str, _Rows]:
    """The rows of video (all, where there is no text), of text, and all, without padding and rows that see no key.

    Args:
        attention: the call.
        index: numbers of the rows that there are, some of them past the end; None = all.
        keys: how many keys each of these rows sees; None = all.

    Raises:
        FailureError: no row is left.
    """
    span, n_queries, joint = attention.video_rows, attention.query.shape[-2], attention.has_text_rows
    text = tuple(part for part in (slice(0, span.start), slice(span.stop, n_queries)) if part.start < part.stop)
    if index is None and keys is None and attention.padding is None:
        return {"video": _Rows((span,)), "all": _Rows((slice(None),))} | ({"text": _Rows(text)} if joint else {})
    position = torch.arange(n_queries, device=attention.query.device)[None, None] if index is None else index
    every = position < n_queries
    if attention.padding is not None:
        within = position.clamp(max=n_queries - 1).expand(attention.query.shape[0], -1, -1).long()
        every = every & ~attention.padding[:, None].expand(-1, within.shape[1], -1).gather(2, within)
    if keys is not None:
        every = every & (keys > 0)
        if not every.any(dim=-1).all():
            raise FailureError(
                "the mask leaves no query row a key to attend to",
                expected="a row with a visible key in every batch entry and head",
                where=f"batch {(~every.any(dim=-1)).nonzero()[0, 0].item()}",
            )
    on_video = (position >= span.start) & (position < span.stop)
    rows = {"video": _Rows(every & on_video), "all": _Rows(every)}
    return rows | ({"text": _Rows(every & ~on_video)} if joint else {})


def _means(stats: dict[str, Tensor], attention: Attention, index: Tensor | None = None) -> AttentionStatistics:
    """The statistics from those of all query rows, or of those that `index` numbers."""
    video, n_keys, n_queries = attention.video, attention.key.shape[-2], attention.query.shape[-2]
    entropy, keys = stats["entropy"], stats.get("keys")
    rows = _rows(attention, index, keys)
    own = rows["video"]
    ep = entropy * percent_of(n_keys) if keys is None else 100 * entropy / keys.clamp(min=2).log()
    means = {"entropy": own.mean(entropy), "ep": own.mean(ep)}
    means["n_keys"] = torch.full_like(means["ep"], n_keys) if keys is None else own.mean(keys)
    means["all_ep"] = rows["all"].mean(ep) if "text" in rows else means["ep"]
    if "text" in rows:
        means["text_ep"] = rows["text"].mean(ep)
    if video is not None:
        split = own
        if "video_keys" in stats and isinstance(own.of, Tensor):
            split = _Rows(own.of & (stats["video_keys"] > 0))
        temporal, spatial, text = (split.mean(stats[name]) for name in ("temporal", "spatial", "text"))
        means |= {"temporal_entropy": temporal, "temporal_ep": temporal * percent_of(video.frames)}
        means |= {"spatial_entropy": spatial, "spatial_ep": spatial * percent_of(video.positions), "text_mass": text}
    if isinstance(own.of, Tensor) and index is not None:
        means["ep_error"] = standard_error(ep, own.of, means["ep"], n_queries)
    return AttentionStatistics(**means)


def _with_energy(statistics: AttentionStatistics, attention: Attention, rows: Tensor | None) -> AttentionStatistics:
    """The statistics with the energies that the rows of an output have."""
    if rows is None:
        return statistics
    of = _rows(attention)
    text = of["text"].sum(rows) if "text" in of else None
    return replace(statistics, energy=of["video"].sum(rows), text_energy=text)


def percent_of(n_keys: int) -> float:
    """Percent per nat where the most there can be is ln n_keys; 0 for one key, whose entropy is 0."""
    return 100 / log(n_keys) if n_keys > 1 else 0.0
