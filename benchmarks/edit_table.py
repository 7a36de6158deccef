"""From single edits to tables: the default chosen on some pairs of scenes, every method reported on others.

- `edit-choice`: the candidates on the first half, best first; the best one that changes what it should is chosen;
- `edit-pairs`: every method on the pairs of the testbed benchmark (on the second half, where that was not run), with
  the default's paired advantage;
- `edit-kinds`: the default beside the copy and the best published method, for every kind of edit by itself;
- `edit-injection`: sites chosen by EP against as many random ones: in the default edit, on the second half, and in the
  inverted one, on the pairs of the testbed benchmark; `edit-injection-kinds`: the same for each kind of edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.edit_methods import BASE, COPY, DEFAULT, NO_MAPS, WITHOUT_EDIT, candidates, methods
from benchmarks.results import Value, record
from ieadapt.metrics.intervals import Interval, paired_interval
from ieadapt.tasks.edit.config import EDIT_PRESETS
from ieadapt.testbed.edits import EDIT_KINDS, MOTION_KIND

BENCH = "bench"
"""Stands for the half of the pairs of the testbed benchmark."""
MARKS = ("psnr", "ssim", "kept", "change", "success", "preserved")
ADVANTAGE = ("advantage", "advantage_low", "advantage_high")
LEAST_SUCCESS = 0.9
"""Share of the edits that a default must make visible."""
TOGETHER = "all four"
"""Stands for the kinds of edit together, motion apart."""
LEAST_PAIRS = 25
"""Pairs from which on a candidate may be chosen: those behind after fewer were not gone on with."""
Cell = Mapping[str, Any]
ByMethod = dict[str, dict[str, Cell]]


def by_method(cells: Iterable[Cell], half: str, kinds: Sequence[str]) -> ByMethod:
    """Method -> pair -> cell, of one half and some kinds; later cells replace earlier ones."""
    found: ByMethod = {}
    for cell in cells:
        if cell["half"] == half and cell["kind"] in kinds:
            found.setdefault(cell["method"], {})[cell["pair"]] = cell
    return found


def row(method: str, cells: Mapping[str, Cell], chosen: Mapping[str, Cell] | None) -> dict[str, Value]:
    """Means of every mark, and the chosen method's advantage in PSNR over the same pairs with its interval."""
    told: dict[str, Value] = {"method": method, "pairs": len(cells)}
    for mark in MARKS:
        told[mark] = float(np.mean([cell[mark] for cell in cells.values()]))
    told["seconds"] = float(np.median([cell["seconds"] for cell in cells.values()]))
    shared = [] if chosen is None else sorted(set(cells) & set(chosen))
    gain = advantage(chosen or {}, cells, shared) if shared else None
    told["advantage_pairs"] = len(shared)
    ends = (None, None, None) if gain is None else gain
    return told | dict(zip(ADVANTAGE, ends, strict=True))


def advantage(
    ours: Mapping[str, Cell], theirs: Mapping[str, Cell], pairs: Sequence[str], mark: str = "psnr"
) -> Interval:
    """Ours less theirs over the same pairs, with the paired bootstrap 95 % interval."""
    return paired_interval([ours[pair][mark] for pair in pairs], [theirs[pair][mark] for pair in pairs])


def ranked(found: ByMethod) -> list[dict[str, Value]]:
    """The candidates: those on enough pairs first, of these those that succeed more often than must be, then by PSNR.

    All are held against the default's settings on the pairs that they share, since few candidates were gone on with.
    """
    same = [name for name, config in candidates().items() if config == BASE.resolved(("cross", "temporal"))]
    own = found.get(same[0]) if same else None
    rows = [row(name, found[name], own) for name in candidates() if name in found]
    most = max((_number(each["pairs"]) for each in rows), default=0)
    few = min(LEAST_PAIRS, most)

    def order(each: Mapping[str, Value]) -> tuple[bool, bool, float]:
        return _number(each["pairs"]) < few, _number(each["success"]) <= LEAST_SUCCESS, -_number(each["psnr"])

    return sorted(rows, key=order)


def _number(value: Value) -> float:
    return float(value or 0.0)


