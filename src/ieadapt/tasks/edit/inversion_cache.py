"""Inversions kept on disk: a source is inverted once, whatever it is edited into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.folder import Progress
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import Clip, Inversion, inversion_key, invert
from ieadapt.tasks.generate import GenerationConfig


def default_cache() -> Path:
    """Where inversions are kept: `ieadapt/inversions` in the user's cache folder (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ieadapt" / "inversions"


@dataclass(frozen=True)
class InversionCache:
    """A folder of inversions, one safetensors file each, named by what they depend on.

    Attributes:
        folder: made when the first inversion is kept.
    """

    folder: Path

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / f"{key}.safetensors"

    def find(self, key: str) -> Inversion | None:
        """The inversion of that key; None where there is none, or its file is damaged."""
        try:
            inversion = Inversion.load(self.path(key))
        except UsageError:
            return None
        return inversion if inversion.key == key else None

    def invert(
        self,
        pipe: DiffusionPipeline,
        frames: Clip,
        prompt: str,
        config: EditConfig,
        generation: GenerationConfig,
        progress: Progress | None = None,
    ) -> tuple[Inversion, bool]:
        """The inversion of a clip, and whether it was there already.

        Raises:
            UsageError: as `invert` does.
            FailureError: as `invert` does, or the folder cannot be written.
        """
        kept = self.find(inversion_key(pipe, frames, prompt, config, generation))
        if kept is not None:
            return kept, True
        with self._writing():  # what cannot be kept shall be known before it is made
            self.folder.mkdir(parents=True, exist_ok=True)
        inversion = invert(pipe, frames, prompt, config, generation, progress=progress)
        with self._writing():
            inversion.save(self.path(inversion.key))
        return inversion, False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            got, remedy = error.strerror or error, "name another --cache"
            raise FailureError(
                "inversions cannot be kept in this folder", got=got, where=self.folder, remedy=remedy
            ) from error
