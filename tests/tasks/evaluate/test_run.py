"""An evaluation: pairs, means, intervals, notes, and the files it leaves."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import polars as pl
import pytest
import torch

from ieadapt.errors import FailureError, UsageError
from ieadapt.metrics import METRICS, evaluate
from ieadapt.metrics.intervals import mean_interval, paired_interval
from ieadapt.runs.folder import open_run, read_run
from ieadapt.runs.settings import ReadConfig
from ieadapt.runs.videos import encode_video
from ieadapt.tasks.evaluate.run import EvaluateConfig, given_keys, read_places, run_evaluation
from ieadapt.tasks.evaluate.tables import markdown, summarise, summary_table
from tests.metrics import clips, given
from tests.runs.files import decode_video

QUICK = EvaluateConfig("psnr,flicker")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three videos, and the same with noise that grows from video to video."""
    place = tmp_path_factory.mktemp("videos")
    for name, spoil in (("plain", 0.0), ("noisy", 0.05)):
        (place / name).mkdir()
        for index in range(3):
            video = clips.noise(clips.pan(32, 48, 4, 2, index), spoil * (1 + index))
            (place / name / f"v{index}.mp4").write_bytes(encode_video(video))
    return place / "plain", place / "noisy"


def test_an_evaluation_holds_what_evaluate_gives(folders: tuple[Path, Path], tmp_path: Path) -> None:
    plain, noisy = folders
    found = run_evaluation(noisy, tmp_path / "run", reference=plain, config=QUICK)
    table = pl.read_parquet(tmp_path / "run" / "values.parquet")
    assert table["video"].to_list() == ["v0", "v1", "v2"]
    assert table.columns == ["video", "frames", "height", "width", "psnr", "flicker", "flicker_change", "notes"]
    pairs = [[decode_video((folder / f"v{i}.mp4").read_bytes()) for folder in (noisy, plain)] for i in range(3)]
    expected = [evaluate(*pair, ["psnr", "flicker"]) for pair in pairs]
    for name in ("psnr", "flicker", "flicker_change"):
        assert table[name].to_list() == pytest.approx([row[name] for row in expected])
    psnr, flicker = found.rows
    assert (psnr.mean, psnr.low, psnr.high) == pytest.approx(mean_interval(table["psnr"].to_list()))
    assert psnr.difference is None
    changes = [row["flicker_change"] for row in expected]
    difference = flicker.difference, flicker.difference_low, flicker.difference_high
    assert difference == pytest.approx(paired_interval(changes, [0.0] * 3))
    assert flicker.reference == pytest.approx(
        sum(evaluate(pair[1], metrics=["flicker"])["flicker"] for pair in pairs) / 3
    )


