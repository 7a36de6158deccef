"""Where a pipeline's run is: which step of how many, which guidance branch, how many videos."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from ieadapt.attention.families import UNLISTED, Family
from ieadapt.attention.restore import attribute
from ieadapt.attention.rows import Guidance, RowMap, Stream
from ieadapt.errors import FailureError, UsageError

BRANCHES: Mapping[str, Guidance] = {"cond": "cond", "uncond": "uncond"}


class RunState:
    """Counts steps and names rows by watching what every pipeline does anyway.

    A pipeline encodes its prompts (`encode_prompt`), opens a progress bar over its loop (`progress_bar(total=...)`)
    and, where guidance runs as separate calls, names each call (`cache_context`). A denoiser called by hand does none
    of this: then every call is a step, the number of steps is unknown and no guidance runs.
    """

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.streams: tuple[Stream, ...] | None = None
        self.context: str | None = None
        self.step = -1
        self._total: int | None = None
        self._encoded: list[Mapping[str, Any]] = []
        self._seen: set[str | None] = set()
        self._looping = False

    @property
    def total(self) -> int | None:
        """Number of denoising steps of the run, or None for a denoiser called by hand."""
        if self._total is None and self.pipeline is not None:
            timesteps = getattr(self.pipeline.scheduler, "timesteps", None)
            return None if timesteps is None else len(timesteps)
        return self._total

    def advance(self) -> None:
        """A denoiser call begins: a new step, unless this branch completes the present one."""
        if self.step < 0 or self.context in self._seen:
            self.step += 1
            self._seen = set()
        self._seen.add(self.context)
        if self.total is not None and self.step >= self.total:
            self.step = 0

    def rows(self, family: Family, batch: int) -> RowMap:
        """What each row of a denoiser call's batch is."""
        guided = self.pipeline is not None and family.guided(self.pipeline, self._encoded)
        branch = BRANCHES.get(self.context or "")
        if branch is not None:
            return self._row_map([branch if guided or self.pipeline is None else "cond"] * batch)
        if not guided or (family is UNLISTED and batch % 2):
            return self._row_map(["cond"] * batch)
        self._refuse_further_branches(batch)
        halves: list[Guidance] = ["uncond", "cond"]
        return self._row_map([name for name in halves for _ in range(batch // 2)])

    def weak_rows(self, batch: int) -> RowMap:
        """The row map of an extra, perturbed pass."""
        return self._row_map(["weak"] * batch)

    def _refuse_further_branches(self, batch: int) -> None:
        perturbed = getattr(self.pipeline, "do_perturbed_attention_guidance", False)
        if batch % 2 or perturbed:
            raise FailureError(
                "the batch holds more than the two branches of classifier-free guidance",
                expected="[uncond, cond]",
                got=f"{batch} rows" + (" with perturbed-attention guidance" if perturbed else ""),
                where=type(self.pipeline).__name__,
                remedy="use the plain pipeline of this family; ieadapt adds its own perturbed branch",
            )

    def _row_map(self, guidance: Sequence[Guidance]) -> RowMap:
        branches = list(dict.fromkeys(guidance))
        videos = [index for branch in branches for index in range(guidance.count(branch))]
        return RowMap(tuple(guidance), tuple(self._stream(video) for video in videos), tuple(videos))

    def _stream(self, video: int) -> Stream:
        if self.streams is None:
            return "none"
        prompt = video // self._videos_per_prompt()
        if prompt >= len(self.streams):
            raise UsageError(
                "more videos than streams",
                expected=f"{len(self.streams)} prompts, one for each of {self.streams}",
                got=f"a batch with a prompt number {prompt + 1}",
                remedy="pass one stream name per prompt to intercept(..., streams=...)",
            )
        return self.streams[prompt]

    def _videos_per_prompt(self) -> int:
        told = self._encoded[-1] if self._encoded else {}
        return int(told.get("num_videos_per_prompt") or told.get("num_images_per_prompt") or 1)

    def prompts_encoded(self, arguments: Mapping[str, Any]) -> None:
        """The pipeline encodes prompts: a new run, unless the loop has not begun yet."""
        if self._looping:
            self._encoded, self._looping, self._total = [], False, None
        self._encoded.append(arguments)
        self.step = -1

    def loop_begins(self, arguments: Mapping[str, Any]) -> None:
        """The pipeline enters its denoising loop."""
        iterable, total = arguments.get("iterable"), arguments.get("total")
        self._total = total if iterable is None else len(iterable)
        self._looping, self.step, self._seen = True, -1, set()

    @contextmanager
    def observing(self, pipeline: Any) -> Iterator[None]:
        """Watch a pipeline's own announcements for the length of the block."""
        self.pipeline = pipeline
        try:
            with ExitStack() as stack:
                stack.enter_context(_listening(pipeline, "encode_prompt", self.prompts_encoded))
                stack.enter_context(_listening(pipeline, "progress_bar", self.loop_begins))
                yield
        finally:
            self.pipeline = None

    @contextmanager
    def naming_calls(self, denoiser: nn.Module) -> Iterator[None]:
        """Watch which guidance branch a pipeline says it is computing."""
        original = getattr(denoiser, "cache_context", None)
        if original is None:
            yield
            return

        @contextmanager
        def cache_context(name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
            outer, self.context = self.context, name
            try:
                with original(name, *args, **kwargs):
                    yield
            finally:
                self.context = outer

        with attribute(denoiser, "cache_context", cache_context):
            yield


@contextmanager
def _listening(owner: Any, method: str, listener: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Tell the listener the arguments of every call of a method, before the call."""
    original = getattr(owner, method, None)
    if original is None:
        yield
        return
    signature = inspect.signature(original)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        listener(bound.arguments)
        return original(*args, **kwargs)

    with attribute(owner, method, wrapper):
        yield
