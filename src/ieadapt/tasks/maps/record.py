"""Reading the requested rows out of every kind of attention call: in space, in time, and per word of the prompt.

Which text tokens belong to which word of the prompt comes from the pipeline's own tokenizer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionCall, DenoiserCall, Kind, TokenLayout
from ieadapt.errors import FailureError, UsageError
from ieadapt.functional import Attention, map_rows, map_sums, mean_map_rows

OTHER = "(start, end, padding)"
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")


@dataclass(frozen=True)
class PromptWords:
    """The words of a prompt and the text tokens that each one became.

    Attributes:
        words: in the order of the prompt; a word that occurs twice is there twice.
        tokens: indices of each word's tokens among the text tokens of the denoiser.

    Example:
        >>> PromptWords(("red", "ball"), ((1,), (2, 3))).groups(5).tolist()  # the last column: all other tokens
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    words: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The words, and a name for the tokens that are none of them."""
        return (*self.words, OTHER)

    def groups(self, text_tokens: int) -> Float[Tensor, "token label"]:
        """1 where a text token belongs to a word, and in the last column where it belongs to none."""
        member = torch.zeros(text_tokens, len(self.words) + 1)
        for column, indices in enumerate(self.tokens):
            member[[index for index in indices if index < text_tokens], column] = 1.0
        member[:, -1] = (member.sum(dim=1) == 0).float()
        return member


def prompt_words(pipe: DiffusionPipeline, prompt: str) -> PromptWords:
    """The words of a prompt as the pipeline's denoiser gets them.

    A pipeline that puts the prompt into a template and crops the template's head off (HunyuanVideo) says so in the
    defaults of its call.

    Args:
        pipe: the pipeline, with its tokenizer.
        prompt: what the video shows.
    """
    template = _template(pipe)
    text = template["template"].replace("{}", prompt)
    start = template["template"].index("{}")
    spans = [(start + match.start(), start + match.end(), match.group()) for match in _WORD.finditer(prompt)]
    tokens = _character_spans(pipe, text)
    cropped = tokens[template["crop_start"] :]
    members = tuple(
        tuple(index for index, (low, high) in enumerate(cropped) if low < stop and high > begin)
        for begin, stop, _ in spans
    )
    return PromptWords(tuple(word for *_, word in spans), members)


def _template(pipe: DiffusionPipeline) -> Mapping[str, Any]:
    parameter = inspect.signature(type(pipe).__call__).parameters.get("prompt_template")
    return {"template": "{}", "crop_start": 0} if parameter is None else parameter.default


def _character_spans(pipe: Any, text: str) -> list[tuple[int, int]]:
    """The characters that each token stands for; (0, 0) for a token that stands for none."""
    tokenizer = pipe.tokenizer
    if tokenizer.is_fast:
        return [tuple(span) for span in tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]]
    spans, position = [], 0
    for token in tokenizer(text, verbose=False).input_ids:
        piece = tokenizer.decode([token], skip_special_tokens=True).strip()
        begin = text.lower().find(piece.lower(), position) if piece else -1
        spans.append((begin, begin + len(piece)) if begin >= 0 else (0, 0))
        position = spans[-1][1] or position
    return spans


class Token(NamedTuple):
    """A video token, counted from 0 on the site's own grid."""

    frame: int
    row: int
    column: int

    def __str__(self) -> str:
        return f"{self.frame},{self.row},{self.column}"


