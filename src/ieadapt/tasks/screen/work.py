"""The work of a screen: time a pass, follow the trajectories, try every site, generate a few videos in full."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ieadapt.attention import AttentionSite, find_sites, intercept
from ieadapt.errors import FailureError
from ieadapt.files import read_record, record_text
from ieadapt.interventions import parse_perturbation
from ieadapt.notation import parse_seconds
from ieadapt.runs.cells import CellRow, CellWork
from ieadapt.runs.shared_files import fingerprint, write_whole
from ieadapt.runs.videos import strip
from ieadapt.tasks.generate import generate, videos_at_once
from ieadapt.tasks.measure.method import refuse_another_model
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.price import PassTimes, time_passes
from ieadapt.tasks.screen.config import ScreenPlan, ScreenRun
from ieadapt.tasks.screen.method import follow, screen_step
from ieadapt.tasks.study.grid import Condition, conditions

PRICE, TRAJECTORY = "price.json", "trajectory.safetensors"
Try = tuple[Condition, int, int]
"""A condition, the index of a prompt, and a step."""


@dataclass(frozen=True)
class ScreenWork(CellWork):
    """What a worker of a screen has to know, and how it makes what `run_screen` gives out."""

    request: ScreenRun

    @cached_property
    def plan(self) -> ScreenPlan:
        """What is done, once a pass was timed; the same for every worker."""
        schema = {"batch": int, "seconds": float, "shares": dict[str, float], "sites": list[AttentionSite]}
        price = read_record(self.folder / PRICE, schema, what="the price", remedy="remove it and repeat")
        sites = [AttentionSite(**site) for site in price["sites"]]
        return self._planned(sites, price["batch"], PassTimes(price["seconds"], price["shares"]))

    def _planned(self, sites: Sequence[AttentionSite], batch: int, times: PassTimes) -> ScreenPlan:
        request, steps = self.request, self.request.generation.num_inference_steps
        listed = conditions(request.screen.study, sites, {})
        plan = ScreenPlan(
            listed,
            request.screen.steps(steps),
            len(request.prompts),
            batch,
            steps,
            times,
            1 + min(2 * request.check, len(listed)) if request.check else 0,
        )
        return plan if request.budget is None else plan.within(parse_seconds(request.budget))

    def price(self, pipe: DiffusionPipeline, items: Mapping[str, None]) -> None:
        """Time a pass, unless what is requested cannot be."""
        sites = find_sites(pipe)
        conditions(self.request.screen.study, sites, {})
        batch = min(videos_at_once(pipe, self.request.generation), len(self.request.prompts))
        alike = dataclasses.replace(self.request.generation, batch_size=batch)
        times = time_passes(pipe, self.request.prompts[0], alike, output="latent")
        self._planned(sites, batch, times)
        listed = [dataclasses.asdict(site) for site in sites]
        content = {"batch": batch, "seconds": times.seconds, "shares": dict(times.shares), "sites": listed}
        write_whole(self.folder / PRICE, record_text(content).encode())

    def follow(self, pipe: DiffusionPipeline, items: Mapping[str, None]) -> None:
        """Follow the plain trajectories, and measure entropy and energy along them."""
        request, plan = self.request, self.plan
        prompts = request.prompts[: plan.prompts]
        kept, profile = follow(pipe, prompts, request.generation, plan.steps, seed=request.seed)
        profile.metadata["model"] = request.model
        profile.save(self.folder)
        tensors = {str(step): latents.cpu().contiguous() for step, latents in kept.items()}
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
        missing = self.cells.missing(items)
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
        results = screen_step(pipe, texts, latents[step][prompts], step, listed, sites, self.request.generation)
        for condition, prompt, _ in missing.values():
            values = {name: each[prompts.index(prompt)] for name, each in results[listed.index(condition)].items()}
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
