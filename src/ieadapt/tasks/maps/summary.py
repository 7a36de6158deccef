"""What attention maps say, in sentences made from their numbers."""

from __future__ import annotations

import numpy as np

from ieadapt.tasks.maps.method import AttentionMaps

NAMED_WORDS = 3


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
    near = _near(video[0], maps.query.row, maps.query.column)
    return (
        f"the token gives itself {_percent(video[0, maps.query.row, maps.query.column])}, its neighbours up to two "
        f"tokens away {_percent(video[0][near].sum())} (a uniform map: {_percent(1 / tokens)} and "
        f"{_percent(near.sum() / tokens)})."
    )


def _near(weights: np.ndarray, row: int, column: int) -> np.ndarray:
    rows, columns = np.indices(weights.shape)
    return np.asarray((abs(rows - row) <= 2) & (abs(columns - column) <= 2))


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
    text = "" if "words" not in maps.parts else f", {_percent(maps.part('words')[index].sum())} to text"
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