@dataclass(frozen=True)
class StepMap:
    """What one attention call says of where the requested tokens look.

    Attributes:
        video: weight on every video token. Spatial: sums to 1 in each frame. Temporal: at every position, the weight
            on each frame. Joint: sums to 1 together with `words`.
        frames: mean weight of the tokens of one frame on all tokens of another (mean over all queries only).
        words: weight on each word, the last entry for all other text tokens.
        word_maps: the weight that every video token gives each word.
    """

    video: Float[Tensor, "frame height width"] | None = None
    frames: Float[Tensor, "query_frame key_frame"] | None = None
    words: Float[Tensor, " label"] | None = None
    word_maps: Float[Tensor, "label frame height width"] | None = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The parts that there are, by name."""
        return ((name, value) for name, value in vars(self).items() if value is not None)


@dataclass(frozen=True)
class MapView:
    """One attention call as one video sees it; every map is the mean over the heads that are looked at.

    Attributes:
        call: the attention call.
        attention: its rows of the video, and the heads whose mean is taken.
        layout: its token layout.
        query: the token that looks; None for the mean over all.
        words: the words of the prompt.
    """

    call: AttentionCall
    attention: Attention
    layout: TokenLayout
    query: Token | None
    words: PromptWords

    def rows(self, indices: Sequence[int], batch: slice = slice(None)) -> Float[Tensor, "batch row key"]:
        """These rows of the map."""
        return self._mean(lambda part: map_rows(part, indices), batch)

    def means(self, spans: Sequence[slice]) -> Float[Tensor, "batch span key"]:
        """The mean row of each span of queries."""
        return self._mean(lambda part: mean_map_rows(part, spans))

    def sums(self, groups: Float[Tensor, "key label"], queries: slice) -> Float[Tensor, "batch query label"]:
        """The weight of every query on each group of keys."""
        return self._mean(lambda part: map_sums(part, groups), queries=queries)

    def _mean(
        self, compute: Callable[[Attention], Tensor], batch: slice = slice(None), queries: slice = slice(None)
    ) -> Tensor:
        """The mean over heads, one head in memory at a time."""
        number = self.attention.query.shape[1]
        parts = (self.attention.part(batch, slice(head, head + 1)).of_rows(queries) for head in range(number))
        return torch.as_tensor(sum(compute(part).squeeze(1) for part in parts) / number)


def _spatial(view: MapView) -> StepMap:
    height, width = view.layout.height, view.layout.width
    if view.query is None:
        weights = view.means([slice(0, height * width)])
    else:
        frame = view.query.frame
        weights = view.rows([view.query.row * width + view.query.column], slice(frame, frame + 1))
    return StepMap(video=rearrange(weights, "frame 1 (height width) -> frame height width", height=height))


def _temporal(view: MapView) -> StepMap:
    """Rows at all positions, in chunks of positions; where each position lies is known only from the latent grid."""
    frames, positions = view.layout.frames, view.call.rows.repeats
    if view.query is not None:
        return StepMap(video=rearrange(view.rows([view.query.frame]), "position 1 frame -> frame 1 position"))
    size = max(1, view.attention.memory_limit // (16 * frames * frames))
    between, looks = torch.zeros(frames, frames, device=view.call.query.device), []
    for start in range(0, positions, size):
        rows = view.rows(range(frames), slice(start, min(start + size, positions)))
        between = between + rows.sum(dim=0) / positions
        looks.append(rows.mean(dim=1))
    return StepMap(video=rearrange(torch.cat(looks), "position frame -> frame 1 position"), frames=between)


def _joint(view: MapView) -> StepMap:
    layout, video, keys = view.layout, view.layout.video, view.call.key.shape[2]
    shape = {"frame": layout.frames, "height": layout.height, "width": layout.width}
    groups = torch.zeros(keys, len(view.words.labels))
    for text in video.text_slices(keys):
        groups[text] = view.words.groups(text.stop - text.start)
    if view.query is not None:
        token = (view.query.frame * layout.height + view.query.row) * layout.width + view.query.column
        row = view.rows([video.start + token])[0, 0]
        words = row @ groups.to(row) if layout.text else None
        return StepMap(video=row[video.slice].unflatten(0, tuple(shape.values())), words=words)
    starts = range(video.start, video.stop, video.positions)
    means = view.means([slice(start, start + video.positions) for start in starts])[0, :, video.slice]
    between = rearrange(means, "query (frame position) -> query frame position", frame=layout.frames).sum(dim=-1)
    looks = means.mean(dim=0).unflatten(0, tuple(shape.values()))
    if not layout.text:
        return StepMap(video=looks, frames=between)
    maps = rearrange(
        view.sums(groups, video.slice)[0], "(frame height width) label -> label frame height width", **shape
    )
    return StepMap(video=looks, frames=between, words=maps.mean(dim=(1, 2, 3)), word_maps=maps)


def _cross(view: MapView) -> StepMap:
    weights = view.sums(view.words.groups(view.call.key.shape[2]), slice(None))
    shape = {"height": view.layout.height, "width": view.layout.width}
    tokens = rearrange(weights, "batch query label -> (batch query) label")
    maps = rearrange(tokens, "(frame height width) label -> label frame height width", **shape)
    return StepMap(words=maps.mean(dim=(1, 2, 3)), word_maps=maps)


def _text(view: MapView) -> StepMap:
    """The mean over the tokens of the prompt's words; padding looks anywhere."""
    tokens = sorted({token for word in view.words.tokens for token in word if token < view.call.query.shape[2]})
    row = view.rows(tokens)[0].mean(dim=0)
    return StepMap(words=row @ view.words.groups(row.shape[0]).to(row))


