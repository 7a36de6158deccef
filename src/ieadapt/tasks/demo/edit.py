"""The demo's edit: one rendered clip with a known perfect edit, edited and marked."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import DiffusionPipeline

from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.report import Block, Clip, Gallery, Picture, Section, Text
from ieadapt.runs.videos import encode_video, side_by_side
from ieadapt.tasks.edit.marks import EditMarks, mark_edit
from ieadapt.tasks.edit.method import edit
from ieadapt.tasks.edit.pictures import rows_of_frames
from ieadapt.tasks.generate import GenerationConfig
from ieadapt.testbed.edits import EditPair, edit_pairs

KIND = "colour"
STEPS = 6


@dataclass(frozen=True)
class DemoEdit:
    """What the demo's edit found.

    Attributes:
        pair: source and target.
        marks: of the edit.
        copy: of the source itself, taken for the edit.
        psnr: of the reconstruction to the source, dB.
        clip: source, reconstruction, edit and perfect edit side by side.
        strip: the same frame by frame.
    """

    pair: EditPair
    marks: EditMarks
    copy: EditMarks
    psnr: float
    clip: Clip
    strip: bytes

    def sentences(self) -> list[str]:
        """What came out, in words."""
        return [
            f"Edited with the default settings: “{self.pair.source_prompt}” into “{self.pair.prompt}”. The "
            f"reconstruction of the source has {self.psnr:.1f} dB.",
            f"The edit has {self.marks.psnr:.1f} dB to the perfect edit, where a copy of the source has "
            f"{self.copy.psnr:.1f} dB, and {self.marks.kept:.1f} dB where nothing should change. The new "
            f"{self.pair.kind} is {'read' if self.marks.success else 'not read'} by the scorer.",
        ]

    def section(self) -> Section:
        """For the demo's report."""
        words = " ".join(self.sentences()) + " One edit settles nothing about the method; the benchmark's table does."
        picture = Picture(self.strip, self.clip.caption, f"frames of source and edit: {self.clip.caption}", 560)
        blocks: list[Block] = [Text(words), Gallery([self.clip]), picture]
        return Section("One edit", blocks)


def demo_edit(pipe: DiffusionPipeline, run: RunFolder, stages: Stages = silent) -> DemoEdit:
    """Edit one clip in a few steps, and write it into the demo's folder."""
    pair = edit_pairs(1, [KIND])[0]
    result = edit(
        pipe,
        pair.source_frames,
        pair.prompt,
        source_prompt=pair.source_prompt,
        generation=GenerationConfig(num_inference_steps=STEPS),
        progress=stages("editing"),
    )
    edited = result.edited[0]
    clips = {
        "source": result.source,
        "reconstruction": result.reconstruction,
        "edit": edited,
        "perfect edit": pair.perfect,
    }
    joined, strip = encode_video(side_by_side(clips)), rows_of_frames(clips)
    for name, content in {"source.mp4": encode_video(result.source), "edited.mp4": encode_video(edited)}.items():
        run.write(f"edit/{name}", content)
    run.write("edit/side-by-side.mp4", joined)
    run.write("edit/strip.png", strip)
    return DemoEdit(
        pair=pair,
        marks=mark_edit(edited, pair),
        copy=mark_edit(pair.source_frames, pair),
        psnr=result.inversion.psnr,
        clip=Clip(joined, f"{pair.source_prompt} → {pair.prompt}"),
        strip=strip,
    )
