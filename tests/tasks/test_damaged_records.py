"""Whatever happens to a record, its reader gets a named error or the same content: no traceback, no other value.

Every record that a later run reads is damaged in the same ways: a field is removed or of another type, a byte is
flipped, the end is cut off, or the file is something else.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ieadapt.errors import IEAdaptError
from ieadapt.files import record_text
from ieadapt.runs.folder import CONFIG, open_run, read_run
from ieadapt.runs.settings import GenerationConfig
from ieadapt.tasks.edit.jobs import RECORD, EditRecord, JobRecord
from ieadapt.tasks.measure.profile import EntropyProfile
from ieadapt.tasks.study.config import StudyConfig
from ieadapt.tasks.study.folder import GRID, REQUEST, StudyFolder
from ieadapt.tasks.study.grid import Condition, Setting
from ieadapt.tasks.study.videos import Strip, read_strips, write_strip

FLIPS = 120
VALUES: tuple[Any, ...] = (None, 3, -1.5, True, "x", "../x", [], ["x"], [None], {}, {"x": 1})
SETTING = Setting("scenes", "0a", StudyConfig(), GenerationConfig(8), ("psnr",), ("a red ball",))
ROW = {"site": "a", "kind": "joint", "order": 0, "head": 0, "step": 0, "branch": "cond", "videos": 1, "n_keys": 4.0}


@dataclass(frozen=True)
class Kind:
    """A kind of record: its file, how it is written into a folder, and how it is read from there."""

    file: str
    write: Callable[[Path], object]
    read: Callable[[Path], Any]


def _write_run(folder: Path) -> None:
    with open_run(folder, "enhance", {"prompts": ["a red ball"], "seeds": 2}, command="ieadapt enhance") as run:
        run.write("00-plain.mp4", b"video")


def _write_job(folder: Path) -> None:
    edits = [EditRecord("a blue ball", "00", {"psnr": 20.5, "outside_mask": 31.0})]
    job = JobRecord(
        "ball", "", "k", "clip", "a red ball", [5, 16, 24], {"psnr": 40.0}, edits, ["mid"], [], {"edits": 1.0}
    )
    (folder / RECORD).write_text(record_text({**vars(job), "edits": [vars(edit) for edit in edits]}))


def _read_job(folder: Path) -> JobRecord:
    with open_run(folder / "run", "edit", {}, resume=True):
        record = JobRecord.read(folder / RECORD)
    if record is None:
        raise IEAdaptError("the job is done again")
    return record


def _write_study(folder: Path) -> None:
    StudyFolder(folder).enter(SETTING, command="ieadapt study", resume=False)


def _write_grid(folder: Path) -> None:
    profile = EntropyProfile.from_rows([{**ROW, "entropy": 1.0, "ep": 50.0, "energy": 1.0}])
    StudyFolder(folder).write_grid([Condition(("a", "b"), "joint", "identity", 2)], profile, {"dtype": "float32"})


def _write_strip(folder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    write_strip(folder, "0a", Strip(frames, "a red ball", 3, "mid", "spatial", "identity"))


def _read_strip(folder: Path) -> list[Any]:
    return [{**vars(strip), "frames": strip.frames.tolist()} for strip in read_strips(folder)]


KINDS = {
    "run": Kind(CONFIG, _write_run, read_run),
    "job": Kind(RECORD, _write_job, _read_job),
    "study": Kind(REQUEST, _write_study, lambda folder: StudyFolder(folder).setting()),
    "grid": Kind(GRID, _write_grid, lambda folder: StudyFolder(folder).grid()),
    "strip": Kind("strips/0a.npz", _write_strip, _read_strip),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def judge(kind: Kind, tmp_path: Path) -> Callable[[bytes], str]:
    """Reads the record with other bytes in its file: the error, or nothing where the content is the same."""
    kind.write(tmp_path)
    whole = kind.read(tmp_path)

    def read(content: bytes) -> str:
        (tmp_path / kind.file).write_bytes(content)
        try:
            found = kind.read(tmp_path)
        except IEAdaptError as error:
            return str(error)
        assert found == whole, content
        return ""

    return read


@pytest.fixture
def content(kind: Kind, judge: Callable[[bytes], str], tmp_path: Path) -> bytes:
    return (tmp_path / kind.file).read_bytes()


def test_flipped_and_lost_bytes(kind: Kind, judge: Callable[[bytes], str], content: bytes) -> None:
    draw, refused = random.Random(kind.file), 0
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        refused += bool(judge(bytes(flipped)))
        refused += bool(judge(content[: draw.randrange(len(content) - 2)]))
    assert refused > FLIPS  # what is left are spaces between fields, and unused bytes of an archive
    assert judge(content) == ""


@pytest.mark.parametrize(
    "other", [b"", b"[]", b"null", b"3", b'"x"', b"[" * 200_000, b"\xff\xfe", b"{}", b'{"format": 1}']
)
def test_something_else_is_named(other: bytes, kind: Kind, judge: Callable[[bytes], str]) -> None:
    told = judge(other)
    assert told
    assert "Error:" not in told


@pytest.mark.parametrize("sealed", [True, False])
def test_fields_that_are_gone_or_of_another_type(
    sealed: bool, kind: Kind, judge: Callable[[bytes], str], content: bytes
) -> None:
    if kind.file.endswith(".npz"):
        return
    record = json.loads(content)
    changed = [{**record, name: value} for name in record for value in VALUES if record[name] != value]
    changed += [{name: value for name, value in record.items() if name != gone} for gone in record]
    for each in changed:
        if not sealed:
            assert judge(json.dumps(each).encode()), each
        else:  # with a digest of its own, as no damage has it: still an error or a value of the right type
            with contextlib.suppress(AssertionError):  # other content, which is what was written
                judge(record_text(each).encode())