READERS: Mapping[Kind, Callable[[MapView], StepMap]] = {
    "spatial": _spatial,
    "temporal": _temporal,
    "joint": _joint,
    "cross": _cross,
    "text": _text,
}


class RecordMaps:
    """Where the requested tokens look at one site, at chosen steps, on the prompt's own rows; changes nothing.

    Args:
        steps: denoising steps to look at.
        words: the words of the prompt.
        query: the token that looks; None for the mean over all.
        head: one head; None for the mean over heads.
        memory_limit: bytes that the temporaries of one call may take.
    """

    def __init__(
        self,
        steps: Collection[int],
        words: PromptWords,
        query: Token | None = None,
        head: int | None = None,
        *,
        memory_limit: int,
    ) -> None:
        self.steps = frozenset(steps)
        self.maps: dict[int, StepMap] = {}
        self._words, self._query, self._head, self._memory_limit = words, query, head, memory_limit
        self.frames = 1
        self._positions: int | None = None
        self._size: tuple[int, int] | None = None

    def __call__(self, call: AttentionCall) -> None:
        """Read the call if it is one of a requested step and holds rows of the prompt."""
        if not call.of_text:
            return
        layout = _known_layout(call)
        self._check_query(call, layout)
        if call.site.kind == "temporal":
            self._positions = call.rows.repeats
        if call.step not in self.steps or call.step in self.maps:
            return
        heads = slice(None) if self._head is None else slice(self._head, self._head + 1)
        own = replace(call.attention, memory_limit=self._memory_limit).part(slice(call.rows.repeats), heads)
        view = MapView(call, own, layout, self._query, self._words)
        step_map = StepMap(**{name: part.float().cpu() for name, part in READERS[call.site.kind](view).tensors()})
        if not all(torch.isfinite(part).all() for _, part in step_map.tensors()):
            raise FailureError(
                "attention is not finite",
                where=f"{call.site.name}, step {call.step}",
                remedy="run the model in float32 or bfloat16; float16 may overflow",
            )
        self.maps[call.step] = step_map

    def see_grid(self, call: DenoiserCall, prediction: Tensor) -> None:
        """Learn from the denoiser's call which rows and columns the positions of a temporal site are."""
        self.frames = call.grid.frames if call.grid else 1
        if call.grid is None or self._positions is None or self._size is not None:
            return
        self._size = next(size for size in call.grid.resolutions if size[0] * size[1] == self._positions)
        _check_inside(self._query, (call.grid.frames, *self._size))

    def with_grid(self, step: int) -> StepMap:
        """The map of a step, its video part as (frame, height, width)."""
        step_map = self.maps[step]
        if self._size is None or step_map.video is None:
            return step_map
        return replace(step_map, video=step_map.video.reshape(-1, *self._size))

    def _check_query(self, call: AttentionCall, layout: TokenLayout) -> None:
        frames = call.rows.repeats if call.site.kind == "spatial" else layout.frames
        rest = (None, None) if call.site.kind == "temporal" else (layout.height, layout.width)
        _check_inside(self._query, (frames, *rest))

    def __repr__(self) -> str:
        return f"RecordMaps(steps={sorted(self.steps)}, query={self._query}, head={self._head})"


def _known_layout(call: AttentionCall) -> TokenLayout:
    if call.layout is None or call.site.kind not in READERS:
        raise UsageError(
            "this model is outside the family table, so its tokens have no known place in the video",
            where=call.site.name,
            remedy="`ieadapt models` lists the families; a row in ieadapt/attention/families.py describes a new one",
        )
    return call.layout


def _check_inside(query: Token | None, grid: tuple[int | None, ...]) -> None:
    """Refuse a token outside (frames, rows, columns); None where a size is not known yet."""
    if query is None:
        return
    if any(size is not None and not 0 <= index < size for index, size in zip(query, grid, strict=True)):
        names = ("frames", "rows", "columns")
        sizes = " x ".join(f"{size} {name}" for size, name in zip(grid, names, strict=True) if size is not None)
        raise UsageError(
            "the query is outside this site's grid",
            expected=f"FRAME,ROW,COL within {sizes}, counted from 0",
            got=query,
            where="--query",
        )
