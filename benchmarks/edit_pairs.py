"""Edits of held-out pairs of scenes, whose perfect result is known: every method on every pair.

Run it from the root of the repository, with as many processes as fit one GPU, since the bundled models leave it idle
most of the time:

    python -m benchmarks.edit_pairs run --device cuda --workers 12 --methods candidates --half choose
    python -m benchmarks.edit_pairs run --device cuda --workers 12 --methods injections --half report
    python -m benchmarks.testbed --tracks editing --device cuda --workers 12 --out runs/testbed
    python -m benchmarks.edit_pairs keep --bench runs/testbed
    python -m benchmarks.edit_pairs table

`run` appends one line per pair and method to the cells file, in turns over the kinds of edit, and leaves out what is
there or in `benchmarks/edits`; `--seconds` makes it end in time. `keep` puts the cells, and the rows of the testbed
benchmark as a third set of pairs, into `benchmarks/edits/MODEL.parquet`. `table` writes the records `edit-choice`,
`edit-pairs`, `edit-kinds`, `edit-injection` and `edit-injection-kinds` of a model (see `benchmarks.edit_table`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import torch
from torch import Tensor

from benchmarks.edit_methods import CEILING, COPY, RECONSTRUCTION, WITHOUT_EDIT, for_pair, methods, select
from benchmarks.edit_table import BENCH, write
from benchmarks.results import FOLDER
from benchmarks.testbed.editing import PairEditor
from benchmarks.testbed.scenes import PROFILE_STEPS, training_profile
from ieadapt.errors import IEAdaptError
from ieadapt.models import load
from ieadapt.tasks.demo.edit import score_edit
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.testbed.edits import EDIT_KINDS, MOTION_KIND, EditPair, edit_pairs

Cell = dict[str, Any]

CELLS = Path("runs/edit-cells.jsonl")
KEPT = Path(__file__).parent / "edits"
"""Finished rows, one file per model."""
BENCH_NAMES = {"copy": COPY, "reconstruction": RECONSTRUCTION, "ceiling": CEILING}
"""Names that methods have in the testbed benchmark, and here."""


@dataclass
class Bench:
    """An editor in one process.

    Attributes:
        editor: of pairs.
    """

    editor: PairEditor

    def cells(self, pair: EditPair, names: Sequence[str], deadline: float) -> Iterator[Cell]:
        """One row per method, as many as begin before the deadline (seconds since the epoch)."""
        for name in names:
            if time.time() > deadline:
                break
            try:
                frames, facts = self.frames(pair, name)
            except IEAdaptError as error:
                print(f"{name}, {pair.name}: {error}", file=sys.stderr, flush=True)
                continue
            told = {"pair": pair.name, "kind": pair.kind, "half": pair.half, "method": name}
            yield {**told, **score_edit(frames, pair).as_dict(), **facts}

    def frames(self, pair: EditPair, name: str) -> tuple[Tensor, dict[str, float]]:
        """What a method makes of a pair, the figures of its inversion, and the time of the edit without it."""
        if name in UNEDITED:
            frames, facts = UNEDITED[name](self.editor, pair)
        else:
            frames, facts = self.editor.edited(pair, for_pair(methods()[name], pair))
        return frames, {fact: value for fact, value in facts.items() if fact != "passes"}


UNEDITED: Mapping[str, Callable[[PairEditor, EditPair], tuple[Tensor, dict[str, float]]]] = {
    COPY: PairEditor.copied,
    RECONSTRUCTION: PairEditor.reconstructed,
    CEILING: PairEditor.at_best,
}


class _Process:
    """The bench of a worker process and the file it writes to, made when it starts."""

    bench: Bench | None = None
    cells: Path


def _start(
    model: str, devices: Queue[str], generation: GenerationConfig, profile: EntropyProfile | None, cells: Path
) -> None:
    device = devices.get()
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _Process.cells = cells
    _Process.bench = Bench(PairEditor(load(model, device=device, dtype=torch.float32), generation, profile))


def _do(pair: EditPair, names: Sequence[str], deadline: float) -> int:
    """Write a line per edit as soon as it is made, and say how many there were."""
    if _Process.bench is None:
        raise RuntimeError("the worker has not started")
    done = 0
    for row in _Process.bench.cells(pair, names, deadline):
        done += 1
        with _Process.cells.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return done


def missing(pairs: Sequence[EditPair], names: Sequence[str], cells: Sequence[Cell]) -> list[tuple[EditPair, list[str]]]:
    """What is to be done for each pair, kinds taking turns, so that an early end leaves all kinds alike."""
    done = {(cell["pair"], cell["method"]) for cell in cells}
    left = [(pair, [name for name in names if (pair.name, name) not in done]) for pair in pairs]
    return sorted([task for task in left if task[1]], key=lambda task: task[0].number)


def read_cells(path: Path) -> list[Cell]:
    """The finished rows of a cells file; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def kept_cells(model: str, folder: Path = KEPT) -> list[Cell]:
    """The rows that were made before."""
    file = folder / f"{model}.parquet"
    return pl.read_parquet(file).to_dicts() if file.is_file() else []


