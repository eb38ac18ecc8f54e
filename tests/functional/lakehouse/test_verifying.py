"""A vendor's bucket is judged by the very contract that the adapters pass, in words, and is left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakeloop.infra.verify_store import main
from lakeloop.lakehouse.errors import Denied, Invalid, NotFound, Refused
from lakeloop.lakehouse.probing import PROMISES
from lakeloop.lakehouse.store.opening import open_store
from lakeloop.lakehouse.testing import StoreContract
from lakeloop.lakehouse.verifying import promises, verify
from lakeloop.tests.proxies import Proxy


def test_every_test_of_the_contract_is_run_and_has_its_sentence() -> None:
    assert set(promises()) == {name for name in dir(StoreContract) if name.startswith("test")}
    assert promises()["test_a_key_is_created_once"] == "a key is created once"


def test_a_folder_keeps_every_promise_and_is_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("stays")
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = [*PROMISES, *promises().values(), "nothing of all this is left"]
    assert [line.removeprefix("  holds  ") for line in lines[2:-2]] == expected
    assert lines[-1] == f"{len(expected)} of {len(expected)} promises hold"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_a_bucket_that_ignores_if_none_match_is_told_which_promises_it_breaks(
    bucket: str, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.strip = ("if-none-match",)
    open_store(f"s3://{bucket}").put("mine", b"stays")
    with pytest.raises(Refused, match="cannot hold a lake") as refused:
        main([f"s3://{bucket}"])
    assert refused.value.exit_code == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix("  FAILS  ") for line in lines if line.startswith("  FAILS")] == [
        "a key is created once (If-None-Match)",
        "of creates that race exactly one wins",
        "a key is created once",
        "of creates that race one wins and its bytes stay",
    ]
    assert "         a second create was accepted: writes would be lost without a word" in lines
    assert "         no AlreadyExists was raised; the answer was None" in lines
    assert "         not so: len(winners) == 1" in lines
    assert [entry.key for entry in open_store(f"s3://{bucket}").list()] == ["mine"]


@pytest.mark.slow
def test_a_promise_that_stumbles_over_an_odd_answer_is_broken_and_stops_no_other(bucket: str, proxy: Proxy) -> None:
    def alter(method: str, path: str, status: int, data: bytes) -> tuple[int, bytes]:
        return status, data.replace(b"<Size>3</Size>", b"") if "x%2F&" in path or "x/&" in path else data

    proxy.alter = alter
    broken = {proof.promise: proof.detail for proof in verify(f"s3://{bucket}") if not proof.held}
    assert broken == {"an entry tells size and age": "KeyError: 'Size'"}
    assert len(proxy.seen) < 2500


def test_a_place_that_cannot_be_used_at_all_is_an_error_of_its_own(bucket: str, proxy: Proxy) -> None:
    with pytest.raises(NotFound, match="no bucket"):
        main(["s3://no-such-bucket"])
    proxy.answer = lambda method, path, number: 403
    with pytest.raises(Denied):
        main([f"s3://{bucket}"])
    for nothing in ([], [""], ["s3://"]):
        with pytest.raises(Invalid, match="which place"):
            main(nothing)
