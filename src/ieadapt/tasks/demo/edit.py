"""The demo's edit: one rendered clip with a known perfect edit, edited and scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor

from ieadapt.metrics.structure import psnr, region_psnr, ssim
from ieadapt.runs.folder import RunFolder, Stages, silent
from ieadapt.runs.report import Block, Clip, Gallery, Picture, Section, Text
from ieadapt.runs.settings import GenerationConfig
from ieadapt.runs.videos import encode_video, rows_of_frames, side_by_side
from ieadapt.tasks.edit.method import EditResult, edit
from ieadapt.testbed.edits import EditPair, edit_pairs, kept_region
from ieadapt.testbed.rendering import render
from ieadapt.testbed.score import COMPONENTS, Seen, accuracy_of, checked_clip, look_at

KIND, STEPS = "colour", 6
PAIR = 20
"""Number of the edited pair: of thirteen it is in the middle, by the record `demo-edit`."""
READ = 0.5
"""The mark from which a change counts as seen."""
SEEN_BY = {"colour": "binding"}
"""The component that sees a change, where it has another name than the kind of edit."""


@dataclass(frozen=True)
class EditScores:
    """How good an edit is; higher is better in every one.

    Attributes:
        psnr: to the perfect edit, dB.
        ssim: to the perfect edit, in [-1, 1].
        kept: PSNR in the region that the perfect edit leaves as it is, dB.
        change: the mark of what was changed, of the changed object alone, in [0, 1]; of an order of depth, how much
            nearer the clip is to the perfect edit than to the source.
        success: 1 where that is 0.5 or more: the new value is seen; else 0.
        preserved: mean mark of the other components of accuracy, in [0, 1].
    """

    psnr: float
    ssim: float
    kept: float
    change: float
    success: float
    preserved: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


def score_edit(frames: Float[Tensor, "frame channel height width"], pair: EditPair) -> EditScores:
    """Score an edited clip of a pair.

    No sentence says how a new background lies. A clip whose background is edited is therefore held against the perfect
    edit with the layout that fits it best.

    Args:
        frames: the edit, in [0, 1].
        pair: what was to be changed.

    Raises:
        UsageError: frames of another shape than the pair's.

    Example:
        >>> from ieadapt.testbed.edits import edit_pairs
        >>> pair = edit_pairs(1, ["colour"])[0]
        >>> scores = score_edit(pair.perfect, pair)
        >>> scores.psnr, scores.success
        (100.0, 1.0)
    """
    seen = look_at(checked_clip(frames)[None])[0]
    source, perfect = pair.source_frames, _fitting_perfect(frames, pair, seen)
    named, kept = SEEN_BY.get(pair.kind, pair.kind), kept_region(source, perfect)
    # the changed object by itself, so that the marks of the others do not stand for it
    changed = pair.target if pair.object is None else pair.target.replace(order=(pair.object,))
    change = (
        _nearness(frames, source, perfect, ~kept) if named == "order" else getattr(accuracy_of(seen, changed), named)
    )
    whole = accuracy_of(seen, pair.target)
    others = [getattr(whole, name) for name in COMPONENTS if name != named]
    return EditScores(
        psnr=psnr(frames, perfect),
        ssim=ssim(frames, perfect),
        kept=region_psnr(frames, perfect, kept),
        change=change,
        success=float(change >= READ),
        preserved=sum(others) / len(others),
    )


def _nearness(frames: Tensor, source: Tensor, perfect: Tensor, region: Tensor) -> float:
    """Where a clip lies between source (0) and perfect edit (1), by squared error over some pixels.

    No caption says who is in front in a way that the components of accuracy see.
    """
    before, after = ((frames - other).square().mean(1)[region].mean() for other in (source, perfect))
    return float(before / (before + after).clamp(min=1e-12))


def _fitting_perfect(
    frames: Float[Tensor, "frame channel height width"], pair: EditPair, seen: Seen
) -> Float[Tensor, "frame channel height width"]:
    """The perfect edit; where the background is new, with the layout that fits the clip best."""
    perfect = pair.perfect
    if pair.kind != "background":
        return perfect
    placed = seen.patterns[pair.target.background]
    fitted = render(pair.target.replace(variation=placed.within(pair.target.variation)))
    errors = [float((clip - frames).square().mean()) for clip in (fitted, perfect)]
    return fitted if errors[0] < errors[1] else perfect


@dataclass(frozen=True)
class DemoEdit:
    """The result of the demo's edit.

    Attributes:
        pair: source and target.
        scores: of the edit.
        copy: of the source itself, taken for the edit.
        clip: source, edit and perfect edit side by side.
        strip: the same frame by frame.
    """

    pair: EditPair
    scores: EditScores
    copy: EditScores
    clip: Clip
    strip: bytes

    def sentences(self) -> list[str]:
        """What came out, in words."""
        read = "read" if self.scores.success else "not read"
        objects = [scene.objects[self.pair.object or 0] for scene in (self.pair.source, self.pair.target)]
        before, after = (getattr(each, self.pair.kind) for each in objects)
        return [
            f"Edited by its prompt, a {objects[0].shape} from {before} to {after}: the new {self.pair.kind} is {read} "
            f"by the scorer. {self.scores.psnr:.1f} dB to the perfect edit (the source itself: {self.copy.psnr:.1f}), "
            f"{self.scores.kept:.1f} dB where nothing should change."
        ]

    def section(self) -> Section:
        """For the demo's report."""
        text = (
            f"“{self.pair.source_prompt}” to “{self.pair.prompt}”, with the default settings in {STEPS} steps. It is "
            "in the middle of thirteen such edits by closeness to the perfect one, which the test bed knows."
        )
        picture = Picture(self.strip, self.clip.caption, f"frames of source and edit: {self.clip.caption}", 560)
        blocks: list[Block] = [Text(text), picture, Gallery([self.clip])]
        return Section("One edit", blocks)


def default_edit(pipe: DiffusionPipeline, pair: EditPair, stages: Stages = silent) -> EditResult:
    """A pair edited as the demo does it."""
    return edit(
        pipe,
        pair.source_frames,
        pair.prompt,
        source_prompt=pair.source_prompt,
        generation=GenerationConfig(num_inference_steps=STEPS),
        progress=stages("editing"),
    )


def demo_edit(pipe: DiffusionPipeline, run: RunFolder, stages: Stages = silent) -> DemoEdit:
    """Edit one clip in a few steps, and write it into the demo's folder."""
    pair = edit_pairs(PAIR + 1, [KIND])[PAIR]
    result = default_edit(pipe, pair, stages)
    edited = result.edited[0]
    clips = {"source": result.source, "edit": edited, "perfect edit": pair.perfect}
    joined, strip = encode_video(side_by_side(clips)), rows_of_frames(clips)
    for name, content in {"source.mp4": encode_video(result.source), "edited.mp4": encode_video(edited)}.items():
        run.write(f"edit/{name}", content)
    run.write("edit/side-by-side.mp4", joined)
    run.write("edit/strip.png", strip)
    return DemoEdit(
        pair=pair,
        scores=score_edit(edited, pair),
        copy=score_edit(pair.source_frames, pair),
        clip=Clip(joined, f"{pair.source_prompt} → {pair.prompt}"),
        strip=strip,
    )
