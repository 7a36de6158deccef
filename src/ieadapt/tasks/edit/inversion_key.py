"""The content key of an inversion: equal keys, equal inversions."""

from __future__ import annotations

import hashlib
import json

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from ieadapt.attention import denoisers_of
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.generate import GenerationConfig

FORMAT = 3


def inversion_key(
    pipe: DiffusionPipeline,
    frames: Float[Tensor, "frame channel height width"],
    prompt: str,
    config: EditConfig | None = None,
    generation: GenerationConfig | None = None,
) -> str:
    """Name an inversion by everything that it depends on, before it is made.

    That is the clip, the prompt, the number of steps, the settings that inversion reads, the scheduler's config and
    the weights (by shape and a sample of every tensor).

    Args:
        pipe: the pipeline.
        frames: the clip, in [0, 1].
        prompt: the source prompt.
        config: of the edit.
        generation: its number of steps.

    Returns:
        Forty hexadecimal digits.
    """
    config, generation = config or EditConfig("inversion"), generation or GenerationConfig()
    entropies = config.injection is not None and config.injection.needs_entropy
    described = {
        "format": FORMAT,
        "prompt": prompt if config.inversion_prompt == "source" else "",
        "steps": generation.num_inference_steps,
        "method": "inversion" if config.method == "inversion" else "none",
        "settings": [config.start, config.iterations, config.tolerance, entropies],
        "shape": list(frames.shape),
        "pipeline": type(pipe).__name__,
        "scheduler": {"class": type(pipe.scheduler).__name__, **dict(pipe.scheduler.config)},
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    digest.update(frames.float().cpu().contiguous().numpy().tobytes())
    for module in [pipe.vae, *denoisers_of(pipe).values()]:
        _add_weights(digest, module)
    return digest.hexdigest()[:40]


def _add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    """Names, shapes and a sample of every parameter, in one piece, since every copy from a GPU waits for it."""
    samples: list[Tensor] = []
    for name, parameter in module.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        samples.append(parameter.detach().flatten()[:: max(1, parameter.numel() // 4)][:4].float())
    together = torch.cat([sample.to(samples[0].device) for sample in samples])  # the same wherever the weights are
    digest.update(together.cpu().numpy().tobytes())
