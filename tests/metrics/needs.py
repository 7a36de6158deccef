"""Tests of what optional packages bring are skipped, with the reason, where these are not installed."""

from __future__ import annotations

import pytest

from ieadapt.metrics import METRICS


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where what a metric needs is not installed."""
    return pytest.mark.skipif(not METRICS[name].available, reason=f"what {name} needs is not installed: make weights")
