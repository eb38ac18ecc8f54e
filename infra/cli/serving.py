"""`serve`, `predict`."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakeloop.infra.cli.options import AsOfOption, EnvOption, JsonOption, LakeOption, QuietOption, moment
from lakeloop.infra.cli.output import out, say, show
from lakeloop.infra.place import Place, find_place
from lakeloop.lakehouse.errors import Denied, Invalid, NotFound, Unavailable

if TYPE_CHECKING:
    from lakeloop.lakehouse.project.definitions import Serving
    from lakeloop.lakehouse.scoring.scorer import Answer
    from lakeloop.ray_jobs.serving.policy import Policy

PANEL = "Serving"
GRPC_PORT = 8001
RETRY_FAILED_S = 30.0


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=PANEL)(serve)
    app.command(rich_help_panel=PANEL)(predict)


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Endpoints; default: every model that has a champion")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the HTTP server; 0 takes a free one")] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port of the gRPC server; default: 8001, or a free one with --port 0; -1: none")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    plain: Annotated[bool, typer.Option("--plain", help="Without Ray: a plain server, for small traffic")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer, with --plain")] = 1,
    lake: LakeOption = None,
    env: EnvOption = None,
    quiet: QuietOption = False,
) -> None:
    """Serve champions over HTTP and gRPC, on Ray or with --plain without it, from what the lake says, until Ctrl-C.

    Rollouts and rollbacks are followed without a restart.
    """
    from lakeloop.functions.roll_out import roll_out
    from lakeloop.infra.training import LocalRay
    from lakeloop.lakehouse import endpoints

    place = find_place(lake, env)
    project = place.applied()
    roll_out(place.lake, project)
    wanted = models or [
        model for model in project.models if endpoints.champion(place.lake, project.name, model) is not None
    ]
    if not wanted:
        raise NotFound(f"no model of {project.name} has a champion", todo="train one: lakeloop train MODEL")
    policies = {model: _policy(project.models[model].serving) for model in wanted if model in project.models}
    if plain:
        from lakeloop.infra.cli.plain import serve_plainly
        from lakeloop.ray_jobs.serving.plain import speaks_grpc

        serve_plainly(
            place,
            project.name,
            wanted,
            {model: policy.limits for model, policy in policies.items()},
            host=host,
            port=port,
            grpc_port=_grpc_port(grpc_port, port) if grpc_port is not None or speaks_grpc() else None,
            workers=workers,
            quiet=quiet,
        )
        return
    with LocalRay(place.lake, place.folder, say=lambda text: say(text, quiet=quiet), serve=True) as ray:
        cluster = ray.start()
        from lakeloop.ray_jobs.serving.deployment import deploy

        with deploy(
            place.lake.url,
            project.name,
            wanted,
            log_folder=cluster.log_folder,
            policies=policies,
            host=host,
            port=port,
            grpc_port=_grpc_port(grpc_port, port),
        ) as serving:
            for model in wanted:
                if model not in serving.failed:
                    out.print(f"{serving.endpoint_url(model)}/infer", markup=False)
            if serving.grpc_address:
                out.print(f"grpc://{serving.grpc_address}", markup=False)
            _say_failed(serving.failed)
            say("Ctrl-C stops it; what is logged is shipped first", quiet=quiet)
            with _until_interrupt() as stop:
                while not stop.wait(RETRY_FAILED_S):
                    serving.retry_failed(RETRY_FAILED_S)
                    _say_failed(serving.failed)


def _grpc_port(given: int | None, http_port: int) -> int | None:
    if given is None:
        return GRPC_PORT if http_port else 0
    return given if given >= 0 else None


def _policy(serving: Serving) -> Policy:
    """How the project wants an endpoint to be run."""
    from lakeloop.ray_jobs.serving.limits import Limits
    from lakeloop.ray_jobs.serving.policy import Policy

    limits = Limits(timeout_s=serving.timeout.total_seconds())
    return Policy(serving.replicas.min, serving.replicas.max, limits=limits)


def _say_failed(failed: Mapping[str, str]) -> None:
    for model, reason in failed.items():
        say(f"{model} does not serve: {reason}; it is tried again")


@contextlib.contextmanager
def _until_interrupt() -> Iterator[threading.Event]:
    """An event that SIGINT sets, also where it was ignored by whoever started this process in the background."""
    import signal

    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda _number, _frame: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def predict(
    model: Annotated[str, typer.Argument(help="A model of the project; `model@3` names a version")],
    row: Annotated[list[str] | None, typer.Option("--row", help="A row as JSON; may be given several times")] = None,
    input: Annotated[Path | None, typer.Option("--input", help="A file with one JSON row a line")] = None,
    url: Annotated[
        str, typer.Option("--url", help="Ask this running server instead of scoring here, e.g. http://127.0.0.1:8000")
    ] = "",
    token_env: Annotated[
        str, typer.Option("--token-env", help="The environment variable that holds the server's token")
    ] = "LAKELOOP_TOKEN",
    as_of: AsOfOption = None,
    lake: LakeOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a few rows: here, with the champion and the newest online features, or by asking a running server.

    Only a server logs what it answers. For a table, a query or a large file, use `lakeloop batch-predict`.
    """
    rows = [_parsed(text, "--row") for text in row or []]
    if input is not None:
        if not input.is_file():
            raise NotFound(f"there is no file {input}", todo="check the path")
        rows += [
            _parsed(line, f"{input}:{number}")
            for number, line in enumerate(input.read_text().splitlines(), start=1)
            if line.strip()
        ]
    if not rows:
        raise Invalid("there is no row", todo=f"lakeloop predict {model} --row '{{\"…\": …}}'")
    if as_of is not None:
        rows = [{"as_of": moment(as_of).isoformat(), **one} for one in rows]
    answers = (
        _ask(url, model, rows, os.environ.get(token_env, "")) if url else _score(find_place(lake, env), model, rows)
    )
    show(answers, as_json=as_json)