def bench_cells(folder: Path) -> list[Cell]:
    """The rows of `python -m benchmarks.testbed`, whose pairs of scenes are others than those of both halves."""
    rows = [json.loads(file.read_text()) for file in sorted((folder / "rows" / "editing").glob("*/*.json"))]
    return [
        {
            **{name: value for name, value in row.items() if name not in ("scene", "steps", "passes")},
            "pair": f"bench {row['scene']}",
            "half": BENCH,
            "method": BENCH_NAMES.get(row["method"], row["method"]),
        }
        for row in rows
    ]


def keep(arguments: argparse.Namespace) -> int:
    """Add what was made to the kept rows; a row that was made again replaces the earlier one."""
    made = read_cells(arguments.cells) + ([] if arguments.bench is None else bench_cells(arguments.bench))
    cells = {(cell["pair"], cell["method"]): cell for cell in [*kept_cells(arguments.model, arguments.kept), *made]}
    arguments.kept.mkdir(parents=True, exist_ok=True)
    table = pl.DataFrame(list(cells.values()), infer_schema_length=None).with_columns(cs.float().cast(pl.Float32))
    table.write_parquet(arguments.kept / f"{arguments.model}.parquet", compression="zstd", compression_level=19)
    print(f"{len(cells)} rows of {arguments.model}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Do what is missing, until the time is up; 0 when nothing is left."""
    generation = GenerationConfig(arguments.steps)
    pairs = edit_pairs(arguments.pairs // len(EDIT_KINDS))
    pairs += edit_pairs(arguments.motion, [MOTION_KIND]) if arguments.motion else []
    if arguments.half != "both":
        pairs = [pair for pair in pairs if pair.half == arguments.half]
    done_before = [*kept_cells(arguments.model), *read_cells(arguments.cells)]
    tasks = missing(pairs, select(arguments.methods), done_before)
    total, done, began = sum(len(names) for _, names in tasks), 0, time.time()
    arguments.cells.parent.mkdir(parents=True, exist_ok=True)
    for made in _work(arguments, generation, tasks, began + arguments.seconds):
        done += made
        print(f"{done} of {total} cells, {time.time() - began:.0f} s", file=sys.stderr, flush=True)
    return int(done < total)


def _work(
    arguments: argparse.Namespace,
    generation: GenerationConfig,
    tasks: Sequence[tuple[EditPair, list[str]]],
    deadline: float,
) -> Iterator[int]:
    """Numbers of rows as pairs are finished, in this process or in several."""
    needed = {name for _, names in tasks for name in names} - set(WITHOUT_EDIT)
    choices = [methods()[name].injection for name in needed]
    profile = _profile(arguments) if any(choice and choice.needs_entropy for choice in choices) else None
    context = multiprocessing.get_context("spawn")
    devices = context.Queue()
    for worker in range(max(1, arguments.workers)):
        devices.put(_place(arguments.device, worker))
    start = (arguments.model, devices, generation, profile, arguments.cells)
    if arguments.workers <= 1:
        _start(*start)
        yield from (_do(pair, names, deadline) for pair, names in tasks)
        return
    with ProcessPoolExecutor(arguments.workers, mp_context=context, initializer=_start, initargs=start) as pool:
        waiting = {pool.submit(_do, pair, names, deadline) for pair, names in tasks}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in finished)


def _place(device: str, worker: int) -> str:
    """The device of a worker; they take turns on several GPUs."""
    return f"cuda:{worker % torch.cuda.device_count()}" if device == "cuda" else device


def _profile(arguments: argparse.Namespace) -> EntropyProfile:
    """The model's own profile, on training captions."""
    pipe = load(arguments.model, device=arguments.device, dtype=torch.float32)
    return training_profile(pipe, GenerationConfig(min(PROFILE_STEPS, arguments.steps), guidance_scale=3.0))


def tabulate(arguments: argparse.Namespace) -> int:
    """Write the records of a model's kept rows."""
    write(arguments.model, kept_cells(arguments.model), arguments.folder, arguments.device_name)
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {"run": run, "keep": keep, "table": tabulate}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="edit what is missing")
    running.add_argument("--device", default="cpu", help="cpu or cuda")
    running.add_argument("--pairs", type=int, default=200, help="pairs of colour, background, shape and size together")
    running.add_argument("--motion", type=int, default=50, help="pairs of motion, reported apart")
    running.add_argument("--half", default="both", help="choose, report or both")
    running.add_argument(
        "--methods", default="all", help=f"names with semicolons, or groups; {'; '.join(WITHOUT_EDIT)}"
    )
    running.add_argument("--steps", type=int, default=25, help="denoising steps")
    running.add_argument("--workers", type=int, default=1, help="processes")
    running.add_argument("--seconds", type=float, default=1e9, help="begin no further edit after so long")
    keeping = commands.add_parser("keep", help="add what was made to the rows in benchmarks/edits")
    keeping.add_argument("--bench", type=Path, help="folder of a run of `python -m benchmarks.testbed`")
    keeping.add_argument("--kept", type=Path, default=KEPT, help="folder of the kept rows")
    table = commands.add_parser("table", help="choose, report and record")
    table.add_argument("--folder", type=Path, default=FOLDER, help="where the records go")
    table.add_argument("--device-name", help="for the records: the machine that made the edits, if it is another one")
    for command in (running, keeping, table):
        command.add_argument("--model", default="shapes", help="a bundled model")
    for command in (running, keeping):
        command.add_argument("--cells", type=Path, default=CELLS, help="one line per edit")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run, keep, or make the table."""
    arguments = parse(words)
    return COMMANDS[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(main())
