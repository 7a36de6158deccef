"""Networks that a user gives as folders of transformers: CLIP, PickScore's CLIP, DINO. Safetensors only."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ieadapt.errors import FailureError
from ieadapt.metrics.weights import UNREADABLE, Given, GivenWeights, Places

CLIP = Given("clip", "a CLIP model", "openai/clip-vit-base-patch16")
DINO = Given("dino", "a DINO or DINOv2 model", "facebook/dino-vitb16 or facebook/dinov2-base")
_BATCH = 8

Frames = Float[Tensor, "frame channel height width"]


def place_of(need: Given, places: Places, metric: str) -> Path:
    """Where the weights of a metric are.

    Raises:
        UsageError: they were not given.
    """
    GivenWeights((need,), places).check(metric)
    return places[need.key]


def clip_image_features(frames: Frames, place: Path) -> Float[Tensor, "frame feature"]:
    """CLIP's image features of every frame, of length one."""
    model, processor, _ = _clip(place)
    found = [_projected(model.get_image_features(pixel_values=pixels)) for pixels in _prepared(frames, processor)]
    return F.normalize(torch.cat(found), dim=1)


def clip_text_features(prompt: str, place: Path) -> Float[Tensor, " feature"]:
    """CLIP's features of a prompt, of length one; words beyond what it takes are cut off."""
    model, _, tokenizer = _clip(place)
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer([prompt], padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        found = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return F.normalize(_projected(found), dim=1)[0]


def clip_scale(place: Path) -> float:
    """The factor by which a CLIP model multiplies its cosines (exp of `logit_scale`)."""
    return float(_clip(place)[0].logit_scale.exp())


def class_token_features(frames: Frames, place: Path) -> Float[Tensor, "frame feature"]:
    """The last state of the class token of a vision transformer, for every frame."""
    model, processor = _vision(place)
    return torch.cat([model(pixel_values=pixels).last_hidden_state[:, 0] for pixels in _prepared(frames, processor)])


def _prepared(frames: Frames, processor: Any) -> list[Tensor]:
    """Frames as the model takes them, in batches; each is a picture of 8 bits first, as in the models' own use."""
    pictures = (frames * 255).round().byte().movedim(1, -1).numpy()
    parts = [list(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
    return [processor(images=part, return_tensors="pt")["pixel_values"] for part in parts]


def _projected(found: Any) -> Tensor:
    return getattr(found, "pooler_output", found)


@lru_cache(maxsize=2)
def _clip(place: Path) -> tuple[Any, Any, Any]:
    from transformers import AutoTokenizer, CLIPModel

    return _loaded(CLIPModel, place), _processor(place), _from(AutoTokenizer, place)


@lru_cache(maxsize=1)
def _vision(place: Path) -> tuple[Any, Any]:
    from transformers import AutoModel

    return _loaded(AutoModel, place), _processor(place)


def _processor(place: Path) -> Any:
    from transformers import AutoImageProcessor

    return _from(AutoImageProcessor, place)


def _loaded(kind: Any, place: Path) -> Any:
    """A model whose file holds all of its weights; transformers would make up those that are missing."""
    model, told = _from(kind, place, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    missing = sorted(name for name in told["missing_keys"] if "pooler" not in name)
    if missing:
        raise FailureError(
            "the given model lacks weights", got=f"{missing[0]} and {len(missing) - 1} others missing", where=place
        )
    return model.eval().requires_grad_(requires_grad=False)


def _from(kind: Any, place: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(place, local_files_only=True, trust_remote_code=False, **options)
    except (*UNREADABLE, ImportError) as error:
        lines = str(error).strip().splitlines() or ["no message"]
        raise FailureError(
            "the given model cannot be read",
            expected=f"a folder of {kind.__name__}, with its safetensors, tokenizer and preprocessor_config.json",
            got=f"{type(error).__name__}: {lines[0]}",
            where=place,
        ) from error
