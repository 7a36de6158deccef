"""Whole files, fingerprints, and locks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ieadapt.runs.shared_files import StorageError, fingerprint, locked, locked_keys, write_whole


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cell").write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="cannot write a file of the study; got No space left on device"):
        write_whole(tmp_path / "cell", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("cell", b"before")]


def test_a_file_that_must_stay(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"first", put=os.link)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"second", put=os.link)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_fingerprints_do_not_depend_on_order_or_absence() -> None:
    assert fingerprint({"a": 1, "b": 2.5}) == fingerprint({"b": 2.5, "a": 1, "c": None})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


HOLD = (
    "import sys; from pathlib import Path; from ieadapt.runs.shared_files import locked\n"
    "with locked(Path(sys.argv[1]), ['cell']): print('locked', flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_the_lock_of_a_process_is_free_when_it_has_died(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert locked_keys(tmp_path) == ["cell"]
        with locked(tmp_path, ["cell", "other"]) as free:
            assert free == ["other"]
        process.send_signal(ending)
        process.wait(30)
    with locked(tmp_path, ["cell"]) as free:
        assert free == ["cell"]
    assert list(tmp_path.iterdir()) == []


def test_lock_files_that_dead_processes_left_are_removed(tmp_path: Path) -> None:
    for name in ("dead.lock", "held.lock"):
        (tmp_path / name).touch()
    with locked(tmp_path, ["held"]):
        assert locked_keys(tmp_path) == ["held"]
        assert [path.name for path in tmp_path.iterdir()] == ["held.lock"]


def test_a_stop_gives_every_lock_back(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), locked(tmp_path, ["a", "b"]) as free:
        assert free == ["a", "b"]
        raise SystemExit
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_stops_the_study(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="cannot lock work in the study; got Not a directory"),
        locked(tmp_path / "file" / "locks", ["a"]),
    ):
        pass