def _ask(url: str, model: str, rows: list[dict[str, Any]], token: str) -> list[dict[str, Any]]:
    import urllib3

    if not url.startswith(("http://", "https://")):
        raise Invalid(f"--url {url!r} is no address", todo="write it whole: http://127.0.0.1:8000")
    target = f"{url.rstrip('/')}/v2/models/{model}/infer"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = json.dumps({"rows": rows}).encode()
    try:
        answer = urllib3.request("POST", target, body=body, headers=headers, retries=False, timeout=30)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise Unavailable(
            f"no answer ({type(error).__name__})",
            where=target,
            todo="check the address, and that `lakeloop serve` runs",
        ) from error
    try:
        told = json.loads(answer.data)
    except ValueError:
        told = {}
    if answer.status == 401:
        raise Denied(
            "the endpoint asks for a token",
            where=target,
            todo="export LAKELOOP_TOKEN=…, or name another by --token-env",
        )
    if answer.status >= 500:
        raise Unavailable(
            f"{answer.status}: {told.get('error', answer.data[:200].decode(errors='replace'))}",
            where=target,
            todo="try again",
        )
    if answer.status != 200:
        raise Invalid(
            str(told.get("error", f"{answer.status}: there is no endpoint {model!r}")),
            where=target,
            todo="mend the row, or name a model that is served",
        )
    return [{"version": told["version"], **one} for one in told["rows"]]


def _score(place: Place, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from lakeloop.functions.roll_out import snapshots_of
    from lakeloop.lakehouse import endpoints
    from lakeloop.lakehouse.scoring.loading import load_scorer

    project = place.applied()
    model, _, text = name.partition("@")
    if model not in project.models:
        raise NotFound(f"{project.name} has no model {model!r}", todo=f"name one of: {', '.join(project.models)}")
    if text and not text.isdigit():
        raise Invalid(f"{text!r} is not a version", todo=f"{model}@3 is version 3")
    version = int(text) if text else endpoints.answering(place.lake, project.name, model)
    if version is None:
        raise NotFound(f"{model} has no champion yet", todo=f"lakeloop train {model}")
    snapshots = snapshots_of(place.lake, project, model, version)
    scorer = load_scorer(place.lake, project.name, model, version, snapshots)
    return [_answer(version, one) for one in scorer.answer(rows, place.lake.clock())]


def _answer(version: int, answer: Answer) -> dict[str, Any]:
    ages = {view: None if age is None else f"{age / 60:.0f} min" for view, age in answer.ages.items()}
    return {
        "version": version,
        "id": answer.id,
        "as_of": answer.as_of,
        "prediction": answer.prediction,
        "decision": answer.decision,
        "ages": ages,
        "absent": answer.absent,
    }


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise Invalid(f"this is not JSON: {error}", where=where, todo='write a row as {"name": value, …}') from None
    if not isinstance(row, dict):
        raise Invalid("a row is a JSON object", where=where, todo='write a row as {"name": value, …}')
    return row
