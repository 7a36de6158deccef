"""Code that a folder of weights brings along is never run, and nobody is asked whether it may be."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ieadapt.errors import IEAdaptError
from ieadapt.metrics.networks.transformers import _from_pretrained, _model
from ieadapt.models import load

SOURCE = Path(__file__).parents[2] / "src" / "ieadapt"
_AUTO_MAPS = {
    "config.json": {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}},
    "tokenizer_config.json": {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}},
    "preprocessor_config.json": {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}},
    "processor_config.json": {"processor_class": "Own", "auto_map": {"AutoProcessor": "own.Own"}},
}
COMPONENTS = ("CLIPProcessor", "ProcessorMixin", "AutoModel", "AutoTokenizer", "AutoProcessor", "CLIPTokenizer")


def with_own_code(folder: Path, mark: Path) -> Path:
    """A folder whose every configuration says that its own code loads it; the code leaves a mark."""
    folder.mkdir(parents=True)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nfrom transformers import CLIPConfig as Own\n")
    for name, content in _AUTO_MAPS.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def pipeline_with(component: str) -> Callable[[Path, Path], object]:
    def attempt(folder: Path, mark: Path) -> object:
        with_own_code(folder / "image_processor", mark)
        index = {"_class_name": "WanImageToVideoPipeline", "image_processor": ["transformers", component]}
        (folder / "model_index.json").write_text(json.dumps(index))
        return load(folder)

    return attempt


@pytest.mark.parametrize(
    "attempt",
    [
        *(pytest.param(pipeline_with(name), id=f"pipeline-{name}") for name in COMPONENTS),
        pytest.param(lambda folder, mark: _model("CLIPModel", with_own_code(folder, mark)), id="weights-clip"),
        pytest.param(lambda folder, mark: _model("AutoModel", with_own_code(folder, mark)), id="weights-vision"),
        pytest.param(lambda folder, mark: _from_pretrained("AutoProcessor", with_own_code(folder, mark)), id="parts"),
    ],
)
def test_the_code_of_a_folder_is_not_run_though_the_input_says_yes(
    attempt: Callable[[Path, Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []

    def yes(question: str = "") -> str:
        questions.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", yes)
    with pytest.raises(IEAdaptError):
        attempt(tmp_path / "folder", tmp_path / "mark")
    assert questions == []
    assert not (tmp_path / "mark").exists()


QUESTIONS = {
    "input",
    "builtins.input",
    "getpass.getpass",
    "typer.confirm",
    "typer.prompt",
    "click.confirm",
    "click.prompt",
}


def calls(text: str) -> list[tuple[str, ast.Call]]:
    """Every call in a module's text, with what is called."""
    made = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in made]


def refuses_code(call: ast.Call) -> bool:
    return any(each.arg == "trust_remote_code" and ast.unparse(each.value) == "False" for each in call.keywords)


def test_every_loader_refuses_code_and_nothing_reads_standard_input_for_an_answer() -> None:
    found = [(path, *call) for path in SOURCE.rglob("*.py") for call in calls(path.read_text())]
    loaders = [(path, call) for path, name, call in found if name.endswith((".from_pretrained", ".download"))]
    assert len(loaders) >= 4
    assert not [f"{path}:{call.lineno}" for path, call in loaders if not refuses_code(call)]
    assert not [f"{path}:{call.lineno}" for path, name, call in found if name in QUESTIONS]
