"""The program in this process, and a tiny model folder for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ieadapt.cli import main
from tests.tiny import build

SIZE = ("--steps", "2", "--height", "16", "--width", "24", "--frames", "5")


@dataclass(frozen=True)
class Done:
    """What a call of the program left: exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    def refused(self) -> str:
        """The one line of an error; fails unless the program ended with status 2, one line and no output."""
        assert self.status == 2, (self.status, self.err)
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err


Program = Callable[..., Done]


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    def run(*words: object) -> Done:
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny AnimateDiff pipeline."""
    folder = tmp_path_factory.mktemp("models") / "animatediff"
    build("animatediff").save_pretrained(folder)
    return folder
