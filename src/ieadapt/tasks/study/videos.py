"""The videos of a study: unperturbed baselines, batches that share a condition, and the frames kept for figures."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import numpy as np
import torch
from diffusers import DiffusionPipeline
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ieadapt.attention import GuidanceChoice, StepWindow, intercept
from ieadapt.errors import FailureError
from ieadapt.files import difference
from ieadapt.interventions import parse_perturbation
from ieadapt.models.scheduler_wrapper import can_start_late, kept_latents, late_start
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.shared_files import write_whole
from ieadapt.tasks.generate import generate, videos_at_once
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Condition

FRAMES = 8
"""Of a filmstrip."""


@dataclass(frozen=True)
class Baseline:
    """The unperturbed video of a prompt and seed.

    Attributes:
        frames: in [0, 1].
        latents: those with which the first perturbed step begins; None where runs begin at step 0.
    """

    frames: Float[Tensor, "frame channel height width"]
    latents: Tensor | None = None


Window = StepWindow | tuple[float, float]
Pairs = Sequence[tuple[str, int]]
"""Prompts with their seeds."""


def first_step(pipe: DiffusionPipeline, config: StudyConfig, generation: GenerationConfig) -> int:
    """The step at which perturbed runs begin: the window's first, or 0 where the scheduler keeps a history."""
    start = config.perturbed.steps(generation.num_inference_steps).start
    return start if can_start_late(pipe) else 0


def make_baselines(
    pipe: DiffusionPipeline, pairs: Pairs, config: StudyConfig, generation: GenerationConfig
) -> list[Baseline]:
    """Generate unperturbed videos, all in batches of `generation.batch_size`, and keep where the window begins.

    Args:
        pipe: any text-to-video pipeline.
        pairs: prompts and seeds, one video each.
        config: its window says which latents are kept.
        generation: steps, size, guidance.
    """
    start = first_step(pipe, config, generation)
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    with kept_latents(pipe, start) as kept:
        videos = generate(pipe, prompts, generation, seeds)
    latents: Sequence[Tensor | None] = list(torch.cat(kept)) if start else [None] * len(pairs)
    return [Baseline(video, latent) for video, latent in zip(videos, latents, strict=True)]


def replaced(
    pipe: DiffusionPipeline, condition: Condition, window: Window = (0.0, 1.0), guidance: GuidanceChoice = "all"
) -> AbstractContextManager[object]:
    """The block in which a condition's maps are replaced."""
    perturbation = parse_perturbation(condition.perturbation)
    heads = None if condition.head is None else (condition.head,)
    return intercept(pipe, perturbation, list(condition.sites), window, guidance=guidance, heads=heads)


def make_perturbed(
    pipe: DiffusionPipeline,
    condition: Condition,
    pairs: Pairs,
    baselines: Sequence[Baseline],
    config: StudyConfig,
    generation: GenerationConfig,
) -> Float[Tensor, "video frame channel height width"]:
    """Generate the same videos as one batch, with the maps of a condition replaced inside the window.

    Noise is drawn per video, so that a video does not depend on its batch, up to rounding. Where the window begins
    later, the run starts from the baselines' latents there.

    Args:
        pipe: the pipeline that made the baselines.
        condition: which maps are replaced by what.
        pairs: prompts and seeds.
        baselines: the unperturbed videos of these, in this order.
        config: window and branch.
        generation: steps, size, guidance.

    Raises:
        UsageError: the condition names a site or head that the model lacks.
        FailureError: a site never fired, or the frames are not finite.
    """
    begins = first_step(pipe, config, generation)
    window = config.perturbed.after(begins, generation.num_inference_steps)
    guidance: GuidanceChoice = "all" if config.branch == "both" else "cond"
    together = dataclasses.replace(generation, batch_size=len(pairs))
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    with replaced(pipe, condition, window, guidance):
        if not begins:
            return generate(pipe, prompts, together, seeds)
        latents = torch.stack([baseline.latents for baseline in baselines if baseline.latents is not None])
        videos = []
        size = videos_at_once(pipe, together)
        for start in range(0, len(pairs), size):
            batch = slice(start, start + size)
            with late_start(pipe, latents[batch], begins):
                videos.append(generate(pipe, prompts[batch], together, seeds[batch]))
        return torch.cat(videos)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Store a baseline, whole or not at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
        >>> write_baseline(path, Baseline(torch.ones(1, 3, 2, 2)))
        >>> read_baseline(path).frames.shape
        torch.Size([1, 3, 2, 2])
    """
    tensors = {name: tensor.contiguous() for name, tensor in vars(baseline).items() if tensor is not None}
    write_whole(path, save(tensors, metadata={"digest": _digest(tensors)}))


def read_baseline(path: Path) -> Baseline | None:
    """A baseline, or None where its file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            digest = (file.metadata() or {}).get("digest")
        return Baseline(**tensors) if _digest(tensors) == digest else None
    except (SafetensorError, OSError, TypeError):
        return None


