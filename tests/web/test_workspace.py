"""Names of runs stay below the root, and only files that a run lists are given out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ieadapt.errors import UsageError
from ieadapt.runs.folder import open_run
from ieadapt.web.workspace import Workspace

OUTSIDE = ("..", "../other", "a/b", "/etc", "", ".hidden", "a\0b", "~", "a" * 200, "..%2f", "C:\\x")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "secret.txt").write_text("secret")
    made = Workspace(tmp_path / "root")
    made.prepare()
    with open_run(made.root / "measure-1", "measure", {"prompts": ["a"]}) as run:
        run.write("report.html", "<p>")
    return made


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(UsageError, match="this is no name of a run"):
        workspace.folder(name)


def test_a_link_out_of_the_root_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.root / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UsageError, match="this is no name of a run"):
        workspace.folder("link")


@pytest.mark.parametrize("path", ["../../secret.txt", "notes.txt", "/etc/passwd", "link.txt", "", "."])
def test_a_file_that_the_run_does_not_list_is_refused(workspace: Workspace, tmp_path: Path, path: str) -> None:
    folder = workspace.folder("measure-1")
    (folder / "notes.txt").write_text("mine")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UsageError, match="the run has no such file"):
        workspace.file("measure-1", path)


def test_a_record_that_lists_files_outside_gives_none_of_them(workspace: Workspace) -> None:
    with open_run(workspace.root / "evil", "measure", {}) as run:
        run.note(files=["../../secret.txt", "/etc/passwd"])
    for path in ("../../secret.txt", "/etc/passwd"):
        with pytest.raises(UsageError, match="a record names a file outside its folder"):
            workspace.file("evil", path)


def test_listed_files_and_runs_are_found_the_latest_first(workspace: Workspace) -> None:
    assert workspace.file("measure-1", "report.html").read_text() == "<p>"
    assert workspace.files("measure-1") == ["config.json", "report.html"]
    with open_run(workspace.root / "measure-2", "measure", {"prompts": ["b"]}):
        pass
    (workspace.root / "half").mkdir()
    (workspace.root / "half" / "config.json").write_text("{")
    assert [name for name, _ in workspace.runs()] == ["measure-2", "measure-1"]
    assert [name for name, _ in workspace.complete("measure")] == ["measure-2", "measure-1"]


def test_new_names_do_not_meet(workspace: Workspace) -> None:
    names = {workspace.new_name("measure") for _ in range(20)}
    assert len(names) == 20
    assert all(workspace.folder(name) for name in names)


def test_a_root_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="the folder of the web app cannot be written"):
        Workspace(tmp_path / "file" / "root").prepare()


def test_a_record_that_is_a_link_out_is_not_given_out(workspace: Workspace, tmp_path: Path) -> None:
    record = workspace.folder("measure-1") / "config.json"
    record.rename(tmp_path / "elsewhere.json")
    record.symlink_to(tmp_path / "elsewhere.json")
    assert workspace.files("measure-1") == ["report.html"]
    with pytest.raises(UsageError, match="the run has no such file"):
        workspace.file("measure-1", "config.json")
