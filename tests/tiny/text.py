"""Tokenizers and text encoders for the tiny pipelines, built in code: one token per character, no file, no network."""

from __future__ import annotations

import string

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

CLIP_LENGTH = 77
CHARACTERS = string.ascii_letters + string.digits + string.punctuation


def clip_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer whose only pieces are the 256 byte symbols, inside and at the end of a word."""
    symbols = _byte_symbols()
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_LENGTH)


def clip_text_encoder(width: int) -> CLIPTextModel:
    """Return a two-layer CLIP text encoder for `clip_tokenizer`, with states of the given width."""
    size = len(clip_tokenizer())
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    return CLIPTextModel(config)


def t5_tokenizer(length: int) -> T5Tokenizer:
    """Return a character-level T5 tokenizer that truncates at the given length."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *CHARACTERS]
    scores = [(piece, 0.0 if piece.startswith("<") and len(piece) > 1 else -2.0) for piece in pieces]
    return T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=length)


def t5_encoder(width: int) -> T5EncoderModel:
    """Return a one-layer T5 encoder for `t5_tokenizer`, with states of the given width."""
    return T5EncoderModel(T5Config(**_t5_fields(width)))


def umt5_encoder(width: int) -> UMT5EncoderModel:
    """Return a one-layer UMT5 encoder for `t5_tokenizer`, with states of the given width."""
    return UMT5EncoderModel(UMT5Config(**_t5_fields(width)))


def llama_tokenizer(prefix: str, prefix_tokens: int) -> LlamaTokenizer:
    """Return a character-level Llama tokenizer that pads on the right.

    The given prefix (a prompt template up to the prompt) becomes exactly `prefix_tokens` tokens, as HunyuanVideo's
    pipeline counts on when it crops its template off: one long token, then one per character.
    """
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "▁", "\n", *CHARACTERS]
    tokenizer = LlamaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        pad_token="<pad>",
        padding_side="right",
        add_prefix_space=False,
    )
    tokenizer.add_tokens([prefix[: len(prefix) - (prefix_tokens - 1)]], special_tokens=True)
    return tokenizer


def llama_encoder(width: int, tokenizer: LlamaTokenizer) -> LlamaModel:
    """Return a three-layer Llama encoder for the tokenizer, with states of the given width."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    return LlamaModel(config)


def _t5_fields(width: int) -> dict[str, object]:
    return {
        "vocab_size": 4 + len(CHARACTERS),
        "d_model": width,
        "d_kv": width // 2,
        "d_ff": 2 * width,
        "num_layers": 1,
        "num_heads": 2,
        "dropout_rate": 0.0,
    }


def _byte_symbols() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
