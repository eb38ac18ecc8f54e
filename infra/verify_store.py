"""`python -m lakeloop.infra.verify_store PLACE`, or `make verify-store`: what a vendor's bucket, or a folder, keeps.

Endpoint and credentials come by the standard AWS variables and profiles. Exit code 0 when every promise holds, 3 when
one does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lakeloop.infra.cli.output import out, say
from lakeloop.lakehouse.errors import Invalid, LakeloopError, Refused

USAGE = "make verify-store BUCKET=name [ENDPOINT=https://…] or make verify-store FOLDER=path"


def main(arguments: Sequence[str]) -> int:
    """A line for each promise as it is tried, with the reason where it does not hold; then the count."""
    from lakeloop.lakehouse.verifying import verify

    if len(arguments) != 1 or arguments[0] in ("", "s3://"):
        raise Invalid("which place is to be verified?", todo=USAGE)
    broken, kept = 0, 0
    out.print(f"{arguments[0]}\n", markup=False)
    for proof in verify(arguments[0]):
        broken, kept = broken + (not proof.held), kept + proof.held
        out.print(f"  {'holds' if proof.held else 'FAILS':<7}{proof.promise}", markup=False)
        for line in proof.detail.splitlines():
            out.print(f"         {line}", markup=False)
    out.print(f"\n{kept} of {kept + broken} promises hold", markup=False)
    if broken:
        raise Refused(
            "this place cannot hold a lake", where=arguments[0], todo="use another store, or ask its vendor about these"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LakeloopError as error:
        say(str(error))
        sys.exit(error.exit_code)
