"""Peak memory of long sequences, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)
from ieadapt.functional import Attention, VideoTokens, attention_statistics, identity_output, temperature_output
from ieadapt.functional import uniform_output
start, frames, positions, which = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
video = VideoTokens(start, frames, positions)
query, key, value = (torch.randn(1, 1, video.stop, 64) for _ in range(3))
attention = Attention(query, key, value, video=video)
attention_statistics(Attention(*(each[..., :64, :] for each in (query, key, value))))  # first calls load kernels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if which == "statistics":
    attention_statistics(attention)
else:
    identity_output(attention, value)
    uniform_output(attention, value)
    temperature_output(attention, value, temperature=2.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def extra_megabytes(*arguments: object) -> float:
    """Return by how much the peak of a fresh process rose during the measured calls."""
    command = [sys.executable, "-c", MEASURE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout) / 1024


@pytest.mark.parametrize("which", ["statistics", "replacements"])
def test_a_head_of_four_thousand_tokens(which: str) -> None:
    assert extra_megabytes(126, 4, 1000, which) < 64  # its map alone would be 65 MB, and a softmax of it twice that


@pytest.mark.slow
@pytest.mark.parametrize("which", ["statistics", "replacements"])
def test_a_head_of_cogvideox_stays_under_a_gigabyte(which: str) -> None:
    assert extra_megabytes(226, 13, 30 * 45, which) < 1000
