"""The maps run: attention maps of one site in a run folder, as pictures, numbers and a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ieadapt.runs.folder import Stages, silent
from ieadapt.runs.pipelines import Load, open_model_run
from ieadapt.runs.report import Block, Clip, Gallery, Picture, Report, Section, Text, write_report
from ieadapt.runs.settings import Hardware
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.maps.config import MapsRun
from ieadapt.tasks.maps.method import attention_maps
from ieadapt.tasks.maps.result import AttentionMaps
from ieadapt.tasks.measure.run import report_record

NAMED_WORDS = 3
CAPTIONS = {
    "looks": "Where the weight lies. Each row of maps has its own scale, from 0 to its largest weight.",
    "frames": "Between frames: each row of a map is a frame that looks, each column a frame that is looked at.",
    "words": "Weight on each word of the prompt.",
}
MEANING = {
    "spatial": "Spatial attention looks within a frame: the weights of a frame sum to 1.",
    "temporal": "Temporal attention looks along time at one position: at every position the weights of all frames sum "
    "to 1. Each map shows, position by position, the weight on that frame.",
    "joint": "Joint attention looks at all video tokens and, where the model joins them, at the text: together the "
    "weights sum to 1.",
    "cross": "Cross-attention looks from the video at the words: at every video token the weights of all words and "
    "other text tokens sum to 1. Each map shows how much the video tokens look at that word.",
    "text": "Text attention looks from text at text: the weights sum to 1.",
}


def run_maps(
    config: MapsRun,
    out: str | Path,
    *,
    overwrite: bool = False,
    stages: Stages = silent,
    load: Load = Hardware.load,
) -> AttentionMaps:
    """Draw the maps of one site and write pictures, numbers, video and report into a run folder.

    Args:
        config: model, prompt, site and settings.
        out: the run folder.
        overwrite: replace an earlier run in it.
        stages: gets the name of each stage as it begins, and how far it is.
        load: how the run comes by its pipeline; by default it loads one.

    Raises:
        UsageError: the config does not fit the model, or the folder cannot be used.
        FailureError: the run could not be carried out.
    """
    config = config.with_model_defaults()
    with open_model_run("maps", config, out, overwrite=overwrite, load=load) as (run, pipe):
        run.note(seeds=[config.seed])
        maps = attention_maps(
            pipe,
            config.prompts[0],
            str(config.site),
            config.generation,
            steps=config.step_numbers,
            query=config.token,  # type: ignore[arg-type]
            head=config.head,
            seed=config.seed,
            progress=stages("looking"),
        )
        run.note(sites=[maps.site.name], looked_at=list(maps.steps))
        run.write("maps.npz", maps.npz())
        clip = encode_video(maps.clip)
        run.write("video.mp4", clip)
        pictures = maps.pictures(config.threshold)
        for name, picture in pictures.items():
            run.write(f"{name}.png", picture)
        write_report(run, _report(config, maps, pictures, clip, run.record))
    return maps


def map_blocks(maps: AttentionMaps, pictures: dict[str, bytes]) -> list[Block]:
    """How to read the maps of this kind of site, and the pictures of them."""
    blocks: list[Block] = [Text(f"{maps.site.name}. {MEANING[maps.site.kind]}")]
    for name, picture in pictures.items():
        step = name.removeprefix("words-step-")
        caption = CAPTIONS.get(name, f"Step {step}: how much the video looks at each word; its mean share below it.")
        blocks.append(Picture(picture, caption, f"heat maps of {maps.site.name}: {caption}", 560))
    return blocks


def _report(config: MapsRun, maps: AttentionMaps, pictures: dict[str, bytes], clip: bytes, record: dict) -> Report:
    who = "the mean over all tokens" if maps.query is None else f"the token {maps.query} (frame, row, column)"
    query, first = None if maps.query is None else tuple(maps.query), next(iter(pictures))
    python = (
        f'import ieadapt\n\npipe = ieadapt.load("{config.model}")\nmaps = ieadapt.attention_maps(\n    pipe,\n'
        f'    {maps.prompt!r},\n    "{maps.site.name}",\n    ieadapt.{config.generation},\n'
        f"    steps={maps.steps},\n    query={query},\n    head={maps.head},\n    seed={maps.seed},\n)\n"
        f'maps.figures({config.threshold})["{first}"].savefig("{first}.png")'
    )
    return Report(
        title=f"Attention maps of {maps.site.name}",
        request=f"{maps.site.kind} attention of {config.model}, {who}; “{maps.prompt}”, seed {maps.seed}.",
        results=describe_maps(maps),
        sections=[
            Section("Where tokens look", map_blocks(maps, pictures)),
            Section("The video", [Gallery([Clip(clip, maps.prompt)])]),
        ],
        repeat={"Command line": str(record["command"]), "Python": python},
        record=report_record(record),
    )


def describe_maps(maps: AttentionMaps) -> list[str]:
    """One sentence per step, and one on how to read them; shares are of the attention weight.

    Args:
        maps: of any kind of site.
    """
    describe = {"spatial": _spatial, "temporal": _temporal, "joint": _joint, "cross": _words, "text": _words}
    sentences = [f"Step {step}: {describe[maps.site.kind](maps, index)}" for index, step in enumerate(maps.steps)]
    heads = "the mean over heads" if maps.head is None else f"head {maps.head}"
    return [*sentences, f"All shares are of {heads}, in the branch of the prompt, from one video with one seed."]


def _spatial(maps: AttentionMaps, index: int) -> str:
    video = maps.part("video")[index]
    tokens = video[0].size
    if maps.query is None:
        frame, row, column = np.unravel_index(video.argmax(), video.shape)
        return (
            f"the most looked-at token of all frames is row {row}, column {column} of frame {frame}, with "
            f"{tokens * video.max():.1f} times the share of a uniform map."
        )
    rows, columns = np.indices(video[0].shape)
    near = (abs(rows - maps.query.row) <= 2) & (abs(columns - maps.query.column) <= 2)
    return (
        f"the token gives itself {_percent(video[0, maps.query.row, maps.query.column])}, its neighbours up to two "
        f"tokens away {_percent(video[0][near].sum())} (a uniform map: {_percent(1 / tokens)} and "
        f"{_percent(near.sum() / tokens)})."
    )


def _temporal(maps: AttentionMaps, index: int) -> str:
    frames = maps.frames
    if maps.query is None:
        between = maps.part("frames")[index]
        return _own_frame("tokens give their", float(np.diag(between).mean()), between.shape[0]) + "."
    weights = maps.part("video")[index][:, maps.query.row, maps.query.column]
    furthest = int(weights.argmax())
    return (
        f"{_own_frame('the token gives its', float(weights[maps.query.frame]), frames)}; most to frame {furthest} "
        f"({_percent(weights[furthest])})."
    )


def _joint(maps: AttentionMaps, index: int) -> str:
    video = maps.part("video")[index]
    text = "" if "words" not in maps.weights else f", {_percent(maps.part('words')[index].sum())} to text"
    if maps.query is None:
        own = float(np.diag(maps.part("frames")[index]).mean())
        return f"{_own_frame('video tokens give their', own, maps.frames)}{text}."
    own = float(video[maps.query.frame].sum())
    same = float(video[:, maps.query.row, maps.query.column].sum())
    position = f", {_percent(same)} to its own position over all frames"
    return f"{_own_frame('the token gives its', own, maps.frames)}{position}{text}."


def _own_frame(who: str, share: float, frames: int) -> str:
    return f"{who} own frame {_percent(share)} of the weight (a uniform map: {_percent(1 / frames)})"


def _words(maps: AttentionMaps, index: int) -> str:
    shares = maps.part("words")[index]
    order = np.argsort(-shares[:-1])[:NAMED_WORDS]
    named = ", ".join(f"“{maps.words.words[at]}” {_percent(shares[at])}" for at in order)
    return f"of the words most weight goes to {named}; start, end and padding tokens take {_percent(shares[-1])}."


def _percent(share: float | np.floating) -> str:
    return f"{100 * share:.1f} %"
