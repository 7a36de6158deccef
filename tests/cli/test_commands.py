"""Each command does its job on a tiny model and leaves a complete run folder."""

from __future__ import annotations

import ast
import html
import json
import re
from pathlib import Path

import pytest

from ieadapt.attention import find_sites
from ieadapt.cli.console import Summary, shown_stages
from ieadapt.cli.main import COMMANDS, main
from ieadapt.runs.folder import read_run
from ieadapt.runs.report import Table
from ieadapt.tasks.measure.layer_choice import SiteChoice
from ieadapt.tasks.measure.profile import EntropyProfile
from tests.cli.conftest import SIZE, Program
from tests.runs.files import decode_video
from tests.tiny import FAMILIES, build, call_arguments

SHAPE_FLAGS = {"height": "--height", "width": "--width", "num_frames": "--frames"}


@pytest.fixture(scope="module")
def measured(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ieadapt.cli import main

    out = tmp_path_factory.mktemp("runs") / "measured"
    assert main(["measure", str(tiny), "--prompt", "a red ball", *SIZE, "--seed", "3", "--out", str(out)]) == 0
    return out


def test_measure_leaves_a_complete_run(measured: Path, tiny: Path) -> None:
    record = read_run(measured)
    assert record["status"] == "complete"
    assert record["seeds"] == [3]
    assert record["model"]["pipeline"] == "AnimateDiffPipeline"
    assert record["model"]["attention_backend"] == "native"
    assert record["config"]["generation"]["num_inference_steps"] == 2
    assert set(record["files"]) == {"profile.parquet", "profile.json", "ep.png", "report.html"}
    assert all((measured / name).stat().st_size > 0 for name in record["files"])
    names = [site.name for site in find_sites(build("animatediff"))]
    assert record["sites"] == names
    assert sorted(EntropyProfile.load(measured).ep) == sorted(names)


def test_the_recorded_command_repeats_the_run(measured: Path, tmp_path: Path, program: Program) -> None:
    import shlex

    words = shlex.split(read_run(measured)["command"])[1:-1]
    assert program(*words, tmp_path).status == 0
    first, second = (EntropyProfile.load(folder).table for folder in (measured, tmp_path))
    assert first.equals(second)


def test_measure_prints_a_table_or_json(tiny: Path, tmp_path: Path, program: Program) -> None:
    shown = program("measure", tiny, "--prompt", "a red ball", *SIZE, "--out", tmp_path / "a", "--sites", "temporal")
    assert "EP %" in shown.out
    assert "Temporal attention, " in shown.out
    assert "spatial" not in shown.out
    done = program("measure", tiny, "--prompt", "a red ball", *SIZE, "--out", tmp_path / "b", "--json")
    sites = json.loads(done.out)["sites"]
    assert {site["kind"] for site in sites} == {"spatial", "cross", "temporal"}
    assert all(0 <= site["ep"] <= 100 for site in sites)
    assert undefined_names(tmp_path / "a" / "report.html") == set()


def test_a_prompts_file_gives_one_seed_per_line(tiny: Path, tmp_path: Path, program: Program) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red ball\na blue ball\n\n")
    program("measure", tiny, "--prompts", file, *SIZE, "--seed", "5", "--out", tmp_path / "run")
    record = read_run(tmp_path / "run")
    assert record["config"]["prompts"] == ["a red ball", "a blue ball"]
    assert record["seeds"] == [5, 6]


@pytest.mark.parametrize("family", FAMILIES)
def test_measure_works_on_a_folder_of_every_family(family: str, tmp_path: Path, program: Program) -> None:
    build(family).save_pretrained(tmp_path / "model")
    size = [
        word
        for name, value in call_arguments(family).items()
        if name in SHAPE_FLAGS
        for word in (SHAPE_FLAGS[name], value)
    ]
    done = program(
        "measure", tmp_path / "model", "--prompt", "a red ball", "--steps", 2, *size, "--out", tmp_path / "run"
    )
    assert done.status == 0, done.err
    profile = EntropyProfile.load(tmp_path / "run")
    assert sorted(profile.ep) == sorted(site.name for site in find_sites(build(family)))


@pytest.mark.slow
def test_enhance_leaves_videos_side_by_side(tiny: Path, measured: Path, tmp_path: Path, program: Program) -> None:
    prompts = ["--prompt", "a red ball", "--prompt", "a blue ball"]
    done = program("enhance", tiny, *prompts, *SIZE, "--profile", measured, "--scale", "2", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    record = read_run(tmp_path / "run")
    assert record["status"] == "complete"
    assert record["sites"]
    assert all("motion_modules" in name for name in record["sites"])
    assert record["config"]["enhancement"]["scale"] == 2
    expected = {
        f"{i:02d}-{what}" for i in (0, 1) for what in ("plain.mp4", "enhanced.mp4", "side-by-side.mp4", "plain.png")
    }
    assert expected <= set(record["files"])
    frames = decode_video((tmp_path / "run" / "00-plain.mp4").read_bytes())
    assert tuple(frames.shape) == (5, 3, 16, 24)
    assert "report:" in done.out
    assert undefined_names(tmp_path / "run" / "report.html") == set()


def undefined_names(report: Path) -> set[str]:
    """Names that the Python lines of a report use without defining them."""
    text = html.unescape(report.read_text(encoding="utf-8"))
    code = re.sub(r"<[^>]*>", "", re.search(r"import ieadapt\n.*?</pre>", text, re.DOTALL)[0])
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    stored = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    return {node.id for node in names} - stored - {"ieadapt"}


@pytest.mark.slow
def test_enhance_measures_first_where_it_has_no_profile(tiny: Path, tmp_path: Path, program: Program) -> None:
    done = program("enhance", tiny, "--prompt", "a red ball", *SIZE, "--out", tmp_path, "--json")
    assert done.status == 0, done.err
    assert EntropyProfile.load(tmp_path).ep
    assert json.loads(done.out)["sites"] == read_run(tmp_path)["sites"]


def test_enhance_needs_no_profile_for_named_sites(tiny: Path, tmp_path: Path, program: Program) -> None:
    done = program("enhance", tiny, "--prompt", "a ball", *SIZE, "--sites", "temporal", "--perturbation", "uniform",
                   "--out", tmp_path)  # fmt: skip
    assert done.status == 0, done.err
    assert not (tmp_path / "profile.json").exists()


def test_scale_zero_changes_nothing(tiny: Path, tmp_path: Path, program: Program) -> None:
    done = program(
        "enhance", tiny, "--prompt", "a ball", *SIZE, "--sites", "temporal", "--scale", "0", "--out", tmp_path
    )
    assert done.status == 0, done.err
    assert (tmp_path / "00-plain.png").read_bytes() == (tmp_path / "00-enhanced.png").read_bytes()


def test_sites_lists_what_the_seam_finds(tiny: Path, program: Program) -> None:
    sites = json.loads(program("sites", tiny, "--json").out)
    assert [site["name"] for site in sites] == [site.name for site in find_sites(build("animatediff"))]
    shown = program("sites", tiny, "--sites", "temporal").out
    assert "motion_modules" in shown
    assert "attn2" in shown
    assert "cross" not in shown


def test_models_lists_bundled_models_and_families(program: Program) -> None:
    assert "scenes" in program("models").out
    listed = json.loads(program("models", "--json").out)
    assert [model["name"] for model in listed["bundled"]] == ["scenes", "scenes-dit"]
    assert {"AnimateDiff", "Wan"} <= {family["family"] for family in listed["families"]}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example(name: str, program: Program) -> None:
    shown = program(name, "--help")
    assert shown.status == 0
    assert "Example:" in shown.out
    assert f"ieadapt {name}" in shown.out


def test_sites_are_named_by_the_numbers_that_reports_print(tiny: Path, program: Program) -> None:
    done = program("sites", tiny, "--sites", "#3,#0", "--json")
    assert [site["order"] for site in json.loads(done.out)] == [0, 3]
    sites = find_sites(build("animatediff"))
    assert [site.order for site in SiteChoice.parse("#3,#0").choose(sites)] == [0, 3]


def test_text_of_users_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    words = "[bold]a[/bold] :A: :smile: [red]"
    table = Table(("prompt",), [[words]], caption=words)
    Summary({"prompt": words}, [table, words]).show(as_json=False)
    assert capsys.readouterr().out.count(words) == 3
    with shown_stages() as stages:
        stages(words)(1, 1)
    assert capsys.readouterr().err == f"{words}: 1 step\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("ieadapt scre", "screen"), ("ieadapt screen --budg", "--budget"), ("ieadapt bench v", "v2v")],
)
def test_the_shell_completes_commands_and_options(
    typed: str, completed: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_IEADAPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert completed in capsys.readouterr().out.split()