def report(found: ByMethod, chosen: str) -> list[dict[str, Value]]:
    """One row per method, the rows without an edit first, then by PSNR."""
    rows = [row(name, cells, found.get(chosen)) for name, cells in found.items()]
    return sorted(rows, key=lambda each: (each["method"] not in WITHOUT_EDIT, -_number(each["psnr"])))


def by_kind(cells: Sequence[Cell], half: str) -> list[dict[str, Value]]:
    """For each kind of edit the default, the copy of the source, and the published method that comes nearest to it."""
    rows: list[dict[str, Value]] = []
    for kind in EDIT_KINDS:
        found = by_method(cells, half, [kind])
        if DEFAULT not in found:
            continue
        told = {name: row(name, of_kind, found[DEFAULT]) for name, of_kind in found.items()}
        own = told[DEFAULT]
        line: dict[str, Value] = {"kind": kind, "pairs": own["pairs"]}
        line |= {mark: own[mark] for mark in ("psnr", "kept", "success", "preserved")}
        line["copy"] = told[COPY]["psnr"] if COPY in told else None
        others = [each for name, each in told.items() if name in EDIT_PRESETS and name != DEFAULT]
        best = max(others, key=lambda each: _number(each["psnr"]), default=None)
        line["best_other"] = None if best is None else best["method"]
        line |= {name: None if best is None else best[name] for name in ADVANTAGE}
        rows.append(line)
    return rows


def injection(cells: Sequence[Cell]) -> list[dict[str, Value]]:
    """Sites of low and high EP against as many random ones (the mean over their draws), pair by pair.

    For the four kinds of edit that have a perfect answer in place together, and for each kind, motion too, by itself.
    """
    rows: list[dict[str, Value]] = []
    for label, kinds in ((TOGETHER, EDIT_KINDS), *((kind, [kind]) for kind in (*EDIT_KINDS, MOTION_KIND))):
        for edit, sites, found in _injected(cells, kinds):
            draws = [of for name, of in found.items() if name.startswith("random")]
            line: dict[str, Value] = {"edits": label, "edit": edit, "sites": sites, "draws": len(draws)}
            for name, rule in (("low", "low EP"), ("high", "high EP"), ("none", "none")):
                line |= _against(name, found.get(rule, {}), draws)
            if line["low_pairs"]:
                rows.append(line)
    return rows


def _injected(cells: Sequence[Cell], kinds: Sequence[str]) -> Iterator[tuple[str, str, ByMethod]]:
    """The edit, its sites, and the cells of `low EP`, `high EP`, `random ...` and `none`."""
    found = by_method(cells, "report", kinds)
    for where in ("any", "spatial", "temporal"):
        of = {name.removeprefix(f"inject {where} "): done for name, done in found.items() if f" {where} " in name}
        yield "default", where, {**of, "none": found.get(NO_MAPS, {})}
    presets = {"low-ep": "low EP", "high-ep": "high EP", "random": "random", "inversion": "none"}
    bench = by_method(cells, BENCH, kinds)
    yield "inverted", "any", {presets[name]: done for name, done in bench.items() if name in presets}


def _against(name: str, ours: Mapping[str, Cell], others: Sequence[Mapping[str, Cell]]) -> dict[str, Value]:
    """Ours less the mean of the others: the number of shared pairs, the difference in PSNR, and its interval."""
    pairs = sorted(set(ours).intersection(*others)) if others else []
    told: dict[str, Value] = {f"{name}_pairs": len(pairs)}
    ends: Sequence[float | None] = (None, None, None)
    if pairs:
        theirs = [float(np.mean([other[pair]["psnr"] for other in others])) for pair in pairs]
        ends = paired_interval([ours[pair]["psnr"] for pair in pairs], theirs)
    return told | dict(zip((f"{name}_difference", f"{name}_from", f"{name}_to"), ends, strict=True))


