"""KServe's own gRPC client, and the protoc that comes with it, in an environment of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from lakeloop.ray_jobs.serving import inference_messages
from tests.functional.serving.grpc_place import Served

pytestmark = pytest.mark.slow
CLIENT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

def typed():
    share = InferInput("share", [2], "FP64", data=[0.25, 0.75])
    origin = InferInput("origin", [2], "BYTES", data=["EWR", "JFK"])
    late = InferInput("late", [2], "BOOL", data=[True, False])
    return InferRequest("late", [share, origin, late], request_id="typed", model_version="4")

def raw():
    share = InferInput("share", [2], "FP64")
    share.set_data_from_numpy(np.array([0.25, 0.75]), binary_data=True)
    half = InferInput("seats", [2], "INT32")
    half.set_data_from_numpy(np.array([1, 2], np.int32), binary_data=True)
    return InferRequest("late", [share, half], request_id="raw")

async def main(url):
    client = InferenceGRPCClient(url=url)
    said = {"live": await client.is_server_live(), "ready": await client.is_server_ready()}
    said["model"] = await client.is_model_ready("late")
    for request in (typed(), raw()):
        answer = await client.infer(request)
        outputs = {one.name: one.as_numpy().tolist() for one in answer.outputs}
        said[answer.id] = {"model": answer.model_name, "version": answer.model_version, **outputs}
    try:
        await client.infer(InferRequest("late", [InferInput("share", [1], "FP64", data=[2.0])]))
    except Exception as error:
        said["wrong"] = str(error)
    await client.close()
    print(json.dumps(said))

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as running:
        yield running


def run(python: Path, *arguments: str, folder: Path) -> str:
    done = subprocess.run([str(python), *arguments], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kserve_s_client_sees_health_and_gets_typed_and_raw_answers(
    kserve: Path, served: Served, tmp_path: Path
) -> None:
    said: dict[str, Any] = json.loads(run(kserve, "-c", CLIENT, f"127.0.0.1:{served.port}", folder=tmp_path))
    assert said["live"] is said["ready"] is said["model"] is True
    answer = {"model": "late", "prediction": [0.25, 0.75], "decision": [False, True]}
    assert said["typed"] == {**answer, "version": "4"}
    assert said["raw"] == {**answer, "version": "3"}
    assert "INVALID_ARGUMENT" in said["wrong"]
    assert "out of range" in said["wrong"]
    assert [one.request_id for one in served.logged] == ["typed", "raw"]


def test_protoc_reads_our_file_as_we_do(kserve: Path, tmp_path: Path) -> None:
    source = Path(inference_messages.__file__).with_name("open_inference.proto")
    out = tmp_path / "descriptors"
    options = ["-m", "grpc_tools.protoc", f"-I{source.parent}", f"--descriptor_set_out={out}", source.name]
    run(kserve, *options, folder=tmp_path)
    (theirs,) = FileDescriptorSet.FromString(out.read_bytes()).file
    ours = inference_messages.MESSAGES.pool.FindFileByName(source.name).serialized_pb
    assert plain(FileDescriptorProto.FromString(ours)) == plain(theirs)


def plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """Without the JSON names, which only protoc writes."""
    messages: list[DescriptorProto] = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return file
