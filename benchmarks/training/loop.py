"""The training loop that every stage shares: a step that is captured as one CUDA graph, a clock, a cosine, an average.

The model is small, so that launching its kernels one by one costs more than running them. A step therefore draws its
own batch from a pool on the device and is replayed as a graph; on the CPU the same function simply runs. Under
`torchrun` every process trains on data of its own and gradients are averaged between the two halves of a step.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ieadapt.errors import FailureError

AVERAGE_EVERY = 4
CHECK_EVERY = 20


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains.

    Args:
        seconds: wall-clock budget of the stage, data preparation not counted.
        learning_rate: highest learning rate; after `warmup` iterations it falls along a cosine to the budget's end.
        warmup: iterations of linear rise.
        weight_decay: of AdamW.
        horizon: the average over weights looks back this share of the iterations so far.
        iterations: stop after so many iterations even if time is left.
        floor: share of `learning_rate` that is left at the end, for a stretch that another one will follow.
        precision: on a GPU, `autocast` keeps float32 weights and normalisation, `bfloat16` runs the whole model in
            bfloat16 over float32 master weights, which moves half the bytes.
    """

    seconds: float
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    horizon: float = 0.05
    iterations: int = 1_000_000
    floor: float = 0.0
    precision: Literal["autocast", "bfloat16"] = "bfloat16"

    def rate(self, iteration: int, elapsed: float) -> float:
        """The learning rate now."""
        done = min(1.0, max(elapsed / self.seconds, iteration / self.iterations))
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * min(1.0, (iteration + 1) / self.warmup) * cosine


@dataclass(frozen=True)
class Outcome:
    """What a stage did: its iterations, seconds, mean loss of the last stretch, and how steps were run."""

    iterations: int
    seconds: float
    loss: float
    mode: str


class Weights:
    """The float32 weights that are optimised, the live ones that the models compute with, and the running average.

    Live and master weights are the same tensors unless the models compute in another type.
    """

    def __init__(self, models: list[nn.Module], dtype: torch.dtype, horizon: float) -> None:
        self.models, self.horizon = models, horizon
        self.buffers = [(module, {name: value.clone() for name, value in module.named_buffers()}) for module in models]
        self.live: list[Tensor] = [parameter for model in models for parameter in model.parameters()]
        self.average = [parameter.detach().clone() for parameter in self.live]
        copies: list[Tensor] = [nn.Parameter(value.clone()) for value in self.average]
        self.masters = self.live if dtype == torch.float32 else copies
        self.gradient = torch.zeros(sum(value.numel() for value in self.average), device=self.average[0].device)
        """Of all weights one after the other, in one place, so that it can be averaged and clipped as one."""
        self.slices = [
            part.view_as(value)
            for part, value in zip(
                self.gradient.split([value.numel() for value in self.average]), self.average, strict=True
            )
        ]
        for model in models:
            model.to(dtype)

    def take_gradients(self) -> None:
        """Gather the live weights' gradients in `gradient`; a weight that the loss does not reach has none."""
        for live, part in zip(self.live, self.slices, strict=True):
            if live.grad is None:
                part.zero_()
            else:
                part.copy_(live.grad)
            live.grad = None

    def give_gradients(self) -> None:
        """Clip `gradient` to norm 1 and hand it to the masters."""
        self.gradient.mul_((1.0 / (self.gradient.norm() + 1e-6)).clamp(max=1.0))
        for master, part in zip(self.masters, self.slices, strict=True):
            master.grad = part

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the masters into the live weights."""
        if self.masters is not self.live:
            torch._foreach_copy_(self.live, self.masters)

    @torch.no_grad()
    def update_average(self, iteration: int) -> None:
        """Move the average towards the masters; called every `AVERAGE_EVERY` iterations."""
        window = max(1.0, self.horizon * iteration / AVERAGE_EVERY)
        torch._foreach_lerp_(self.average, [master.detach() for master in self.masters], 1 / window)

    @torch.no_grad()
    def finish(self) -> None:
        """Leave float32 models with the averaged weights and the buffers as they were."""
        for model, buffers in self.buffers:
            model.float()
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
        torch._foreach_copy_(self.live, self.average)
        for model in self.models:
            model.eval()


def graphed(step: Callable[[], None], device: torch.device) -> tuple[Callable[[], None], str]:
    """The step as a replayable CUDA graph, or itself on the CPU or where it cannot be captured; and which it is."""
    if device.type != "cuda":
        return step, "eager"
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        # thread_local: a thread of NCCL may ask for events meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except RuntimeError as error:
        print(f"no CUDA graph: {error}", flush=True)
        torch.cuda.synchronize()
        return step, "eager"
    return graph.replay, "graph"


def train(
    models: list[nn.Module],
    losses: Sequence[Callable[[], Tensor]],
    schedule: Schedule,
    device: torch.device,
    renew: Callable[[int], None] = lambda iteration: None,
) -> Outcome:
    """Train until the clock runs out and leave the averaged weights in the models.

    Args:
        models: what is trained, on `device`, in float32.
        losses: each draws a batch and returns its loss; they take turns, an iteration each, and must not touch the
            host, so that they can be captured.
        schedule: budget and learning rate.
        device: where it runs.
        renew: called between iterations, with the iteration, to renew data.

    Raises:
        FailureError: the loss is not finite.
    """
    on_gpu = device.type == "cuda"
    low = torch.bfloat16 if on_gpu and schedule.precision == "bfloat16" else torch.float32
    _agree_on(models)
    weights = Weights([model.train() for model in models], low, schedule.horizon)
    total = torch.zeros((), device=device)
    optimizer, set_rate = _optimizer(weights.masters, schedule, device)
    mixed = on_gpu and schedule.precision == "autocast"

    def backward(loss: Callable[[], Tensor]) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed, cache_enabled=False):
            value = loss()
        value.backward()
        weights.take_gradients()
        total.add_(value.detach())

    def update() -> None:
        weights.give_gradients()
        optimizer.step()
        weights.refresh()

    halves = {loss: graphed(functools.partial(backward, loss), device) for loss in dict.fromkeys(losses)}
    weights.gradient.zero_()  # the optimiser's state, too, must start alike in every process
    finishing, _ = graphed(update, device)
    turns = itertools.cycle([halves[loss][0] for loss in losses])
    mode = " and ".join(dict.fromkeys(mode for _, mode in halves.values()))
    total.zero_()

    def run() -> None:
        next(turns)()
        average_over_processes(weights.gradient)
        finishing()

    outcome = _clocked(run, set_rate, weights, total, schedule, renew, mode)
    weights.finish()
    return outcome


def processes() -> int:
    """How many processes train together: more than one under `torchrun`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def _agree_on(models: list[nn.Module]) -> None:
    """Give every process the first one's weights."""
    for parameter in (value for model in models for value in model.parameters()) if processes() > 1 else ():
        dist.broadcast(parameter.data, 0)


