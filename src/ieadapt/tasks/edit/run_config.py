"""What an edit run is asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ieadapt.errors import UsageError
from ieadapt.runs.pipelines import Hardware, check_seeds
from ieadapt.runs.sources import SourceConfig
from ieadapt.tasks.edit.config import EditConfig
from ieadapt.tasks.edit.jobs import EditJob, read_jobs
from ieadapt.tasks.edit.presets import EDIT_PRESETS, edit_preset
from ieadapt.tasks.generate import GenerationConfig

_SOURCE = {field.name: field for field in dataclasses.fields(SourceConfig)}


@dataclass(frozen=True)
class Sampling:
    """Steps and size of an edit; None means the model's own.

    Raises:
        UsageError: a number is not positive.
    """

    num_inference_steps: int = field(default=25, metadata={"help": "denoising steps"})
    num_frames: int | None = field(default=None, metadata={"help": "frames per video"})
    height: int | None = field(default=None, metadata={"help": "height in pixels"})
    width: int | None = field(default=None, metadata={"help": "width in pixels"})
    batch_size: int = field(default=4, metadata={"help": "target prompts that run as one batch"})

    def __post_init__(self) -> None:
        _ = self.generation

    @property
    def generation(self) -> GenerationConfig:
        """The same settings, as `generate` and `edit` take them."""
        return GenerationConfig(**vars(self))


@dataclass(frozen=True)
class EditRun:
    """What an edit run is asked: one source with target prompts, or a file of such jobs.

    Attributes:
        model: a bundled name, a folder or a hub id.
        prompts: targets; every one gives an edit of the same source.
        video: file of the source.
        source_prompt: what the source shows.
        source_seed: generates the source from its prompt instead of reading a file.
        jobs: a YAML or CSV file of jobs instead of all four.
        start: see `SourceConfig`.
        fps: see `SourceConfig`.
        size: see `SourceConfig`.
        strict: see `SourceConfig`.
        edit: how it is edited; None = as the preset says, or the default.
        preset: the name of an edit configuration, from which the flags of an edit start.
        profile: folder of a measure run, where sites are chosen by entropy; without one the source's own inversion is
            measured.
        sampling: steps and size.
        cache: folder in which inversions are kept.
        hardware: device and precision.

    Raises:
        UsageError: no source, or several; no target; an unknown preset.
    """

    model: str
    prompts: tuple[str, ...] = ()
    video: Path | None = field(default=None, metadata={"help": "the source: any video file, or a folder of frames"})
    source_prompt: str = field(default="", metadata={"help": "what the source shows; makes edits keep more"})
    source_seed: int | None = field(
        default=None, metadata={"help": "generate the source from --source-prompt with this seed instead"}
    )
    jobs: Path | None = field(default=None, metadata={"help": "YAML or CSV file of jobs: video, source, targets"})
    start: int | float = field(default=0.0, metadata=dict(_SOURCE["start"].metadata))
    fps: int | float | None = field(default=None, metadata=dict(_SOURCE["fps"].metadata))
    size: str = field(default="crop", metadata=dict(_SOURCE["size"].metadata))
    strict: bool = field(default=False, metadata=dict(_SOURCE["strict"].metadata))
    edit: EditConfig | None = field(default=None, metadata={"base": edit_preset})
    preset: str | None = field(
        default=None,
        metadata={
            "help": "a named edit configuration; flags beside it win",
            "choices": tuple(EDIT_PRESETS),
        },
    )
    profile: Path | None = field(
        default=None, metadata={"help": "folder of a measure run; without one the inversion is measured"}
    )
    sampling: Sampling = field(default_factory=Sampling)
    cache: Path | None = field(default=None, metadata={"help": "folder where inversions are kept"})
    hardware: Hardware = field(default_factory=Hardware)

    def __post_init__(self) -> None:
        given = [name for name in ("video", "source_seed", "jobs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                "an edit has one source",
                expected="--video FILE, --source-seed N or --jobs FILE",
                got=" and ".join("--" + name.replace("_", "-") for name in given) or "none",
            )
        if self.jobs is not None and (self.prompts or self.source_prompt):
            raise UsageError("a file of jobs brings its own prompts", got="--prompt or --source-prompt beside --jobs")
        check_seeds(self.config.seed)
        _ = self.source, self.config, self.jobs is not None or self.listed

    @property
    def source(self) -> SourceConfig:
        """Which frames of a file are taken."""
        return SourceConfig(self.start, self.fps, self.size, self.strict)

    @property
    def config(self) -> EditConfig:
        """How it is edited: the settings themselves, the preset, or the default."""
        return self.edit or (EditConfig() if self.preset is None else edit_preset(self.preset))

    @property
    def listed(self) -> list[EditJob]:
        """The jobs: those of the file, or the one that the flags say.

        Raises:
            UsageError: something that is no job.
        """
        if self.jobs is not None:
            return read_jobs(self.jobs)
        name = "source" if self.video is None else self.video.stem
        return [EditJob(name, self.prompts, self.source_prompt, self.video, self.source_seed)]

    def as_record(self) -> dict[str, Any]:
        """As it stands in the record of the run."""
        return dataclasses.asdict(self)
