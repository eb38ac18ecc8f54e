"""Tokens by the command line: made, listed, used against a real server, revoked; shown once, and nowhere else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakeloop.lakehouse.lake import Lake, open_lake
from lakeloop.tests.functional.test_command_line import Run, Said, command_in, project_in

ROW = '{"plan": "pro", "logins": 3}'


@dataclass(frozen=True)
class Shop:
    """An applied project, and a server of its endpoint that follows its tokens when it is told to."""

    run: Run
    folder: Path
    url: str
    gate: Any

    def predict(self, token: str = "", variable: str = "LAKELOOP_TOKEN") -> Said:
        asked = ("predict", "churn", "--url", self.url, "--row", ROW, "--json")
        given = () if variable == "LAKELOOP_TOKEN" else ("--token-env", variable)
        return self.run(*asked, *given, **({variable: token} if token else {}))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    import uvicorn

    folder = project_in(tmp_path_factory.mktemp("shop"))
    run = command_in(folder)
    assert run("apply").code == 0
    lake = open_lake(str(folder / ".lake"))
    app, gate = served(lake, folder / "log")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield Shop(run, folder, f"http://{host}:{port}", gate)
    server.should_exit = True
    thread.join(30)


def served(lake: Lake, logs: Path) -> tuple[Any, Any]:
    """The endpoint `churn` of a constant model, and its gate."""
    from lakeloop.lakehouse.scoring.scorer import Scorer
    from lakeloop.lakehouse.scoring.signature import Input, Signature
    from lakeloop.ray_jobs.serving.arms import Arm, Loaded
    from lakeloop.ray_jobs.serving.endpoint import Endpoint
    from lakeloop.ray_jobs.serving.gate import Gate
    from lakeloop.ray_jobs.serving.inference import Inference
    from lakeloop.ray_jobs.serving.server import Server
    from lakeloop.ray_jobs.serving.write_ahead import WriteAhead

    class Constant:
        def predict(self, model: float, matrix: Any) -> Any:
            return np.full(len(matrix), model)

    inputs = (
        Input("plan", "request", "string", "string", column=False),
        Input("logins", "request", "float32", "number"),
    )
    scorer = Scorer(Signature("binary", inputs, (), ("false", "true"), "true"), Constant(), 0.5, None, {}, 1)
    loaded, gate = Loaded("churn", 1, (Arm("champion", 1, 10_000, scorer),)), Gate(lake, "shop", ["churn"])
    append = WriteAhead(logs).append
    inference = Inference("shop", "churn", loaded=lambda: loaded, append=append, state=dict, clock=lake.clock)
    endpoint = Endpoint(inference, permit=gate.permit("churn"))
    return Server(lambda: {"churn": endpoint}), gate


def test_a_token_from_its_making_to_its_end(shop: Shop) -> None:
    assert shop.predict().code == 0, "an endpoint without a token is open"
    made = shop.run("tokens", "create", "churn", "--name", "till", "--expires", "90d")
    assert made.code == 0, made.err
    secret = made.out.strip()
    assert secret.startswith("lakeloop_")
    assert "not shown again" in made.err
    shop.gate.step()

    denied = shop.predict()
    assert (denied.code, denied.out) == (1, "")
    assert "LAKELOOP_TOKEN" in denied.err
    assert json.loads(shop.predict(secret, variable="TILL").out)["prediction"] == 0.5

    listed = shop.run("tokens", "list", "churn", "--json")
    row = json.loads(listed.out)
    assert (row["name"], row["valid"]) == ("till", True)
    revoked = shop.run("tokens", "revoke", "churn", "till")
    assert revoked.code == 0
    assert "answers to nobody" in revoked.err
    shop.gate.step()
    refused = shop.predict(secret)
    assert refused.code == 1
    everything = "".join(said.out + said.err for said in (denied, listed, revoked, refused))
    assert secret not in everything
    files = [path for path in shop.folder.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in files)

    opened = shop.run("tokens", "open", "churn")
    assert opened.code == 0
    shop.gate.step()
    assert shop.predict().code == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("create", "nothing", "--name", "x"), "no model 'nothing'"),
        (("create", "churn", "--name", "Two Words"), "cannot be the name of a token"),
        (("create", "churn", "--name", "x", "--expires", "soon"), "write it as 12h, 90d or 52w"),
        (("revoke", "churn", "nobodys"), "no token 'nobodys'"),
    ],
)
def test_what_a_person_gets_wrong_is_said(shop: Shop, command: tuple[str, ...], said: str) -> None:
    answer = shop.run("tokens", *command)
    assert answer.code != 0
    assert said in answer.err
