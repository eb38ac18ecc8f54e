"""The command line: `lakeloop`.

Modules by noun; each command's work is imported when it runs, so that --help is quick.
"""

from __future__ import annotations

import sys

from lakeloop.lakehouse.errors import LakeloopError


def main() -> None:
    """The entry point.

    Errors a user can cause are two lines and an exit code: 1 failed, 2 usage, 3 refused, 4 try again.
    """
    from lakeloop.infra.cli.app import app

    try:
        app(standalone_mode=True)
    except LakeloopError as error:
        print(f"lakeloop: {error}", file=sys.stderr)  # noqa: T201 - the edge of the process
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\nlakeloop: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
