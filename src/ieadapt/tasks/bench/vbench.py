"""VBench: videos named as it wants them, plain and enhanced, and its results read back into tables."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.errors import FailureError, UsageError, raised_as
from ieadapt.metrics.intervals import mean_interval
from ieadapt.notation import counted
from ieadapt.runs.engines import make_missing
from ieadapt.runs.flags import flag_arguments
from ieadapt.runs.folder import Stages, open_run, silent
from ieadapt.runs.notes import noted
from ieadapt.runs.settings import GenerationConfig, with_model_defaults
from ieadapt.runs.shared_files import FileRecord
from ieadapt.runs.videos import encode_video
from ieadapt.runs.workers import Task, Work, tasks_of
from ieadapt.tasks.bench.config import VBenchRun, VideoJob
from ieadapt.tasks.enhance.config import EnhanceConfig
from ieadapt.tasks.enhance.method import enhance
from ieadapt.tasks.evaluate.tables import MetricSummary
from ieadapt.tasks.generate import generate
from ieadapt.tasks.measure.method import measure
from ieadapt.tasks.measure.profile import EntropyProfile

RESULTS = "_eval_results.json"
PROFILE_PROMPTS = 8
PLAIN, ENHANCED, PROMPTS, PROFILE = "plain", "enhanced", "prompts.txt", "profile"


@dataclass(frozen=True)
class LayoutWork(Work):
    """What a worker has to know to make the videos, and how it makes them.

    Attributes:
        generation: steps, size, guidance.
        ways: name of a folder -> how its videos are enhanced; None for plain ones.
    """

    generation: GenerationConfig
    ways: tuple[tuple[str, EnhanceConfig | None], ...]

    def missing(self, job: VideoJob) -> list[str]:
        """The ways whose video of a job is gone or is not what was written."""
        record = FileRecord(self.folder, job.key)
        return [way for way, _ in self.ways if not record.holds(self.folder / way / job.name)]

    def make(self, pipe: DiffusionPipeline, items: Mapping[str, VideoJob]) -> None:
        """Make what is missing of some jobs, in batches that share a way."""
        for way, config in self.ways:
            jobs = [job for job in items.values() if way in self.missing(job)]
            if jobs:
                for job, frames in zip(jobs, self._videos(pipe, jobs, config), strict=True):
                    path = self.folder / way / job.name
                    FileRecord(self.folder, job.key).write({path: encode_video(frames)})

    def _videos(
        self, pipe: DiffusionPipeline, jobs: Sequence[VideoJob], config: EnhanceConfig | None
    ) -> Float[Tensor, "video frame channel height width"]:
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        generation = dataclasses.replace(self.generation, batch_size=len(jobs))
        if config is None:
            return generate(pipe, prompts, generation, seeds)
        # the sites may be chosen by entropy; then the run has put the model's profile there
        path = self.folder / PROFILE
        profile = EntropyProfile.load(path) if path.is_dir() else None
        return enhance(pipe, prompts, profile=profile, config=config, generation=generation, seed=seeds)


def run_vbench(config: VBenchRun, out: str | Path, *, resume: bool = False, stages: Stages = silent) -> Path:
    """Make every video plain and enhanced, from the same noise, under VBench's names.

    Finished videos are kept at once. Several processes may work on one folder.

    Args:
        config: model, prompts, settings.
        out: gets `plain/PROMPT-INDEX.mp4` and `enhanced/PROMPT-INDEX.mp4`.
        resume: go on with an earlier run of the same request; finished videos are not made again.
        stages: called as it goes on.

    Returns:
        The folder.

    Raises:
        UsageError: the request cannot be met, or the folder holds a run of another request.
        FailureError: some videos could not be made.
    """
    config = dataclasses.replace(config, generation=with_model_defaults(config.generation, config.model))
    folder = Path(out).expanduser()
    request = {name: value for name, value in asdict(config).items() if name not in ("engine", "workers")}
    # The prompts, which may be a thousand, are in a file of the run.
    words = [config.model, "--prompts", folder / PROMPTS, *flag_arguments(config), "--out", folder]
    command = shlex.join(["ieadapt", "bench", "vbench", *map(str, words)])
    with open_run(out, "vbench", {"request": request}, command=command, resume=resume) as run:
        run.write(PROMPTS, "\n".join(config.prompts) + "\n")
        run.note(seeds={job.name: job.seed for job in config.jobs})
        with noted() as notes:
            _make(config, run.path, stages)
        run.note(notes=list(notes))
    return folder


def _make(config: VBenchRun, folder: Path, stages: Stages) -> None:
    _provide_profile(config, folder, stages)
    ways = ((PLAIN, None), (ENHANCED, config.enhancement))
    work = LayoutWork(folder, config.model, config.hardware, config.generation, ways)
    jobs = {job.key: job for job in config.jobs}

    def pending(failed: Collection[str]) -> list[Task]:
        missing = {key: job for key, job in jobs.items() if key not in failed and work.missing(job)}
        return tasks_of(LayoutWork.make, missing, config.generation.batch_size)

    failed = make_missing(work, pending, stages, "videos", engine=config.engine, workers=config.workers)
    for key, reason in failed.items():
        got = f"{jobs[key].name}: {reason}"
        raise FailureError(f"{counted(len(failed), 'video')} could not be made", got=got, remedy="--resume")


def _provide_profile(config: VBenchRun, folder: Path, stages: Stages) -> None:
    if (folder / PROFILE).is_dir():
        return
    if config.profile is not None:
        EntropyProfile.load(config.profile).save(folder / PROFILE)
    elif config.enhancement.needs_profile:
        pipe, prompts = config.hardware.load(config.model), list(config.prompts[:PROFILE_PROMPTS])
        profile = measure(pipe, prompts, config.generation, seed=config.seed, progress=stages("measuring"))
        profile.save(folder / PROFILE)


def read_results(file: Path) -> Mapping[str, Mapping[str, float]]:
    """VBench's results: dimension -> name of a video -> its value.

    Args:
        file: `NAME_eval_results.json`, dimension -> [mean, [{video_path, video_results}, ...]]; or a folder of such
            files.

    Raises:
        UsageError: a file cannot be read, or is something else; the folder holds none.
    """
    if file.expanduser().is_dir():
        files = sorted(file.expanduser().glob(f"*{RESULTS}"))
        if not files:
            raise UsageError("the folder holds no results of VBench", expected=f"NAME{RESULTS} files", where=file)
        return {dimension: values for each in files for dimension, values in read_results(each).items()}
    causes = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError)
    expected = "dimension -> [mean, [{video_path, video_results}, ...]]"
    with raised_as(UsageError, "this is no result file of VBench", causes, expected=expected, where=file):
        content = json.loads(file.expanduser().read_text(encoding="utf-8"))
        values = {
            dimension: {Path(row["video_path"]).name: float(row["video_results"]) for row in rows}
            for dimension, (_, rows, *_rest) in content.items()
        }
    if not values or not all(values.values()):
        raise UsageError("the result file of VBench holds no video", where=file)
    return values


def summarise_results(file: Path, reference: Path | None = None) -> list[MetricSummary]:
    """Every dimension of a result file, with the paired difference to another one where it is given.

    Every dimension of VBench is better when higher, but its dynamic degree, which only says how much moves.

    Raises:
        UsageError: a file cannot be read, or the two share no video of a dimension.
    """
    ours, theirs = read_results(file), None if reference is None else read_results(reference)
    rows = []
    for dimension, values in ours.items():
        named = dimension, "", "context" if dimension == "dynamic_degree" else "higher"
        if theirs is None:
            rows.append(MetricSummary(*named, len(values), *mean_interval(list(values.values()))))
            continue
        shared = [name for name in values if name in theirs.get(dimension, {})]
        if not shared:
            raise UsageError(f"the two result files share no video of {dimension}", where=f"{file} and {reference}")
        after, before = ([each[name] for name in shared] for each in (values, theirs[dimension]))
        rows.append(MetricSummary.of_pairs(named, after, before))
    return rows
