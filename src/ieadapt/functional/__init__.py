"""Pure tensor functions: entropy and energy of attention, its map replaced in closed form, guidance sums.

Nothing here knows a model or a pipeline. Attention tensors are (batch, head, token, dim), as PyTorch's scaled
dot-product attention takes them; masks are as it takes them too.
"""

from ieadapt.functional.attention import DEFAULT_MEMORY_LIMIT, Attention, Scope, VideoTokens
from ieadapt.functional.guidance import cfg, cfg_scale_of, guidance_delta, rescale_std
from ieadapt.functional.map_rows import (
    cross_frame_intensity,
    map_rows,
    map_sums,
    mean_map_rows,
    prompt_to_prompt_output,
)
from ieadapt.functional.replacements import (
    identity_output,
    inject_output,
    mix_output,
    skip_output,
    temperature_output,
    uniform_output,
)
from ieadapt.functional.row_sampling import RowSample, row_sample
from ieadapt.functional.statistics import (
    EP_DEFINITION,
    AttentionStatistics,
    attention_statistics,
    energy,
    measured_attention,
)

__all__ = [
    "DEFAULT_MEMORY_LIMIT",
    "EP_DEFINITION",
    "Attention",
    "AttentionStatistics",
    "RowSample",
    "Scope",
    "VideoTokens",
    "attention_statistics",
    "cfg",
    "cfg_scale_of",
    "cross_frame_intensity",
    "energy",
    "guidance_delta",
    "identity_output",
    "inject_output",
    "map_rows",
    "map_sums",
    "mean_map_rows",
    "measured_attention",
    "mix_output",
    "prompt_to_prompt_output",
    "rescale_std",
    "row_sample",
    "skip_output",
    "temperature_output",
    "uniform_output",
]
