"""Whole files, fingerprints, and claims."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ieadapt.runs import leases as claims_page
from ieadapt.runs.fingerprints import StorageError, fingerprint, write_whole
from ieadapt.runs.leases import Claims


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


def test_a_claim_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ieadapt.runs.leases import Claims;"
        "Claims(Path(sys.argv[1]), 'dead').take('cell')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    claims = Claims(tmp_path)
    assert claims.live() == []
    assert claims.take("cell")
    assert claims.live() == ["cell"]
    assert not Claims(tmp_path).take("cell")


def test_a_claim_from_elsewhere_is_taken_over_when_it_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "cell.claim"
    path.write_text(json.dumps({"owner": "x", "machine": "another", "pid": 1, "birth": "1"}))
    claims = Claims(tmp_path)
    assert not claims.take("cell")
    long_ago = time.time() - 2 * claims_page.STALE_SECONDS
    os.utime(path, (long_ago, long_ago))
    assert claims.take("cell")
    assert [path.name for path in tmp_path.iterdir()] == ["cell.claim"]


def test_a_claim_that_is_being_written_is_believed(tmp_path: Path) -> None:
    (tmp_path / "cell.claim").touch()
    assert not Claims(tmp_path).take("cell")


def test_a_claim_that_changed_hands_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two take over the same dead claim; the slower one finds the faster one's and leaves it."""
    path = tmp_path / "cell.claim"
    dead = {"owner": "dead", "machine": "another", "pid": 1, "birth": "1"}
    path.write_text(json.dumps(dead))
    slow, read = Claims(tmp_path), claims_page._read
    os.utime(path, (0, 0))
    monkeypatch.setattr(claims_page, "_read", lambda file: dead if file == path else read(file))
    path.write_text(json.dumps({**dead, "owner": "fast"}))
    os.utime(path, (0, 0))
    assert not slow.take("cell")
    assert json.loads(path.read_text())["owner"] == "fast"


def test_claims_are_touched_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_page, "HEARTBEAT_SECONDS", 0.02)
    claims = Claims(tmp_path)
    with claims.kept_alive():
        claims.take("cell")
        os.utime(tmp_path / "cell.claim", (0, 0))
        deadline = time.monotonic() + 5
        while (tmp_path / "cell.claim").stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "cell.claim").stat().st_mtime > 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_worker_held_is_given_back(tmp_path: Path) -> None:
    worker, chief = Claims(tmp_path, "worker"), Claims(tmp_path, "chief")
    assert worker.take("a")
    assert chief.take("b")
    chief.release_owner("worker")
    assert chief.live() == ["b"]


def test_what_a_worker_was_about_to_do_when_it_was_killed_is_removed(tmp_path: Path) -> None:
    chief = Claims(tmp_path, "chief")
    assert chief.take("b")
    for name in ("worker.clock", "a.claim.worker", "other.clock"):
        (tmp_path / name).touch()
    chief.release_owner("worker")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.claim", "other.clock"]


def test_a_stop_while_claiming_leaves_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(descriptor: int, content: bytes) -> int:
        raise SystemExit

    monkeypatch.setattr(os, "write", stopped)
    with pytest.raises(SystemExit):
        Claims(tmp_path).take("cell")
    assert list(tmp_path.iterdir()) == []
