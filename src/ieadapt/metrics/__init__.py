"""Measures and their uncertainty: pure functions, each with its definition, range and direction of better."""

from ieadapt.metrics.clips import ClipSize
from ieadapt.metrics.evaluation import evaluate
from ieadapt.metrics.metric import Metric
from ieadapt.metrics.table import METRICS, missing_metrics, select_metrics
from ieadapt.metrics.weights import PackagedWeights

__all__ = ["METRICS", "ClipSize", "Metric", "PackagedWeights", "evaluate", "missing_metrics", "select_metrics"]
