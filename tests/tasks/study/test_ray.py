"""The Ray engine on a real cluster of two nodes, one of which is lost in the middle."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ieadapt.tasks.study.run import StudyRun, run_study
from tests.tasks.study.conftest import same

ROOT = Path(__file__).parents[3]
Asked = Callable[..., StudyRun]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head node without room for workers and two nodes with room for one each; RAY_ADDRESS leads to it."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    utilities = pytest.importorskip("ray.cluster_utils")
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    for name, value in {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    made = utilities.Cluster()
    try:
        made.add_node(num_cpus=0)
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        made.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_lost_node_leaves_no_gap(asked: Asked, cluster: Any, tmp_path: Path) -> None:
    out = tmp_path / "ray"
    run = asked({"seeds": 4})
    done: list[int] = []

    def lose_a_node() -> None:
        deadline = time.monotonic() + 240
        while len(list((out / "cells").glob("*.json"))) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        done.append(len(list((out / "cells").glob("*.json"))))
        cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    loser = threading.Thread(target=lose_a_node)
    loser.start()
    table = run_study(dataclasses.replace(run, engine="ray", workers=2), out).table
    loser.join()
    assert 6 <= done[0] < 32, "the node was lost while work was left"
    assert table.height == 32
    same(table, run_study(run, tmp_path / "local").table)
    assert list((out / "locks").iterdir()) == []
