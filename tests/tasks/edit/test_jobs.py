"""Files of jobs: YAML and CSV say the same, inactive rows stay out, and a wrong row is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ieadapt.errors import UsageError
from ieadapt.tasks.edit.jobs import EditJob, read_jobs

YAML = """
- video: clips/cat.mp4
  source: a cat on grass
  targets: [a dog on grass, a fox on grass]
- {video: clips/sea.mp4, targets: a frozen sea, active: no}
- {seed: 7, source: a red ball, targets: a blue ball, name: the ball}
"""
CSV = """video,seed,source,targets,active,name
clips/cat.mp4,,a cat on grass,a dog on grass | a fox on grass,,
clips/sea.mp4,,,a frozen sea,no,
,7,a red ball,a blue ball,yes,the ball
"""


@pytest.mark.parametrize(("name", "text"), [("jobs.yaml", YAML), ("jobs.yml", YAML), ("jobs.csv", CSV)])
def test_both_forms_give_the_active_jobs(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert read_jobs(file) == [
        EditJob("01-cat", ("a dog on grass", "a fox on grass"), "a cat on grass", tmp_path / "clips/cat.mp4"),
        EditJob("03-the-ball", ("a blue ball",), "a red ball", seed=7),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no list of jobs; expected rows with video, source, targets"),
        ("video: a.mp4", "no list of jobs"),
        ("- just words", "no list of jobs"),
        ("- {video: a.mp4, targets: a ball, prompt: b}", "unknown key of a job; expected video, seed.*got prompt"),
        ("- {video: a.mp4, targets: a ball, active: maybe}", "`active` is yes or no; got 'maybe'"),
        ("- {video: a.mp4}", "at least one target prompt with text in it"),
        ("- {targets: a ball}", "one source; expected a video file, or a seed; got neither"),
        ("- {video: a.mp4, seed: 3, targets: a ball}", "one source.*got both"),
        ("- {seed: many, source: b, targets: a ball}", "a seed is a whole number; got 'many'"),
        ("- {seed: 3, targets: a ball}", "a generated source needs its prompt"),
        ("- {video: a.mp4, source: a ball, targets: a ball}", "the same, so nothing would change; got 'a ball'"),
        ("- {video: a.mp4, targets: a ball, active: false}", "no active job; got 1 rows"),
        ("- [unclosed", "cannot be read"),
    ],
)
def test_a_wrong_row_is_named(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_jobs(file)
    assert "jobs.yaml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read; got No such file"):
        read_jobs(tmp_path / "none.yaml")


def test_names_are_safe_in_paths(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("- {video: a.mp4, targets: a ball, name: ../../etc/passwd}")
    assert read_jobs(file)[0].name == "01-etc-passwd"