def average_over_processes(value: Tensor) -> None:
    """Replace a tensor by its mean over all processes."""
    if processes() > 1:
        dist.all_reduce(value)
        value.div_(processes())


def _optimizer(
    masters: list[Tensor], schedule: Schedule, device: torch.device
) -> tuple[torch.optim.Optimizer, Callable[[float], None]]:
    """AdamW, and how to set its learning rate: on a GPU a tensor that a captured step reads, on the CPU a number."""
    on_gpu = device.type == "cuda"
    rate = torch.zeros((), device=device)
    optimizer = torch.optim.AdamW(
        masters,
        lr=rate if on_gpu else schedule.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=schedule.weight_decay,
        fused=on_gpu,
        capturable=on_gpu,
    )

    def set_rate(value: float) -> None:
        rate.fill_(value)
        if not on_gpu:
            optimizer.param_groups[0]["lr"] = value

    return optimizer, set_rate


def _agreed(value: float, device: torch.device) -> float:
    """The mean of a number over all processes, so that they stop at the same iteration."""
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    average_over_processes(shared)
    return shared.item()


def _clocked(
    run: Callable[[], None],
    set_rate: Callable[[float], None],
    weights: Weights,
    total: Tensor,
    schedule: Schedule,
    renew: Callable[[int], None],
    mode: str,
) -> Outcome:
    """Run steps until the clock or the iterations run out."""
    start, iteration, elapsed, recent, shown = time.monotonic(), 0, 0.0, math.nan, 0.0
    while elapsed < schedule.seconds and iteration < schedule.iterations:
        set_rate(schedule.rate(iteration, elapsed))
        run()
        iteration += 1
        renew(iteration)
        if iteration % AVERAGE_EVERY == 0:
            weights.update_average(iteration)
        if iteration % CHECK_EVERY == 0 or total.device.type == "cpu":
            since = (iteration - 1) % CHECK_EVERY + 1 if total.device.type != "cpu" else 1
            recent = total.item() / since
            total.zero_()
            if not math.isfinite(recent):
                raise FailureError("the loss is not finite", got=recent, where=f"iteration {iteration}")
            elapsed = _agreed(time.monotonic() - start, total.device)
            if elapsed > shown:
                print(f"  {elapsed:6.1f} s  iteration {iteration}  loss {recent:.5f}  ({mode})", flush=True)
                shown = elapsed + schedule.seconds / 15
    return Outcome(iteration, round(elapsed, 1), recent, mode)
