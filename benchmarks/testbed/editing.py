"""Methods of editing: what changes nothing, what the model's VAE can show at best, and the editor's presets."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from benchmarks.testbed.passes import counted_passes
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.config import EDIT_PRESETS, EditConfig
from ieadapt.tasks.edit.inversion import Inversion, inversion_key, invert
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed.edits import EditPair

Frames = Float[Tensor, "frame channel height width"]
Made = tuple[Frames, dict[str, float]]
"""An edit, and the figures of how it was made."""
WHOLE_SOURCE = EditConfig("inversion", start=0.0)
THROUGH_VAE = EditConfig(method="sdedit")


@dataclass
class PairEditor:
    """A pipeline, and what is kept for the pair at hand: inversions, each made once for all methods that invert alike.

    Attributes:
        pipe: the pipeline.
        generation: number of steps.
        profile: of the model; sites are chosen by it. None where no method asks for one.
    """

    pipe: DiffusionPipeline
    generation: GenerationConfig
    profile: EntropyProfile | None
    _at_hand: str = ""
    _inversions: dict[str, tuple[Inversion, int]] = field(default_factory=dict)

    def copied(self, pair: EditPair) -> Made:
        """The source as it is."""
        return pair.source_frames, {"passes": 0.0, "seconds": 0.0}

    def reconstructed(self, pair: EditPair) -> Made:
        """The source, inverted and back."""
        return self._back(pair, pair.source_frames, WHOLE_SOURCE)

    def at_best(self, pair: EditPair) -> Made:
        """The perfect edit through the model's VAE: the most that the model can show."""
        return self._back(pair, pair.perfect, THROUGH_VAE)

    def edited(self, pair: EditPair, config: EditConfig) -> Made:
        """The source, edited; the time is that of the edit without its inversion."""
        inversion, inverting = self._inverted(pair, pair.source_frames, config)
        began = time.monotonic()
        with counted_passes(self.pipe) as passes:
            result = edit(
                self.pipe,
                pair.source_frames,
                pair.prompt,
                source_prompt=pair.source_prompt,
                config=config,
                generation=self.generation,
                inversion=inversion,
                profile=self.profile,
            )
        seconds = round(time.monotonic() - began, 2)
        return result.edited[0], {**_facts(inversion), "passes": float(inverting + passes.rows), "seconds": seconds}

    def _back(self, pair: EditPair, frames: Frames, config: EditConfig) -> Made:
        inversion, passes = self._inverted(pair, frames, config)
        return inversion.reconstruction, {**_facts(inversion), "passes": float(passes), "seconds": 0.0}

    def _inverted(self, pair: EditPair, frames: Frames, config: EditConfig) -> tuple[Inversion, int]:
        """The inversion of the whole run, wherever the edit starts, and its passes."""
        if self._at_hand != pair.name:
            self._at_hand = pair.name
            self._inversions.clear()
        plain = dataclasses.replace(config, inject="none", start=0.0)
        key = inversion_key(self.pipe, frames, pair.source_prompt, plain, self.generation)
        if key not in self._inversions:
            with counted_passes(self.pipe) as passes:
                inversion = invert(self.pipe, frames, pair.source_prompt, plain, self.generation)
            self._inversions[key] = inversion, passes.rows
        return self._inversions[key]


def _facts(inversion: Inversion) -> dict[str, float]:
    names = ("psnr", "vae_psnr", "inversion_psnr", "std_ratio")
    return {f"source_{name}": round(float(getattr(inversion, name)), 3) for name in names}


@dataclass(frozen=True)
class EditMethod:
    """One way of editing.

    Attributes:
        group: what it stands for: `control` (edits nothing, or cannot be beaten), `plain` (the model alone, nothing
            tied to the source's run), `default` or `published`.
        make: edits a pair.
        settings: of the editor, in words.
        needs_profile: whether its sites are chosen by a profile.
    """

    group: str
    make: Callable[[PairEditor, EditPair], Made]
    settings: str = ""
    needs_profile: bool = False

    @classmethod
    def of(cls, group: str, config: EditConfig) -> EditMethod:
        """A configuration of the editor."""
        choice = config.injection
        needs = choice is not None and choice.needs_entropy
        return cls(group, partial(_edited, config=config), _told(config), needs)


def _edited(editor: PairEditor, pair: EditPair, config: EditConfig) -> Made:
    return editor.edited(pair, config)


def _told(config: EditConfig) -> str:
    """What differs from the default settings."""
    given, default = dataclasses.asdict(config), dataclasses.asdict(EditConfig())
    return ", ".join(f"{name} {value}" for name, value in given.items() if value != default[name])


_GROUPS = {"default": "default", "inversion": "plain", **{name: "plain" for name in EDIT_PRESETS if "sdedit" in name}}
EDIT_METHODS: Mapping[str, EditMethod] = {
    "copy": EditMethod("control", PairEditor.copied),
    "reconstruction": EditMethod("control", PairEditor.reconstructed),
    "ceiling": EditMethod("control", PairEditor.at_best),
    **{name: EditMethod.of(_GROUPS.get(name, "published"), config) for name, config in EDIT_PRESETS.items()},
}
"""What the benchmark compares; `default` is `EditConfig()` as it is, `ceiling` the perfect edit through the VAE."""
