"""The race on one half of the prompts, and the proof on the other half."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ieadapt.errors import UsageError
from ieadapt.metrics.intervals import Interval, mean_interval
from ieadapt.notation import counted, format_duration, parse_seconds
from ieadapt.runs.cells import require_made
from ieadapt.runs.folder import Stages
from ieadapt.runs.workers import RunTasks
from ieadapt.tasks.tune.arms import DRAWS, SCALES, Arm, guided
from ieadapt.tasks.tune.method import (
    SPREAD_THAT_MATTERS,
    Comparison,
    Verdict,
    best_of,
    detectable,
    halves,
    judge,
    rounds,
)
from ieadapt.tasks.tune.work import CLIPS, SHOWN, TuneWork, Video


@dataclass(frozen=True)
class Tuned:
    """What a tune found.

    Attributes:
        best: the enhancement that went into the second half.
        verdict: what was shown of it.
        tests: the comparisons of the second half, in order.
        race: by round, the mean gain of every candidate over plain at equal passes.
        scales: by guidance scale, plain's mean gain over its own scale, at the same passes.
        guards: how much worse each guard got, in shares of plain's mean.
        detectable: the smallest gain that the second half could show.
        matters: the smallest gain that matters.
    """

    best: Arm
    verdict: Verdict
    tests: tuple[Comparison, ...]
    race: tuple[Mapping[str, float], ...]
    scales: Mapping[float, float]
    guards: Mapping[str, Interval]
    detectable: float
    matters: float


class Tuner:
    """Races candidates and proves the best one."""

    def __init__(self, work: TuneWork, workers: RunTasks, stages: Stages) -> None:
        self.work, self._workers, self._stages = work, workers, stages
        self.request = work.request
        self.first, self.second = halves(self.request.prompts)
        order = list(dict.fromkeys(self.request.prompts))
        self._seeds = {
            prompt: [self.request.seed + index + repeat * len(order) for repeat in range(self.request.tune.seeds)]
            for index, prompt in enumerate(order)
        }
        self.candidates = self._affordable()
        self._shown: tuple[Arm, ...] = ()  # whose videos of the second half are kept

    def price(self) -> str:
        """What is done and what it takes at most, in a line."""
        videos, steps = self._size(self.candidates)
        return (
            f"{counted(len(self.candidates), 'candidate')} on {counted(len(self.first), 'prompt')}, the best one on "
            f"{len(self.second)} others: at most {counted(videos, 'video')}, about "
            f"{format_duration(steps * self.work.seconds)} (a step of a video takes {self.work.seconds:.2g} s)"
        )

    def tune(self, say: Callable[[str], None]) -> Tuned:
        """Race, then prove."""
        race, best = self._race()
        plain = self.plain(best)
        self._shown = (best, plain)
        scales = self._scales(plain)
        differences = np.array(self._gains(best, plain, self.first))
        values = np.array(self._values(plain, self.first))
        matters = self.request.tune.matters or SPREAD_THAT_MATTERS * max(float(values.std(ddof=1)), 1e-12)
        spread = float(differences.std(ddof=1))
        shown = detectable(spread, len(self.second))
        say(
            f"{best.name} goes on. {counted(len(self.second), 'prompt')} show gains from {shown:.3g} on (80 % power); "
            f"{matters:.3g} matter."
        )
        tests, guards = self._prove(best, plain, scales)
        draws = self._against_draws(best) if all(test.interval.low > 0 for test in tests) else None
        verdict = judge(tests, guards, spread, matters, draws=draws)
        every = (*tests, draws) if draws is not None else tuple(tests)
        return Tuned(best, verdict, every, tuple(race), scales, guards, shown, matters)

    def clips(self, best: Arm, prompt: str) -> tuple[str, str]:
        """The files of the first pair of a prompt of the second half: enhanced, and plain at equal passes."""
        keys = [self.work.key(self._videos(arm, prompt)[0]) for arm in (best, self.plain(best))]
        return f"{CLIPS}/{keys[0]}.mp4", f"{CLIPS}/{keys[1]}.mp4"

    def _affordable(self) -> list[Arm]:
        """As many of the candidates as the budget allows."""
        every = self.work.candidates
        if self.request.budget is None:
            return every
        budget = parse_seconds(self.request.budget)
        for count in range(len(every), 1, -1):
            if self._size(every[:count])[1] * self.work.seconds <= budget:
                return every[:count]
        raise UsageError(
            "the budget is below one round",
            expected=f"at least {format_duration(self._size(every[:2])[1] * self.work.seconds)}",
            got=self.request.budget,
            where="--budget",
            remedy="raise it, or pass fewer prompts",
        )

    def _size(self, candidates: Sequence[Arm]) -> tuple[int, float]:
        """At most so many videos, and steps of both branches in them."""
        base, seeds = self.request.generation, self.request.tune.seeds
        seen, videos = 0, 0
        for each in rounds(len(candidates), len(self.first)):
            videos += each.candidates * (each.prompts - seen)
            seen = each.prompts
        plain = len({arm.plain_steps(base) for arm in candidates})
        scales = len(SCALES) if guided(base) else 0
        videos += (plain + scales) * len(self.first) + (2 + bool(scales) + DRAWS) * len(self.second)
        longest = max(arm.plain_steps(base) for arm in candidates)
        return videos * seeds, float(videos * seeds * longest)

    def _race(self) -> tuple[list[dict[str, float]], Arm]:
        """Successive halving; the mean gains of every round, and the best."""
        left, table = {arm.name: arm for arm in self.candidates}, []
        planned = rounds(len(left), len(self.first))
        survivors = [*(each.candidates for each in planned[1:]), 1]
        for number, (each, left_over) in enumerate(zip(planned, survivors, strict=True), start=1):
            prompts = self.first[: each.prompts]
            arms = dict.fromkeys([*left.values(), *map(self.plain, left.values())])
            self._make([(arm, prompt) for arm in arms for prompt in prompts], f"round {number} of the race")
            gains = {name: self._gains(arm, self.plain(arm), prompts) for name, arm in left.items()}
            table.append({name: float(np.mean(values)) for name, values in gains.items()})
            left = {name: left[name] for name in best_of(gains, left_over)}
        return table, next(iter(left.values()))

    def plain(self, arm: Arm) -> Arm:
        """Plain generation with as many passes as an arm."""
        steps = arm.plain_steps(self.request.generation)
        return Arm(f"plain, {counted(steps, 'step')}", steps=steps)

    def _scales(self, plain: Arm) -> dict[float, float]:
        """By guidance scale, the mean gain of plain over its own one in the first half."""
        own = self.request.generation.guidance_scale
        if own is None or own <= 1:
            return {}
        scales = [scale for factor in SCALES if (scale := round(own * factor, 3)) > 1]
        arms = {scale: dataclasses.replace(plain, guidance_scale=scale) for scale in scales}
        self._make([(arm, prompt) for arm in arms.values() for prompt in self.first], "plain at other guidance scales")
        return {scale: float(np.mean(self._gains(arm, plain, self.first))) for scale, arm in arms.items()}

    def _prove(
        self, best: Arm, plain: Arm, scales: Mapping[float, float]
    ) -> tuple[list[Comparison], dict[str, Interval]]:
        """Against plain at equal passes; where that holds, against plain at its best guidance."""
        self._make([(arm, prompt) for arm in (best, plain) for prompt in self.second], "the second half")
        tests = [Comparison("plain at equal passes", tuple(self._gains(best, plain, self.second)))]
        better = max(scales, key=lambda scale: scales[scale], default=None)
        if better is not None and scales[better] > 0 and tests[0].interval.low > 0:
            guided_plain = dataclasses.replace(plain, guidance_scale=better)
            self._make([(guided_plain, prompt) for prompt in self.second], "plain at its best guidance")
            against = f"plain at guidance {better:g}, equal passes"
            tests.append(Comparison(against, tuple(self._gains(best, guided_plain, self.second))))
        return tests, {name: self._guard(name, best, plain) for name in self.request.tune.guards}

    def _guard(self, name: str, best: Arm, plain: Arm) -> Interval:
        """How much worse a guard got, in shares of plain's mean."""
        own, others = (np.array(self._values(arm, self.second, name)) for arm in (best, plain))
        worse = others - own if self.request.tune.higher_is_better(name) else own - others
        return mean_interval(worse / max(abs(float(others.mean())), 1e-12))

    def _against_draws(self, best: Arm) -> Comparison | None:
        """Against the mean of random choices of sites, matched by resolution, drawn anew for every prompt."""
        if not best.chooses_sites:
            return None
        draws = {
            prompt: [best.draw(DRAWS * index + number) for number in range(DRAWS)]
            for index, prompt in enumerate(self.second)
        }
        self._make([(arm, prompt) for prompt, arms in draws.items() for arm in arms], "random sites")
        others = [np.mean([self._values(arm, [prompt])[0] for arm in arms]) for prompt, arms in draws.items()]
        own = np.array(self._values(best, self.second))
        return Comparison("random sites of the same resolutions", tuple(self._signed(own - np.array(others))))

    def _signed(self, differences: np.ndarray) -> list[float]:
        sign = 1.0 if self.request.tune.higher_is_better(self.request.tune.metric) else -1.0
        return [float(sign * difference) for difference in differences]

    def _gains(self, arm: Arm, plain: Arm, prompts: Sequence[str]) -> list[float]:
        """How much better an arm is, prompt by prompt."""
        own, others = (np.array(self._values(each, prompts)) for each in (arm, plain))
        return self._signed(own - others)

    def _values(self, arm: Arm, prompts: Sequence[str], metric: str | None = None) -> list[float]:
        """The metric of an arm, the mean over seeds, prompt by prompt."""
        name, values = metric or self.request.tune.metric, []
        for prompt in prompts:
            keys = [self.work.key(video) for video in self._videos(arm, prompt)]
            rows = self.work.cells.read(keys)[0]
            values.append(float(np.mean([rows[key].values[name] for key in keys])))
        return values

    def _videos(self, arm: Arm, prompt: str) -> list[Video]:
        keep = arm in self._shown and prompt in self.second[:SHOWN]
        return [Video(arm, prompt, seed, keep) for seed in self._seeds[prompt]]

    def _make(self, pairs: Sequence[tuple[Arm, str]], stage: str) -> None:
        """See to the videos of some arms and prompts."""
        listed = [video for arm, prompt in pairs for video in self._videos(arm, prompt)]
        videos = {self.work.key(video): video for video in listed}
        self.work.cells.set_damaged_aside(videos)
        size, together = self.request.generation.batch_size, operator.attrgetter("arm")
        failed = self.work.cells.make(
            self._workers, TuneWork.make, videos, size, together=together, stages=self._stages, stage=stage
        )
        for error in failed.values():
            if isinstance(error, UsageError):
                raise error
        problem = f"{counted(len(failed), 'video')} of the tune could not be made"
        require_made(failed, problem, self.work.folder, "--resume tries these again")
