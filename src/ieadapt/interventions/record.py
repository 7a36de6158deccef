"""Record: measure entropy and energy of every call, change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite, isnan, sqrt
from typing import Any

import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite, Guidance
from ieadapt.errors import FailureError
from ieadapt.functional import DEFAULT_MEMORY_LIMIT, row_sample
from ieadapt.functional.kernels import KernelChoice

MEANS = (
    *("n_keys", "entropy", "ep", "text_ep", "all_ep"),
    *("temporal_entropy", "spatial_entropy", "temporal_ep", "spatial_ep", "text_mass"),
)


Key = tuple[AttentionSite, str, int, Guidance]
"""A site, whose tokens its keys are, a step and a guidance branch."""


class Record:
    """Running means of entropy and energy per site, head, step and guidance branch.

    Entropy is the mean over query tokens, rows and videos; energy is the sum of the squared attention output over
    tokens and channels of one video (all its frames or positions), averaged over videos. Where text tokens share the
    sequence, both are of the video tokens; those of the text stand beside them. A module that attends more than once
    (an IP-Adapter, Wan's image tokens) has a record for each of its attentions.

    Args:
        memory_limit: bytes that the temporaries of one call may take.
        rows: "all", or "sample:0.05" for a random 5 % of the query rows with a standard error, beside an untouched
            attention.
        kernel: whether the fused GPU kernel measures: auto, on or off; None = as IEADAPT_KERNEL says. It then gives
            the attention output too, equal to PyTorch's within the precision of its type; off leaves it bit for bit.

    Example:
        >>> import torch
        >>> from diffusers import WanTransformer3DModel
        >>> from ieadapt.attention import intercept
        >>> wan = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        ...     text_dim=16, ffn_dim=32, freq_dim=32, num_layers=1)
        >>> with intercept(wan, Record()) as record, torch.no_grad():
        ...     _ = wan(torch.randn(1, 4, 2, 4, 6), torch.tensor([1]), torch.randn(1, 5, 16))
        >>> first = next(record.records())
        >>> first["site"], first["head"], 0 <= first["ep"] <= 100
        ('blocks.0.attn1', 0, True)
    """

    def __init__(
        self, memory_limit: int = DEFAULT_MEMORY_LIMIT, rows: str = "all", kernel: KernelChoice | None = None
    ) -> None:
        self.memory_limit = memory_limit
        self._sample = row_sample(rows)
        self._kernel = kernel
        self._calls = 0
        self._sums: dict[Key, Tensor] = {}
        self._counts: dict[Key, tuple[int, int]] = {}
        self._resolutions: dict[AttentionSite, int | None] = {}

    def __call__(self, call: AttentionCall) -> None:
        """Add one call to the running means."""
        with torch.no_grad():
            sample = self._sample and replace(self._sample, seed=self._calls)
            statistics = call.measured(self.memory_limit, sample, self._kernel)
            variance = None if statistics.ep_error is None else statistics.ep_error.square()
            means = (getattr(statistics, name) for name in MEANS)
            columns = [*means, variance, statistics.text_energy, statistics.energy]
            nothing = torch.full_like(statistics.entropy, float("nan"))
            table = torch.stack([nothing if column is None else column for column in columns]).double()
        self._calls += 1
        self._resolutions[call.site] = call.tokens_per_frame
        for branch in dict.fromkeys(call.rows.guidance):
            rows = call.rows.denoiser_rows((branch,))
            self._add((call.site, call.keys_of, call.step, branch), table, call, rows)

    def _add(self, key: Key, table: Tensor, call: AttentionCall, rows: list[int]) -> None:
        chosen = table[:, call.rows.index(rows, table.device)]
        attended, videos = self._counts.get(key, (0, 0))
        self._sums[key] = self._sums.get(key, 0) + chosen.sum(1)
        # Where a site calls once per row (Mochi), later calls of the same rows are the same videos.
        same = key in self._counts and bool(call.earlier) and call.rows == call.earlier[0].rows
        self._counts[key] = attended + chosen.shape[1], videos + (0 if same else len(rows))

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per site, head, step and branch, in order of execution.

        Keys: site, kind, order, keys_of (see `AttentionCall`), head, step, branch, videos, the means of `MEANS` (None
        where a site has no such part), ep_error (the standard error of ep, None where it is exact), energy and
        text_energy, resolution (tokens per frame, None where the token layout is not known).

        Raises:
            FailureError: an entropy or energy is not finite.
        """
        for key in sorted(self._sums, key=lambda key: (key[0].order, *key[1:])):
            site, keys_of, step, branch = key
            attended, videos = self._counts[key]
            for head, sums in enumerate(self._sums[key].cpu().T.tolist()):
                *totals, variance, text_energy, energy = sums
                means = {name: _unless_nan(total / attended) for name, total in zip(MEANS, totals, strict=True)}
                if means["ep"] is None or not isfinite(energy):
                    raise FailureError(
                        "attention is not finite",
                        where=f"{site.name}, head {head}, step {step}, {branch} branch",
                        remedy="run the model in float32 or bfloat16; float16 may overflow",
                    )
                yield {
                    "site": site.name,
                    "kind": site.kind,
                    "order": site.order,
                    "keys_of": keys_of,
                    "head": head,
                    "step": step,
                    "branch": branch,
                    "videos": videos,
                    **means,
                    "ep_error": None if isnan(variance) else sqrt(variance) / attended,
                    "energy": energy / videos,
                    "text_energy": _unless_nan(text_energy / videos),
                    "resolution": self._resolutions[site],
                }

    def __repr__(self) -> str:
        return "Record()"


def _unless_nan(value: float) -> float | None:
    """The value; None for NaN, which stands for a part that a site does not have."""
    return None if isnan(value) else value
