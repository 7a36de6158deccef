"""The grid of a study: every set of sites with every perturbation, and the cells that all share one setting."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ieadapt.attention import AttentionSite
from ieadapt.errors import UsageError
from ieadapt.files import fits
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.shared_files import fingerprint
from ieadapt.tasks.measure.layer_choice import SiteChoice
from ieadapt.tasks.study.config import StudyConfig

_RECORDED = {"model": str, "weights_hash": str, "metrics": str, "prompts": list[str], "steps": int}
FORMAT = 1
"""Of the results: raised whenever a cell of the same key would hold other numbers."""


@dataclass(frozen=True)
class Condition:
    """One column of the grid: what is perturbed, and how.

    Attributes:
        sites: names of the sites that are perturbed together.
        kind: their kind.
        perturbation: `identity`, `uniform`, `mix:WEIGHT`, `temperature:T`.
        head: the one head that is perturbed; None for all.
        rank: `top` or `bottom` where sites were taken by EP, else `each`.

    Example:
        >>> print(Condition(("mid.attn1",), "spatial", "identity", head=2))
        identity at mid.attn1, head 2
    """

    sites: tuple[str, ...]
    kind: str
    perturbation: str
    head: int | None = None
    rank: str = "each"

    @property
    def columns(self) -> dict[str, Any]:
        """As columns of a table."""
        return {**vars(self), "sites": ",".join(self.sites)}

    def __str__(self) -> str:
        sites = self.sites[0] if len(self.sites) == 1 else f"{self.rank} {len(self.sites)} {self.kind} sites"
        return f"{self.perturbation} at {sites}" + ("" if self.head is None else f", head {self.head}")


@dataclass(frozen=True)
class Cell:
    """One perturbed video: a condition, a prompt and a seed."""

    condition: Condition
    prompt: str
    seed: int


def conditions(config: StudyConfig, sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> list[Condition]:
    """Every condition of a study of a model with these sites, in order of execution.

    Args:
        config: the request.
        sites: the model's attention sites.
        ep: entropy percentage by site name.

    Raises:
        UsageError: the selection matches no site, or identity alone is requested at cross-attention alone.

    Example:
        >>> sites = [AttentionSite("a", "spatial", 0, 2), AttentionSite("b", "cross", 1, 2)]
        >>> [str(condition) for condition in conditions(StudyConfig(), sites, {"a": 50.0, "b": 60.0})]
        ['identity at a', 'uniform at a', 'uniform at b']
    """
    chosen = SiteChoice.parse(config.sites).choose(sites, ep) if config.sites else list(sites)
    group_sites = {"each": _each, "cumulative": _cumulative, "per-head": _per_head}[config.mode]
    listed = [
        Condition(tuple(site.name for site in group), group[0].kind, perturbation, head, rank)
        for group, head, rank in group_sites(chosen, ep)
        for perturbation in config.perturbations
        if perturbation.partition(":")[0] != "identity" or group[0].kind != "cross"
    ]
    if not listed:
        raise UsageError(
            "cross-attention has no identity map",
            got=f"identity at {len(chosen)} cross-attention sites only",
            remedy="add uniform to the perturbations, or choose other sites",
        )
    return listed


Group = tuple[Sequence[AttentionSite], int | None, str]


def _each(sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> Iterator[Group]:
    for site in sites:
        yield [site], None, "each"


def _per_head(sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> Iterator[Group]:
    for site in sites:
        for head in range(site.heads):
            yield [site], head, "each"


def _cumulative(sites: Sequence[AttentionSite], ep: Mapping[str, float]) -> Iterator[Group]:
    for kind in dict.fromkeys(site.kind for site in sites):
        ranked = sorted((site for site in sites if site.kind == kind), key=lambda site: (-ep[site.name], site.order))
        for count in growing(len(ranked)):
            yield ranked[:count], None, "top"
            yield ranked[-count:], None, "bottom"


def growing(number: int) -> list[int]:
    """1, 2, 4, ... and all of them.

    Example:
        >>> growing(10)
        [1, 2, 4, 8, 10]
    """
    return [*(2**power for power in range(number.bit_length()) if 2**power < number), number]


@dataclass(frozen=True)
class Setting:
    """What a study is of: everything that its cells depend on, but for the conditions.

    Attributes:
        model: the name under which the model was requested; of a folder only its own name.
        weights_hash: of its weights and configuration.
        study: what is perturbed and measured.
        generation: steps, size, guidance.
        metrics: the names of the metrics, in full.
        prompts: in order.

    Example:
        >>> setting = Setting("scenes", "0a", StudyConfig(), GenerationConfig(8), ("psnr",), ("a red ball",))
        >>> cell = Cell(Condition(("mid.attn1",), "spatial", "identity"), "a red ball", 0)
        >>> setting.identity(cell)["window"], [len(key) for key in setting.cells([cell.condition])]
        ('0:1', [32])
    """

    model: str
    weights_hash: str
    study: StudyConfig
    generation: GenerationConfig
    metrics: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def first_step(self) -> int:
        """The step at which the perturbed part of a run begins."""
        return self.study.perturbed.steps(self.generation.num_inference_steps).start

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Everything that a cell's numbers depend on, as columns of the table."""
        own = {"prompt": cell.prompt, "seed": cell.seed, **cell.condition.columns}
        study = {"window": str(self.study.perturbed), "branch": self.study.branch, "metrics": ",".join(self.metrics)}
        return {**self._shared, **own, **study}

    def baseline_key(self, prompt: str, seed: int) -> str:
        """The name of an unperturbed video's file; it depends on where the window begins, for the latents it keeps."""
        return fingerprint({**self._shared, "prompt": prompt, "seed": seed, "kept_at": self.first_step})

    @property
    def pairs(self) -> dict[str, tuple[str, int]]:
        """Every prompt with every seed, by the key of their unperturbed video."""
        seeds = range(self.study.seed, self.study.seed + self.study.seeds)
        return {self.baseline_key(prompt, seed): (prompt, seed) for prompt in self.prompts for seed in seeds}

    def cells(self, listed: Sequence[Condition]) -> dict[str, Cell]:
        """Every cell of the study by its key, condition by condition."""
        pairs = self.pairs.values()
        cells = [Cell(condition, *pair) for condition in listed for pair in pairs]
        return {fingerprint(self.identity(cell)): cell for cell in cells}

    @property
    def request(self) -> dict[str, Any]:
        """The request behind a study, in a form that can be compared with that of another process."""
        study = dataclasses.asdict(self.study) | {
            "perturb": ",".join(self.study.perturbations),
            "window": str(self.study.perturbed),
            "metrics": ",".join(self.metrics),
        }
        shared = {"model": self.model, "weights_hash": self.weights_hash, "prompts": list(self.prompts)}
        return {**shared, **study, **self._run}

    @classmethod
    def recorded(cls, request: Mapping[str, Any]) -> Setting:
        """The setting behind a request; metrics may be named whose weights are not here.

        Raises:
            UsageError: a field is missing or of another type; a record with a digest can be so only by hand.
        """
        try:
            study = {field.name: request[field.name] for field in dataclasses.fields(StudyConfig)}
            run: dict[str, Any] = {
                field.name: request.get(field.name) for field in dataclasses.fields(GenerationConfig)
            }
            run |= {"num_inference_steps": request["steps"], "batch_size": GenerationConfig().batch_size}
            run["call"] = json.loads(request.get("call", "{}"))
            if not all(fits(request[name], kind) for name, kind in _RECORDED.items()):
                raise TypeError("a field of another type")
            configs = StudyConfig(**{**study, "metrics": None}), GenerationConfig(**run)
            named = request["model"], request["weights_hash"]
            return cls(*named, *configs, tuple(request["metrics"].split(",")), tuple(request["prompts"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                "the record of this study cannot be read",
                got=f"no {error}" if isinstance(error, KeyError) else error,
                where="study.json",
                remedy="start again in a new folder",
            ) from error

    @property
    def _shared(self) -> dict[str, Any]:
        return {"format": FORMAT, "model": self.model, "weights_hash": self.weights_hash, **self._run}

    @property
    def _run(self) -> dict[str, Any]:
        """The settings of the pipeline; the size of a batch is not among them, results do not depend on it."""
        run = {name: value for name, value in vars(self.generation).items() if name != "batch_size"}
        scale, call = run["guidance_scale"], run.pop("call")  # 3 and 3.0 are one scale, and have one hash
        return {
            "steps": run.pop("num_inference_steps"),
            **run,
            "guidance_scale": None if scale is None else float(scale),
            **({"call": json.dumps(call, sort_keys=True)} if call else {}),
        }
