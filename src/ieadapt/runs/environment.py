"""What decides about the numbers of a run besides its config: versions and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("ieadapt", "torch", "diffusers", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute.

    Example:
        >>> sorted(versions())
        ['diffusers', 'ieadapt', 'numpy', 'python', 'torch', 'transformers']
    """
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def machine() -> dict[str, str | int | None]:
    """This machine: processor, cores that may be used, memory in GiB, and the first GPU or None."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory), "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