def verdicts(rows: Sequence[Mapping[str, Value]], chosen: str) -> list[str]:
    """What the report's rows say about the goal: above every published configuration and the copy, success enough."""
    by_name = {each["method"]: each for each in rows}
    own, published = by_name[chosen], {COPY, *EDIT_PRESETS} - {chosen, DEFAULT}
    beaten: list[str] = []
    level: list[str] = []
    better: list[str] = []
    for each in rows:
        if each["method"] not in published or each["advantage"] is None:
            continue
        ends = _number(each["advantage_low"]), _number(each["advantage_high"])
        (beaten if ends[0] > 0 else better if ends[1] < 0 else level).append(str(each["method"]))
    compared = len(beaten) + len(level) + len(better)
    said = [
        f"{chosen}: PSNR {_number(own['psnr']):.2f} dB to the perfect edit, success {_number(own['success']):.3f} "
        f"(goal {LEAST_SUCCESS}), on {own['pairs']} pairs.",
        f"Interval above zero against {len(beaten)} of {compared} published ones and controls"
        + (", the copy of the source among them." if COPY in beaten else "; not against the copy of the source."),
    ]
    said += [f"Not told apart: {'; '.join(level)}."] if level else []
    said += [f"Better than it: {'; '.join(better)}."] if better else []
    return said


def write(model: str, cells: Sequence[Cell], folder: Path, device_name: str | None = None) -> None:
    """Choose, report, record and print.

    Args:
        model: whose edits they are.
        cells: one per pair and method.
        folder: of the records.
        device_name: the machine that made the edits, if it is another one.
    """
    half = BENCH if any(cell["half"] == BENCH for cell in cells) else "report"
    choice = ranked(by_method(cells, "choose", EDIT_KINDS))
    rows = report(by_method(cells, half, EDIT_KINDS), DEFAULT)
    command = "python -m benchmarks.edit_pairs run; python -m benchmarks.edit_pairs keep --bench runs/testbed; "
    command += f"python -m benchmarks.edit_pairs table --model {model}"
    note = (
        f"25 steps. {'The pairs of the testbed benchmark' if half == BENCH else 'The second half of the pairs'}, on "
        "which nothing was chosen. PSNR and SSIM to the perfect edit; kept is PSNR where the perfect edit changes "
        "nothing; success is the share of edits whose new attribute the scorer reads; preserved is the mean mark of "
        "the other attributes. Advantages are the default's in PSNR, paired, with bootstrap 95 % intervals, not "
        "corrected for the number of rows."
    )
    chosen = f"Chosen: {choice[0]['method']} ({methods().get(str(choice[0]['method']))}). " if choice else ""
    injected = injection(cells)
    of_injection = (
        "PSNR to the perfect edit, in dB, less that of as many random sites (the mean of the draws); paired, bootstrap "
        "95 % intervals. The default edit on the second half of the pairs, as far as it was run, the inverted one "
        "(presets low-ep, high-ep, random, inversion) on the pairs of the testbed benchmark."
    )
    tables = {
        "edit-choice": (choice, f"{chosen}Advantages are those of the default's settings on the first half. {note}"),
        "edit-pairs": (rows, note),
        "edit-kinds": (by_kind(cells, half), note),
        "edit-injection": ([each for each in injected if each["edits"] == TOGETHER], of_injection),
        "edit-injection-kinds": ([each for each in injected if each["edits"] != TOGETHER], of_injection),
    }
    machine = {"gpu": device_name} if device_name else None
    for name, (content, told) in tables.items():
        if content:
            record(f"{name}-{model}", command, content, notes=told, machine=machine, folder=folder)
    for each in rows:
        print(_line(each))
    there = DEFAULT in {each["method"] for each in rows}
    print("\n".join(verdicts(rows, DEFAULT)) if there else "no cells of the default")


def _line(each: Mapping[str, Value]) -> str:
    marks = "  ".join(f"{mark} {_number(each[mark]):6.3f}" for mark in MARKS)
    if each["advantage"] is None:
        return f"{str(each['method'])[:48]:48s} {each['pairs']:4}  {marks}"
    low, high = _number(each["advantage_low"]), _number(each["advantage_high"])
    gain = f"{_number(each['advantage']):+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"{str(each['method'])[:48]:48s} {each['pairs']:4}  {marks}  chosen above it by {gain}"
