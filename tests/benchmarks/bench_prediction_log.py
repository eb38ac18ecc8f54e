"""What the prediction log costs: the processor time of an endpoint over HTTP for each request, with it and without; and
that of the shipper for each row.

Processor time and not throughput, so that the client and a busy machine do not count.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.places import scaled
from tests.benchmarks.timing import report

REQUESTS, ROUNDS, ROWS = scaled(3_000), 5, scaled(20_000)
BODY = json.dumps({"rows": [{"share": 0.5, "origin": "EWR"}]})


def serve(folder: Path, *, log: bool) -> None:
    """An endpoint behind uvicorn; prints its port."""
    import uvicorn

    from lakeloop.ray_jobs.serving.arms import Arm, Loaded
    from lakeloop.ray_jobs.serving.endpoint import Endpoint
    from lakeloop.ray_jobs.serving.inference import Inference
    from lakeloop.ray_jobs.serving.recorder import Recorder
    from lakeloop.ray_jobs.serving.write_ahead import WriteAhead
    from tests.unit.serving.conftest import binary_scorer

    class Silent(Inference):
        def _log_rows(self, *_: object) -> None: ...

    loaded = Loaded("late", 1, (Arm("champion", 1, 10_000, binary_scorer(1)),))
    writer = WriteAhead(folder)
    kind = Inference if log else Silent
    append = Recorder(writer, lambda: loaded).append
    asked = kind("p", "late", loaded=lambda: loaded, append=append, state=dict, clock=lambda: datetime.now(UTC))
    server = uvicorn.Server(uvicorn.Config(Endpoint(asked), port=0, lifespan="off", log_level="warning"))

    async def run() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        sys.stdout.write(f"{server.servers[0].sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        while not serving.done():
            await asyncio.sleep(0.1)
            writer.seal_due()

    asyncio.run(run())


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(port: int, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(count):
        connection.request("POST", "/infer", BODY)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()


def of_requests(folder: Path) -> tuple[float, float]:
    """Microseconds of a request with the log and without: the least of the rounds, which take turns."""
    start = "from pathlib import Path; from tests.benchmarks.bench_prediction_log import serve; "
    scripts = [f"{start}serve(Path({str(folder / how)!r}), log={how == 'log'})" for how in ("log", "none")]
    processes = [subprocess.Popen([sys.executable, "-c", one], stdout=subprocess.PIPE, text=True) for one in scripts]
    ports = [int(process.stdout.readline()) for process in processes if process.stdout]
    least = [float("inf")] * 2
    for one in range(ROUNDS + 1):
        for place, (process, port) in enumerate(zip(processes, ports, strict=True)):
            before = processor_s(process.pid)
            ask(port, REQUESTS)
            if one:  # the first warms up
                least[place] = min(least[place], (processor_s(process.pid) - before) / REQUESTS * 1e6)
    for process in processes:
        process.terminate()
        process.communicate()
    return least[0], least[1]


def of_the_shipper(folder: Path) -> float:
    """Microseconds of a row of eighteen inputs, from its file to the bytes of a segment."""
    from lakeloop.lakehouse.column_types import stored
    from lakeloop.lakehouse.segments import encoded
    from lakeloop.ray_jobs.serving.prediction_rows import prediction_table
    from lakeloop.ray_jobs.serving.write_ahead import Logged, Shape, WriteAhead, read_piece, sealed_pieces

    at, names = datetime(2026, 5, 1, 12, tzinfo=UTC), [f"f{n}" for n in range(15)]
    inputs = {**dict.fromkeys(names, 0.25), "carrier": "UA", "origin": "EWR", "due": at}
    kinds = [(name, "float32") for name in names] + [("carrier", "category"), ("origin", "category")]
    shape = Shape("p", "late", (*kinds, ("due", "timestamp")))
    said = {"id": "UA-1-EWR", "as_of": at, "prediction": 0.5, "decision": "true", "ages": {"weather": 60.0}}
    writer = WriteAhead(folder, piece_bytes=1 << 20)
    for number in range(ROWS):
        logged = Logged(f"r{number}", at, "late", 3, "champion", 5, 0.4, [{**said, "inputs": inputs}])
        writer.append(shape, logged)
    writer.close()
    taken = []
    for path in sealed_pieces(folder):
        began = time.process_time()
        table = prediction_table(read_piece(path))
        encoded(stored(table))
        taken.append((time.process_time() - began) / table.num_rows * 1e6)
    return min(taken)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        logged, silent = of_requests(Path(folder))
        row = of_the_shipper(Path(folder) / "shipper")
    with_it, without = f"{logged:.0f} µs of processor", f"{silent:.0f} µs without the log"
    report("A request for one row over HTTP, with the prediction log", with_it, without, logged / silent, "≤ 1.05")
    shipped = f"{row:.0f} µs of processor"
    report("A row of the prediction log, shipped", shipped, f"a request, {silent:.0f} µs", row / silent, "≤ 0.15")


if __name__ == "__main__":
    main()