def tensor_bytes(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """Names, types, shapes and values of tensors, to be hashed."""
    for name, tensor in sorted(tensors.items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for content in tensor_bytes(tensors):
        digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class Strip:
    """Evenly spaced frames of one video.

    Attributes:
        frames: up to eight, first and last among them.
        prompt: of the video.
        seed: of the video.
        sites: names of the perturbed sites with commas; None for the unperturbed baseline, as are the next ones.
        kind: of the sites.
        perturbation: by name and amount.
        head: the one perturbed head, or None.
        rank: `each`, `top` or `bottom`.
    """

    frames: UInt8[np.ndarray, "frame height width channel"]
    prompt: str
    seed: int
    sites: str | None = None
    kind: str | None = None
    perturbation: str | None = None
    head: int | None = None
    rank: str | None = None


def to_strip_frames(
    frames: Float[Tensor, "frame channel height width"],
) -> UInt8[np.ndarray, "strip_frame height width channel"]:
    """Evenly spaced frames as bytes.

    Example:
        >>> import torch
        >>> to_strip_frames(torch.ones(16, 3, 4, 6)).shape
        (8, 4, 6, 3)
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int))
    picked = rearrange(frames[chosen.tolist()], "frame channel height width -> frame height width channel")
    return (picked.clamp(0, 1) * 255).round().byte().numpy()


def write_strip(folder: Path, key: str, strip: Strip) -> None:
    """Store a strip of a study under the key of its cell or baseline."""
    attributes = json.dumps({name: value for name, value in vars(strip).items() if name != "frames"})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, frames=strip.frames, told=np.frombuffer(attributes.encode(), dtype=np.uint8))
    write_whole(folder / "strips" / f"{key}.npz", buffer.getvalue())


def read_strips(folder: str | Path) -> Iterator[Strip]:
    """Every strip of a study folder, baselines first.

    Example:
        >>> list(read_strips("no-such-folder"))
        []
    """
    strips = [_read(path) for path in sorted(Path(folder, "strips").glob("*.npz"))]
    yield from sorted(strips, key=lambda strip: strip.sites is not None)


def _read(path: Path) -> Strip:
    try:
        with np.load(path, allow_pickle=False) as file:
            frames, attributes = file["frames"], json.loads(file["told"].tobytes())
        schema = {name: kind for name, kind in get_type_hints(Strip).items() if name != "frames"}
        shaped = frames.ndim == 4 and frames.dtype == np.uint8
        if problem := difference(attributes, schema) if shaped else "no frames of a video":
            raise ValueError(problem)
        return Strip(frames=frames, **attributes)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FailureError(
            "a strip of the study is damaged",
            got=" ".join(str(error).split())[:120],
            where=path,
            remedy="remove the file; the report is drawn without it",
        ) from error
