"""The table of models that ship with the package: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundledModel:
    """A trained pipeline inside the package.

    Attributes:
        name: what `load` takes.
        family: the row of `ieadapt.attention.families` it belongs to.
        summary: what it makes, in a few words.
        folder: where it lies; called when the model is loaded.
        guidance_scale: the scale it was made for, where that is not its pipeline class's default.
    """

    name: str
    family: str
    summary: str
    folder: Callable[[], Path]
    guidance_scale: float | None = None


def _testbed(name: str) -> Callable[[], Path]:
    def folder() -> Path:
        from ieadapt.testbed import model_folder

        return model_folder(name)

    return folder


_BUNDLED = (
    BundledModel(
        name="shapes",
        family="AnimateDiff",
        summary="one moving shape on a background, from captions such as 'a big red ball moving right over bricks'",
        folder=_testbed("shapes"),
        guidance_scale=3.0,
    ),
)

RETIRED: Mapping[str, str] = {
    "shapes-dit": "take 'shapes', or train a model with python -m benchmarks.training.train; what was measured on "
    "shapes-dit stays in benchmarks/results",
}
"""Models that shipped once, and what to do instead of loading them."""


def known_models() -> dict[str, BundledModel]:
    """The bundled models by name, whether or not their weights are in this installation (`location.model_folder` asks).

    Example:
        >>> known_models()["shapes"].family
        'AnimateDiff'
    """
    return {model.name: model for model in _BUNDLED}
