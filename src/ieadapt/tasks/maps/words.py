"""Which text tokens of an attention call belong to which word of the prompt, by the pipeline's own tokenizer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

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
    spans = [(start + found.start(), start + found.end(), found.group()) for found in _WORD.finditer(prompt)]
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
        found = text.lower().find(piece.lower(), position) if piece else -1
        spans.append((found, found + len(piece)) if found >= 0 else (0, 0))
        position = spans[-1][1] or position
    return spans
