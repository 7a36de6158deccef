"""Tokenizers built from the words of a caption grammar: each is one token, any other text still tokenises."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence

from transformers import CLIPTokenizer, T5Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def byte_symbols() -> list[str]:
    """The 256 printable characters by which byte-level BPE writes bytes."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(moved))]


def _pieces(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word."""
    parts = [*word[:-1], word[-1] + WORD_END]
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        parts = [*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]]
    return parts


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges that make each word one token.

    A merge is only ever appended, so it has the lowest priority and words that are whole already stay whole.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(parts := _pieces(word, ranks)) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
    return list(ranks)


def build_clip_tokenizer(words: Sequence[str], tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer.

    Args:
        words: of the grammar, in an order that stays.
        tokens: most tokens of a text, start and end included; shorter ones are padded with the end token.

    Example:
        >>> build_clip_tokenizer(["red", "star"], 16)("red star").input_ids
        [517, 513, 516, 518]
    """
    merges = learn_merges(list(words))
    symbols = byte_symbols()
    pieces = [
        *symbols,
        *(symbol + WORD_END for symbol in symbols),
        *(left + right for left, right in merges),
        START,
        END,
    ]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=tokens)


def build_t5_tokenizer(words: Sequence[str], tokens: int) -> T5Tokenizer:
    """The same for a T5 encoder: every word one token, other text letter by letter.

    Example:
        >>> len(build_t5_tokenizer(["red", "star"], 16)("red star").input_ids)
        3
    """
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [*string.ascii_letters, *string.digits, *string.punctuation]
    pieces = [("▁", -10.0), *((letter, -10.0) for letter in letters), *((f"▁{word}", -1.0) for word in words)]
    vocabulary = list(dict(special + pieces).items())
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=tokens)
