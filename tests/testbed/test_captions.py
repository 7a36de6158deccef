import pytest

from benchmarks.training.animatediff import SHAPES
from ieadapt.errors import UsageError
from ieadapt.testbed.captions import all_captions, caption, parse_caption, possible_captions
from ieadapt.testbed.scenes import ATTRIBUTES, Scene, sample_scenes

MAX_TOKENS = SHAPES.world.tokens
build_tokenizer = SHAPES.tokenizer


def test_every_possible_caption_is_read_back() -> None:
    captions = possible_captions()
    assert len(set(captions)) == len(captions) == 2 * 8 * (6 * 8 - 2) * 6
    assert [caption(parse_caption(text)) for text in captions] == captions


def test_caption_of_a_scene_names_its_attributes() -> None:
    for scene in sample_scenes(50, 0, "all"):
        parsed = parse_caption(caption(scene))
        assert all(getattr(parsed, name) == getattr(scene, name) for name in ATTRIBUTES)


def test_reading_is_lenient_about_case_and_full_stop() -> None:
    assert parse_caption("A big red star moving left over a starry sky. ") == Scene(
        "big", "red", "star", "left", "starry sky"
    )


@pytest.mark.parametrize("text", ["", "a dog in the park", "a big red star moving left", "a big pink star moving left"])
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"not a caption of the testbed.*write for example"):
        parse_caption(text)


def test_spinning_ball_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be seen to spin"):
        parse_caption("a big red ball spinning over bricks")


def test_every_word_is_one_token_and_every_caption_fits() -> None:
    tokenizer = build_tokenizer()
    for text in all_captions():
        tokens = tokenizer(text).input_ids
        assert len(tokens) == len(text.split()) + 2 <= MAX_TOKENS


def test_any_text_tokenises_and_is_read_back() -> None:
    tokenizer = build_tokenizer()
    tokens = tokenizer("Zebra, naïve?").input_ids
    assert tokenizer.unk_token_id not in tokens[1:-1]
    assert tokenizer.decode(tokens, skip_special_tokens=True).replace(" ", "") == "zebra,naïve?"


def test_padding_is_the_end_token() -> None:
    tokenizer = build_tokenizer()
    tokens = tokenizer("", padding="max_length").input_ids
    assert len(tokens) == MAX_TOKENS
    assert set(tokens[1:]) == {tokenizer.eos_token_id}
