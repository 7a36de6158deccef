"""Runs: configs, run folders, video files and reports.

Names are looked up when first used, so that reading a config's flags costs no import of torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "RunFolder": "folder",
    "open_run": "folder",
    "read_run": "folder",
    "encode_video": "videos",
    "decode_video": "videos",
    "side_by_side": "videos",
    "strip": "videos",
    "Frames": "sources",
    "SourceConfig": "sources",
    "read_source": "sources",
    "Report": "report",
    "render_report": "report",
    "StudyRun": "studying",
    "run_study": "studying",
    "study": "studying",
    "study_status": "studies.status",
    "compact_study": "studies.status",
    "read_strips": "studies.strips",
}

__all__ = list(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
