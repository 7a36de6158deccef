"""Metrics of a video, alone or against a reference: each with its definition, range and direction of better."""

from ieadapt.metrics.metric import ClipSize, Metric
from ieadapt.metrics.table import METRICS, evaluate, missing_metrics, select_metrics
from ieadapt.metrics.weights import PackagedWeights

__all__ = ["METRICS", "ClipSize", "Metric", "PackagedWeights", "evaluate", "missing_metrics", "select_metrics"]
