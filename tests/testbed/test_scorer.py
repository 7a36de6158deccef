import time
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ieadapt.errors import UsageError
from ieadapt.testbed.captions import caption
from ieadapt.testbed.render import render
from ieadapt.testbed.scenes import ATTRIBUTES, MOTIONS, ROUND, SHAPES, Scene, sample_scenes
from ieadapt.testbed.scorer import COMPONENTS, Score, score

SCENE = Scene("big", "red", "star", "left", "bricks", position=(0.5, 0.48), angle=0.1, shift=0.2)


@lru_cache(maxsize=1)
def clip() -> Tensor:
    return render(SCENE)


@pytest.mark.parametrize("scene", sample_scenes(16, 21, "all"), ids=caption)
def test_rendered_clip_scores_for_its_own_caption(scene: Scene) -> None:
    found = score(render(scene), caption(scene))
    assert found.fidelity > 0.95
    assert min(getattr(found, name) for name in COMPONENTS) > 0.9
    assert found.iou > 0.9
    assert found.fit > 35
    assert found.flicker < 0.01
    assert found.sharpness == pytest.approx(1, abs=0.1)


def other_values() -> list[tuple[Scene, str, str]]:
    """Every value of every attribute against every other, each pair once, on changing scenes."""
    cases = []
    for index, (name, known) in enumerate(ATTRIBUTES.items()):
        for true in known:
            for wrong in known:
                scene = sample_scenes(1, len(cases) + 100 * index, "all")[0].replace(shape="cross")
                scene = scene.replace(**{name: true}, angle=0.1, position=(0.5, 0.5))
                impossible = scene.motion == "spinning" and wrong in ROUND
                if true != wrong and not (impossible or (true in ROUND and scene.motion == "spinning")):
                    cases.append((scene, name, wrong))
    return cases


def drops(cases: list[tuple[Scene, str, str]]) -> list[str]:
    """The cases in which a wrong attribute costs too little."""
    failed = []
    for scene, name, wrong in cases:
        frames = render(scene)
        right, other = score(frames, scene), score(frames, scene.replace(**{name: wrong}))
        drop = getattr(right, name) - getattr(other, name)
        if drop <= 0.5:
            failed.append(f"{caption(scene)}, {name} {wrong}: {drop:.2f}")
    return failed


@pytest.mark.slow
def test_changing_one_attribute_drops_its_component() -> None:
    assert drops(other_values()[::7]) == []


@pytest.mark.slow
def test_changing_any_attribute_to_any_value_drops_its_component() -> None:
    assert drops(other_values()) == []


def blurred(width: float) -> Tensor:
    steps = torch.arange(-9, 10)
    weight = torch.exp(-(steps**2) / (2 * width**2))
    weight = (weight / weight.sum()).expand(3, 1, 1, -1)
    once = F.conv2d(F.pad(clip(), (9, 9, 0, 0), mode="replicate"), weight, groups=3)
    return F.conv2d(F.pad(once, (0, 0, 9, 9), mode="replicate"), weight.transpose(2, 3), groups=3)


def noisy(amount: float) -> Tensor:
    return clip() + amount * torch.randn(clip().shape, generator=torch.Generator().manual_seed(0))


def shuffled(share: float) -> Tensor:
    """The first frames of the clip in another order, more of them for a larger share."""
    count = round(share * 16)
    return clip()[[*torch.randperm(count, generator=torch.Generator().manual_seed(3)).tolist(), *range(count, 16)]]


def jittery(pixels: float) -> Tensor:
    """The object moved off its track by some pixels, to and fro."""
    path = [SCENE.replace(position=(0.5, 0.48 + (-1) ** frame * pixels / 128)) for frame in range(16)]
    return torch.stack([render(scene)[frame] for frame, scene in enumerate(path)])


def flickering(amount: float) -> Tensor:
    return clip() + amount * torch.randn(16, 1, 1, 1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("measure", "sign", "damage", "amounts"),
    [
        ("sharpness", -1, blurred, (0.7, 1.5, 3.0)),
        ("fit", -1, blurred, (0.7, 1.5, 3.0)),
        ("fit", -1, noisy, (0.02, 0.08, 0.2)),
        ("iou", -1, noisy, (0.08, 0.2, 0.4)),
        ("motion", -1, shuffled, (0.4, 0.7, 1.0)),
        ("jitter", 1, shuffled, (0.4, 0.7, 1.0)),
        ("jitter", 1, jittery, (0.5, 1.5, 4.0)),
        ("flicker", 1, flickering, (0.005, 0.02, 0.06)),
        ("flicker", 1, noisy, (0.02, 0.08, 0.2)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damage_moves_its_measure(measure: str, sign: int, damage: object, amounts: tuple[float, ...]) -> None:
    values = [getattr(score(clip(), SCENE), measure)]
    values += [getattr(score(damage(amount), SCENE), measure) for amount in amounts]  # type: ignore[operator]
    assert all(sign * (after - before) > 0 for before, after in pairwise(values)), values


def test_overlap_alone_does_not_decide_the_shape() -> None:
    ball = render(Scene("big", "blue", "ball", "left", "checks"))
    found = score(ball, "a big blue square moving left over checks")
    assert found.iou > 0.8
    assert found.shape < 0.1


def test_still_clip_has_no_motion() -> None:
    frames = clip()[:1].expand(16, -1, -1, -1)
    assert all(score(frames, SCENE.replace(motion=motion)).motion < 0.3 for motion in MOTIONS)


def test_clip_without_object_and_noise_score_low() -> None:
    empty = render(SCENE.replace(position=(5.0, 5.0)))
    found = score(empty, SCENE)
    assert found.colour == 0
    assert found.motion < 0.3
    assert found.background > 0.95
    assert score(torch.rand(16, 3, 128, 128), SCENE).fidelity < 0.5


def test_measures_are_numbers_in_range() -> None:
    found = score(noisy(0.1), caption(SCENE))
    assert isinstance(found, Score)
    values = found.as_dict()
    assert all(0 <= values[name] <= 1 for name in (*COMPONENTS, "fidelity", "iou"))
    assert values["fidelity"] == pytest.approx(sum(values[name] for name in COMPONENTS) / 5)


def test_scene_and_caption_score_alike() -> None:
    assert score(clip(), SCENE) == score(clip(), caption(SCENE))


def test_wrong_frames_and_captions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"not a clip.*got \(16, 3, 64, 64\)"):
        score(torch.zeros(16, 3, 64, 64), SCENE)
    with pytest.raises(UsageError, match="not a caption"):
        score(clip(), "a dog")


def test_scoring_is_fast() -> None:
    score(clip(), SCENE)
    began = time.perf_counter()
    score(clip(), SCENE)
    assert time.perf_counter() - began < 2.0  # about 0.15 s on an idle machine


@pytest.mark.slow
def test_shapes_are_all_told_apart_when_small() -> None:
    for shape in SHAPES:
        frames = render(SCENE.replace(shape=shape, size="small", motion="up"))
        marks = {other: score(frames, SCENE.replace(shape=other, size="small", motion="up")).shape for other in SHAPES}
        assert marks.pop(shape) > 0.95
        assert max(marks.values()) < 0.3
