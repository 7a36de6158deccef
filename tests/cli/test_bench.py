"""`ieadapt bench`: its commands, and what it prints of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ieadapt.runs.videos import encode_video
from tests.cli.conftest import SIZE, Program
from tests.metrics import clips


def test_vbench_makes_videos_and_its_command_is_kept(tiny: Path, tmp_path: Path, program: Program) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red ball\n")
    words = (
        "bench",
        "vbench",
        tiny,
        "--prompts",
        prompts,
        *SIZE,
        "--samples",
        "1",
        "--sites",
        "temporal",
        "--workers",
        "1",
    )
    done = program(*words, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert (tmp_path / "run" / "enhanced" / "a red ball-0.mp4").is_file()
    command = json.loads((tmp_path / "run" / "config.json").read_text())["command"]
    assert command.startswith(f"ieadapt bench vbench {tiny} --prompts {tmp_path / 'run' / 'prompts.txt'}")
    assert " --samples 1 " in command
    again = program(*command.split()[1:], "--resume")
    assert again.status == 0, again.err


def test_results_are_shown_as_a_table(tmp_path: Path, program: Program) -> None:
    for name, value in (("plain", 0.5), ("enhanced", 0.75)):
        rows = [value, [{"video_path": f"a-{k}.mp4", "video_results": value} for k in range(3)]]
        (tmp_path / f"{name}.json").write_text(json.dumps({"color": rows}))
    done = program("bench", "vbench", "--results", tmp_path / "enhanced.json", "--against", tmp_path / "plain.json")
    assert "+0.250" in done.out
    assert "plain" in done.out
    assert program("bench", "vbench", "--results", tmp_path / "none.json").refused()


def test_results_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, program: Program) -> None:
    files = []
    for name in ("plain", "enhanced"):
        files.append(tmp_path / name / "color_eval_results.json")
        files[-1].parent.mkdir()
        files[-1].write_text(json.dumps({"color": [1, [{"video_path": "a.mp4", "video_results": 1}]]}))
    done = program("bench", "vbench", "--results", files[1], "--against", files[0])
    assert "plain/color_eval_results" in done.out
    assert "enhanced/color_eval_results" in done.out


def test_the_help_lists_the_benchmarks(program: Program) -> None:
    done = program("bench", "--help")
    assert done.status == 0
    assert "vbench" in done.out
    assert "no such command" in program("bench", "vbunch").err.lower()


@pytest.mark.slow
def test_v2v_prints_every_method_beside_the_controls(tiny: Path, tmp_path: Path, program: Program) -> None:
    (tmp_path / "hike.mp4").write_bytes(encode_video(clips.pan(16, 24, 5, 1, 0)))
    (tmp_path / "set.yaml").write_text("data: [{video_id: hike, prompt: a man, edit: [{prompt: a bear}]}]")
    words = ("bench", "v2v", tiny, tmp_path / "set.yaml", *SIZE, "--methods", "sdedit-0.6", "--metrics", "psnr,flicker")
    done = program(*words, "--workers", "1", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()[2:5]] == ["copy", "reconstruction", "sdedit-0.6"]
    assert "sdedit-0.6" in program(*words, "--methods", "sdedit-9").refused()
