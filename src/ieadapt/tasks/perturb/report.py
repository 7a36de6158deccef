"""The report of a perturb run: what was replaced, how far the videos moved, and the videos themselves."""

from __future__ import annotations

from collections.abc import Sequence

from ieadapt.runs.folder import RunFolder
from ieadapt.runs.report import Block, Clip, Gallery, Picture, Report, Section, Table
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.measure.run import report_record, sites_table
from ieadapt.tasks.perturb.config import BRANCHES, Perturbed, PerturbResult, PerturbRun

REPORTED = 24
_SHOWN = {
    "psnr": ("PSNR dB", ".1f"),
    "ssim": ("SSIM", ".3f"),
    "flicker_change": ("flicker change", "+.2f"),
    "motion_change": ("motion change", "+.2f"),
}


def perturb_report(asked: PerturbRun, result: PerturbResult, profile: EntropyProfile | None, run: RunFolder) -> Report:
    """What was replaced, what it did, and how to do it again."""
    shown = result.videos[:REPORTED]
    clips = [Clip((run.path / f"{each.name}-side-by-side.mp4").read_bytes(), _told(each)) for each in shown]
    strips: list[Block] = [
        Picture(
            (run.path / f"{each.name}-strip.png").read_bytes(), _told(each), "frames, original above perturbed", 560
        )
        for each in shown
    ]
    more = "" if len(shown) == len(result.videos) else f" (the first {len(shown)} of {len(result.videos)})"
    steps = asked.generation.num_inference_steps
    number = f"{len(asked.prompts)} prompt{'s' if len(asked.prompts) > 1 else ''}"
    return Report(
        title=f"Perturbed with {asked.model}",
        asked=f"{number}, {steps} steps, first seed {asked.seed}.",
        found=describe_perturbed(asked, result),
        sections=[
            Section(f"Original and perturbed{more}", [Gallery(clips)]),
            Section("Frame by frame", strips),
            Section("How far the videos moved", [measures_table(result.videos)]),
            Section("The sites", [sites_table(result.sites, profile)]),
        ],
        repeat={"Command line": str(run.record["command"]), "Python": _python(asked, result)},
        record=report_record(run.record),
    )


def describe_perturbed(asked: PerturbRun, result: PerturbResult) -> list[str]:
    """What was replaced and how far the videos moved, in sentences."""
    kinds = ", ".join(sorted({site.kind for site in result.sites}))
    number = f"{len(result.sites)} attention site{'' if len(result.sites) == 1 else 's'}"
    window = (
        "at every step"
        if (asked.start, asked.stop) == (0, 1)
        else f"from {asked.start:.0%} to {asked.stop:.0%} of the steps"
    )
    sentences = [f"The maps of {number} ({kinds}) became {asked.perturbation}, {window}."]
    likeness = [each.measures["psnr"] for each in result.videos if "psnr" in each.measures]
    if likeness:
        mean = sum(likeness) / len(likeness)
        sentences.append(f"PSNR to the original: {mean:.1f} dB" + (" on average." if len(likeness) > 1 else "."))
    sentences.append("Both start from the same noise. A few videos show what can happen, not what happens on average.")
    return sentences


def measures_table(videos: Sequence[Perturbed]) -> Table:
    """One row per prompt: the perturbed video against its original."""
    present = [name for name in _SHOWN if any(name in each.measures for each in videos)]
    rows = [[str(each.seed), each.prompt, *(_cell(each, name) for name in present)] for each in videos]
    caption = (
        "PSNR and SSIM: higher is closer to the original. Changes are perturbed less original; flicker in "
        "255ths, motion in pixels."
    )
    return Table(
        ("seed", "prompt", *(_SHOWN[name][0] for name in present)), rows, caption, (0, *range(2, 2 + len(present)))
    )


def _cell(each: Perturbed, name: str) -> str:
    return format(each.measures[name], _SHOWN[name][1]) if name in each.measures else "–"


def _told(each: Perturbed) -> str:
    return f"{each.prompt} (seed {each.seed})"


def _python(asked: PerturbRun, result: PerturbResult) -> str:
    """The lines that make the perturbed videos again."""
    seeds = [each.seed for each in result.videos]
    where = f'sites, ({asked.start}, {asked.stop}), guidance="{BRANCHES[asked.branch]}"'
    return (
        "import ieadapt\nfrom ieadapt.interventions import parse_perturbation\n\n"
        f'pipe = ieadapt.load("{asked.model}")\nsites = {[site.name for site in result.sites]}\n'
        f'change = parse_perturbation("{asked.perturbation}", scope="{asked.scope}")\n'
        f"with ieadapt.intercept(pipe, change, {where}):\n"
        f"    videos = ieadapt.generate(pipe, {list(asked.prompts)}, ieadapt.{asked.generation}, {seeds})"
    )
