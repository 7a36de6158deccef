"""Where given weights are looked for, and what is said of places that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ieadapt.errors import FailureError, UsageError
from ieadapt.runs.weight_places import given_keys, read_places


def test_a_folder_holds_weights_by_their_keys(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "aesthetic.pth").touch()
    (tmp_path / "lpips_alex.safetensors").touch()
    (tmp_path / "lpips_alex.pth").touch()
    (tmp_path / "other").mkdir()
    found = read_places(str(tmp_path))
    assert {key: path.name for key, path in found.items()} == {
        "clip": "clip",
        "aesthetic": "aesthetic.pth",
        "lpips_alex": "lpips_alex.safetensors",
    }
    assert read_places(None) == read_places("") == {}


def test_a_named_place_goes_before_the_folders(tmp_path: Path) -> None:
    for folder in ("all/clip", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    places = read_places(f"{tmp_path / 'all'}, clip={tmp_path / 'mine'}")
    assert places == {"clip": tmp_path / "mine"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dinno=x",
            r"no metric takes weights named 'dinno' \(did you mean 'dino'\?\); expected .*clip, .*in --weights",
        ),
        ("clip=nowhere", "these weights are not there; expected a folder, a file or a hub id; got nowhere"),
        ("nowhere", "no such folder of weights; in nowhere; remedy: or name one: --weights clip=PLACE"),
        (".", "holds no weights that a metric takes; expected folders or files named .*clip"),
    ],
)
def test_what_is_no_place_is_refused(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        read_places(text)


def test_a_hub_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **options: object) -> str:
        raise ConnectionError(f"no route to {name}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        FailureError, match=r"'some/model' is nothing here .*; got no route to some/model; remedy: check"
    ):
        read_places("clip=some/model")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: "/somewhere")
    assert read_places("clip=some/model") == {"clip": Path("/somewhere")}


def test_every_key_is_known() -> None:
    assert set(given_keys()) == {"clip", "dino", "aesthetic", "pickscore", "lpips_alex", "lpips_vgg", "raft"}
