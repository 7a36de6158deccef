"""The tokenizer of the grammar: every word is one token, and other text does not fail."""

from benchmarks.training.animatediff import SCENES
from benchmarks.training.world import TOKENS
from ieadapt.testbed.captions import words


def test_every_word_is_one_token() -> None:
    tokenizer = SCENES.tokenizer()
    for word in words():
        assert len(tokenizer(word).input_ids) == 3, word


def test_any_text_tokenises_and_is_read_back() -> None:
    tokenizer = SCENES.tokenizer()
    tokens = tokenizer("Zebra, naïve?").input_ids
    assert tokenizer.unk_token_id not in tokens[1:-1]
    assert tokenizer.decode(tokens, skip_special_tokens=True).replace(" ", "") == "zebra,naïve?"


def test_padding_is_the_end_token() -> None:
    tokenizer = SCENES.tokenizer()
    tokens = tokenizer("", padding="max_length").input_ids
    assert len(tokens) == TOKENS
    assert set(tokens[1:]) == {tokenizer.eos_token_id}
