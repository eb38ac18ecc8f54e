"""Every adapter keeps the port's contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakeloop.lakehouse.errors import Denied, Invalid, NotFound
from lakeloop.lakehouse.store import Store
from lakeloop.lakehouse.store.folder import FolderStore
from lakeloop.lakehouse.store.memory import MemoryStore
from lakeloop.lakehouse.store.opening import open_store
from lakeloop.lakehouse.store.s3 import S3Store
from lakeloop.lakehouse.testing import FaultyStore, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore("contract")


class TestFolderStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FolderStore(tmp_path / "lake")

    def test_nothing_temporary_is_left_behind(self, store: FolderStore) -> None:
        store.put("a/b", b"1", if_absent=True)
        with pytest.raises(NotFound):
            store.get("a")
        store.delete(["a/b"])
        assert [path.name for path in store.root.rglob("*")] == [".tmp"]

    def test_a_file_where_a_folder_is_needed_is_no_taken_key(self, store: FolderStore) -> None:
        store.put("file", b"1")
        for key in ("file/below", "file/far/below"):
            with pytest.raises(Invalid, match="where a folder is needed"):
                store.put(key, b"2", if_absent=True)

    def test_a_folder_where_a_file_is_needed_is_no_taken_key(self, store: FolderStore) -> None:
        store.put("folder/file", b"1")
        for if_absent in (True, False):
            with pytest.raises(Invalid, match="where a file is"):
                store.put("folder", b"2", if_absent=if_absent)

    def test_a_file_cannot_be_a_lake(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(Invalid, match="not a folder"):
            FolderStore(tmp_path / "file")

    @pytest.mark.skipif("__import__('os').geteuid() == 0", reason="root may write anywhere")
    def test_a_folder_of_another_is_denied(self, tmp_path: Path) -> None:
        (tmp_path / "theirs").mkdir(mode=0o500)
        with pytest.raises(Denied, match="no permission"):
            FolderStore(tmp_path / "theirs").put("key", b"")


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, bucket: str) -> Store:
        return S3Store(bucket, "team/lake")

    def test_two_prefixes_of_a_bucket_do_not_see_each_other(self, bucket: str) -> None:
        one, other = S3Store(bucket, "lake"), S3Store(bucket, "lake-2")
        one.put("key", b"1")
        other.put("key", b"2")
        assert ([e.key for e in one.list()], one.get("key"), other.get("key")) == (["key"], b"1", b"2")

    def test_a_lake_may_be_a_whole_bucket(self, bucket: str) -> None:
        store = S3Store(bucket, "/")
        assert store.url == f"s3://{bucket}"
        self.test_a_list_goes_on_after_any_key(store)
        self.test_a_delimiter_gives_each_folder_once(store)
        self.test_a_delete_may_be_repeated(S3Store(bucket, "below"))


class TestFaultyStore(StoreContract):
    """A faulty store that is not told to fail is a store."""

    @pytest.fixture
    def store(self) -> Store:
        return FaultyStore(MemoryStore())


def test_a_url_chooses_its_adapter(tmp_path: Path, s3: str) -> None:
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert isinstance(open_store("memory://x"), MemoryStore)
    assert open_store("s3://bucket/a/b/").url == "s3://bucket/a/b"
    for url in ("s3://", "gs://bucket", "http://bucket/x"):
        with pytest.raises(Invalid, match="not a lake"):
            open_store(url)


def test_a_lake_in_memory_has_no_place_for_other_engines() -> None:
    with pytest.raises(Invalid, match="no tables"):
        MemoryStore().location()
