"""Who may ask: follows the tokens of endpoints and says of a request's Authorization header whether it may pass.

A change is followed within `POLL_S` and one GET: tokens that were revoked are refused from then on. While the store is
away, what was known last goes on; the reason is in `error`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

from lakeloop.lakehouse import tokens
from lakeloop.lakehouse.endpoints import endpoint_id
from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.lake import Lake
from lakeloop.ray_jobs.serving.asgi import Header, Reply, Scope, failure
from lakeloop.ray_jobs.serving.endpoint import Permit

POLL_S = 2.0
CHALLENGE: Header = (b"www-authenticate", b"Bearer")
Authorize: TypeAlias = Callable[[str, "str | bytes | None"], bool]
"""(endpoint, its Authorization header) → whether the request may pass."""
log = logging.getLogger("lakeloop.gate")


class Gate:
    """The tokens of some endpoints, as they were at the last poll. An error of the first look is the caller's."""

    def __init__(self, lake: Lake, project: str, endpoints: Iterable[str]) -> None:
        self._lake, self._project = lake, project
        self._keyrings = {name: tokens.of_endpoint(lake, project, name) for name in endpoints}
        self.error = ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def authorize(self, endpoint: str, authorization: str | bytes | None) -> bool:
        """An `Authorize`. Costs nothing where no token is needed, else one SHA-256 and a comparison per token."""
        keyring = self._keyrings[endpoint]
        return not keyring.needed or keyring.admits(authorization, self._lake.clock())

    def permit(self, endpoint: str) -> Permit:
        """What an endpoint's HTTP face asks before it answers anything but health."""

        def permit(scope: Scope) -> Reply | None:
            if not self._keyrings[endpoint].needed:
                return None
            given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
            return None if self.authorize(endpoint, given) else failure(401, "the endpoint asks for a token", CHALLENGE)

        return permit

    def step(self) -> None:
        """Follow every endpoint to its newest revision: one GET each when nothing changed."""
        for name, keyring in self._keyrings.items():
            document, number = endpoint_id(self._project, name), keyring.revision
            while (found := self._lake.documents.next(tokens.KIND, document, number)) is not None:
                self._keyrings[name] = tokens.keyring(found)
                number = found.number

    def start(self) -> None:
        """Step every two seconds, in a thread, until `close`."""
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def try_step(self) -> None:
        """A step whose failure is kept and logged once; what was known goes on."""
        try:
            self.step()
            self.error = ""
        except LakeloopError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("the tokens cannot be followed")
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if reason != self.error:
            log.error("the tokens cannot be followed, what was known goes on: %s", reason)
        self.error = reason

    def _run(self) -> None:
        while not self._closing.wait(POLL_S):
            self.try_step()
