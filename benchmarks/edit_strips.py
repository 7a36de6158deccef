"""Before and after: pictures of edits by the bundled model, for the documentation.

`python -m benchmarks.edit_strips [--device cuda]` edits one rendered clip per kind with the default settings and writes
`docs/images/edit-KIND.png`: frames of the source, of the edit, and of the perfect edit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.edit_methods import DEFAULT, for_pair, methods
from ieadapt.models import load
from ieadapt.runs.videos import rows_of_frames
from ieadapt.tasks.demo.edit import score_edit
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.testbed.edits import EDIT_KINDS, edit_pairs

FOLDER = Path(__file__).parents[1] / "docs" / "images"


def main(words: Sequence[str] | None = None) -> int:
    """Draw one picture per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps")
    parser.add_argument("--kinds", default="colour,background,shape", help=f"of {', '.join(EDIT_KINDS)}, with commas")
    parser.add_argument("--number", type=int, default=0, help="which pair of each kind")
    parser.add_argument("--method", default=DEFAULT, help="a configuration of benchmarks.edit_methods")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    arguments = parser.parse_args(words)
    pipe = load("shapes", device=arguments.device, dtype=torch.float32)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for kind in arguments.kinds.split(","):
        pair = edit_pairs(arguments.number + 1, [kind])[-1]
        result = edit(
            pipe,
            pair.source_frames,
            pair.prompt,
            source_prompt=pair.source_prompt,
            config=for_pair(methods()[arguments.method], pair),
            generation=GenerationConfig(arguments.steps),
        )
        clips = {
            f"source: {pair.source_prompt}": result.source,
            f"edit: {pair.prompt}": result.edited[0],
            "perfect edit": pair.perfect,
        }
        path = arguments.folder / f"edit-{kind}.png"
        path.write_bytes(rows_of_frames(clips, count=6))
        print(f"{path}: {score_edit(result.edited[0], pair)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
