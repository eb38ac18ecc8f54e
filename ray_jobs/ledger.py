"""The trial ledger of a run in the lake's journal `trials`, which any later attempt reads."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lakeloop.lakehouse.lake import Lake
from lakeloop.lakehouse.runs import OpenRun
from lakeloop.ray_jobs.search import TrialRow


class LakeLedger:
    """Writes trials of one run, each batch one segment."""

    def __init__(self, lake: Lake, run: OpenRun) -> None:
        self._lake, self._run = lake, run

    def record(self, rows: Sequence[TrialRow]) -> None:
        run, at = self._run, self._lake.clock()
        self._lake.record(
            "trials",
            [
                {
                    "run": run.run,
                    "project": run.project,
                    "model": run.model,
                    "trial": row.trial,
                    "attempt": row.attempt,
                    "seq": row.seq,
                    "params": json.dumps(dict(row.params)),
                    "metric": row.metric,
                    "value": row.value,
                    "step": row.step,
                    "status": row.status,
                    "seconds": row.seconds,
                    "error": row.error,
                    "logged_at": at,
                }
                for row in rows
            ],
        )

    def before(self) -> list[TrialRow]:
        """What earlier attempts of this run recorded."""
        import pyarrow.compute as pc

        rows = self._lake.journal("trials").read()
        if rows is None:
            return []
        names = list(TrialRow.__dataclass_fields__)
        mine = rows.filter(pc.equal(rows["run"], self._run.run)).select(names).to_pylist()
        return [TrialRow(**{**row, "params": json.loads(row["params"]), "error": row["error"] or ""}) for row in mine]
