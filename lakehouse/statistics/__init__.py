"""Statistics as pure functions of arrays and counts: metrics, intervals, drift, estimation, histograms.

Nothing here reads a file, a clock or the environment, and the only import from outside is numpy. Whatever is random
takes a seed and answers the same twice. What is undefined (no rows, one class, a NaN in the input) is NaN, never an
exception; only a caller's mistake (an unknown metric, arrays of different lengths) raises `Invalid`.
"""

from lakeloop.lakehouse.statistics.drift import (
    Test,
    benjamini_hochberg,
    chi2_fit,
    chi2_homogeneity,
    hellinger,
    js_distance,
    ks,
    psi,
    psi_pvalue,
    wasserstein,
)
from lakeloop.lakehouse.statistics.estimation import best_threshold, cbpe
from lakeloop.lakehouse.statistics.histograms import CalibrationBin, calibration_bins, histogram, quantile_edges
from lakeloop.lakehouse.statistics.metrics import METRICS, Metric, evaluate, metric_of
from lakeloop.lakehouse.statistics.resampling import Interval, bootstrap, paired_bootstrap
from lakeloop.lakehouse.statistics.sequential import Difference, Sample, difference, paired
from lakeloop.lakehouse.statistics.special import chi2_survival

__all__ = [
    "METRICS",
    "CalibrationBin",
    "Difference",
    "Interval",
    "Metric",
    "Sample",
    "Test",
    "benjamini_hochberg",
    "best_threshold",
    "bootstrap",
    "calibration_bins",
    "cbpe",
    "chi2_fit",
    "chi2_homogeneity",
    "chi2_survival",
    "difference",
    "evaluate",
    "hellinger",
    "histogram",
    "js_distance",
    "ks",
    "metric_of",
    "paired",
    "paired_bootstrap",
    "psi",
    "psi_pvalue",
    "quantile_edges",
    "wasserstein",
]
