"""Reading the requested rows out of every kind of attention call: in space, in time, and per word of the prompt.

Which text tokens belong to which word of the prompt comes from the pipeline's own tokenizer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ieadapt.attention import AttentionCall, Kind, LatentGrid, TokenLayout
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


def prompt_words(pipe: Any, prompt: str) -> PromptWords:
    """The words of a prompt as the pipeline's denoiser gets them.

    A pipeline that puts the prompt into a template and crops the template's head off (HunyuanVideo) says so in the
    defaults of its call.

    Args:
        pipe: the pipeline, with its tokenizer.
        prompt: what the video shows.

    Raises:
        UsageError: the tokenizer is written in Python; those of all known families are not.
    """
    template = _template(pipe)
    text = template["template"].replace("{}", prompt)
    start = template["template"].index("{}")
    spans = [(start + match.start(), start + match.end(), match.group()) for match in _WORD.finditer(prompt)]
    if not pipe.tokenizer.is_fast:
        name = type(pipe.tokenizer).__name__
        raise UsageError("the tokenizer does not say which characters a token stands for", got=name)
    characters = pipe.tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    cropped = characters[template["crop_start"] :]
    members = tuple(
        tuple(index for index, (low, high) in enumerate(cropped) if low < stop and high > begin)
        for begin, stop, _ in spans
    )
    return PromptWords(tuple(word for *_, word in spans), members)


def _template(pipe: DiffusionPipeline) -> Mapping[str, Any]:
    parameter = inspect.signature(type(pipe).__call__).parameters.get("prompt_template")
    return {"template": "{}", "crop_start": 0} if parameter is None else parameter.default


class Token(NamedTuple):
    """A video token, counted from 0 on the site's own grid."""

    frame: int
    row: int
    column: int

    def __str__(self) -> str:
        return f"{self.frame},{self.row},{self.column}"


StepMaps = dict[str, Tensor]
"""What one attention call says of where the requested tokens look, by part; see `AttentionMaps`."""
MapReader = Callable[[Attention, TokenLayout, Token | None, PromptWords], StepMaps]
"""Reads the rows of one video: (attention, token layout, the token that looks or None for all, words of the prompt)."""


def _spatial(attention: Attention, layout: TokenLayout, query: Token | None, words: PromptWords) -> StepMaps:
    if query is None:
        weights = mean_map_rows(attention, [slice(0, layout.height * layout.width)])
    else:
        frame = attention.part(slice(query.frame, query.frame + 1), slice(None))
        weights = map_rows(frame, [query.row * layout.width + query.column])
    pattern = "frame 1 (height width) -> frame height width"
    return {"video": rearrange(weights.mean(dim=1), pattern, height=layout.height)}


