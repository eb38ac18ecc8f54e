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
from lakeloop.lakehouse.errors import NotFound

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
    grpc_port: int | None,
    workers: int,
    quiet: bool,
) -> None:
    """Serve until SIGINT or SIGTERM; then what was begun is answered, and what is logged is shipped."""
    from lakeloop.lakehouse import endpoints
    from lakeloop.ray_jobs.serving.limits import Limits
    from lakeloop.ray_jobs.serving.plain import serve_plain
    from lakeloop.ray_jobs.serving.replica import Replica

    for model in models:
        if endpoints.champion(place.lake, project, model) is None:
            todo = f"train a model first: lakeloop train {model}"
            raise NotFound(f"{project} has no endpoint {model!r}", where=place.lake.url, todo=todo)
    folder = state_folder(place.lake.url, place.folder).absolute() / "predictions"
    replicas = [Replica(place.lake.url, project, model, folder, limits=limits.get(model, Limits())) for model in models]
    with (
        until_signalled() as stop,
        serve_plain(replicas, host=host, port=port, grpc_port=grpc_port, workers=workers) as serving,
    ):
        failed = serving.failed()
        for model in models:
            if model not in failed:
                out.print(f"{serving.endpoint_url(model)}/infer", markup=False)
        if serving.grpc_address:
            out.print(f"grpc://{serving.grpc_address}", markup=False)
        for model, reason in failed.items():
            say(f"{model} does not serve: {reason}; it is tried again")
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
