"""The study of a bundled model: every self-attention site replaced by I and by U, on held-out captions.

Run it from the root of the repository: `python -m benchmarks.study scenes --out runs/study [--device cuda]`; it goes on
where an earlier run stopped. `--report` then draws the report and writes three records from the finished study:

- `study-MODEL`: every site and perturbation with its EP and its effects: means over clips, bootstrap 95 % intervals;
- `study-MODEL-claims`: of these, what the paper's two claims are about;
- `study-MODEL-relations`: how EP goes with every effect, Spearman's rho over the sites of a kind.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl
from PIL import Image

from benchmarks.results import Value, record
from ieadapt.attention import find_sites
from ieadapt.models import load
from ieadapt.runs.settings import GenerationConfig, Hardware
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.report_effects import effects_of, relations, site_effects
from ieadapt.tasks.study.run import StudyRun, run_study
from ieadapt.testbed import caption, sample_scenes

FOLDER = Path(__file__).parent / "studies"
"""Where the tables and reports of the bundled models are kept."""
KINDS = "spatial,temporal,joint"
CAPTION_SEED = 11
SHIPPED = ("study.parquet", "study.json", "profile.json", "profile.parquet", "report.html")


def captions(number: int, seed: int = CAPTION_SEED) -> tuple[str, ...]:
    """So many different held-out captions, always the same for a seed."""
    scenes = sample_scenes(2 * number + 8, seed, "heldout")
    return tuple(dict.fromkeys(caption(scene) for scene in scenes))[:number]


def study(arguments: argparse.Namespace) -> None:
    """Do what is missing of the study."""
    prompts = captions(arguments.captions)
    kinds = {site.kind for site in find_sites(load(arguments.model))}
    sites = arguments.sites or ",".join(kind for kind in KINDS.split(",") if kind in kinds)
    request = StudyRun(
        arguments.model,
        prompts,
        StudyConfig(
            sites=sites,
            perturb=arguments.perturb,
            seeds=arguments.seeds,
            mode=arguments.mode,
            metrics=arguments.metrics,
        ),
        GenerationConfig(arguments.steps, batch_size=arguments.batch),
        workers=arguments.workers,
        hardware=Hardware(arguments.device, "float32"),
    )
    result = run_study(request, arguments.out, resume=(arguments.out / "study.json").exists(), stages=_stages)
    print("\n".join([*result.notes, f"{result.table.height} videos"]), file=sys.stderr)


def _stages(stage: str, counts: str = "step") -> Callable[[int, int], None]:
    began, shown = time.monotonic(), 0.0

    def report(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > 10 or done >= total:
            shown = now
            print(f"{stage}: {done} of {total}, {now - began:.0f} s", file=sys.stderr, flush=True)

    return report


def report(arguments: argparse.Namespace) -> None:
    """Draw the report, write the records, and keep the table and the report under `benchmarks/studies`."""
    from ieadapt.tasks.study.report import study_maps, write_study_report  # needs PyAV, which a GPU machine may lack

    folder: Path = arguments.out
    table = pl.read_parquet(folder / "study.parquet")
    profile = EntropyProfile.load(folder)
    sites = profile.by_site()
    write_study_report(folder, maps=study_maps(load(arguments.model), table, profile))
    clips = table.select("prompt", "seed").unique().height
    note = f"{table.height} perturbed videos, {clips} clips (held-out caption and seed), {arguments.steps} steps."
    command = f"python -m benchmarks.study {arguments.model} --captions {arguments.captions} --seeds {arguments.seeds}"
    command = f"{command} --steps {arguments.steps} --mode {arguments.mode} --perturb {arguments.perturb}"
    name = f"study-{arguments.model}" if arguments.mode == "each" else f"study-{arguments.model}-{arguments.mode}"
    if arguments.mode == "each":
        made = {"machine": arguments.machine, "versions": json.loads((folder / "study.json").read_text())["versions"]}
        record(name, command, site_rows(table, sites), notes=note, **made)
        related = relation_rows(table, sites)
        record(f"{name}-relations", command, related, notes=note, **made)
        record(f"{name}-claims", command, claim_rows(related), notes=note, **made)
    kept = FOLDER / name.removeprefix("study-")
    kept.mkdir(parents=True, exist_ok=True)
    for file in (folder / shipped for shipped in SHIPPED):
        if file.suffix in (".json", ".html"):
            text = file.read_text().replace(str(folder), "runs/study").replace(_made_in(folder), "runs/study")
            (kept / file.name).write_text(lighter(text))
        else:
            shutil.copy(file, kept)


def lighter(page: str) -> str:
    """A page with every embedded PNG in 256 colours: a third of the bytes, for a repository that stays light."""
    return re.sub(r"(?<=data:image/png;base64,)[A-Za-z0-9+/=]+", lambda match: _fewer_colours(match[0]), page)


def _fewer_colours(encoded: str) -> str:
    few = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(few, "PNG", optimize=True)
    return base64.b64encode(few.getvalue()).decode()


def _made_in(folder: Path) -> str:
    """The folder's path on the machine that made it; a shipped table is to be made again anywhere."""
    return json.loads((folder / "study.json").read_text())["command"].partition("--out ")[2].split()[0]


