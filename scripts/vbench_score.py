"""Score a folder of videos by one dimension of VBench; run by `scripts/vbench.sh`, in VBench's own environment.

VBench's command line insists on a CUDA device and does not say by its exit status that it failed; its Python side does
neither.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Score, and fail where VBench gives no result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, help="folder of MP4 files")
    parser.add_argument("dimension", help="of VBench, such as subject_consistency")
    parser.add_argument("out", type=Path, help="gets DIMENSION_eval_results.json")
    parser.add_argument("--mode", default="vbench_standard", help="vbench_standard or custom_input")
    asked = parser.parse_args()

    import torch
    import vbench

    prompts = Path(vbench.__file__).parent / "VBench_full_info.json"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked.out.mkdir(parents=True, exist_ok=True)
    scorer = vbench.VBench(device, str(prompts), str(asked.out))
    scorer.evaluate(str(asked.videos), asked.dimension, dimension_list=[asked.dimension], mode=asked.mode)
    result = asked.out / f"{asked.dimension}_eval_results.json"
    if not result.is_file():
        print(f"VBench gave no result for {asked.dimension}", file=sys.stderr)
        return 1
    print(f"{asked.dimension}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
