"""Tiny random models of the classes that users give, in folders as save_pretrained writes them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from tests.tiny.text import clip_tokenizer

SIDE = 32
_PARTS = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def clip(folder: Path, width: int = 8, seed: int = 0) -> Path:
    """A CLIP model with its tokenizer and image processor; spread weights, so that pictures and words differ."""
    tokenizer = clip_tokenizer()
    size = len(tokenizer)
    text = {"vocab_size": size, "bos_token_id": size - 2, "eos_token_id": size - 1, "hidden_size": 32, **_PARTS}
    vision = {"image_size": SIDE, "patch_size": 8, "hidden_size": 32, **_PARTS}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    for value in model.parameters():
        value.data += 0.2 * torch.randn(value.shape) * (value.ndim > 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _processor().save_pretrained(folder)
    return folder


def dino(folder: Path) -> Path:
    """A ViT, the class of DINO."""
    return _vision(folder, ViTModel(ViTConfig(image_size=SIDE, patch_size=8, hidden_size=32, **_PARTS)))


def dinov2(folder: Path) -> Path:
    """A DINOv2."""
    config = {"image_size": SIDE, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return _vision(folder, Dinov2Model(Dinov2Config(**config)))


def trunk(file: Path, layers: torch.nn.Module) -> Path:
    """A classifier's convolutions, filled at random, under the published names, with a layer that is not used."""
    generator = torch.Generator().manual_seed(0)
    for value in layers.parameters():
        spread = (2 / max(value[0].numel(), 1)) ** 0.5
        value.data = spread * torch.randn(value.shape, generator=generator)
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save({**state, "classifier.0.bias": torch.ones(3)}, file)
    return file


def _vision(folder: Path, model: torch.nn.Module) -> Path:
    torch.manual_seed(1)
    for value in model.parameters():
        value.data += 0.2 * torch.randn(value.shape) * (value.ndim > 1)
    model.save_pretrained(folder)
    _processor().save_pretrained(folder)
    return folder


def _processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
