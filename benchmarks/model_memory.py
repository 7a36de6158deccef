"""What published checkpoints need in memory, from their parameter counts; nothing is downloaded and nothing measured.

    python -m benchmarks.model_memory

Every part is built without weights from the sizes that its checkpoint is published with, and its parameters counted.
Weights are taken in bfloat16 (2 bytes). The working set is an estimate: rows x tokens x (2 width + 2 inner width) x
2 bytes, the largest tensors that a block of the denoiser holds at once, where rows is 2 with batched classifier-free
guidance and 1 with split. Decoding by the VAE is not in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import diffusers
import torch
import transformers
from torch import nn

from benchmarks.results import Value, record

GIB = 2**30
CARDS = (8, 12, 16, 24, 32, 48, 80, 96, 141)
"""Memory of common cards in GB."""
MARGIN = 1.15
"""For the CUDA context, the allocator and what the estimate leaves out."""


@dataclass(frozen=True)
class Checkpoint:
    """The sizes of one published checkpoint.

    Attributes:
        name: hub id.
        denoiser: builds it.
        texts: build the text encoders.
        vae: builds it.
        size: frames, height, width that it is used at.
        strides: by how much VAE and patches together shrink frames, height and width.
        width: of a token in the denoiser.
        inner: of its feed-forward layer.
        rows: of the denoiser's batch with guidance.
        text_tokens: in the joint sequence.
    """

    name: str
    denoiser: Callable[[], nn.Module]
    texts: Sequence[Callable[[], nn.Module]]
    vae: Callable[[], nn.Module]
    size: tuple[int, int, int]
    strides: tuple[int, int, int]
    width: int
    inner: int
    rows: int = 2
    text_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of one row, at its finest resolution."""
        frames, height, width = self.size
        time, down, across = self.strides
        return ((frames - 1) // time + 1) * (height // down) * (width // across) + self.text_tokens

    def row(self) -> dict[str, Value]:
        """Parameters in billions, memory in GiB, and the smallest common card for either way to run."""
        denoiser, vae = _count(self.denoiser), _count(self.vae)
        text = [_count(build) for build in self.texts]
        working = self.rows * self.tokens * 2 * (self.width + self.inner) * 2 / GIB
        together = 2 * (denoiser + vae + sum(text)) / GIB + working
        offloaded = max(2 * denoiser / GIB + working, 2 * max(text) / GIB)
        frames, height, width = self.size
        return {
            "model": self.name,
            "denoiser": denoiser / 1e9,
            "text_encoders": sum(text) / 1e9,
            "vae": vae / 1e9,
            "size": f"{frames} × {height} × {width}",
            "tokens": self.tokens,
            "working": working,
            "together": together,
            "together_card": _card(together),
            "offloaded": offloaded,
            "offloaded_card": _card(offloaded),
        }


def _count(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def _card(gib: float) -> int | None:
    return next((card for card in CARDS if card * 1e9 / GIB >= gib * MARGIN), None)


def _t5_xxl() -> nn.Module:
    sizes = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24}
    config = transformers.T5Config(**sizes, feed_forward_proj="gated-gelu", vocab_size=32128)
    return transformers.T5EncoderModel(config)


def _umt5_xxl() -> nn.Module:
    sizes = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24}
    config = transformers.UMT5Config(**sizes, feed_forward_proj="gated-gelu", vocab_size=256384)
    return transformers.UMT5EncoderModel(config)


def _llama_3_8b() -> nn.Module:
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    return transformers.LlamaModel(transformers.LlamaConfig(**sizes, **heads, vocab_size=128320))


def _clip_l() -> nn.Module:
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes))


def _sd_vae() -> nn.Module:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return diffusers.AutoencoderKL(**blocks, block_out_channels=(128, 256, 512, 512), layers_per_block=2)


def _cogvideox(heads: int, layers: int) -> Callable[[], nn.Module]:
    return lambda: diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=heads, num_layers=layers, use_rotary_positional_embeddings=True
    )


def _wan(heads: int, inner: int, layers: int) -> Callable[[], nn.Module]:
    return lambda: diffusers.WanTransformer3DModel(num_attention_heads=heads, ffn_dim=inner, num_layers=layers)


_VIDEO_VAE, _SMALL, _PATCHED = (49, 480, 720), (81, 480, 832), (4, 16, 16)

CHECKPOINTS = (
    Checkpoint(
        "stable-diffusion-v1-5 with a motion adapter v1-5-3",
        lambda: diffusers.UNetMotionModel(cross_attention_dim=768),
        [_clip_l],
        _sd_vae,
        (16, 512, 512),
        (1, 8, 8),
        width=320,
        inner=2 * 4 * 320,
    ),
    Checkpoint(
        "THUDM/CogVideoX-2b",
        _cogvideox(30, 30),
        [_t5_xxl],
        diffusers.AutoencoderKLCogVideoX,
        _VIDEO_VAE,
        _PATCHED,
        width=1920,
        inner=4 * 1920,
        text_tokens=226,
    ),
    Checkpoint(
        "THUDM/CogVideoX-5b",
        _cogvideox(48, 42),
        [_t5_xxl],
        diffusers.AutoencoderKLCogVideoX,
        _VIDEO_VAE,
        _PATCHED,
        width=3072,
        inner=4 * 3072,
        text_tokens=226,
    ),
    Checkpoint(
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        _wan(12, 8960, 30),
        [_umt5_xxl],
        diffusers.AutoencoderKLWan,
        _SMALL,
        _PATCHED,
        width=1536,
        inner=8960,
        rows=1,
    ),
    Checkpoint(
        "Wan-AI/Wan2.1-T2V-14B-Diffusers",
        _wan(40, 13824, 40),
        [_umt5_xxl],
        diffusers.AutoencoderKLWan,
        _SMALL,
        _PATCHED,
        width=5120,
        inner=13824,
        rows=1,
    ),
    Checkpoint(
        "Lightricks/LTX-Video",
        diffusers.LTXVideoTransformer3DModel,
        [_t5_xxl],
        diffusers.AutoencoderKLLTXVideo,
        (161, 512, 704),
        (8, 32, 32),
        width=2048,
        inner=4 * 2048,
    ),
    Checkpoint(
        "hunyuanvideo-community/HunyuanVideo",
        diffusers.HunyuanVideoTransformer3DModel,
        [_llama_3_8b, _clip_l],
        diffusers.AutoencoderKLHunyuanVideo,
        (61, 544, 960),
        _PATCHED,
        width=3072,
        inner=4 * 3072,
        rows=1,
        text_tokens=256,
    ),
    Checkpoint(
        "genmo/mochi-1-preview",
        diffusers.MochiTransformer3DModel,
        [_t5_xxl],
        diffusers.AutoencoderKLMochi,
        (85, 480, 848),
        (6, 16, 16),
        width=3072,
        inner=8 * 3072 // 3 * 2,
        text_tokens=256,
    ),
)


def main() -> int:
    """Count, print and record."""
    rows = [checkpoint.row() for checkpoint in CHECKPOINTS]
    for row in rows:
        print(row)
    notes = "Computed from parameter counts, not measured; see the head of benchmarks/model_memory.py."
    record("model-memory", "python -m benchmarks.model_memory", rows, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
