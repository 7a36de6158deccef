"""Studies that are killed, stopped, and worked on by several processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ieadapt.runs.cells import CellStore
from ieadapt.runs.shared_files import locked_keys
from ieadapt.tasks.study.folder import StudyFolder
from ieadapt.tasks.study.run import StudyRun, run_study
from ieadapt.tasks.study.table import study_status
from tests.tasks.study.conftest import ASKED, PROMPTS, same

ROOT = Path(__file__).parents[3]
Asked = Callable[..., StudyRun]


@contextmanager
def program(log: Path, model: Path, out: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`ieadapt study` in a process of its own; the cells that it stores are noted in the log."""
    command = [sys.executable, "-m", "tests.tasks.study.logged", str(log), "study", str(model)]
    command += [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    command += ["--sites", str(ASKED.sites), "--metrics", str(ASKED.metrics), "--steps", "2", "--batch", "1"]
    command += ["--height", "16", "--width", "24", "--frames", "5", "--device", "cpu", "--out", str(out), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(happens: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until something happens; fail if the process ends before it does."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def cells(out: Path) -> list[Path]:
    return list((out / "cells").glob("*.json"))


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_like_one_that_was_not(asked: Asked, model: Path, tmp_path: Path) -> None:
    """And a second process at work on the folder does no cell twice."""
    out, log = tmp_path / "killed", tmp_path / "log"
    with program(log, model, out, "--workers", "1") as process:
        wait_for(lambda: len(cells(out)) >= 2, process)
        process.kill()
        process.wait()
    left = {path: path.stat().st_mtime_ns for path in cells(out)}
    assert 2 <= len(left) < 8
    assert study_status(out).running == 0
    ours: list[str] = []
    store = CellStore.write
    with pytest.MonkeyPatch.context() as patch, program(log, model, out, "--workers", "1", "--resume") as process:
        wait_for(lambda: bool(locked_keys(out / "locks")), process)
        patch.setattr(CellStore, "write", lambda self, row: (ours.append(row.key), store(self, row)))
        resumed = run_study(asked(), out, resume=True).table
        assert process.wait(120) == 0
    theirs = log.read_text().split()
    assert len(theirs) == len(set(theirs))
    assert not set(ours) & set(theirs)
    assert len(ours) + len(theirs) in (7, 8)  # 7 if the kill fell between the file and the note
    assert all(path.stat().st_mtime_ns == before for path, before in left.items())
    same(resumed, run_study(asked(), tmp_path / "whole").table)
    assert list((out / "locks").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_every_worker_and_leaves_the_study_sound(asked: Asked, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    with program(tmp_path / "log", model, out, "--workers", "2") as process:
        wait_for(lambda: len(cells(out)) >= 1, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stderr.read() if process.stderr else ""
    assert said.splitlines()[-1] == "ieadapt: stopped"
    assert "Traceback" not in said
    status = study_status(out)
    assert (status.running, status.damaged) == (0, 0)
    assert list((out / "locks").iterdir()) == []
    assert run_study(asked(), out, resume=True).table.height == 8


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(asked: Asked, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "wounded"
    with program(tmp_path / "log", model, out, "--workers", "2") as process:
        wait_for(lambda: len(cells(out)) >= 1, process)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        assert process.wait(240) == 0
    same(run_study(asked(), out, resume=True).table, run_study(asked(), tmp_path / "whole").table)


@pytest.mark.slow
def test_workers_end_when_the_study_is_killed(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "orphaned"
    with program(tmp_path / "log", model, out, "--workers", "2") as process:
        wait_for(lambda: len(cells(out)) >= 1, process)
        orphans = workers(process.pid)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in orphans):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.1)
    assert study_status(out).damaged == 0


def workers(parent: int) -> list[int]:
    """The processes that multiprocessing spawned for a study."""
    children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.slow
def test_notes_of_workers_are_shown_once_and_stand_in_record_and_report(model: Path, tmp_path: Path) -> None:
    spoilt, out, log = tmp_path / "model", tmp_path / "noted", tmp_path / "log"
    shutil.copytree(model, spoilt)
    file = spoilt / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "extra": torch.zeros(1)}, file, {"format": "pt"})
    note = "the weights of vae hold tensors that a AutoencoderKL does not use: extra"
    for words in (("--workers", "2"), ("--workers", "1", "--resume")):
        with program(log, spoilt, out, *words) as process:
            said = process.stderr.read() if process.stderr else ""
            assert process.wait(240) == 0, said
        assert said.count(note) == 1
        assert f"ieadapt: note: {note}" in said
    assert [each.startswith(note) for each in StudyFolder(out).notes()].count(True) == 1
    assert note in (out / "report.html").read_text()
    for kept in (out / "notes").iterdir():
        kept.write_bytes(kept.read_bytes()[:20])
        assert f"this note is damaged: notes/{kept.name}" in StudyFolder(out).notes()
