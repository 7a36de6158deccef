"""The screen run: a price, the trajectories, the passes of every site, and one page to act on, in a run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ieadapt.attention import AttentionSite, find_sites, intercept
from ieadapt.errors import FailureError, UsageError
from ieadapt.files import read_record, record_text
from ieadapt.interventions import parse_perturbation
from ieadapt.runs.engines import check_engine, open_workers
from ieadapt.runs.flags import command_line
from ieadapt.runs.folder import Stages, open_run, silent
from ieadapt.runs.pipelines import Hardware
from ieadapt.runs.report import write_report
from ieadapt.runs.shared_files import fingerprint, write_whole
from ieadapt.runs.videos import strip
from ieadapt.runs.workers import LOCKS, RunTasks, Task, Work, make_all, tasks_of
from ieadapt.tasks.generate import GenerationConfig, PromptRun, generate
from ieadapt.tasks.measure.method import refuse_another_model
from ieadapt.tasks.measure.profile import EFFECTS_FILE, EntropyProfile
from ieadapt.tasks.measure.run import PROFILE_FILES
from ieadapt.tasks.price import PassTimes, time_passes
from ieadapt.tasks.screen.config import EFFECTS, ScreenConfig, parse_seconds
from ieadapt.tasks.screen.effects import effects_table
from ieadapt.tasks.screen.method import follow, screen_step
from ieadapt.tasks.screen.price import CHUNK, ScreenPlan
from ieadapt.tasks.screen.report import screen_report
from ieadapt.tasks.study.folder import CellRow, CellStore
from ieadapt.tasks.study.grid import Condition, conditions

PRICE, TRAJECTORY = "price.json", "trajectory.safetensors"
DEFAULT_GENERATION = GenerationConfig(20, batch_size=1)
Try = tuple[Condition, int, int]
"""A condition, the index of a prompt, and a step."""


@dataclass(frozen=True)
class ScreenRun(PromptRun):
    """The settings of a screen, beside those of every run with prompts.

    Attributes:
        screen: what is tried, and when.
        budget: the most time it may take, such as `30m`; fewer prompts, then fewer steps are taken to keep to it.
        check: of so many sites of largest, and of smallest, predicted effect one video is generated in full.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.

    Raises:
        UsageError: no prompt, a blank one, no such time, an unknown engine, or no workers.
    """

    screen: ScreenConfig = field(default_factory=ScreenConfig)
    generation: GenerationConfig = field(default_factory=lambda: DEFAULT_GENERATION)
    budget: str | None = field(
        default=None, metadata={"help": "the most time it may take, as in 30m; it then takes fewer prompts and steps"}
    )
    check: int = field(
        default=3, metadata={"help": "strongest and weakest sites that are generated in full as a check"}
    )
    engine: str = field(default="local", metadata={"help": "local (processes) or ray (a cluster)"})
    workers: int | None = field(default=None, metadata={"help": "one per GPU or core by default"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_engine(self.engine, self.workers)
        if self.check < 0:
            raise UsageError("a number of sites is negative", expected=">= 0", got=self.check, where="--check")
        if self.budget is not None:
            parse_seconds(self.budget)

    @property
    def shared(self) -> dict[str, Any]:
        """What all passes depend on."""
        return {
            "model": self.model,
            **{name: value for name, value in vars(self.generation).items() if name != "batch_size"},
        }

    @property
    def request(self) -> dict[str, Any]:
        """What a resumed run must share."""
        own = {"prompts": list(self.prompts), "seed": self.seed, "screen": vars(self.screen)}
        return {**self.shared, **own, "budget": self.budget, "check": self.check}


@dataclass(frozen=True)
class ScreenWork(Work):
    """What a worker of a screen has to know, and how it makes what `run_screen` gives out."""

    request: ScreenRun

    @cached_property
    def plan(self) -> ScreenPlan:
        """What is done, once a pass was timed; the same for every worker."""
        schema = {"seconds": float, "shares": dict[str, float], "sites": list[AttentionSite]}
        price = read_record(self.folder / PRICE, schema, what="the price", remedy="remove it and repeat")
        sites = [AttentionSite(**site) for site in price["sites"]]
        return self._planned(sites, PassTimes(price["seconds"], price["shares"]))

    def _planned(self, sites: Sequence[AttentionSite], times: PassTimes) -> ScreenPlan:
        request, steps = self.request, self.request.generation.num_inference_steps
        listed = conditions(request.screen.study, sites, {})
        plan = ScreenPlan(
            listed,
            request.screen.steps(steps),
            len(request.prompts),
            self._batch,
            steps,
            times,
            1 + min(2 * request.check, len(listed)) if request.check else 0,
        )
        return plan if request.budget is None else plan.within(parse_seconds(request.budget))

    @property
    def _batch(self) -> int:
        return min(self.request.generation.batch_size, len(self.request.prompts))

    @cached_property
    def cells(self) -> CellStore:
        """The finished passes."""
        return CellStore(self.folder)

    def price(self, pipe: DiffusionPipeline, items: Mapping[str, None]) -> None:
        """Time a pass, unless what is requested cannot be."""
        sites = find_sites(pipe)
        conditions(self.request.screen.study, sites, {})
        batch = dataclasses.replace(self.request.generation, batch_size=self._batch)
        times = time_passes(pipe, self.request.prompts[0], batch, output="latent")
        self._planned(sites, times)
        listed = [dataclasses.asdict(site) for site in sites]
        content = {"seconds": times.seconds, "shares": dict(times.shares), "sites": listed}
        write_whole(self.folder / PRICE, record_text(content).encode())

    def follow(self, pipe: DiffusionPipeline, items: Mapping[str, None]) -> None:
        """Follow the plain trajectories, and measure entropy and energy along them."""
        request, plan = self.request, self.plan
        prompts = request.prompts[: plan.prompts]
        made = follow(pipe, prompts, request.generation, plan.steps, seed=request.seed)
        made.profile.metadata["model"] = request.model
        made.profile.save(self.folder)
        tensors = {str(step): latents.cpu().contiguous() for step, latents in made.latents.items()}
        write_whole(self.folder / TRAJECTORY, save(tensors, metadata={"key": self._trajectory_key}))

    @property
    def _trajectory_key(self) -> str:
        own = {"steps": list(self.plan.steps), "number": self.plan.prompts}
        return fingerprint({"prompts": list(self.request.prompts), **own, **self.request.shared})

    def latents(self, steps: Collection[int] = ()) -> dict[int, Tensor] | None:
        """The latents with which steps begin; None where the file is not there, damaged or of something else."""
        try:
            with safe_open(self.folder / TRAJECTORY, framework="pt") as file:
                own = (file.metadata() or {}).get("key") == self._trajectory_key
                return {step: file.get_tensor(str(step)) for step in steps} if own else None
        except (OSError, SafetensorError):
            return None

    def tries(self) -> dict[str, Try]:
        """Every pass by the key of its cell: prompts of a batch together, step by step."""
        plan = self.plan
        batches = [range(plan.prompts)[start : start + plan.batch] for start in range(0, plan.prompts, plan.batch)]
        listed = itertools.product(plan.steps, batches, plan.conditions)
        every = [(condition, prompt, step) for step, batch, condition in listed for prompt in batch]
        return {fingerprint(self.identity(tried)): tried for tried in every}

    def identity(self, tried: Try) -> dict[str, Any]:
        """Everything that a pass depends on."""
        condition, prompt, step = tried
        return {
            **self.request.shared,
            **{"site": condition.sites[0], "kind": condition.kind, "head": condition.head},
            **{"map": condition.perturbation, "step": step},
            **{"prompt": self.request.prompts[prompt], "seed": self.request.seed + prompt},
        }

    def make(self, pipe: DiffusionPipeline, items: Mapping[str, Try]) -> None:
        """Run the passes of some conditions and prompts at one step, and store what they give."""
        missing = {key: tried for key, tried in items.items() if not self.cells.has(key)}
        if not missing:
            return
        listed = list(dict.fromkeys(condition for condition, _, _ in missing.values()))
        prompts = sorted({prompt for _, prompt, _ in missing.values()})
        step, sites = next(iter(missing.values()))[2], find_sites(pipe)
        latents = self.latents([step])
        if latents is None:
            remedy = "go on with --resume"
            raise FailureError("the trajectories are gone", where=self.folder / TRAJECTORY, remedy=remedy)
        refuse_another_model(EntropyProfile.load(self.folder), pipe, sites)
        texts = [self.request.prompts[prompt] for prompt in prompts]
        found = screen_step(pipe, texts, latents[step][prompts], step, listed, sites, self.request.generation)
        for condition, prompt, _ in missing.values():
            values = {name: each[prompts.index(prompt)] for name, each in found[listed.index(condition)].items()}
            self.cells.write(CellRow(self.identity((condition, prompt, step)), values))

    def film(self, pipe: DiffusionPipeline, items: Mapping[str, Condition | None]) -> None:
        """Generate the first prompt in full, plain or with a map replaced, and keep a strip of its frames."""
        request = self.request
        for name, condition in items.items():
            with contextlib.ExitStack() as stack:
                if condition is not None:
                    change = parse_perturbation(condition.perturbation)
                    heads = None if condition.head is None else (condition.head,)
                    replacing = intercept(pipe, change, list(condition.sites), guidance="all", heads=heads)
                    stack.enter_context(replacing)
                frames = generate(pipe, request.prompts[0], request.generation, request.seed)[0]
            write_whole(self.folder / name, strip(frames))


def screen(
    model: str | Path | DiffusionPipeline,
    prompts: str | Sequence[str],
    out: str | Path,
    config: ScreenConfig | None = None,
    generation: GenerationConfig | None = None,
    *,
    budget: str | None = None,
    check: int = 3,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    stages: Stages = silent,
) -> EntropyProfile:
    """Predict what replacing the map of each site does to a model's videos, for a few passes per site.

    Args:
        model: a bundled name, a folder or a hub id; or a pipeline, which then works in this process.
        prompts: one or several; from three on, effects have intervals over them.
        out: the run folder.
        config: maps, sites, steps, heads.
        generation: steps, size, guidance, prompts of a batch.
        budget: the most time it may take, such as `30m`.
        check: of so many sites of largest, and of smallest, predicted effect one video is generated in full.
        seed: of the first prompt; the next ones count up.
        overwrite: replace an earlier run in the folder.
        resume: go on with the screen that the folder holds.
        engine: `local` or `ray`.
        workers: None for one per GPU, or per core as far as memory goes.
        device: `auto`, `cpu`, `cuda`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        stages: told which stage begins and how far it is.

    Returns:
        Entropy and energy along the trajectories, with the predicted `effects`; sites can be chosen by all of them.

    Raises:
        UsageError: the request cannot be met, or the budget is too small.
        FailureError: some passes could not be made.

    Example:
        >>> profile = ieadapt.screen("MODEL", ["a red ball", "a dog in snow"], "runs/screen")  # doctest: +SKIP
        >>> profile.effects.filter(effect="structure").sort("value")  # doctest: +SKIP
    """
    listed = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    pipe = model if isinstance(model, DiffusionPipeline) else None
    name = str(model) if pipe is None else str(pipe.config.get("_name_or_path") or type(pipe).__name__)
    request = ScreenRun(
        name,
        listed,
        generation or DEFAULT_GENERATION,
        seed,
        Hardware(device, dtype),
        config or ScreenConfig(),
        budget,
        check,
        engine,
        workers,
    )
    return run_screen(request, out, overwrite=overwrite, resume=resume, pipe=pipe, stages=stages)


def price_screen(request: ScreenRun, pipe: DiffusionPipeline | None = None) -> ScreenPlan:
    """What a screen would do and take: times one pass, and stops there.

    Args:
        request: model, prompts and settings.
        pipe: the pipeline, if it is at hand.
    """
    request = request.with_model_defaults()
    with tempfile.TemporaryDirectory() as folder:
        work = ScreenWork(Path(folder), request.model, request.hardware, request)
        with open_workers(work, "local", 1, pipe) as workers:
            _price(workers, work, silent)
        return work.plan


def run_screen(
    request: ScreenRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    pipe: DiffusionPipeline | None = None,
    stages: Stages = silent,
    say: Callable[[str], None] = lambda line: None,
) -> EntropyProfile:
    """Screen a model and write effects, profile and report into a run folder.

    Every finished pass is kept at once: a run that was stopped, or killed, goes on with `resume`.

    Args:
        request: model, prompts and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        resume: go on with the screen that the folder holds.
        pipe: the pipeline, if it is at hand.
        stages: told which stage begins and how far it is.
        say: gets the price before the work begins.

    Raises:
        UsageError: the request cannot be met.
        FailureError: some passes could not be made; the others are kept.
    """
    request = request.with_model_defaults()
    config = {**dataclasses.asdict(request), "request": request.request}
    command = command_line("screen", request, out)
    with open_run(out, "screen", config, command=command, overwrite=overwrite, resume=resume) as run:
        work = ScreenWork(run.path.absolute(), request.model, request.hardware, request)
        with open_workers(work, request.engine, request.workers, pipe) as workers:
            with _leaving_nothing(work.folder):
                _price(workers, work, stages)
            say(work.plan.summary())
            _make_once(workers, ScreenWork.follow, lambda: work.latents() is not None, stages, "trajectories")
            cells = _make_passes(workers, work, stages)
            profile = EntropyProfile.load(run.path)
            profile.effects = effects_table([{**row.identity, **row.values} for row in cells])
            profile.save(run.path)
            films = _make_films(workers, work, profile.effects, stages)
        for name in (*PROFILE_FILES, EFFECTS_FILE, PRICE, TRAJECTORY, *films):
            run.add(name)
        pictures = {name: ((run.path / name).read_bytes(), condition) for name, condition in films.items()}
        write_report(run, screen_report(request.model, work.plan.summary(), profile, pictures.values(), run.record))
    return profile


def _make_films(
    workers: RunTasks, work: ScreenWork, effects: pl.DataFrame, stages: Stages
) -> dict[str, Condition | None]:
    """The strips of the sites of largest and of smallest predicted effect, the plain one first, by file name."""
    number, name = work.request.check, next(name for name in EFFECTS if name in set(effects["effect"]))
    if not number:
        return {}
    first = effects.filter(effect=name).sort("value", descending=True)
    rows = pl.concat([first.head(number), first.tail(number)]).unique(maintain_order=True)
    films: dict[str, Condition | None] = {"check-plain.png": None}
    for row in rows.iter_rows(named=True):
        films[f"check-{len(films)}.png"] = Condition((row["site"],), row["kind"], row["map"], row["head"])

    def pending(failed: Collection[str]) -> list[Task]:
        left = {name: film for name, film in films.items() if name not in failed and not (work.folder / name).exists()}
        return tasks_of(ScreenWork.film, left, 1)

    for error in make_all(workers, pending, stages, "videos generated in full").values():
        raise error
    return films


@contextlib.contextmanager
def _leaving_nothing(folder: Path) -> Iterator[None]:
    """Let the folder of locks of a refused run go, so that its own folder can."""
    try:
        yield
    except UsageError:
        with contextlib.suppress(OSError):
            (folder / LOCKS).rmdir()
        raise


def _price(workers: RunTasks, work: ScreenWork, stages: Stages) -> None:
    _make_once(workers, ScreenWork.price, (work.folder / PRICE).exists, stages, "timing a pass")


def _make_once(
    workers: RunTasks, make: Callable[..., None], there: Callable[[], bool], stages: Stages, stage: str
) -> None:
    """Let one worker make what a screen needs one of, unless it is there."""
    failed = make_all(workers, lambda failed: [] if failed or there() else [Task(make, {stage: None})], stages, stage)
    for error in failed.values():
        raise error


def _make_passes(workers: RunTasks, work: ScreenWork, stages: Stages) -> list[CellRow]:
    """See to every pass; what each gave."""
    tries, batch = work.tries(), work.plan.batch
    _, damaged = work.cells.read(work.cells.keys() & tries.keys())
    work.cells.set_aside(damaged)

    def pending(failed: Collection[str]) -> list[Task]:
        there = {*work.cells.keys(), *failed}
        left = [(key, tried) for key, tried in tries.items() if key not in there]
        groups = itertools.groupby(left, key=lambda item: (item[1][2], item[1][1] // batch))
        return [task for _, group in groups for task in tasks_of(ScreenWork.make, dict(group), CHUNK * batch)]

    failed = make_all(workers, pending, stages, "passes")
    if failed:
        raise FailureError(
            f"{len(failed)} passes of the screen could not be made",
            got=next(iter(failed.values())),
            where=work.folder,
            remedy="--resume tries these again",
        )
    found = work.cells.read(tries.keys())[0]
    return [found[key] for key in tries]


def screened_passes(request: ScreenRun, out: str | Path) -> tuple[ScreenPlan, list[dict[str, Any]]]:
    """What a finished screen did, and what every pass of it gave.

    Args:
        request: of the screen.
        out: its run folder.
    """
    request = request.with_model_defaults()
    work = ScreenWork(Path(out).absolute(), request.model, request.hardware, request)
    found = work.cells.read(work.tries().keys() & work.cells.keys())[0]
    return work.plan, [{**row.identity, **row.values} for row in found.values()]
