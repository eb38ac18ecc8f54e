"""Open Inference over gRPC, asked by what nobody here wrote: tritonclient, its stubs, gRPC's health and reflection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from lakeloop.lakehouse.errors import Unavailable
from lakeloop.ray_jobs.serving.asgi import BODY_BYTES, failure
from lakeloop.ray_jobs.serving.grpc_server import MOST_WATCHING, SERVICE, Answered, start_server
from tests.functional.serving.grpc_place import Served

INFER = f"/{SERVICE}/ModelInfer"


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    running.logged.clear()
    yield running
    running.unready.clear()
    running.permit = None


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        yield client


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{served.port}", options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> service_pb2_grpc.GRPCInferenceServiceStub:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name: str, values: np.ndarray, datatype: str) -> triton.InferInput:
    one = triton.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values)
    return one


def flights(*shares: float) -> list[triton.InferInput]:
    count = len(shares)
    return [
        tensor("share", np.array(shares), "FP64"),
        tensor("origin", np.array([b"EWR"] * count, object), "BYTES"),
        tensor("seats", np.arange(count, dtype=np.int32), "INT32"),
        tensor("late", np.array([True] * count), "BOOL"),
    ]


def typed(share: float = 0.5, **more: Any) -> Any:
    """A request of typed contents."""
    message = service_pb2.ModelInferRequest(model_name="late", **more)
    message.inputs.add(name="share", datatype="FP64", shape=[1]).contents.fp64_contents.append(share)
    return message


def test_a_stock_client_sees_a_live_server_and_what_its_models_take(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("late")
    assert client.is_model_ready("late", "4")
    assert client.get_server_metadata().name == "lakeloop"
    found = client.get_model_metadata("late")
    assert (found.name, list(found.versions), found.platform) == ("late", ["3", "4"], "lakeloop")
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [
        ("share", "FP64", [-1]),
        ("origin", "BYTES", [-1]),
        ("seats", "INT32", [-1]),
        ("late", "BOOL", [-1]),
    ]
    assert [(one.name, one.datatype) for one in found.outputs][:2] == [("prediction", "FP64"), ("decision", "BOOL")]


def test_a_stock_client_gets_answers_by_name_and_they_are_logged(
    served: Served, client: triton.InferenceServerClient
) -> None:
    answer = client.infer("late", flights(0.25, 0.75), request_id="r1")
    assert answer.as_numpy("prediction").tolist() == [0.25, 0.75]
    assert answer.as_numpy("decision").tolist() == [False, True]
    told = answer.get_response()
    assert (told.model_name, told.model_version, told.id) == ("late", "3", "r1")
    assert told.parameters["revision"].int64_param == 5
    assert told.raw_output_contents
    assert [one.request_id for one in served.logged] == ["r1"]


def test_a_stock_client_asks_for_one_version_and_one_output(client: triton.InferenceServerClient) -> None:
    wanted = [triton.InferRequestedOutput("decision")]
    answer = client.infer("late", flights(0.75), model_version="4", outputs=wanted)
    told = answer.get_response()
    assert told.model_version == "4"
    assert [one.name for one in told.outputs] == ["decision"]


def test_a_stock_client_gets_texts_and_a_score_for_each_class(client: triton.InferenceServerClient) -> None:
    inputs = [tensor("share", np.array([0.25]), "FP64"), tensor("origin", np.array([b"JFK"], object), "BYTES")]
    answer = client.infer("kind", inputs)
    assert answer.as_numpy("prediction").tolist() == [[0.25, 0.75]]
    assert answer.as_numpy("decision").tolist() == [b"b"]


def test_a_stock_client_asks_many_times_at_once(served: Served, client: triton.InferenceServerClient) -> None:
    answers: list[Any] = []
    done = threading.Semaphore(0)

    def keep(result: Any, error: Any) -> None:
        answers.append(error or result.as_numpy("prediction").item())
        done.release()

    for place in range(50):
        client.async_infer("late", flights(place / 64), keep, request_id=f"many-{place}")
    for _ in range(50):
        assert done.acquire(timeout=30)
    assert sorted(answers) == [place / 64 for place in range(50)]
    assert sorted(one.request_id for one in served.logged) == sorted(f"many-{place}" for place in range(50))


def test_typed_contents_are_answered_typed(stub: Any) -> None:
    message = typed(0.75, id="t1")
    message.inputs.add(name="origin", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"JFK")
    message.inputs.add(name="seats", datatype="INT32", shape=[1]).contents.int_contents.append(100)
    message.inputs.add(name="late", datatype="BOOL", shape=[1]).contents.bool_contents.append(False)
    answer = stub.ModelInfer(message)
    assert not answer.raw_output_contents
    assert answer.id == "t1"
    assert list(answer.outputs[0].contents.fp64_contents) == [0.75]
    assert list(answer.outputs[1].contents.bool_contents) == [True]


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("UINT8", "uint_contents"),
        ("INT16", "int_contents"),
        ("UINT64", "uint64_contents"),
        ("INT64", "int64_contents"),
        ("FP32", "fp32_contents"),
    ],
)
def test_a_number_may_come_in_any_datatype_that_holds_it(stub: Any, datatype: str, field: str) -> None:
    message = typed()
    message.inputs[0].datatype = datatype
    message.inputs[0].contents.Clear()
    getattr(message.inputs[0].contents, field).append(1)
    assert list(stub.ModelInfer(message).outputs[0].contents.fp64_contents) == [1]


def test_half_precision_goes_raw_and_only_raw(stub: Any) -> None:
    message = service_pb2.ModelInferRequest(model_name="late")
    message.inputs.add(name="share", datatype="FP16", shape=[1])
    message.raw_input_contents.append(np.array([0.5], "<f2").tobytes())
    assert np.frombuffer(stub.ModelInfer(message).raw_output_contents[0], "<f8").tolist() == [0.5]
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.append(0.5)
    assert failure_of(stub, message) == (grpc.StatusCode.INVALID_ARGUMENT, "no typed contents")


def failure_of(stub: Any, message: Any, **more: Any) -> Any:
    """The code of a failed call, and the words of it that a test looks for."""
    with pytest.raises(grpc.RpcError) as failed:
        stub.ModelInfer(message, **more)
    code, words = failed.value.code(), failed.value.details()
    known = ("no typed contents", "out of range", "there is no model", "version '9'", "no output", "its log says why")
    return code, next((one for one in known if one in words), words)


def test_what_is_wrong_is_told_with_the_code_of_its_kind(stub: Any) -> None:
    code = grpc.StatusCode
    assert failure_of(stub, typed(1.5)) == (code.INVALID_ARGUMENT, "out of range")
    assert failure_of(stub, typed(model_version="9")) == (code.NOT_FOUND, "version '9'")
    assert failure_of(stub, typed(0.13)) == (code.INTERNAL, "its log says why")
    unknown = typed()
    for name in ("nobody", "", "../health", "a/b", "ü", "late?x"):
        unknown.model_name = name
        assert failure_of(stub, unknown) == (code.NOT_FOUND, "there is no model")
    other = typed()
    other.outputs.add(name="nothing")
    assert failure_of(stub, other) == (code.INVALID_ARGUMENT, "no output")
    assert failure_of(stub, service_pb2.ModelInferRequest(model_name="late"))[0] == code.INVALID_ARGUMENT


def test_a_wrong_request_is_not_logged(served: Served, stub: Any) -> None:
    failure_of(stub, typed(1.5))
    assert served.logged == []


def test_a_message_of_a_long_name_is_still_a_status_that_a_client_can_read(stub: Any) -> None:
    message = typed()
    message.inputs[0].name = "→" * 100_000
    code, words = failure_of(stub, message)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "→" in words


def test_bytes_that_are_no_message_are_an_invalid_argument(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(INFER)(b"\xff\xff\xff\xff")
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no inference.ModelInferRequest" in failed.value.details()


def test_a_message_larger_than_a_body_may_be_is_too_much(stub: Any) -> None:
    message = typed()
    message.raw_input_contents.append(bytes(BODY_BYTES))
    assert failure_of(stub, message)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_endpoint_without_a_replica_is_unavailable_and_says_when_to_come_again(served: Served, stub: Any) -> None:
    served.unready.add("late")
    with pytest.raises(grpc.RpcError) as failed:
        stub.ModelInfer(typed())
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    assert ("retry-after", "1") in [(key, value) for key, value in failed.value.trailing_metadata()]
    ready = stub.ModelReady(service_pb2.ModelReadyRequest(name="late"))
    assert not ready.ready
    assert stub.ModelReady(service_pb2.ModelReadyRequest(name="kind")).ready
    assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


def test_the_caller_s_token_reaches_the_endpoint(served: Served, stub: Any) -> None:
    def permit(scope: Any) -> Any:
        return None if (b"authorization", b"Bearer right") in scope["headers"] else failure(401, "no valid token")

    served.permit = permit
    assert failure_of(stub, typed()) == (grpc.StatusCode.UNAUTHENTICATED, "no valid token")
    assert stub.ModelInfer(typed(), metadata=(("authorization", "Bearer right"),)).outputs


def test_health_is_told_for_the_server_and_for_each_endpoint(served: Served, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    status = health_pb2.HealthCheckResponse

    def check(service: str) -> Any:
        return health.Check(health_pb2.HealthCheckRequest(service=service)).status

    assert [check(""), check(SERVICE), check("late")] == [status.SERVING] * 3
    watched = health.Watch(health_pb2.HealthCheckRequest(service="late"))
    assert next(watched).status == status.SERVING
    served.unready.add("late")
    assert next(watched).status == status.NOT_SERVING
    watched.cancel()
    assert [check(""), check("late"), check("kind")] == [status.NOT_SERVING, status.NOT_SERVING, status.SERVING]
    assert health.List(health_pb2.HealthListRequest()).statuses[SERVICE].status == status.NOT_SERVING
    with pytest.raises(grpc.RpcError) as failed:
        check("nobody")
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert next(unknown).status == status.SERVICE_UNKNOWN
    unknown.cancel()


def test_watches_leave_room_for_calls(channel: grpc.Channel, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    health, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service="late")
    watches = [health.Watch(request) for _ in range(MOST_WATCHING)]
    for watch in watches:
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        next(health.Watch(request))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(typed()).outputs
    for watch in watches:
        watch.cancel()


def test_a_client_without_the_file_learns_the_protocol_by_reflection(channel: grpc.Channel) -> None:
    found = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(found.get_services())
    service = DescriptorPool(found).FindServiceByName(SERVICE)
    assert [method.name for method in service.methods][-1] == "ModelInfer"
    assert service.methods_by_name["ModelInfer"].input_type.fields_by_name["raw_input_contents"].number == 7


def test_a_call_is_given_up_when_its_deadline_is_over_or_its_caller_is_gone() -> None:
    async def run() -> list[str]:
        ended: list[str] = []
        began = asyncio.Event()

        async def ask(*_: Any) -> Answered:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("given up")
            raise AssertionError("nobody sets it")

        server, port = await start_server(ask, "127.0.0.1", 0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary(INFER)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await infer(typed().SerializeToString(), timeout=0.2)
            assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            began.clear()
            leaving = infer(typed().SerializeToString())
            await began.wait()
            leaving.cancel()
            while len(ended) < 2:
                await asyncio.sleep(0.01)
        await server.stop(None)
        return ended

    assert asyncio.run(run()) == ["given up"] * 2


def test_a_port_that_is_taken_is_told_before_anything_is_served(served: Served) -> None:
    async def ask(*_: Any) -> Answered:
        raise AssertionError("nobody asks")

    with pytest.raises(Unavailable, match="cannot listen on"):
        asyncio.run(start_server(ask, "127.0.0.1", served.port))
