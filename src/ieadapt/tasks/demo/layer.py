"""The demo's layer: what a video becomes without the attention that carries its motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from diffusers import DiffusionPipeline

from ieadapt.attention import find_sites, intercept
from ieadapt.interventions import Identity
from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.report import Picture, Section, Text
from ieadapt.runs.videos import encode_video, rows_of_frames
from ieadapt.tasks.generate import GenerationConfig, generate
from ieadapt.tasks.measure.profile import EntropyProfile, short_name
from ieadapt.tasks.pairs import PairTask, Video
from ieadapt.testbed import score_scene

LAYER = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn2"
"""Of the sites of `scenes` at which the identity surely costs motion, the one where it costs most.

Surely: its interval in the record `study-scenes` excludes zero.
"""


@dataclass(frozen=True)
class DemoLayer:
    """The videos of the demo with the maps of one site replaced by the identity.

    Attributes:
        site: its number, short name and kind.
        ep: its entropy in per cent.
        before: mean mark of motion of the plain videos, in [0, 1].
        after: of the same videos with the site replaced.
        captions: over how many captions.
        strip: frames of the first one, plain above replaced.
        caption: of that one.
    """

    site: str
    ep: float
    before: float
    after: float
    captions: int
    strip: bytes
    caption: str

    @property
    def sentence(self) -> str:
        """What came out, in words."""
        return (
            f"Without the attention of layer {self.site}, EP {self.ep:.0f} %, the scorer's mark for motion goes from "
            f"{self.before:.2f} to {self.after:.2f} of 1 (mean over {self.captions} captions)."
        )

    def section(self) -> Section:
        """For the demo's report."""
        text = (
            "Every token of this layer looks at itself only (the identity map). Nothing else was changed, and both "
            "start from the same noise. Of the layers that surely carry motion, by the four captions of the recorded "
            "study of this model, this one carries most."
        )
        picture = Picture(self.strip, self.caption, "frames of a plain video above the same without a layer", 560)
        return Section("What one layer carries", [Text(text), picture])


def demo_layer(
    pipe: DiffusionPipeline,
    tasks: Sequence[PairTask],
    plain: Sequence[Video],
    marks: Sequence[float],
    settings: tuple[GenerationConfig, EntropyProfile],
    run: RunFolder,
    stages: Stages = silent,
) -> DemoLayer:
    """Make the videos of the demo without one layer, and write the first of them into the demo's folder.

    Args:
        pipe: the bundled model.
        tasks: captions and seeds.
        plain: their plain videos.
        marks: the marks of motion of these.
        settings: of the videos, and the model's profile.
        run: the folder.
        stages: called as it goes on.
    """
    generation, profile = settings
    site = next(site for site in find_sites(pipe) if site.name == LAYER)
    prompts, seeds = [task.prompt for task in tasks], [task.seed for task in tasks]
    with intercept(pipe, Identity(), [LAYER], guidance="all"):
        replaced = generate(pipe, prompts, generation, seeds, stages("without one layer"))
    scored = [score_scene(clip, text).accuracy.motion for clip, text in zip(replaced, prompts, strict=True)]
    name = f"#{site.order} {short_name(site.name)}"
    strip = rows_of_frames({"plain": plain[0], f"without {name}": replaced[0]})
    run.write("layer/strip.png", strip)
    run.write("layer/without.mp4", encode_video(replaced[0]))
    label = f"{name} ({site.kind})"
    return DemoLayer(label, profile.ep[LAYER], fmean(marks), fmean(scored), len(prompts), strip, tasks[0].caption)
