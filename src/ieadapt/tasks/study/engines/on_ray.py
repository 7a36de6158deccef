"""The Ray engine: actors on a cluster, each with the model loaded once; a lost node's work is given to the others."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.leases import Claims
from ieadapt.tasks.study.engines.crew import Crew, Reply, Workforce
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.worker import Task, WorkPlan

PATIENCE_SECONDS = 180.0
"""How long the cluster may take to give a first worker, or to say anything at all while none works."""


@contextmanager
def on_ray(plan: WorkPlan, workers: int | None = None) -> Iterator[Workforce]:
    """Workers on a Ray cluster: the one that is connected, the one at RAY_ADDRESS, or a new one on this machine.

    Args:
        plan: what to work on; its folder must be on a file system that all nodes share.
        workers: how many actors; by default one per GPU of the cluster, or per core where there is none.

    Raises:
        UsageError: Ray is not installed.
        FailureError: the cluster cannot be reached, or gives no worker.
    """
    ray = _ray()
    began = not ray.is_initialized()
    if began:
        _connect(ray)
    resources = ray.cluster_resources()
    number = workers or int(resources.get("GPU", 0) or resources.get("CPU", 1))
    needs = {"num_gpus": 1} if resources.get("GPU", 0) else {"num_cpus": 1}
    plan = dataclasses.replace(plan, threads=None if "num_gpus" in needs else 1)
    crew = Crew(_Actors(ray, plan, needs), number, Claims(StudyFolder(plan.folder).claims_path))
    try:
        yield crew
    finally:
        crew.end()
        if began:
            ray.shutdown()


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed", remedy="pip install 'ieadapt[ray]'") from error
    return ray


def _connect(ray: Any) -> None:
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise FailureError(
            "the Ray cluster cannot be reached",
            got=error,
            where=os.environ.get("RAY_ADDRESS", "this machine"),
            remedy="check RAY_ADDRESS and `ray status`",
        ) from error


@dataclass(eq=False)
class _Hand:
    actor: Any
    answer: Any
    first: bool = True
    asked_at: float = field(default_factory=time.monotonic)


class _Worker:
    """What an actor is: a bench, and nothing else."""

    def __init__(self, plan: WorkPlan, owner: str) -> None:
        self._bench = plan.bench(owner)
        self._opened = self._bench.open()

    def ready(self) -> None:
        """Open the bench; it stays open as long as the actor lives."""
        self._opened.__enter__()

    def run(self, task: Task) -> tuple[str, Any]:
        """A reply: the outcome, or the error that ends the study."""
        try:
            return "done", task.run(self._bench)
        except Exception as error:
            whole = type(error).__module__.startswith("ieadapt.")
            return "raised", error if whole else FailureError("a worker failed", got=f"{type(error).__name__}: {error}")


class _Actors:
    """Workers as actors."""

    def __init__(self, ray: Any, plan: WorkPlan, needs: dict[str, int]) -> None:
        self._ray, self._plan = ray, plan
        self._actor_class = ray.remote(max_restarts=0, **needs)(_Worker)

    def hire(self, owner: str) -> _Hand:
        actor = self._actor_class.remote(self._plan, owner)
        return _Hand(actor, actor.ready.remote())

    def give(self, hand: _Hand, task: Task) -> None:
        hand.answer, hand.first, hand.asked_at = hand.actor.run.remote(task), False, time.monotonic()

    def replies(self, hands: list[_Hand]) -> list[tuple[_Hand, Reply]]:
        asked = {hand.answer: hand for hand in hands if hand.answer is not None}
        answered, _ = self._ray.wait(list(asked), num_returns=1, timeout=5.0)
        if not answered and all(hand.first for hand in asked.values()):
            self._require_patience(list(asked.values()))
        return [(asked[answer], self._reply(asked[answer])) for answer in answered]

    def dismiss(self, hand: _Hand) -> None:
        self._ray.kill(hand.actor)

    def _reply(self, hand: _Hand) -> Reply:
        answer, hand.answer = hand.answer, None
        try:
            value = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            return Reply("raised", error.cause)
        except self._ray.exceptions.RayError:
            return Reply("lost")
        return Reply("ready") if hand.first else Reply(*value)

    def _require_patience(self, hands: list[_Hand]) -> None:
        waited = time.monotonic() - max(hand.asked_at for hand in hands)
        if waited > PATIENCE_SECONDS:
            raise FailureError(
                "the Ray cluster gives no worker",
                got=f"nothing for {waited:.0f} s, resources {self._ray.available_resources()}",
                remedy="check `ray status`; ask for fewer --workers",
            )
