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
from ieadapt.metrics.metric import Frames
from ieadapt.metrics.weights import WeightSet, reading

CLIP = WeightSet("clip", "a CLIP model", "openai/clip-vit-base-patch16")
DINO = WeightSet("dino", "a DINO or DINOv2 model", "facebook/dino-vitb16 or facebook/dinov2-base")
_BATCH = 8


def clip_image_features(frames: Frames, folder: Path) -> Float[Tensor, "frame feature"]:
    """CLIP's image features of every frame, of length one."""
    model = _model("CLIPModel", folder)
    parts = [_projected(model.get_image_features(pixel_values=pixels)) for pixels in _prepared(frames, folder)]
    return F.normalize(torch.cat(parts), dim=1)


def clip_text_features(prompt: str, folder: Path) -> Float[Tensor, " feature"]:
    """CLIP's features of a prompt, of length one; words beyond what it takes are cut off."""
    model = _model("CLIPModel", folder)
    length = model.config.text_config.max_position_embeddings
    tokenizer = _from_pretrained("AutoTokenizer", folder)
    tokens = tokenizer([prompt], padding=True, truncation=True, max_length=length, return_tensors="pt")
    features = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return F.normalize(_projected(features), dim=1)[0]


def clip_scale(folder: Path) -> float:
    """The factor by which a CLIP model multiplies its cosines (exp of `logit_scale`)."""
    return float(_model("CLIPModel", folder).logit_scale.exp())


def class_token_features(frames: Frames, folder: Path) -> Float[Tensor, "frame feature"]:
    """The last state of the class token of a vision transformer, for every frame."""
    model = _model("AutoModel", folder)
    return torch.cat([model(pixel_values=pixels).last_hidden_state[:, 0] for pixels in _prepared(frames, folder)])


def _prepared(frames: Frames, folder: Path) -> list[Tensor]:
    """Frames as the model takes them, in batches; each is a picture of 8 bits first, as in the models' own use."""
    processor = _from_pretrained("AutoImageProcessor", folder)
    pictures = (frames * 255).round().byte().movedim(1, -1).numpy()
    parts = [list(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
    return [processor(images=part, return_tensors="pt")["pixel_values"] for part in parts]


def _projected(output: Any) -> Tensor:
    return getattr(output, "pooler_output", output)


def _model(kind: str, folder: Path) -> Any:
    """A model whose file holds all of its weights; transformers would make up those that are missing."""
    model, info = _from_pretrained(kind, folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        got = f"{missing[0]} and {len(missing) - 1} others missing"
        raise FailureError("the given model lacks weights", got=got, where=folder)
    return model.eval().requires_grad_(requires_grad=False)


@lru_cache(maxsize=8)
def _from_pretrained(kind: str, folder: Path, **options: Any) -> Any:
    import transformers  # importing it takes seconds

    expected = f"a folder of {kind}, with its safetensors, tokenizer and preprocessor_config.json"
    with reading("the given model", folder, expected):
        model_class = getattr(transformers, kind)
        return model_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