def site_rows(table: pl.DataFrame, sites: pl.DataFrame) -> list[dict[str, Value]]:
    """One row per site and perturbation: its EP, and every effect with its interval."""
    rows: dict[tuple[str, str], dict[str, Value]] = {}
    for effect in effects_of(table):
        for unit in site_effects(table, effect, sites):
            identity: dict[str, Value] = {
                "order": unit.order,
                "site": unit.site,
                "kind": unit.kind,
                "perturbation": unit.perturbation,
                "ep": unit.ep,
            }
            row = rows.setdefault((unit.site, unit.perturbation), identity)
            interval = unit.interval()
            row |= {
                effect.column: interval.mean,
                f"{effect.column}_low": interval.low,
                f"{effect.column}_high": interval.high,
            }
    return list(rows.values())


def relation_rows(table: pl.DataFrame, sites: pl.DataFrame) -> list[dict[str, Value]]:
    """One row per effect, kind and perturbation: rho over sites and clips, over clips only, within one resolution."""
    rows: list[dict[str, Value]] = []
    for relation in relations({effect: site_effects(table, effect, sites) for effect in effects_of(table)}):
        row: dict[str, Value] = {
            "aspect": relation.effect.aspect,
            "effect": relation.effect.damage_label,
            "kind": relation.kind,
            "perturbation": relation.perturbation,
        }
        for name, rho in (("", relation.overall), ("here_", relation.here), ("within_", relation.within)):
            row |= {
                f"{name}rho": _finite(rho.rho) if rho else None,
                f"{name}low": _finite(rho.low) if rho else None,
                f"{name}high": _finite(rho.high) if rho else None,
            }
        rows.append(row | {"sites": relation.overall.units})
    return rows


def claim_rows(related: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
    """What the paper's claims say: high EP goes with quality (rho > 0), low EP with structure (rho < 0)."""
    claims = {"fall of testbed fit (dB)": "high EP: quality", "fall of ssim": "low EP: structure"}
    return [{"claim": claims[str(row["effect"])], **row} for row in related if row["effect"] in claims]


def _finite(value: float) -> float | None:
    return value if value == value else None


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a bundled model")
    parser.add_argument("--out", type=Path, required=True, help="the study's folder")
    parser.add_argument("--captions", type=int, default=24, help="held-out captions")
    parser.add_argument("--seeds", type=int, default=2, help="videos per caption")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--mode", default="each", help="each, cumulative or per-head")
    parser.add_argument("--perturb", default="identity,uniform", help="as of `ieadapt study`")
    parser.add_argument("--sites", help="as of `ieadapt study`; every self-attention site by default")
    parser.add_argument("--metrics", help="as of `ieadapt study`")
    parser.add_argument("--batch", type=int, default=4, help="videos that run as one batch")
    parser.add_argument("--workers", type=int, help="processes, which may share one GPU")
    parser.add_argument("--device", default="auto", help="cpu or cuda")
    parser.add_argument("--report", action="store_true", help="only draw the report and write the records")
    parser.add_argument("--device-name", help="for the records: the machine that made the videos, if it is another one")
    options = parser.parse_args(arguments)
    options.machine = {"gpu": options.device_name} if options.device_name else None
    return options


if __name__ == "__main__":
    options = parse()
    report(options) if options.report else study(options)
