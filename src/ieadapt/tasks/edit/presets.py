"""Named configurations of the editor: the published methods that it contains, and the controls beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ieadapt.errors import UsageError
from ieadapt.tasks.edit.config import EditConfig

_PLAIN = EditConfig("inversion", start=0.0, residual=0.0, inject="none", inject_branch="cond", words="none")
"""The whole run from the inverted noise, source not corrected, nothing kept: what the injecting methods start from."""
_MOST = replace(_PLAIN, inject="all", inject_window="0:0.8")

EDIT_PRESETS: Mapping[str, EditConfig] = {
    "default": EditConfig(),
    "inversion": _PLAIN,
    "sdedit-0.4": EditConfig("sdedit", start=0.6),
    "sdedit-0.6": EditConfig("sdedit", start=0.4),
    "sdedit-0.8": EditConfig("sdedit", start=0.2),
    "uniedit": replace(_PLAIN, inject="spatial/joint", inject_window="0:0.4", inject_branch="both"),
    "all": _MOST,
    "fpe": replace(_MOST, inject="coarse"),
    "high-ep": replace(_MOST, inject="top=0.5"),
    "low-ep": replace(_MOST, inject="bottom=0.5"),
    "random": replace(_MOST, inject="random=0.5"),
    "prompt-to-prompt": replace(
        _PLAIN, words="replace", words_window="0:0.8", inject="spatial/joint", inject_window="0:0.4"
    ),
    "flowedit": EditConfig(
        "flowedit", start=0.34, inject="none", words="none", source_guidance=1.5, guidance_scale=5.5
    ),
}
"""Sources: SDEdit arXiv 2108.01073; UniEdit arXiv 2402.13185 (all spatial self-attention, 20 of 50 steps); FPE arXiv
2403.03431 (self-attention below the finest resolution, 80 % of the steps, conditional rows); prompt-to-prompt arXiv
2208.01626 (80 % of the steps for words, 40 % for self-attention); FlowEdit arXiv 2412.08629 (33 of 50 steps, weights as
on Flux). `low-ep` is the reconstruction of the paper's editing; `high-ep` and `random` are its controls. All but
SDEdit and FlowEdit take the same refined inversion with the source prompt, so that they differ in nothing else.
"""


def edit_preset(name: str) -> EditConfig:
    """The configuration of that name.

    Raises:
        UsageError: there is none.

    Example:
        >>> edit_preset("low-ep").inject
        'bottom=0.5'
    """
    if name not in EDIT_PRESETS:
        raise UsageError("unknown preset of an edit", expected=", ".join(EDIT_PRESETS), got=name)
    return EDIT_PRESETS[name]
