"""Find the default enhancement: many variants on one half of the held-out scenes, the best of them on the other.

Two stages, each resumable, each a table of scores per video (`choose.parquet`, `report.parquet` in `--out`):

- `choose`: every variant of `benchmarks.enhance_variants` on the first half of the held-out captions;
- `report`: on the second half, two videos per caption: the best entropy-chosen variant of the first half (by the mean
  paired difference of ground-truth fidelity to plain), its random and same-resolution controls, the best of every
  baseline, and every plain setting.

`--record` writes `enhance-choose-MODEL` and `enhance-methods-MODEL` from the two tables, `enhance-summary-MODEL` (the
leading rows of the second), `enhance-contrasts-MODEL` (the default against every other row of it),
`enhance-chosen-MODEL` (the first half's best entropy-chosen variant, likewise) and `enhance-default-MODEL` (the default
against plain, measure by measure).

Run it from the root of the repository: `python -m benchmarks.enhance_sweep shapes --out runs/sweep [--device cuda]`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from benchmarks.enhance_variants import PLAIN, VARIANTS
from benchmarks.results import Value, record
from benchmarks.testbed.scenes import PROFILE_PROMPTS, PROFILE_STEPS, choosing_captions, training_profile
from ieadapt.errors import FailureError
from ieadapt.metrics import METRICS, evaluate
from ieadapt.metrics.intervals import paired_interval
from ieadapt.models import load
from ieadapt.tasks.evaluate.tables import Comparison, compare
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed import Score, score

FOLDER = Path(__file__).parent / "sweeps"
"""Where the tables of scores are kept, so that a later run goes on from them."""
DEFAULT = "temporal/joint:top=0.5, start 0.5"
MEASURES = (
    *("fidelity", "size", "colour", "background", "shape", "motion"),
    *("iou", "fit", "jitter", "flicker", "sharpness", "motion_amount"),
)


@dataclass(frozen=True)
class Task:
    """Some videos of one variant: every caption with every seed."""

    variant: str
    captions: tuple[str, ...]
    seeds: tuple[int, ...]


@functools.cache
def bench(model: str, device: str, out: Path) -> tuple[Any, EntropyProfile]:
    """A worker's pipeline and profile, loaded once per process."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    return load(model, device=device, dtype=torch.float32), EntropyProfile.load(out)


def scores_of(task: Task, arguments: argparse.Namespace) -> list[dict[str, Value]]:
    """The scores of a task's videos."""
    pairs = list(itertools.product(task.captions, task.seeds))
    pipe, profile = bench(arguments.model, arguments.device, arguments.out)
    config = GenerationConfig(arguments.steps, guidance_scale=arguments.guidance_scale, batch_size=arguments.batch)
    texts, seeds = [text for text, _ in pairs], [seed for _, seed in pairs]
    videos = VARIANTS[task.variant].videos(pipe, texts, seeds, config, profile)
    rows: list[dict[str, Value]] = []
    for (text, seed), video in zip(pairs, videos, strict=True):
        told: dict[str, Value] = {"variant": task.variant, "caption": text, "seed": seed}
        amount = evaluate(video, None, [METRICS["motion"]])["motion"]
        rows.append(told | score(video, text).as_dict() | {"motion_amount": float(amount)})
    for start in range(0, len(pairs), len(task.seeds)):
        distance = _distance(videos[start : start + len(task.seeds)])
        for row in rows[start : start + len(task.seeds)]:
            row["distance"] = distance
    return rows


def _distance(videos: Tensor) -> float | None:
    """Root mean square difference of a caption's videos, 255ths; none with one seed."""
    if len(videos) < 2:
        return None
    gaps = [float((one - two).square().mean().sqrt()) for one, two in itertools.combinations(videos, 2)]
    return 255 * sum(gaps) / len(gaps)


def run_stage(name: str, tasks: Sequence[Task], arguments: argparse.Namespace) -> pl.DataFrame:
    """Do what is missing of a stage, and give its table."""
    path = arguments.out / f"{name}.parquet"
    table = pl.read_parquet(path) if path.exists() else None
    done = set() if table is None else set(table.select("variant", "caption", "seed").rows())
    missing = [task for task in tasks if (task.variant, task.captions[0], task.seeds[0]) not in done]
    rows: list[dict[str, Value]] = [] if table is None else table.to_dicts()
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, spawn) as pool:
        futures = {pool.submit(scores_of, task, arguments): task for task in missing}
        for number, future in enumerate(as_completed(futures), start=1):
            try:
                rows += future.result()
            except Exception as error:  # one variant that fails must not cost the others
                print(f"{futures[future].variant}: {error}", file=sys.stderr)
            pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
            print(f"{name}: {number} of {len(missing)} tasks, {time.monotonic() - began:.0f} s", file=sys.stderr)
            if time.monotonic() - began > arguments.seconds:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return pl.DataFrame(rows, infer_schema_length=None)


