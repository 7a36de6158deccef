"""What `benchmarks.validity` judges, picked from variants that `benchmarks.scenes_compare` made on choosing captions.

    python -m benchmarks.validity_picks --model scenes --compared runs/choosing/scenes \
        --variants benchmarks/sweeps/choosing-scenes.json --out benchmarks/sweeps/validity-scenes.json

The names of the variants say what each may become: `guidance-SCALE` a scale; `method NAME` a published method; and
`sites GROUP - SET` a method too, and one of two sets of sites, the other one of the same GROUP: as many sites of the
same kind and resolutions, changed in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.scenes_compare import Rows, column, mean
from ieadapt.errors import UsageError
from ieadapt.files import write_atomically
from ieadapt.metrics.intervals import paired_interval

PLAIN = "guidance-1"
LEAST_APART, MOST_LOST = 0.03, 0.1
"""The bars of `sites`: accuracy between the two sets, and presence that the worse may lose."""


def picks(model: str, compared: Mapping[str, Rows], variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a file of picks.

    Args:
        model: `scenes` or `scenes-dit`.
        compared: rows of every variant.
        variants: what was made, by the same names.

    Raises:
        UsageError: no group has two sets.
    """
    scales = [name for name in compared if name.startswith("guidance-")]
    methods = [name for name in compared if name.startswith(("method ", "sites "))]
    best = max(scales, key=lambda name: mean(compared[name], "accuracy"))
    better, worse = best_pair(compared)
    return {
        "model": model,
        "guidance": variants[best]["guidance"],
        "tried": len(compared),
        "method": variants[max(methods, key=lambda name: mean(compared[name], "accuracy"))],
        "better": variants[better],
        "worse": variants[worse],
    }


def best_pair(compared: Mapping[str, Rows]) -> tuple[str, str]:
    """The two sets of one group that are told apart most surely, the better one above plain.

    How surely is the lower of two figures, each in widths of its interval: better less plain, and better less worse
    beyond its bar.
    """

    def surety(pair: tuple[str, str]) -> float:
        better, worse = pair
        lost = mean(compared[PLAIN], "presence") - mean(compared[worse], "presence")
        if lost > MOST_LOST:
            return float("-inf")
        accuracy = column(compared[better], "accuracy")
        margins = []
        for other, bar in ((PLAIN, 0.0), (worse, LEAST_APART)):
            interval = paired_interval(accuracy, column(compared[other], "accuracy"))
            margins.append((interval.mean - bar) / max(interval.high - interval.low, 1e-9))
        return min(margins)

    pairs = [
        pair
        for pair in itertools.permutations((name for name in compared if name.startswith("sites ")), 2)
        if pair[0].partition(" - ")[0] == pair[1].partition(" - ")[0]
    ]
    if not pairs:
        raise UsageError("no two sets of sites can be compared", expected="sites GROUP - SET", got=sorted(compared))
    return max(pairs, key=surety)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, and write the picks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("scenes", "scenes-dit"), required=True)
    parser.add_argument("--compared", type=Path, required=True, help="the folder of the finished variants")
    parser.add_argument("--variants", type=Path, required=True, help="JSON")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    variants = json.loads(options.variants.read_text())
    compared = {name: options.compared / f"{name}.json" for name in variants}
    rows = {name: json.loads(path.read_text()) for name, path in compared.items() if path.is_file()}
    chosen = picks(options.model, rows, variants)
    write_atomically(options.out, (json.dumps(chosen, indent=1) + "\n").encode())
    print(json.dumps(chosen))


if __name__ == "__main__":
    main()
