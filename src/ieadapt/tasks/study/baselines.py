"""Stored twins: the unperturbed video of each prompt and seed, made once, and its frames for the figures."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ieadapt.runs.fingerprints import set_aside, write_whole
from ieadapt.tasks.study.videos import Twin

KEPT_BYTES = 512 * 2**20


class TwinStore:
    """The twins of a study; the last ones read stay in memory.

    Args:
        folder: the study folder; twins are in `twins` below it.

    Example:
        >>> import tempfile
        >>> store = TwinStore(Path(tempfile.mkdtemp()))
        >>> store.write("a", Twin(torch.ones(1, 3, 2, 2)))
        >>> store.read("a").frames.shape, store.read("b")
        (torch.Size([1, 3, 2, 2]), None)
    """

    def __init__(self, folder: Path) -> None:
        self._study, self._folder = folder, folder / "twins"
        self._kept: OrderedDict[str, Twin] = OrderedDict()

    def has(self, key: str) -> bool:
        """Whether there is a file for a twin."""
        return self._path(key).exists()

    def write(self, key: str, twin: Twin) -> None:
        """Store a twin, whole or not at all."""
        tensors = {"frames": twin.frames.contiguous()}
        if twin.latents is not None:
            tensors["latents"] = twin.latents.contiguous()
        write_whole(self._path(key), save(tensors, metadata={"digest": _digest(tensors)}))

    def read(self, key: str) -> Twin | None:
        """A twin, or None where there is none; a damaged one is set aside."""
        if key not in self._kept:
            twin = self._load(self._path(key))
            if twin is None:
                return None
            self._kept[key] = twin
            while len(self._kept) > 1 and sum(each.frames.nbytes for each in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _load(self, path: Path) -> Twin | None:
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                digest = (file.metadata() or {}).get("digest")
            if _digest(tensors) == digest:
                return Twin(tensors["frames"], tensors.get("latents"))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError):
            pass
        set_aside(path, self._study)
        return None

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
