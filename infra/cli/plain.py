"""`serve --plain`: endpoints behind a plain server, without Ray."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakeloop.infra.cli.output import out, say
from lakeloop.infra.place import Place
from lakeloop.infra.training import state_folder

if TYPE_CHECKING:
    from lakeloop.ray_jobs.serving.limits import Limits


def serve_plainly(
    place: Place,
    project: str,
    models: Sequence[str],
    limits: Mapping[str, Limits],
    *,
    host: str,
    port: int,
    workers: int,
    quiet: bool,
) -> None:
    """Serve until SIGINT or SIGTERM; then what was begun is answered, and what is logged is shipped."""
    from lakeloop.ray_jobs.serving.limits import Limits
    from lakeloop.ray_jobs.serving.plain import serve_plain
    from lakeloop.ray_jobs.serving.replica import Replica

    folder = state_folder(place.lake.url, place.folder).absolute() / "predictions"
    replicas = [Replica(place.lake.url, project, model, folder, limits=limits.get(model, Limits())) for model in models]
    with until_signalled() as stop, serve_plain(replicas, host=host, port=port, workers=workers) as serving:
        for model in models:
            out.print(f"{serving.endpoint_url(model)}/infer", markup=False)
        say("Ctrl-C stops it; what is logged is shipped first", quiet=quiet)
        stop.wait()


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda _number, _frame: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
