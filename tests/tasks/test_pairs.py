"""Pairs of videos: which there are, and the table of their scores."""

from __future__ import annotations

from ieadapt.tasks.pairs import pair_tasks, scores_table


def test_every_prompt_has_every_seed_once() -> None:
    tasks = pair_tasks(["a", "b", "c"], seed=10, seeds=3)
    assert len({task.seed for task in tasks}) == 9
    assert [task.prompt for task in tasks] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert [task.seed for task in pair_tasks(["a", "b"], 5, 1)] == [5, 6]


def test_a_table_has_the_scores_that_there_are() -> None:
    columns = {"psnr": ("PSNR dB", ".1f"), "ssim": ("SSIM", ".3f"), "motion": ("motion", "+.2f")}
    table = scores_table({"prompt": ["a", "b"]}, [{"psnr": 20, "ssim": None}, {"ssim": 0.5}], columns, "scores")
    assert table.headings == ("prompt", "PSNR dB", "SSIM")
    assert table.rows == [["a", "20.0", "–"], ["b", "–", "0.500"]]
    assert list(table.numeric) == [1, 2]
