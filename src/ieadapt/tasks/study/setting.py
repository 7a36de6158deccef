"""The setting of a study: everything that all of its cells share, and that a cell's key covers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ieadapt.errors import UsageError
from ieadapt.files import fits
from ieadapt.runs.fingerprints import fingerprint
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.grid import Cell

_RECORDED = {"model": str, "weights_hash": str, "metrics": str, "prompts": list[str], "steps": int}
FORMAT = 1
"""Of the results: raised whenever a cell of the same key would hold other numbers."""


@dataclass(frozen=True)
class Setting:
    """What all cells of a study share.

    Attributes:
        model: the name under which the model was asked for; of a folder only its own name.
        weights_hash: of its weights and configuration.
        study: what is perturbed and measured.
        generation: steps, size, guidance.
        metrics: the names of the metrics, in full.

    Example:
        >>> from ieadapt.tasks.study.grid import Condition
        >>> setting = Setting("shapes", "0a", StudyConfig(), GenerationConfig(8), ("psnr",))
        >>> cell = Cell(Condition(("mid.attn1",), "spatial", "identity"), "a red ball", 0)
        >>> setting.identity(cell)["window"], len(setting.key(cell))
        ('0:1', 32)
    """

    model: str
    weights_hash: str
    study: StudyConfig
    generation: GenerationConfig
    metrics: tuple[str, ...]

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Everything that a cell's numbers depend on, as columns of the table."""
        condition = cell.condition
        return {
            "format": FORMAT,
            "model": self.model,
            "weights_hash": self.weights_hash,
            "prompt": cell.prompt,
            "seed": cell.seed,
            "sites": ",".join(condition.sites),
            "kind": condition.kind,
            "perturbation": condition.perturbation,
            "head": condition.head,
            "rank": condition.rank,
            "window": str(self.study.perturbed),
            "branch": self.study.branch,
            "metrics": ",".join(self.metrics),
            **self._run(),
        }

    def key(self, cell: Cell) -> str:
        """The name of a cell's file: the hash of its identity."""
        return fingerprint(self.identity(cell))

    def twin_key(self, prompt: str, seed: int) -> str:
        """The name of an unperturbed video's file; it depends on where the window begins, for the latents it keeps."""
        start = self.study.perturbed.steps(self.generation.num_inference_steps).start
        shared = {"format": FORMAT, "model": self.model, "weights_hash": self.weights_hash, **self._run()}
        return fingerprint({**shared, "prompt": prompt, "seed": seed, "kept_at": start})

    def pairs(self, prompts: tuple[str, ...]) -> list[tuple[str, int]]:
        """Every prompt with every seed."""
        seeds = range(self.study.seed, self.study.seed + self.study.seeds)
        return [(prompt, seed) for prompt in prompts for seed in seeds]

    def asked(self, prompts: tuple[str, ...]) -> dict[str, Any]:
        """What was asked, in a form that can be compared with what another process asks."""
        study = dataclasses.asdict(self.study) | {
            "perturb": ",".join(self.study.perturbations),
            "window": str(self.study.perturbed),
            "metrics": ",".join(self.metrics),
        }
        shared = {"model": self.model, "weights_hash": self.weights_hash, "prompts": list(prompts)}
        return {**shared, **study, **self._run()}

    @classmethod
    def recorded(cls, asked: Mapping[str, Any]) -> tuple[Setting, tuple[str, ...]]:
        """The setting and the prompts behind what `asked` gave; metrics may be named whose weights are not here.

        Raises:
            UsageError: a field is missing or of another type; a record with a digest can be so only by hand.
        """
        try:
            study = {field.name: asked[field.name] for field in dataclasses.fields(StudyConfig)}
            run: dict[str, Any] = {field.name: asked.get(field.name) for field in dataclasses.fields(GenerationConfig)}
            run |= {"num_inference_steps": asked["steps"], "batch_size": GenerationConfig().batch_size}
            if not all(fits(asked[name], kind) for name, kind in _RECORDED.items()):
                raise TypeError("a field of another type")
            setting = cls(
                asked["model"],
                asked["weights_hash"],
                StudyConfig(**{**study, "metrics": None}),
                GenerationConfig(**run),
                tuple(asked["metrics"].split(",")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                "the record of this study cannot be read",
                got=f"no {error}" if isinstance(error, KeyError) else error,
                where="study.json",
                remedy="start again in a new folder",
            ) from error
        return setting, tuple(asked["prompts"])

    def _run(self) -> dict[str, Any]:
        """The settings of the pipeline; the size of a batch is not among them, results do not depend on it."""
        run = {name: value for name, value in vars(self.generation).items() if name != "batch_size"}
        scale = run["guidance_scale"]  # 3 and 3.0 are one scale, and have one hash
        return {
            "steps": run.pop("num_inference_steps"),
            **run,
            "guidance_scale": None if scale is None else float(scale),
        }
