"""What a tune leaves to look at: a report, and a page that compares plain and enhanced videos blindly."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from ieadapt.runs.report import Picture, Report, Section, Table, figure_png
from ieadapt.tasks.measure.run import report_record
from ieadapt.tasks.tune.config import TuneRun
from ieadapt.tasks.tune.method import TOLERATED
from ieadapt.tasks.tune.race import Tuned

HEADLINES = {
    "confirmed": "Confirmed: this enhancement is better than plain generation with as many passes.",
    "refuted": "Refuted: what it gains, if anything, does not matter.",
    "undecided": "Undecided.",
}


def tune_report(request: TuneRun, found: Tuned, price: str, record: Mapping[str, Any]) -> Report:
    """A tune as a report: the verdict first.

    Args:
        request: what was tuned.
        found: the result.
        price: what was done, in a line.
        record: of the run.
    """
    tests = [[test.against, f"{test.interval:.4g}", str(len(test.gains))] for test in found.tests]
    race = [[name, *_gains_of(found.race, name)] for name in _by_last_round(found.race)]
    headings = ("candidate", *(f"round {number}" for number in range(1, len(found.race) + 1)))
    picture = Picture(
        figure_png(plot_tests(found)),
        f"Gain in {request.tune.metric} on prompts that chose nothing, 95 % intervals over prompts. Right of the "
        "dotted line it matters.",
        "mean gains with their intervals",
        420,
    )
    sections = [
        Section("The proof", [picture, Table(("against", "gain", "prompts"), tests, "Gain, mean and 95 % interval.")]),
        Section(
            "The race",
            [Table(headings, race, "Mean gain over plain at equal passes, round by round.", range(1, len(headings)))],
        ),
    ]
    if found.scales:
        scales = [[f"{scale:g}", f"{gain:+.4g}"] for scale, gain in found.scales.items()]
        caption = "Plain at other guidance scales: mean gain over its own scale, first half."
        sections.append(Section("Guidance", [Table(("guidance scale", "gain"), scales, caption, (1,))]))
    if found.guards:
        guards = [[name, f"{worse.mean:+.1%}", f"{worse.high:+.1%}"] for name, worse in found.guards.items()]
        caption = f"How much worse the guards got, in shares of plain's mean; up to {TOLERATED:.0%} is tolerated."
        sections.append(Section("Guards", [Table(("metric", "worse by", "at most"), guards, caption, (1, 2))]))
    return Report(
        title=f"Tuned {request.model} for {request.tune.metric}",
        request=price,
        results=[
            f"{HEADLINES[found.verdict.word]} {found.verdict.sentence}",
            f"The enhancement: {found.best.name}. Look at the videos yourself: compare-blind.html asks without "
            "saying which is which.",
            f"The second half could show gains from {found.detectable:.3g} on (80 % power); "
            f"{found.matters:.3g} matter.",
        ],
        sections=sections,
        repeat={"Command line": str(record["command"]), "Use it": _use(request)},
        record=report_record({"model": {}, **record}),
    )


def _use(request: TuneRun) -> str:
    return f"ieadapt enhance {request.model} --preset DIR/preset.json --prompt TEXT --out runs/enhanced"


def _by_last_round(race: Sequence[Mapping[str, float]]) -> list[str]:
    """Names by how far they came, then by their last mean gain."""

    def rank(name: str) -> tuple[int, float]:
        last = max(number for number, gains in enumerate(race) if name in gains)
        return -last, -race[last][name]

    return sorted(race[0], key=rank)


def _gains_of(race: Sequence[Mapping[str, float]], name: str) -> list[str]:
    return [f"{gains[name]:+.4g}" if name in gains else "–" for gains in race]


def plot_tests(found: Tuned) -> Figure:
    """The comparisons of the second half as points with intervals, zero and what matters as lines."""
    figure = Figure(figsize=(6.4, 0.9 + 0.5 * len(found.tests)), layout="constrained")
    axis = figure.subplots()
    for row, test in enumerate(found.tests):
        interval = test.interval
        errors = [[interval.mean - interval.low], [interval.high - interval.mean]]
        axis.errorbar([interval.mean], [row], xerr=errors, fmt="o", color="#1f5f8b", capsize=3)
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.axvline(found.matters, color="#b3541e", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(found.tests)), [test.against for test in found.tests], fontsize=8)
    axis.set_ylim(len(found.tests) - 0.5, -0.5)
    axis.set_xlabel("gain", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    return figure


def blind_page(pairs: Sequence[tuple[str, bytes, bytes]], *, seed: int) -> str:
    """A self-contained page: pairs in random order and on random sides, keys to choose, a result with its interval.

    Args:
        pairs: prompt, enhanced and plain video (MP4).
        seed: of order and sides.

    Example:
        >>> "Which is better?" in blind_page([("a red ball", b"one", b"two")], seed=0)
        True
    """
    drawn = random.Random(seed)  # noqa: S311 (it keeps no secret)
    shown = []
    for prompt, enhanced, plain in drawn.sample(list(pairs), len(pairs)):
        side = drawn.choice(("left", "right"))
        other = {"left": "right", "right": "left"}[side]
        shown.append({"prompt": prompt, "enhanced": side, side: _address(enhanced), other: _address(plain)})
    loader = PackageLoader("ieadapt.tasks.tune", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("blind.html.j2").render(pairs=shown)


def _address(mp4: bytes) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(mp4).decode()}"
