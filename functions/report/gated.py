"""The newest verdict of the gate, rule by rule, and champion and challenger in every slice of its test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import nan

import numpy as np

from lakeloop.functions.gate_model import test_rows
from lakeloop.functions.report.answers import RESAMPLES, Judged
from lakeloop.functions.report.data import Gate, GateRule, Slice
from lakeloop.functions.report.scope import Row, Scope, named
from lakeloop.lakehouse import registry
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.scoring.learning import encode_labels
from lakeloop.lakehouse.scoring.loading import load_model
from lakeloop.lakehouse.scoring.scorer import Scorer
from lakeloop.lakehouse.slices import slice_masks
from lakeloop.lakehouse.statistics import Interval
from lakeloop.lakehouse.verdict import Finding, in_words