def _temporal(attention: Attention, layout: TokenLayout, query: Token | None, words: PromptWords) -> StepMaps:
    """Rows at all positions, in chunks of positions; where each position lies is known only from the latent grid."""
    (positions, heads), frames = attention.query.shape[:2], layout.frames
    if query is not None:
        rows = map_rows(attention, [query.frame]).mean(dim=1)
        return {"video": rearrange(rows, "position 1 frame -> frame 1 position")}
    size = max(1, attention.memory_limit // (16 * heads * frames * frames))
    between, looks = torch.zeros(frames, frames, device=attention.query.device), []
    for start in range(0, positions, size):
        rows = map_rows(attention.part(slice(start, start + size), slice(None)), range(frames)).mean(dim=1)
        between = between + rows.sum(dim=0) / positions
        looks.append(rows.mean(dim=1))
    return {"video": rearrange(torch.cat(looks), "position frame -> frame 1 position"), "frames": between}


def _joint(attention: Attention, layout: TokenLayout, query: Token | None, words: PromptWords) -> StepMaps:
    video, keys = layout.video, attention.key.shape[2]
    shape = (layout.frames, layout.height, layout.width)
    groups = torch.zeros(keys, len(words.labels))
    for text in video.text_slices(keys):
        groups[text] = words.groups(text.stop - text.start)
    if query is not None:
        token = (query.frame * layout.height + query.row) * layout.width + query.column
        row = map_rows(attention, [video.start + token]).mean(dim=1)[0, 0]
        maps = {"video": row[video.slice].unflatten(0, shape)}
        return maps | {"words": row @ groups.to(row)} if layout.text else maps
    starts = range(video.start, video.stop, video.positions)
    spans = [slice(start, start + video.positions) for start in starts]
    means = mean_map_rows(attention, spans).mean(dim=1)[0, :, video.slice]
    between = rearrange(means, "query (frame position) -> query frame position", frame=layout.frames).sum(dim=-1)
    maps = {"video": means.mean(dim=0).unflatten(0, shape), "frames": between}
    return maps | _word_maps(attention.of_rows(video.slice), groups, shape) if layout.text else maps


def _cross(attention: Attention, layout: TokenLayout, query: Token | None, words: PromptWords) -> StepMaps:
    return _word_maps(attention, words.groups(attention.key.shape[2]), (-1, layout.height, layout.width))


def _word_maps(attention: Attention, groups: Float[Tensor, "key label"], shape: tuple[int, int, int]) -> StepMaps:
    """How much every query looks at each word, where all queries together are the video."""
    sums = map_sums(attention, groups).mean(dim=1)
    maps = rearrange(sums, "batch query label -> label (batch query)").unflatten(1, shape)
    return {"words": maps.mean(dim=(1, 2, 3)), "word_maps": maps}


def _text(attention: Attention, layout: TokenLayout, query: Token | None, words: PromptWords) -> StepMaps:
    """The mean over the tokens of the prompt's words; padding looks anywhere."""
    tokens = sorted({token for word in words.tokens for token in word if token < attention.query.shape[2]})
    row = map_rows(attention, tokens)[0].mean(dim=(0, 1))
    return {"words": row @ words.groups(row.shape[0]).to(row)}


READERS: Mapping[Kind, MapReader] = {
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
        self.steps, self.maps, self.frames = frozenset(steps), dict[int, StepMaps](), 1
        self._words, self._query, self._head, self._memory_limit = words, query, head, memory_limit

    def __call__(self, call: AttentionCall) -> None:
        """Read the call if it is one of a requested step and holds rows of the prompt."""
        if not call.of_text:
            return
        layout, grid = _known_tokens(call)
        frames, size = grid.frames, (layout.height, layout.width)
        if call.site.kind == "temporal":  # a row of the call is a position; windows hold some of the frames
            positions = call.rows.repeats
            frames, size = layout.frames, next(size for size in grid.resolutions if size[0] * size[1] == positions)
        _check_inside(self._query, (frames, *size))
        self.frames = grid.frames
        if call.step not in self.steps or call.step in self.maps:
            return
        heads = slice(None) if self._head is None else slice(self._head, self._head + 1)
        own = replace(call.attention, memory_limit=self._memory_limit).part(slice(call.rows.repeats), heads)
        parts = READERS[call.site.kind](own, layout, self._query, self._words)
        if call.site.kind == "temporal":
            parts["video"] = parts["video"].reshape(-1, *size)
        if not all(torch.isfinite(part).all() for part in parts.values()):
            raise FailureError(
                "attention is not finite",
                where=f"{call.site.name}, step {call.step}",
                remedy="run the model in float32 or bfloat16; float16 may overflow",
            )
        self.maps[call.step] = {name: part.float().cpu() for name, part in parts.items()}

    def weights(self) -> dict[str, Float[np.ndarray, "step ..."]]:
        """The parts over all steps that were seen, in order of steps."""
        steps = [self.maps[step] for step in sorted(self.maps)]
        return {name: np.stack([parts[name].numpy() for parts in steps]) for name in steps[0]}

    def __repr__(self) -> str:
        return f"RecordMaps(steps={sorted(self.steps)}, query={self._query}, head={self._head})"


def _known_tokens(call: AttentionCall) -> tuple[TokenLayout, LatentGrid]:
    if call.layout is None or call.grid is None or call.site.kind not in READERS:
        raise UsageError(
            "this model is outside the family table, so its tokens have no known place in the video",
            where=call.site.name,
            remedy="`ieadapt models` lists the families; a row in ieadapt/attention/families.py describes a new one",
        )
    return call.layout, call.grid


def _check_inside(query: Token | None, grid: tuple[int, int, int]) -> None:
    """Refuse a token outside (frames, rows, columns)."""
    if query is not None and not all(0 <= index < size for index, size in zip(query, grid, strict=True)):
        raise UsageError(
            "the query is outside this site's grid",
            expected=f"FRAME,ROW,COL within {grid[0]} frames x {grid[1]} rows x {grid[2]} columns, counted from 0",
            got=query,
            where="--query",
        )
