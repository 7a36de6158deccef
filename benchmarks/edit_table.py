"""From single edits to tables: the default chosen on one half of the pairs, every method reported on the other.

- `edit-choice`: the candidates on the first half, best first; the best one that changes what it should is chosen;
- `edit-pairs`: every method on the second half, all kinds but motion together, with the default's paired advantage;
- `edit-kinds`: the same for every kind by itself, motion included;
- `edit-injection`: sites chosen by EP against as many random ones, per kind of edit.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.edit_methods import BASE, COPY, DEFAULT, NO_MAPS, WITHOUT_EDIT, candidates, methods
from benchmarks.results import FOLDER, Value, record
from ieadapt.methods import EDIT_PRESETS
from ieadapt.metrics.intervals import Interval, paired_interval
from ieadapt.testbed.edits import EDIT_KINDS, MOTION_KIND

MARKS = ("psnr", "ssim", "kept", "change", "success", "preserved")
LEAST_SUCCESS = 0.9
"""Share of the edits that a default must make visible."""
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
    told |= {
        "advantage": None if gain is None else gain.mean,
        "advantage_low": None if gain is None else gain.low,
        "advantage_high": None if gain is None else gain.high,
    }
    return told


def advantage(
    ours: Mapping[str, Cell], theirs: Mapping[str, Cell], pairs: Sequence[str], mark: str = "psnr"
) -> Interval:
    """Ours less theirs over the same pairs, with the paired bootstrap 95 % interval."""
    return paired_interval([ours[pair][mark] for pair in pairs], [theirs[pair][mark] for pair in pairs])


def ranked(found: ByMethod) -> list[dict[str, Value]]:
    """The candidates: those on enough pairs first, of these those that succeed more often than must be, then by PSNR.

    All are held against the default's settings on the pairs that they share, since few candidates were gone on with.
    """
    same = [name for name, config in candidates().items() if config == BASE.settled(("cross", "temporal"))]
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


def by_kind(cells: Sequence[Cell], chosen: str) -> list[dict[str, Value]]:
    """`report` for each kind by itself."""
    rows: list[dict[str, Value]] = []
    for kind in (*EDIT_KINDS, MOTION_KIND):
        rows += [{"kind": kind, **each} for each in report(by_method(cells, "report", [kind]), chosen)]
    return rows


_INJECTED = re.compile(r"inject (?P<where>\w+) (?P<rule>low EP|high EP)")


def injection(cells: Sequence[Cell]) -> list[dict[str, Value]]:
    """Sites chosen by EP against as many random ones (the mean over their draws), pair by pair, per kind of edit."""
    rows: list[dict[str, Value]] = []
    for label, kinds in (("all four", EDIT_KINDS), *((kind, [kind]) for kind in (*EDIT_KINDS, MOTION_KIND))):
        found = by_method(cells, "report", kinds)
        for name in filter(_INJECTED.fullmatch, found):
            where, rule = _INJECTED.fullmatch(name).groups()  # type: ignore[union-attr]
            draws = [found[other] for other in found if other.startswith(f"inject {where} random")]
            against = {"as many random sites": draws, "no injection": [found[NO_MAPS]] if NO_MAPS in found else []}
            for control, others in against.items():
                interval = _against(found[name], others)
                if interval is not None:
                    rows.append(
                        {"edits": label, "sites": where, "rule": rule, "against": control, "draws": len(others)}
                        | {"difference": interval.mean, "low": interval.low, "high": interval.high}
                    )
    return rows


def _against(ours: Mapping[str, Cell], others: Sequence[Mapping[str, Cell]]) -> Interval | None:
    pairs = sorted(set(ours).intersection(*others)) if others else []
    if not pairs:
        return None
    theirs = [float(np.mean([other[pair]["psnr"] for other in others])) for pair in pairs]
    return paired_interval([ours[pair]["psnr"] for pair in pairs], theirs)


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


def write(arguments: argparse.Namespace, cells: Sequence[Cell]) -> None:
    """Choose, report, record and print."""
    choice = ranked(by_method(cells, "choose", EDIT_KINDS))
    chosen = str(choice[0]["method"]) if choice else DEFAULT
    rows = report(by_method(cells, "report", EDIT_KINDS), DEFAULT)
    folder = arguments.folder or FOLDER
    machine = {"gpu": arguments.device_name} if arguments.device_name else None
    command = arguments.made_by or "python -m benchmarks.edit_pairs run; python -m benchmarks.edit_pairs table"
    note = (
        f"Chosen on the first half of the pairs: {chosen} ({methods().get(chosen)}). This is the second half. PSNR and "
        "SSIM to the perfect edit; kept is PSNR where the perfect edit changes nothing; success is the share of edits "
        "whose new attribute the scorer reads; preserved is the mean mark of the other attributes. The advantage is "
        "the default's in PSNR, paired, with bootstrap 95 % intervals, not corrected for the number of rows."
    )
    tables = {"edit-choice": choice, "edit-pairs": rows, "edit-kinds": by_kind(cells, DEFAULT)}
    tables["edit-injection"] = injection(cells)
    for name, content in tables.items():
        if content:
            record(name, command, content, notes=note, machine=machine, folder=folder)
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
