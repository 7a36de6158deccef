"""Attention maps of every kind of site, in every family, against dense maps of the same run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ieadapt.attention import AttentionCall, AttentionSite, find_sites, intercept
from ieadapt.errors import UsageError
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.maps.method import attention_maps, checked_steps
from ieadapt.tasks.maps.record import OTHER, prompt_words
from ieadapt.tasks.maps.result import AttentionMaps
from tests.families import every_family, tiny_pipeline
from tests.interventions.dense_maps import dense_logits
from tests.tiny import call_arguments

PROMPT = "a red-ish ball"
STEPS = (0, 2)
QUERY = (1, 1, 2)
CASES = [
    ("animatediff", "spatial"),
    ("animatediff", "temporal"),
    ("animatediff", "cross"),
    ("modelscope", "temporal"),
    ("cogvideox", "joint"),
    ("wan", "joint"),
    ("wan", "cross"),
    ("hunyuanvideo", "joint"),
    ("hunyuanvideo", "text"),
    ("ltx", "joint"),
    ("ltx", "cross"),
    ("mochi", "joint"),
]


def settings(family: str) -> GenerationConfig:
    sizes = {name: value for name, value in call_arguments(family).items() if name in {"height", "width", "num_frames"}}
    return GenerationConfig(num_inference_steps=3, **sizes)


def site_of(family: str, kind: str) -> AttentionSite:
    return [site for site in find_sites(tiny_pipeline(family)) if site.kind == kind][-1]


def both(family: str, kind: str, **options: Any) -> tuple[AttentionMaps, list[Tensor], AttentionCall]:
    """The maps, the dense maps of the prompt's rows at the requested steps, and the last of these calls."""
    calls: list[AttentionCall] = []

    def keep(call: AttentionCall) -> None:
        if call.rows.denoiser_rows(("cond",)) and call.step in STEPS:
            calls.append(call)

    site, pipe = site_of(family, kind), tiny_pipeline(family)
    with intercept(pipe, keep, [site]):
        maps = attention_maps(pipe, PROMPT, site, settings(family), steps=STEPS, memory_limit=2**16, **options)
    assert len(calls) == len(STEPS)
    rows = [call.rows.index(call.rows.denoiser_rows(("cond",))) for call in calls]
    dense = [dense_logits(call)[index].softmax(-1) for call, index in zip(calls, rows, strict=True)]
    return maps, dense, calls[-1]


def same(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found), expected.float(), atol=1e-5, rtol=1e-4)


def part(maps: AttentionMaps, name: str) -> Any:
    return maps.part(name)


def test_a_spatial_token_looks_at_its_own_frame() -> None:
    maps, dense, call = both("animatediff", "spatial", query=QUERY)
    layout = call.layout
    assert layout is not None
    for index, whole in enumerate(dense):
        row = whole[1, :, 1 * layout.width + 2].mean(0)
        same(part(maps, "video")[index, 0], row.view(layout.height, layout.width))
    assert maps.first_frame == 1


def test_the_mean_of_a_spatial_site_is_per_frame() -> None:
    maps, dense, call = both("animatediff", "spatial")
    assert call.layout is not None
    for index, whole in enumerate(dense):
        same(part(maps, "video")[index], whole.mean((1, 2)).unflatten(-1, (call.layout.height, call.layout.width)))


@pytest.mark.parametrize("family", ["animatediff", "modelscope"])
def test_a_temporal_token_looks_at_frames_from_every_position(family: str) -> None:
    maps, dense, _ = both(family, "temporal", query=QUERY)
    found = part(maps, "video")
    for index, whole in enumerate(dense):
        rows = whole[:, :, 1].mean(1)  # position, frame
        for row, column in ((1, 2), (0, 0)):
            same(found[index][:, row, column], rows[row * found.shape[-1] + column])


@pytest.mark.parametrize("head", [None, 1])
def test_the_mean_of_a_temporal_site_also_goes_between_frames(head: int | None) -> None:
    maps, dense, _ = both("animatediff", "temporal", head=head)
    heads = slice(None) if head is None else slice(head, head + 1)
    for index, whole in enumerate(dense):
        same(part(maps, "frames")[index], whole[:, heads].mean((0, 1)))
        same(part(maps, "video")[index].reshape(whole.shape[-1], -1).T, whole[:, heads].mean((1, 2)))


def words_of(family: str, keys: int) -> Tensor:
    return prompt_words(tiny_pipeline(family), PROMPT).groups(keys).double()


@pytest.mark.parametrize("family", ["cogvideox", "wan", "hunyuanvideo", "ltx", "mochi"])
def test_a_joint_token_looks_at_video_and_text(family: str) -> None:
    maps, dense, call = both(family, "joint", query=QUERY)
    layout = call.layout
    assert layout is not None
    at = layout.start + [tuple(place) for place in layout.coordinates().tolist()].index(QUERY)
    for index, whole in enumerate(dense):
        row = whole[0, :, at].mean(0)
        looked = row[layout.video.slice]
        same(part(maps, "video")[index], looked.view(layout.frames, layout.height, layout.width))
        if layout.text:
            text = row[: layout.start] if layout.start else row[layout.video.stop :]
            same(part(maps, "words")[index], text @ words_of(family, layout.text))
            assert part(maps, "words")[index].sum() + part(maps, "video")[index].sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("family", ["cogvideox", "wan", "hunyuanvideo", "mochi"])
