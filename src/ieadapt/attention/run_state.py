"""Where a pipeline's run is: which step of how many, and of which guidance branch, stream and video each row is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ieadapt.attention.families import UNLISTED, Family
from ieadapt.attention.restore import around, attribute
from ieadapt.attention.sites import Guidance, Stream
from ieadapt.errors import FailureError, UsageError
from ieadapt.notation import counted

BRANCHES: Mapping[str | None, Guidance] = {
    "cond": "cond",
    "uncond": "uncond",
    "pred_cond": "cond",
    "pred_uncond": "uncond",
}
"""The guidance branch by the name that a pipeline gives a call of its denoiser (`cache_context`)."""

TOGETHER = (None, "cond_uncond")
"""Names of calls that hold whatever branches run."""


@dataclass(frozen=True)
class RowMap:
    """What each row of a denoiser's batch is, and how many rows of an attention call each one spans.

    Attributes:
        guidance: per denoiser row. Without classifier-free guidance all rows are `cond`.
        stream: per denoiser row, `source` or `target` in an edit, else `none`.
        video: per denoiser row, the index of the video it belongs to, counted within its guidance branch.
        repeats: consecutive rows of the attention call per denoiser row (frames, positions, or 1).
        batch: per row, its index in the denoiser's batch; empty where that is its index here.

    Example:
        >>> rows = RowMap(("uncond", "cond"), ("none", "none"), (0, 0), repeats=2)
        >>> rows.denoiser_rows(("cond",)), rows.index([1])
        ([1], slice(2, 4, None))
    """

    guidance: tuple[Guidance, ...]
    stream: tuple[Stream, ...]
    video: tuple[int, ...]
    repeats: int = 1
    batch: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.guidance)

    def denoiser_rows(
        self, guidance: Sequence[Guidance] = get_args(Guidance), stream: Sequence[Stream] = get_args(Stream)
    ) -> list[int]:
        """Indices of the denoiser rows of these branches and streams."""
        named = enumerate(zip(self.guidance, self.stream, strict=True))
        return [index for index, (branch, name) in named if branch in guidance and name in stream]

    def take(self, denoiser_rows: Sequence[int]) -> RowMap:
        """The row map of these denoiser rows alone."""
        return RowMap(
            tuple(self.guidance[row] for row in denoiser_rows),
            tuple(self.stream[row] for row in denoiser_rows),
            tuple(self.video[row] for row in denoiser_rows),
            self.repeats,
            tuple(self.batch[row] if self.batch else row for row in denoiser_rows),
        )

    def index(self, denoiser_rows: Sequence[int], device: torch.device | None = None) -> slice | Int[Tensor, " row"]:
        """What takes the attention call's rows of these denoiser rows out of a tensor.

        Neighbours are a slice: a view instead of a copy, and no wait for the indices to arrive on the device.
        """
        rows = list(denoiser_rows)
        if rows and rows == list(range(rows[0], rows[0] + len(rows))):
            return slice(rows[0] * self.repeats, (rows[-1] + 1) * self.repeats)
        starts = torch.tensor(rows, dtype=torch.long) * self.repeats
        return (starts[:, None] + torch.arange(self.repeats)).flatten().to(device)


class RunState:
    """Counts steps and names rows by watching what every pipeline does anyway.

    A pipeline encodes its prompts (`encode_prompt`), opens a progress bar over its loop, steps its scheduler after
    every denoising timestep, and may name its calls (`cache_context`). A denoiser called by hand does none of this:
    then every call is a step, the number of steps is unknown and no guidance runs.
    """

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.streams: Callable[[], Sequence[Stream] | None] = lambda: None
        self.context: str | None = None
        self._observers = 0
        self._hooks, self._scheduler_hook = ExitStack(), ExitStack()
        self._scheduler: Any = None
        self._calls = self._stepped = 0
        self._named: set[str | None] = set()
        self._bar: int | None = None
        self._looping = False
        self._encoded: list[Mapping[str, Any]] = []
        self._texts: list[Tensor] = []

    @property
    def step(self) -> int:
        """The denoising step that is running, from 0; -1 before the first.

        A sampler of second order (Heun, KDPM2) takes two timesteps for a step; its `order` says so.
        """
        if self.pipeline is None:
            return self._calls - 1
        timesteps = self._timesteps
        return (self._stepped % timesteps if timesteps else self._stepped) // self._order

    @property
    def steps(self) -> int | None:
        """Number of denoising steps of the run, or None for a denoiser called by hand."""
        timesteps = None if self.pipeline is None else self._timesteps
        return None if timesteps is None else -(-timesteps // self._order)

    @property
    def _order(self) -> int:
        return int(getattr(self.pipeline.scheduler, "order", 1))

    @property
    def _timesteps(self) -> int | None:
        """Timesteps of the run, after what a late start (`strength`) leaves out."""
        ran = getattr(self.pipeline, "_num_timesteps", None) if self._looping else None
        if ran is not None:
            return int(ran)
        if self._bar is not None:  # older pipelines: the bar counts steps
            return self._bar * self._order - (self._order - 1)
        tables = getattr(self.pipeline.scheduler, "timesteps", None)
        return None if tables is None else len(tables)

    def denoiser_begins(self) -> None:
        """A full pass of the denoiser begins; by hand it is a step, unless its name says that it completes one."""
        if not self._calls or self.context in self._named:
            self._calls, self._named = self._calls + 1, set()
        self._named.add(self.context)

    def rows(self, family: Family, arguments: Mapping[str, Any], batch: int, weak: bool) -> RowMap:
        """What each row of a denoiser call's batch is; all of a weak pass are `weak`.

        Raises:
            FailureError: the batch holds more than the two branches of classifier-free guidance.
        """
        branch: Guidance | None = "weak" if weak else BRANCHES.get(self.context)
        guided = self.pipeline is not None and family.guided(self.pipeline, self._encoded)
        if branch is not None:
            return self._row_map([branch] * batch)
        if self.context not in TOGETHER:
            return self._row_map(["unknown"] * batch)
        if family is UNLISTED or family.guidance == "split":
            guided = guided or len(self._texts) == 2
            return self._row_map(self._by_text(arguments, batch) if guided else ["cond"] * batch)
        if not guided:
            return self._row_map(["cond"] * batch)
        self._refuse_further_branches(batch)
        halves: list[Guidance] = ["uncond", "cond"]
        return self._row_map([name for name in halves for _ in range(batch // 2)])

    def padding(self, family: Family, arguments: Mapping[str, Any], rows: RowMap) -> Tensor | None:
        """Which text tokens of each row only fill it up, (row, token); None where none do, or nobody knows."""
        states, mask = arguments.get("encoder_hidden_states"), arguments.get("encoder_attention_mask")
        if family.padding == "none" or not isinstance(states, Tensor):
            return None
        if family.padding == "masked":
            return None if mask is None or mask.ndim != 2 else ~mask.bool()
        lengths = self._text_lengths()
        if lengths is None:
            return None
        of_rows = []
        for branch, video in zip(rows.guidance, rows.video, strict=True):
            of_branch = lengths["uncond" if branch == "uncond" else "cond"]
            of_rows.append(of_branch[min(video // self._videos_per_prompt, len(of_branch) - 1)])
        tokens = torch.arange(states.shape[1], device=states.device)
        return tokens >= torch.tensor(of_rows, device=states.device)[:, None]

    def _text_lengths(self) -> Mapping[str, Sequence[int]] | None:
        """Tokens of each prompt and negative prompt, without padding; None where the texts are not known."""
        encoded, tokenizer = (self._encoded or [{}])[-1], getattr(self.pipeline, "tokenizer", None)
        prompts, negative = encoded.get("prompt"), encoded.get("negative_prompt") or ""
        embedded = any(encoded.get(name) is not None for name in ("prompt_embeds", "negative_prompt_embeds"))
        if tokenizer is None or prompts is None or embedded:
            return None
        lengths = {}
        for branch, texts in (("cond", prompts), ("uncond", negative)):
            listed = [texts] if isinstance(texts, str) else texts
            lengths[branch] = [len(tokenizer(text, truncation=True, max_length=None).input_ids) for text in listed]
        return lengths

    def _by_text(self, arguments: Mapping[str, Any], batch: int) -> list[Guidance]:
        """Whose text each row holds, where a pipeline does not say which branch it computes; never a guess by size.

        The first text that was encoded is the prompt's, the second the negative one's. Rows of neither, or of both
        because they are equal, stay unknown.
        """
        branches: list[Guidance] = ["unknown"] * batch
        if len(self._texts) != 2:
            return branches
        cond, uncond = self._texts
        tensors = [value for value in arguments.values() if isinstance(value, Tensor) and value.ndim == 3]
        states = next((value for value in tensors if value.shape[1:] == cond.shape[1:] and len(value) == batch), None)
        if states is None or cond.shape[1:] != uncond.shape[1:]:
            return branches
        for row in range(batch):
            of_cond, of_uncond = (
                (states[row] == text.to(states)).flatten(1).all(1).any().item() for text in (cond, uncond)
            )
            if of_cond != of_uncond:
                branches[row] = "cond" if of_cond else "uncond"
        return branches

    def _refuse_further_branches(self, batch: int) -> None:
        """Refuse a batch with a perturbed branch of the pipeline's own.

        Raises:
            FailureError: with what the pipeline runs.
        """
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
        videos = tuple(guidance[:row].count(branch) for row, branch in enumerate(guidance))
        return RowMap(tuple(guidance), tuple(self._stream(video) for video in videos), videos)

    def _stream(self, video: int) -> Stream:
        streams = self.streams()
        if streams is None:
            return "none"
        prompt = video // self._videos_per_prompt
        if prompt >= len(streams):
            raise UsageError(
                "more videos than streams",
                expected=f"{counted(len(streams), 'prompt')}, one for each of {tuple(streams)}",
                got=f"a batch with a prompt number {prompt + 1}",
                remedy="pass one stream name per prompt to intercept(..., streams=...)",
            )
        return streams[prompt]

    @property
    def _videos_per_prompt(self) -> int:
        encoded = (self._encoded or [{}])[-1]
        return int(encoded.get("num_videos_per_prompt") or encoded.get("num_images_per_prompt") or 1)

    @contextmanager
    def observing(self, pipeline: Any) -> Iterator[None]:
        """Watch a pipeline's own announcements for the length of the block; the last block that is left stops it."""
        if not self._observers:
            self.pipeline, self._scheduler, self._stepped = pipeline, None, 0
            self._hooks.enter_context(around(pipeline, "encode_prompt", self._prompts_encoded))
            self._hooks.enter_context(around(pipeline, "progress_bar", self._loop_begins))
            self._watch_scheduler()
        self._observers += 1
        try:
            yield
        finally:
            self._observers -= 1
            if not self._observers:
                self._hooks.close()
                self._scheduler_hook.close()
                self.pipeline, self._calls = None, 0

    def _watch_scheduler(self) -> None:
        """Count the steps of the scheduler that the pipeline has now; a `SchedulerWrapper` may take its place.

        The former one is no longer counted: the wrapper may step it, and a step must count once.
        """
        if self.pipeline.scheduler is not self._scheduler:
            self._scheduler_hook.close()
            self._scheduler = self.pipeline.scheduler
            self._scheduler_hook.enter_context(around(self._scheduler, "step", self._scheduler_steps))

    def _scheduler_steps(self, proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = proceed(*args, **kwargs)
        self._stepped += 1
        return result

    def _prompts_encoded(self, proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The pipeline encodes prompts: a new run, unless the loop has not begun yet.

        A pipeline that will add a perturbed branch of its own is refused here, before it has changed its processors.
        """
        if getattr(self.pipeline, "do_perturbed_attention_guidance", False):
            self._refuse_further_branches(3)
        if self._looping or not self._encoded:
            self._encoded, self._texts, self._looping, self._bar = [], [], False, None
        bound = inspect.signature(proceed).bind(*args, **kwargs)
        bound.apply_defaults()
        self._encoded.append(bound.arguments)
        self._stepped, self._calls = 0, 0
        result = proceed(*args, **kwargs)
        parts = result if isinstance(result, tuple | list) else (result,)
        texts = [part for part in parts if isinstance(part, Tensor) and part.ndim == 3 and part.is_floating_point()]
        self._texts.extend(text.detach() for text in texts)
        return result

    def _loop_begins(self, proceed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The pipeline enters its denoising loop."""
        bar = inspect.signature(proceed).bind(*args, **kwargs).arguments
        iterable = bar.get("iterable")
        self._bar = bar.get("total") if iterable is None else len(iterable)
        self._looping, self._stepped, self._calls = True, 0, 0
        self._watch_scheduler()
        return proceed(*args, **kwargs)

    def naming_calls(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        """Watch which guidance branch a pipeline says it is computing, for the length of the block."""
        return around(denoiser, "cache_context", self._call_named)

    @contextmanager
    def _call_named(self, proceed: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        with attribute(self, "context", name), proceed(name, *args, **kwargs):
            yield
