"""Inversions kept on disk: a source is inverted once, whatever it is edited into."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from ieadapt.errors import FailureError, IEAdaptError
from ieadapt.runs.folder import Progress
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.inversion import Inversion, invert
from ieadapt.tasks.edit.inversion_key import inversion_key
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
        if not self.path(key).is_file():
            return None
        try:
            found = Inversion.load(self.path(key))
        except (IEAdaptError, SafetensorError, OSError, ValueError, KeyError):
            return None
        return found if found.key == key else None

    def keep(self, inversion: Inversion) -> Path:
        """Write an inversion, whole or not at all.

        Raises:
            FailureError: the folder cannot be written.
        """
        path = self.path(inversion.key)
        partial = path.with_name(f"{os.getpid()}-{path.name}")
        try:
            inversion.save(partial)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error
        return path

    def open(self) -> None:
        """Make the folder, so that what cannot be kept is known before it is made.

        Raises:
            FailureError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> FailureError:
        got, remedy = error.strerror or error, "name another --cache"
        return FailureError("inversions cannot be kept in this folder", got=got, where=self.folder, remedy=remedy)

    def invert(
        self,
        pipe: DiffusionPipeline,
        frames: Float[Tensor, "frame channel height width"],
        prompt: str,
        config: EditConfig,
        generation: GenerationConfig,
        progress: Progress | None = None,
    ) -> tuple[Inversion, bool]:
        """The inversion of a clip, and whether it was there already.

        Raises:
            UsageError, FailureError: as `invert`, `open` and `keep` do.
        """
        found = self.find(inversion_key(pipe, frames, prompt, config, generation))
        if found is not None:
            return found, True
        self.open()
        made = invert(pipe, frames, prompt, config, generation, progress=progress)
        self.keep(made)
        return made, False