def test_the_files_of_an_evaluation_agree(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = run_evaluation(folders[1], tmp_path / "run", reference=folders[0], config=QUICK)
    record = read_run(tmp_path / "run")
    assert record["status"] == "complete"
    assert set(record["files"]) == {"values.parquet", "evaluation.json", "table.md", "report.html"}
    summary = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert summary["summary"] == [dataclasses.asdict(row) for row in found.rows]
    assert summary["definitions"]["psnr"] == METRICS["psnr"].definition
    assert summary["values"] == list(found.values)
    assert (tmp_path / "run" / "table.md").read_text() == markdown(found.table)
    assert "3 videos settle nothing" in " ".join(found.notes)
    words = "compare .*plain .*noisy --metrics psnr,flicker --out"
    assert re.search(words, record["command"])


def test_the_table_of_a_comparison(folders: tuple[Path, Path], tmp_path: Path) -> None:
    table = run_evaluation(folders[1], tmp_path / "run", reference=folders[0], config=QUICK).table
    assert list(table.headings) == ["metric", "better", "pairs", "plain", "noisy", "difference", "95 % interval"]
    psnr, flicker = table.rows
    assert psnr[:4] == ["psnr (dB)", "higher", "3", "–"]
    assert psnr[5] == "–"
    assert flicker[5].startswith("+")
    assert flicker[6].startswith("[+")


def test_alone_there_are_means_and_a_word_on_what_was_not_measured(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = run_evaluation(folders[0], tmp_path / "run")
    assert [row.metric for row in found.rows if row.difference is not None] == []
    assert any(
        note.startswith("not measured: psnr, ssim") and note.endswith("needs --reference") for note in found.notes
    )
    assert list(found.table.headings) == ["metric", "better", "videos", "mean", "95 % interval"]
    for name, metric in METRICS.items():
        assert any(name in note for note in found.notes) or name in [row.metric for row in found.rows], metric


def test_metrics_named_that_cannot_run_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the metric psnr needs --reference; remedy: pass --reference, or leave it"):
        run_evaluation(folders[0], tmp_path / "run", config=QUICK)
    assert not (tmp_path / "run").exists()


def test_videos_without_a_partner_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("v0.mp4", "w.mp4"):
        (tmp_path / name).write_bytes((folders[0] / "v0.mp4").read_bytes())
    found = run_evaluation(tmp_path, tmp_path / "run", reference=folders[0], config=QUICK)
    assert [row["video"] for row in found.values] == ["v0"]
    assert f"left out of {tmp_path.name}, no partner: w" in found.notes
    assert "left out of plain, no partner: v1, v2" in found.notes
    other = tmp_path / "other"
    other.mkdir()
    for name in ("x.mp4", "y.mp4"):
        (other / name).write_bytes((folders[0] / "v0.mp4").read_bytes())
    with pytest.raises(
        UsageError, match=r"no video has a partner .*; got x, ... and v0, ...; in .*; remedy: name the two"
    ):
        run_evaluation(other, tmp_path / "run2", reference=folders[0], config=QUICK)


def test_two_single_videos_are_a_pair_whatever_their_names(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = run_evaluation(folders[1] / "v0.mp4", tmp_path / "run", reference=folders[0] / "v1.mp4", config=QUICK)
    assert len(found.values) == 1


def test_a_pair_of_different_sizes_is_refused_or_aligned(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    for index in range(3):
        (tmp_path / "short" / f"v{index}.mp4").write_bytes(encode_video(clips.pan(64, 96, 3, 1, 0)))
    with pytest.raises(UsageError, match=r"short/v0.mp4: 3 frames of 96x64 pixels; .*plain/v0.mp4: 4 frames of 48x32"):
        run_evaluation(tmp_path / "short", tmp_path / "run", reference=folders[0], config=QUICK)
    config = EvaluateConfig("psnr,flicker", reading=ReadConfig(align=True))
    found = run_evaluation(tmp_path / "short", tmp_path / "run", reference=folders[0], config=config)
    assert "v0: aligned to 3 frames of 48x32 pixels" in found.notes
    assert found.values[0]["frames"] == 3


def test_a_metric_that_refuses_one_video_has_no_value_there(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"v{index}.mp4").write_bytes((folders[0] / f"v{index}.mp4").read_bytes())
    (tmp_path / "still.mp4").write_bytes(encode_video(clips.pan(32, 48, 1, 0, 0)))
    found = run_evaluation(tmp_path, tmp_path / "run", config=EvaluateConfig("flicker,sharpness"))
    flicker, sharpness = found.rows
    assert (flicker.videos, sharpness.videos) == (2, 3)
    assert found.values[0]["flicker"] is None
    assert any(note.startswith("still: the clip is too small; expected at least 2 frames") for note in found.notes)
    assert "measured on some videos only: flicker (2 of 3)" in " ".join(found.notes)


def test_no_value_at_all_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "still.mp4").write_bytes(encode_video(clips.pan(32, 48, 1, 0, 0)))
    with pytest.raises(FailureError, match="no metric could measure any video; got still: the clip is too small"):
        run_evaluation(tmp_path, tmp_path / "run", config=EvaluateConfig("flicker"))
    assert read_run(tmp_path / "run")["status"] == "partial"


def test_a_video_that_cannot_be_read_is_left_out(folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole = (folders[0] / "v0.mp4").read_bytes()
    for name, content in (("a", whole), ("b", b""), ("c", b"no video"), ("d", whole)):
        (tmp_path / f"{name}.mp4").write_bytes(content)
    found = run_evaluation(tmp_path, tmp_path / "run", config=EvaluateConfig("flicker"))
    assert [row["video"] for row in found.values] == ["a", "d"]
    assert list(found.batch.left_out) == ["b", "c"]
    shortfall = str(found.batch.shortfall())
    assert shortfall.startswith("2 of 4 videos were left out; got b: the video is empty; got 0 bytes; in ")
    assert [note for note in found.notes if note.startswith("left out: c: this is no video that can be read; got ")]
    record = read_run(tmp_path / "run")
    assert (record["status"], record["error"], record["left_out"]) == ("partial", shortfall, found.batch.left_out)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["left_out"] == found.batch.left_out
    assert "left out: c" in (tmp_path / "run" / "report.html").read_text()


def test_a_pair_that_cannot_be_compared_is_left_out(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "v0.mp4").write_bytes((folders[1] / "v0.mp4").read_bytes())
    (tmp_path / "v1.mp4").write_bytes(encode_video(clips.pan(64, 96, 3, 1, 0)))
    found = run_evaluation(tmp_path, tmp_path / "run", reference=folders[0], config=QUICK)
    assert [row["video"] for row in found.values] == ["v0"]
    assert found.batch.left_out["v1"].startswith("two videos to compare differ")


def test_nothing_is_written_where_no_video_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    with pytest.raises(UsageError, match=r"the video is empty; got 0 bytes; in .*b.mp4"):
        run_evaluation(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_signs_of_damage_stand_on_the_row_or_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole = (folders[1] / "v1.mp4").read_bytes()
    for index, content in enumerate((whole, whole[: len(whole) * 3 // 4])):
        (tmp_path / f"v{index}.mp4").write_bytes(content)
    config = EvaluateConfig("psnr", reading=ReadConfig(align=True))
    found = run_evaluation(tmp_path, tmp_path / "run", reference=folders[0], config=config)
    sign = "of 4 that its header states"
    values = pl.read_parquet(tmp_path / "run" / "values.parquet")
    assert [sign in note for note in values["notes"].to_list()] == [False, True]
    assert any(note.startswith("v1: ") and sign in note for note in found.notes)
    assert sign in (tmp_path / "run" / "report.html").read_text()
    strict = EvaluateConfig("psnr", reading=ReadConfig(align=True, strict=True))
    found = run_evaluation(tmp_path, tmp_path / "strict", reference=folders[0], config=strict)
    assert [row["video"] for row in found.values] == ["v0"]
    assert re.match(
        r"the video is damaged or cut off; got .* of 4 that .*leave --strict away", found.batch.left_out["v1"]
    )
    assert "--strict" in read_run(tmp_path / "strict")["command"]


def test_a_run_of_pairs_is_compared_with_itself(tmp_path: Path) -> None:
    video = clips.pan(32, 48, 4, 2, 1)
    with open_run(tmp_path / "e", "enhance", {"prompts": ["a ball"]}) as run:
        run.write("00-plain.mp4", encode_video(video))
        run.write("00-enhanced.mp4", encode_video(clips.blur(video, 1.0)))
    found = run_evaluation(tmp_path / "e", tmp_path / "run", config=QUICK)
    assert list(found.table.headings)[3:5] == ["e:plain", "e:enhanced"]


def test_a_table_without_values_says_nothing_of_a_metric() -> None:
    rows = summarise([METRICS["motion"], METRICS["flicker"]], [{"motion": None, "flicker": 2.0}])
    assert [(row.metric, row.videos, row.mean) for row in rows] == [("motion", 0, None), ("flicker", 1, 2.0)]
    assert [line[0] for line in summary_table(rows, "a", None).rows] == ["flicker (255ths)"]
    assert torch.isfinite(torch.tensor(rows[1].low))


def test_given_weights_and_prompts_bring_text_metrics(tmp_path: Path) -> None:
    given.clip(tmp_path / "weights" / "clip")
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(encode_video(clips.pan(32, 48, 3, 2, 1)))
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"a": "a red ball", "b": "something else"}))
    config = EvaluateConfig("clip_text", str(tmp_path / "weights"))
    found = run_evaluation(tmp_path / "videos", tmp_path / "run", prompts=prompts, config=config)
    first, second = (row["clip_text"] for row in found.values)
    assert first != second
    with pytest.raises(UsageError, match="the metric clip_text needs --prompts"):
        run_evaluation(tmp_path / "videos", tmp_path / "run2", config=config)


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
