"""Inversions kept on disk: a source is inverted once, whatever it is edited into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusers import DiffusionPipeline

from ieadapt.errors import FailureError, UsageError, reason_of
from ieadapt.runs.folder import Progress
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import Clip, Inversion, inversion_key, invert
from ieadapt.tasks.generate import GenerationConfig


def default_cache() -> Path:
    """Where inversions are kept: `ieadapt/inversions` in the user's cache folder (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ieadapt" / "inversions"


def cached_inversion(
    folder: Path,
    pipe: DiffusionPipeline,
    frames: Clip,
    prompt: str,
    config: EditConfig,
    generation: GenerationConfig,
    progress: Progress | None = None,
) -> tuple[Inversion, bool]:
    """The inversion of a clip, and whether it was there already; a damaged file is replaced.

    Args:
        folder: of inversions, one safetensors file each, named by what they depend on; made with the first one.
        pipe: as for `invert`, and so are the others.
        frames: the clip.
        prompt: what it shows.
        config: of the edit.
        generation: its number of steps.
        progress: called with (steps done, steps in all).

    Raises:
        UsageError: as `invert` does.
        FailureError: as `invert` does, or the folder cannot be written.
    """
    key = inversion_key(pipe, frames, prompt, config, generation)
    file = folder / f"{key}.safetensors"
    with suppress(UsageError):
        kept = Inversion.load(file)
        if kept.key == key:
            return kept, True
    with _writing(folder):  # what cannot be kept shall be known before it is made
        folder.mkdir(parents=True, exist_ok=True)
    inversion = invert(pipe, frames, prompt, config, generation, progress)
    with _writing(folder):
        inversion.save(file)
    return inversion, False


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem, remedy = "inversions cannot be kept in this folder", "name another --cache"
        raise FailureError(problem, got=reason_of(error), where=folder, remedy=remedy) from error