def test_the_mean_of_a_joint_site_has_frames_and_words(family: str) -> None:
    maps, dense, call = both(family, "joint")
    layout = call.layout
    assert layout is not None
    shape = (layout.frames, layout.height, layout.width)
    for index, whole in enumerate(dense):
        rows = whole[0].mean(0)[layout.video.slice]
        same(part(maps, "video")[index], rows.mean(0)[layout.video.slice].view(shape))
        per_frame = rows[:, layout.video.slice].unflatten(0, (layout.frames, -1)).mean(1)
        same(part(maps, "frames")[index], per_frame.unflatten(1, (layout.frames, -1)).sum(-1))
        if layout.text:
            text = rows[:, : layout.start] if layout.start else rows[:, layout.video.stop :]
            maps_of_words = (text @ words_of(family, layout.text)).T.unflatten(1, shape)
            same(part(maps, "word_maps")[index], maps_of_words)


@pytest.mark.parametrize("family", ["animatediff", "wan", "ltx"])
def test_cross_attention_is_shown_per_word(family: str) -> None:
    maps, dense, _ = both(family, "cross")
    assert maps.words.labels == ("a", "red-ish", "ball", OTHER)
    for index, whole in enumerate(dense):
        found = part(maps, "word_maps")[index]
        expected = (whole.mean(1) @ words_of(family, whole.shape[-1])).flatten(0, 1).T
        same(found.reshape(4, -1), expected)
        same(part(maps, "words")[index], expected.mean(1))


def test_text_attention_is_a_mean_over_the_words() -> None:
    maps, dense, _ = both("hunyuanvideo", "text")
    tokens = [token for word in maps.words.tokens for token in word]
    for index, whole in enumerate(dense):
        same(part(maps, "words")[index], whole[0].mean(0)[tokens].mean(0) @ words_of("hunyuanvideo", whole.shape[-1]))


@every_family
def test_word_tokens_are_those_that_the_text_encoder_saw(family: str) -> None:
    pipe, seen = tiny_pipeline(family), []
    hook = pipe.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["input_ids"]), with_kwargs=True
    )
    try:
        attention_maps(pipe, PROMPT, find_sites(pipe)[0], settings(family), steps=[0])
    finally:
        hook.remove()
    words = prompt_words(pipe, PROMPT)
    offset = 95 if family == "hunyuanvideo" else 0
    ids = next(ids[0, offset:] for ids in seen if pipe.tokenizer.decode(ids[0]).replace(" ", "").count("red-ish"))
    decoded = [pipe.tokenizer.decode(ids[list(tokens)]).replace(" ", "") for tokens in words.tokens]
    assert decoded == ["a", "red-ish", "ball"]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_pictures_of_every_kind(family: str, kind: str) -> None:
    joint = kind == "joint" and family in {"cogvideox", "hunyuanvideo", "mochi"}
    mean = both(family, kind)[0].figures(threshold=0.5)
    words = {"words-step-0", "words-step-2"}
    between = {"looks", "frames"}
    assert (
        set(mean)
        == {
            "spatial": {"looks"},
            "temporal": between,
            "joint": between | words if joint else between,
            "cross": words,
            "text": {"words"},
        }[kind]
    )
    if kind not in {"cross", "text"}:
        of_query = both(family, kind, query=QUERY)[0].figures()
        assert set(of_query) == ({"looks", "words"} if joint else {"looks"})


@pytest.mark.parametrize("query", [(5, 0, 0), (0, 4, 0), (0, 0, 6), (-1, 0, 0)])
@pytest.mark.parametrize(("family", "kind"), [("animatediff", "spatial"), ("animatediff", "temporal")])
def test_a_query_outside_the_grid_says_the_grid(family: str, kind: str, query: tuple[int, int, int]) -> None:
    site = next(site for site in find_sites(tiny_pipeline(family)) if site.kind == kind)
    with pytest.raises(UsageError, match=r"outside this site's grid; expected FRAME,ROW,COL within .*5 frames"):
        attention_maps(tiny_pipeline(family), PROMPT, site, settings(family), query=query)


def test_a_query_outside_a_joint_grid_says_the_grid() -> None:
    with pytest.raises(UsageError, match=r"within 3 frames x 4 rows x 6 columns, counted from 0; got 3,0,0"):
        attention_maps(tiny_pipeline("wan"), PROMPT, "blocks.0.attn1", settings("wan"), query=(3, 0, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": "blocks.0.attn9"}, r"matches no attention site; expected a name or pattern such as blocks\.0\.attn"),
        ({"site": "joint"}, r"maps are drawn for one site; got 2: blocks\.0\.attn1, blocks\.1\.attn1"),
        ({"site": "blocks.0.attn1", "steps": [0, 3]}, r"a step outside the run; expected steps within 0\.\.2; got 3"),
        ({"site": "blocks.0.attn1", "steps": []}, "no step to look at"),
        ({"site": "blocks.0.attn1", "head": 2}, r"no such head; expected 0\.\.1; got 2"),
        ({"site": "blocks.0.attn2", "query": QUERY}, "a query on a cross attention site: .* every word"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attention_maps(tiny_pipeline("wan"), PROMPT, config=settings("wan"), **options)


def test_a_part_that_the_kind_has_not_is_refused() -> None:
    maps, _, _ = both("wan", "joint")
    with pytest.raises(UsageError, match="joint maps have no such part; expected video, frames; got words"):
        maps.part("words")


def test_steps_are_sorted_and_counted_once() -> None:
    assert checked_steps([2, 0, 2], 3) == (0, 2)
    assert checked_steps(None, 1) == (0,)


def test_the_numbers_are_kept() -> None:
    import io

    import numpy as np

    maps, _, _ = both("cogvideox", "joint")
    with np.load(io.BytesIO(maps.npz())) as kept:
        assert kept["steps"].tolist() == [0, 2]
        assert kept["words"].tolist() == list(maps.words.labels)
        assert np.array_equal(kept["weights_word_maps"], part(maps, "word_maps"))
        assert set(kept) == {
            "steps",
            "words",
            *(f"weights_{name}" for name in ("video", "frames", "words", "word_maps")),
        }
