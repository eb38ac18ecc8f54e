"""What a place keeps of the promises that a lake rests on: the shipped contract and the probe, run outside of pytest.

Everything happens below a fresh random prefix, which is emptied at the end; nothing else in the place is touched.
"""

from __future__ import annotations

import linecache
import shutil
import traceback
import uuid
from collections.abc import Iterator

from lakeloop.lakehouse.errors import LakeloopError
from lakeloop.lakehouse.probing import Proof, probe
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.store.opening import open_store
from lakeloop.lakehouse.testing import StoreContract

ODD_ANSWERS = (LookupError, TypeError, ValueError, AttributeError, OSError)
"""What code that reads a store's answers may stumble over when they are not what S3 says they are."""


def promises() -> dict[str, str]:
    """The contract's methods, and each as a sentence."""
    names = [name for name in vars(StoreContract) if name.startswith("test_")]
    return {name: name.removeprefix("test_").replace("_", " ") for name in names}


def verify(url: str) -> Iterator[Proof]:
    """A proof for each promise, as soon as it is tried: about 2,000 requests in all.

    Denied, Unavailable and NotFound are raised when the place cannot be used at all.
    """
    root = f"{url.rstrip('/')}/lakeloop-verify-{uuid.uuid4().hex}"
    whole = open_store(root)
    whole.put("begun", b"")
    try:
        yield from probe(open_store(f"{root}/probe"))
        for number, (name, promise) in enumerate(promises().items()):
            yield _tried(name, promise, open_store(f"{root}/{number}"))
    finally:
        whole.delete([entry.key for entry in whole.list()])
        if "://" not in root:
            shutil.rmtree(root, ignore_errors=True)  # empty folders, which are nothing in a store
    left = [entry.key for entry in whole.list()]
    yield Proof("nothing of all this is left", not left, f"{len(left)} objects below {root}" if left else "")


def _tried(name: str, promise: str, store: Store) -> Proof:
    try:
        getattr(StoreContract(), name)(store)
    except AssertionError as error:
        return Proof(promise, False, str(error) or f"not so: {_failed_line(error)}")
    except LakeloopError as error:
        return Proof(promise, False, error.what)
    except ODD_ANSWERS as error:
        return Proof(promise, False, f"{type(error).__name__}: {error}")
    return Proof(promise, True)


def _failed_line(error: AssertionError) -> str:
    """The source of the assertion that failed, as one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    first, last = frame.lineno or 0, frame.end_lineno or frame.lineno or 0
    lines = [linecache.getline(frame.filename, number).strip() for number in range(first, last + 1)]
    return " ".join(lines).removeprefix("assert ")
