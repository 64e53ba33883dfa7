"""What a store consists of, wherever it lies."""

import asyncio
import time

import boto3
import numpy as np
import pytest
import zarr
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from zarr.storage import FsspecStore, LocalStore, LoggingStore, MemoryStore, ZipStore

from daskmix.objects import Stat, listing


def filled(store):
    group = zarr.create_group(store, overwrite=True)
    array = group.create_array("a/x", shape=(3000,), chunks=(1,), dtype=np.float32, compressors=None)
    array[:5] = 1
    return group.store


def of_file(place):
    return FsspecStore.from_url(f"file://{place}", storage_options={"auto_mkdir": True})


def of_url(place):
    return FsspecStore.from_url(f"memory://{place.name}/s.zarr")


@pytest.mark.parametrize(
    "made", [LocalStore, of_file, of_url, lambda _: MemoryStore(), lambda p: ZipStore(p, mode="w")]
)
def test_every_store_tells_keys_and_sizes(made, tmp_path):
    store = filled(made(tmp_path / "s.zarr"))
    found = listing(store)
    chunks = [f"a/x/c/{i}" for i in range(5)]
    assert set(found) == {"zarr.json", "a/zarr.json", "a/x/zarr.json", *chunks}
    assert {found[key].size for key in chunks} == {4}
    assert listing(store, "a/x") == listing(store, "/a/x/") == {key: found[key] for key in ["a/x/zarr.json", *chunks]}
    assert listing(store, "b") == {}


@pytest.mark.parametrize("spelled", [str, lambda p: p, lambda p: f"file://{p}"])
def test_a_path_is_listed_as_its_store_is(spelled, tmp_path):
    store = filled(tmp_path / "s.zarr")
    assert listing(spelled(tmp_path / "s.zarr"), "a/x") == listing(store, "a/x")
    assert listing(spelled(tmp_path / "nothing")) == {}


def test_another_object_of_the_same_size_has_another_tag(tmp_path):
    path = tmp_path / "s.zarr"
    filled(path)
    before = listing(path)
    time.sleep(0.01)
    (path / "a/x/c/3").write_bytes(b"abcd")
    assert {key for key, stat in listing(path).items() if stat != before[key]} == {"a/x/c/3"}


def test_a_store_is_listed_where_a_loop_is_running_as_in_jupyter(tmp_path):
    stores = [filled(MemoryStore()), filled(of_file(tmp_path / "s.zarr")), filled(LoggingStore(MemoryStore()))]

    async def cell():
        return [set(listing(store)) for store in stores]

    assert asyncio.run(cell()) == [set(listing(stores[0]))] * 3


@pytest.fixture(scope="module")
def bucket():
    """An object store on the loopback, and how many requests it has answered."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys)
    client.create_bucket(Bucket="bucket")
    options = {"key": "key", "secret": "secret", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    yield client, options
    server.stop()


def test_an_object_store_is_asked_once_per_thousand_objects(bucket, caplog):
    _, options = bucket
    for i in range(1001):  # by the server itself, for requests take seconds
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("bucket", f"s.zarr/x/c/{i}", b"1234")
    store = FsspecStore.from_url("s3://bucket/s.zarr", storage_options=options)
    caplog.clear()
    found = listing(store, "x")
    assert len(found) == 1001
    assert found["x/c/7"] == Stat(4, "81dc9bdb52d04dc20036dbd8313ed055")
    assert len([line for line in caplog.messages if "GET /bucket" in line]) == 2  # as the server saw it
    assert listing(store, "y") == {}


def test_what_was_written_since_the_last_listing_is_seen(bucket):
    client, options = bucket
    store = FsspecStore.from_url("s3://bucket/other.zarr", storage_options=options)
    for i in range(3):
        client.put_object(Bucket="bucket", Key=f"other.zarr/{i}", Body=b"")
        assert listing(store) == {f"{j}": Stat(0, "d41d8cd98f00b204e9800998ecf8427e") for j in range(i + 1)}


def test_what_would_have_to_be_crawled_is_not_listed():
    pytest.importorskip("aiohttp")
    with pytest.raises(NotImplementedError, match="HTTP"):
        listing("http://127.0.0.1:9/s.zarr")
