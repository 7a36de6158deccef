"""`ieadapt bench testbed`: methods compared where the truth is known."""

from ieadapt.runs.testbed_bench.run import BenchConfig, BenchResult, run_testbed

__all__ = ["BenchConfig", "BenchResult", "run_testbed"]
