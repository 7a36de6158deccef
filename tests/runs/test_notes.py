"""Notes: each shown once, from this process, from the libraries' logs, and from workers in other processes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from diffusers import DiffusionPipeline

from ieadapt.errors import FailureError, IEAdaptError, IEAdaptWarning
from ieadapt.runs.engines import WorkerPool, _Process
from ieadapt.runs.notes import noted
from ieadapt.runs.settings import Hardware
from ieadapt.runs.workers import Task, Work, Worker


def _warn(text: str) -> None:
    warnings.warn(text, IEAdaptWarning, stacklevel=2)


def test_each_note_is_shown_once_and_other_warnings_as_ever() -> None:
    with warnings.catch_warnings(record=True) as shown, noted() as notes, noted() as inner:
        for free in range(3):
            _warn(f"too large; {free} GiB are free")
            warnings.warn_explicit("of a library", UserWarning, "library.py", free)
        _warn("rounded")
    assert list(notes) == list(inner) == ["too large; 0 GiB are free", "rounded"]
    texts = [str(warning.message) for warning in shown]
    assert texts.count("of a library") == 3
    assert [text for text in texts if text != "of a library"] == list(notes)


class _Here(_Process):
    """A worker of a pool that answers as one in another process does."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def submit(self, task: Task) -> futures.Future[Any]:
        future: futures.Future[Any] = futures.Future()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as PYTHONWARNINGS says in processes of the command line
            future.set_result(self._worker.reply(task))
        return future

    def stop(self) -> None:
        return


def _noting(work: Work, pipe: DiffusionPipeline, items: Mapping[str, str]) -> dict[str, IEAdaptError]:
    _warn("the size was rounded")
    logging.getLogger("transformers.modeling_utils").warning("some weights of %s were not used", "CLIP")
    logging.getLogger("diffusers.models.modeling_utils").warning("other weights were not used")
    logging.getLogger("transformers.generation").warning("nothing of interest")
    if "fails" in items:
        raise FailureError("it failed")
    return {}


def test_notes_of_every_worker_reach_this_process_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    work = Work(tmp_path, "none", Hardware("cpu"))
    pool = WorkerPool(lambda number: _Here(Worker(work, given=DiffusionPipeline())), 2)
    tasks = [Task(_noting, {key: key}) for key in ("a", "b", "c", "fails")]
    with warnings.catch_warnings(record=True) as shown, noted() as notes:
        outcomes = {key: reason for outcome in pool.run(tasks) for key, reason in outcome.items()}
    assert [str(outcomes[key]) for key in ("a", "fails")] == ["None", "it failed"]
    expected = ["the size was rounded", "some weights of CLIP were not used", "other weights were not used"]
    assert list(notes) == [str(warning.message) for warning in shown] == expected
    assert capsys.readouterr().err == ""