def tasks_of(names: Sequence[str], texts: Sequence[str], seeds: tuple[int, ...], size: int) -> Iterator[Task]:
    """Tasks of about so many videos each, variants taking turns, so that an early end leaves all of them alike."""
    step = max(1, size // len(seeds))
    for start in range(0, len(texts), step):
        for name in names:
            yield Task(name, tuple(texts[start : start + step]), seeds)


def summary(table: pl.DataFrame, steps: int, against: str = PLAIN) -> list[dict[str, Value]]:
    """One row per variant: passes, means, and paired differences to one of them with 95 % intervals over captions."""
    columns = [name for name in (*MEASURES, "distance") if name in table.columns and table[name].is_not_null().any()]
    means = table.group_by("variant", "caption").agg(pl.col(columns).mean()).sort("caption")
    base = means.filter(pl.col("variant") == against).drop("variant")
    rows: list[dict[str, Value]] = []
    for name in [name for name in VARIANTS if name in set(table["variant"])]:
        both = means.filter(pl.col("variant") == name).join(base, on="caption", suffix="_plain")
        if both.is_empty():  # a run that was cut off
            continue
        row: dict[str, Value] = {"variant": name, "captions": both.height, **VARIANTS[name].told(steps)}
        for column in columns:
            interval = paired_interval(both[column].to_list(), both[f"{column}_plain"].to_list())
            row |= {column: float(both[column].to_numpy().mean()), f"{column}_difference": interval.mean}
            row |= {f"{column}_low": interval.low, f"{column}_high": interval.high}
        rows.append(row)
    return rows


def finalists(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """The second stage: plain ones, the default and the best two by entropy with controls, best of each baseline."""
    ranked = sorted(chosen, key=lambda row: -row["fidelity_difference"])
    kept = {DEFAULT} | {name for name, variant in VARIANTS.items() if variant.group == "plain"}
    for group in dict.fromkeys(variant.group for variant in VARIANTS.values()):
        best = [str(row["variant"]) for row in ranked if VARIANTS[str(row["variant"])].group == group]
        kept |= set(best[: {"entropy": 2, "plain": len(best)}.get(group, 1)])
    kept |= {control for name in list(kept) for control in VARIANTS[name].controls}
    return [name for name in VARIANTS if name in kept]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the leading columns."""
    for row in sorted(rows, key=lambda row: -row["fidelity_difference"]):
        figures = "  ".join(
            f"{name} {row[name]:.3f} ({row[f'{name}_difference']:+.3f} [{row[f'{name}_low']:+.3f}, "
            f"{row[f'{name}_high']:+.3f}])"
            for name in ("fidelity", "fit", "iou", "jitter", "flicker")
        )
        print(f"{row['variant'][:52]:52s} {row['passes']:<4} {figures}")


def main(arguments: argparse.Namespace) -> None:
    """Run both stages, or record what they gave."""
    first, second = choosing_captions(arguments.captions)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.record:
        write(arguments)
        return
    if not (arguments.out / "profile.json").exists():
        pipe = load(arguments.model, device=arguments.device, dtype=torch.float32)
        scale = GenerationConfig(PROFILE_STEPS, guidance_scale=arguments.guidance_scale, batch_size=PROFILE_PROMPTS)
        training_profile(pipe, scale).save(arguments.out)
    words = arguments.only or [""]
    names = [name for name, row in VARIANTS.items() if row.group != "control" and any(word in name for word in words)]
    tasks = tasks_of(names, first[: arguments.first], (0,), arguments.batch)
    chosen = summary(run_stage("choose", list(tasks), arguments), arguments.steps)
    show(chosen)
    print()
    tasks = tasks_of(finalists(chosen), second, (0, 1), arguments.batch)
    show(summary(run_stage("report", list(tasks), arguments), arguments.steps))


def write(arguments: argparse.Namespace) -> None:
    """Write the records of both stages, and keep their tables."""
    command = f"python -m benchmarks.enhance_sweep {arguments.model} --out runs/sweep --captions {arguments.captions}"
    command += f" --first {arguments.first}"
    note = (
        f"{arguments.steps} steps and guidance {arguments.guidance_scale:g} where the row does not say otherwise; "
        "differences are paired by caption, 95 % bootstrap, not corrected for the number of rows. Passes: network "
        "passes per video, weak ones counted whole."
    )
    made = {stage: pl.read_parquet(arguments.out / f"{stage}.parquet") for stage in ("choose", "report")}
    kept = FOLDER / arguments.model
    kept.mkdir(parents=True, exist_ok=True)
    for stage, table in made.items():
        table.write_parquet(kept / f"{stage}.parquet")
    tables = {stage: shared(table) for stage, table in made.items()}
    if arguments.machine:
        note += " Versions and commit are those of the recording, not of the machine that made the videos."
    note += "".join(cut_off(stage, made[stage], tables[stage]) for stage in made)
    profile = EntropyProfile.load(arguments.out)
    EntropyProfile(profile.table, {**profile.metadata, "model": arguments.model}).save(kept)
    reported = ranked(summary(tables["report"], arguments.steps))
    choosing = ranked(summary(tables["choose"], arguments.steps))
    chosen = next(str(row["variant"]) for row in choosing if row["group"] == "entropy")
    rows: dict[str, Sequence[Mapping[str, Value]]] = {
        "enhance-summary": leading(reported, arguments.default, chosen),
        "enhance-choose": choosing,
        "enhance-methods": reported,
        "enhance-contrasts": contrasts(tables["report"], arguments.default, arguments.steps),
        "enhance-chosen": contrasts(tables["report"], chosen, arguments.steps),
        "enhance-default": [dataclasses.asdict(row) for row in against_plain(tables["report"], arguments.default)],
    }
    for name, found in rows.items():
        record(f"{name}-{arguments.model}", command, found, notes=note, machine=arguments.machine)


def shared(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the captions that every variant has, so that a stage that was cut off compares like with like.

    Raises:
        FailureError: no caption has every variant.

    Example:
        >>> table = pl.DataFrame({"variant": ["plain", "pag", "plain"], "caption": ["a", "a", "b"]})
        >>> shared(table)["caption"].to_list()
        ['a', 'a']
    """
    variants = table.group_by("caption").agg(pl.col("variant").n_unique())
    full = variants.filter(pl.col("variant") == table["variant"].n_unique())
    if full.is_empty():
        raise FailureError("no caption has every variant", remedy="run the stage again: it does what is missing")
    return table.join(full, on="caption", how="semi", maintain_order="left")


def cut_off(stage: str, made: pl.DataFrame, kept: pl.DataFrame) -> str:
    """A sentence on what `shared` left out; nothing where it left nothing out."""
    if kept.height == made.height:
        return ""
    captions = kept["caption"].n_unique()
    return f" The stage `{stage}` was cut off: only the {captions} captions that every row has are counted."


def ranked(rows: Sequence[dict[str, Value]]) -> list[dict[str, Value]]:
    """The best first, by ground-truth fidelity."""
    return sorted(rows, key=lambda row: -float(row["fidelity_difference"] or 0.0))


def leading(reported: Sequence[dict[str, Value]], default: str, chosen: str) -> list[dict[str, Value]]:
    """The rows that a reader asks for first: plain, the default and the first half's best, controls, every baseline."""
    first = [PLAIN, "plain, 1.25 x steps", "plain, 1.5 x steps"]
    first += [name for own in dict.fromkeys((default, chosen)) for name in (own, *VARIANTS[own].controls)]
    names = [*first, *(name for name, row in VARIANTS.items() if row.group not in ("plain", "entropy", "control"))]
    found = {str(row["variant"]): row for row in reported}
    found[default] = found[default] | {"variant": f"{default} (default)"}
    return [found[name] for name in names if name in found]


def against_plain(table: pl.DataFrame, default: str) -> list[Comparison]:
    """The default against plain, measure by measure (the demo prints it beside its own)."""
    names = [field.name for field in dataclasses.fields(Score)]
    means = table.group_by("variant", "caption").agg(pl.col(names).mean()).sort("caption")
    plain, own = (
        [Score(*row) for row in means.filter(pl.col("variant") == variant).select(names).rows()]
        for variant in (PLAIN, default)
    )
    return compare(plain, own)


def contrasts(table: pl.DataFrame, variant: str, steps: int) -> list[dict[str, Value]]:
    """A variant against every other row: paired differences, positive where the variant is higher."""
    rows = []
    for other in dict.fromkeys(table["variant"]):
        both = table.filter(pl.col("variant").is_in([variant, other]))
        if other != variant:
            own = next(row for row in summary(both, steps, other) if row["variant"] == variant)
            told = {"passes_less": own["passes"] - VARIANTS[other].told(steps)["passes"]}  # type: ignore[operator]
            rows.append({"against": other, **told, **own})
    return rows


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a bundled model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--captions", type=int, default=200, help="held-out captions, half for each stage")
    parser.add_argument("--first", type=int, default=64, help="captions of the first half that are used")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps of the plain variant")
    parser.add_argument("--guidance-scale", type=float, default=3.0, help="classifier-free guidance of plain")
    parser.add_argument("--only", nargs="*", help="variants whose names hold one of these words")
    parser.add_argument("--batch", type=int, default=64, help="videos that run as one batch")
    parser.add_argument("--workers", type=int, default=2, help="processes, which may share one GPU")
    parser.add_argument("--seconds", type=float, default=3600, help="begin nothing more after so long, per stage")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--record", action="store_true", help="only write the records, from the tables in --out")
    parser.add_argument("--default", default=DEFAULT, help="the row that is compared with every other one")
    parser.add_argument("--device-name", help="for the records: the machine that made the videos, if it is another one")
    arguments = parser.parse_args(words)
    arguments.machine = {"gpu": arguments.device_name} if arguments.device_name else None
    return arguments


if __name__ == "__main__":
    main(parse())
