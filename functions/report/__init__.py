"""The report page: one static HTML file about one model, which needs no server, no network and no script.

`render(ReportData(…))` draws it; gathering the data is somebody else's work.
"""

from lakeloop.functions.report.data import (
    Alert,
    ColumnDrift,
    Distribution,
    EndpointChange,
    Gate,
    GateRule,
    LineageFact,
    Mark,
    PerformancePoint,
    Quarantine,
    Query,
    ReportData,
    Slice,
    Stage,
    Traffic,
    Trial,
)
from lakeloop.functions.report.page import AUDIENCES, render

__all__ = [
    "AUDIENCES",
    "Alert",
    "ColumnDrift",
    "Distribution",
    "EndpointChange",
    "Gate",
    "GateRule",
    "LineageFact",
    "Mark",
    "PerformancePoint",
    "Quarantine",
    "Query",
    "ReportData",
    "Slice",
    "Stage",
    "Traffic",
    "Trial",
    "render",
]
