"""Open Inference Protocol V2 over REST, as tritonclient speaks it: every call, JSON and binary, every datatype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

DATATYPES = {
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.fixture(scope="module")
def client(serves: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(f"{serves.host}:{serves.port}") as client:
        yield client


def tensor(name: str, datatype: str, values: Any, *, binary: bool = True, kind: Any = None) -> Any:
    array = np.array(values, kind or (np.object_ if datatype == "BYTES" else DATATYPES.get(datatype, np.bool_)))
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def texts(answer: Any, output: str) -> list[str]:
    """BYTES, which the client gives as bytes where they came in binary, and as texts where in JSON."""
    return [one.decode() if isinstance(one, bytes) else one for one in answer.as_numpy(output).tolist()]


def flight(binary: bool = True) -> list[Any]:
    """Two flights, with all that the model takes but the temperature."""
    return [
        tensor("share", "FP32", [0.25, 0.75], binary=binary),
        tensor("origin", "BYTES", [b"EWR", b"JFK"], binary=binary),
        tensor("night", "BOOL", [True, False], binary=binary),
        tensor("due", "BYTES", ["2026-05-01T12:00Z", "2026-05-02T12:00Z"], binary=binary),
        tensor("note", "BYTES", ["", "é"], binary=binary),
    ]


def test_the_server_and_its_models_are_live_ready_and_described(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "lakeloop"
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.is_model_ready("sum")
    assert client.is_model_ready("sum", "1")
    assert not client.is_model_ready("sum", "2")
    assert not client.is_model_ready("other")
    metadata = client.get_model_metadata("sum", "1")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("sum", ["1"], "lakeloop")
    assert [(one["name"], one["datatype"], one["shape"]) for one in metadata["inputs"]] == [
        ("a", "FP32", [-1]),
        ("b", "FP64", [-1]),
        ("seats", "INT16", [-1]),
    ]
    assert [(one["name"], one["datatype"]) for one in client.get_model_metadata("kind")["outputs"]] == [
        ("prediction", "FP64"),
        ("decision", "BYTES"),
    ]


@pytest.mark.parametrize(
    ("datatype", "binary"),
    [(name, binary) for name in DATATYPES for binary in (True, False) if binary or name != "FP16"],  # no FP16 in JSON
)
@pytest.mark.parametrize("column", [True, False])
def test_every_numeric_datatype_gives_the_same_answer(client: Any, datatype: str, binary: bool, column: bool) -> None:
    values = [[1], [2], [100]] if column else [1, 2, 100]
    inputs = [tensor(name, datatype, values, binary=binary) for name in ("a", "b", "seats")]
    outputs = [triton.InferRequestedOutput("prediction", binary_data=binary)]
    answer = client.infer("sum", inputs, outputs=outputs, request_id="r1")
    assert answer.as_numpy("prediction").tolist() == [3.0, 6.0, 300.0]
    assert answer.get_response()["id"] == "r1"
    assert (answer.get_response()["model_name"], answer.get_response()["model_version"]) == ("sum", "1")


@pytest.mark.parametrize("binary", [True, False])
def test_texts_bools_and_what_is_looked_up(client: Any, serves: Any, binary: bool) -> None:
    wanted = ("prediction", "decision", "absent", "ages", "as_of", "id")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in wanted]
    inputs = [*flight(binary), tensor("id", "BYTES", ["UA-1", "UA-2"], binary=binary)]
    answer = client.infer("late", inputs, outputs=outputs, request_id=f"texts-{binary}")
    assert answer.as_numpy("prediction").tolist() == [0.25, 0.75]
    assert answer.as_numpy("decision").tolist() == [False, True]
    assert texts(answer, "absent") == ["[]", '["temp"]']
    assert texts(answer, "id") == ["UA-1", "UA-2"]
    assert texts(answer, "as_of")[0].endswith("Z")
    rows = [row for row in serves.logged("late") if row["request_id"] == f"texts-{binary}"]
    assert [(row["id"], row["origin"], row["night"], row["note"], row["temp"]) for row in rows] == [
        ("UA-1", "EWR", True, "", 7.5),
        ("UA-2", "JFK", False, "é", None),
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_a_request_with_all_its_features_is_logged_as_columns(client: Any, serves: Any, binary: bool) -> None:
    temperatures = tensor("temp", "FP64", [1.5, np.nan]) if binary else tensor("temp", "FP64", [1.5, 2], binary=False)
    answer = client.infer("late", [*flight(binary), temperatures], request_id=f"whole-{binary}")
    assert answer.as_numpy("decision").tolist() == [False, True]
    rows = [row for row in serves.logged("late") if row["request_id"] == f"whole-{binary}"]
    assert [row["prediction_id"] for row in rows] == [f"whole-{binary}#0", f"whole-{binary}#1"]
    assert [
        (row["share"], row["origin"], row["night"], row["temp"], row["decision"], row["given"]) for row in rows
    ] == [
        (0.25, "EWR", True, 1.5, "false", ["temp"]),
        (0.75, "JFK", False, None if binary else 2.0, "true", ["temp"]),
    ]
    assert [row["due"].day for row in rows] == [1, 2]


@pytest.mark.parametrize("binary", [True, False])
def test_several_classes_are_answered_as_a_matrix_and_a_text(client: Any, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("decision", "prediction")]
    inputs = [tensor("share", "FP64", [0.0, 0.9]), tensor("origin", "BYTES", ["EWR", "LGA"])]
    answer = client.infer("kind", inputs, outputs=outputs)
    assert answer.as_numpy("prediction").shape == (2, 3)
    assert answer.as_numpy("prediction")[1] == pytest.approx([0.9, 0.1 / 3, 0.2 / 3], rel=1e-6)
    assert texts(answer, "decision") == ["c", "a"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32"])
def test_one_matrix_may_hold_all_columns(client: Any, serves: Any, binary: bool, datatype: str) -> None:
    values = [[1, 2, 3], [4, 5, 6]]
    request_id = f"matrix-{binary}-{datatype}"
    answer = client.infer("sum", [tensor("x", datatype, values, binary=binary)], request_id=request_id)
    assert answer.as_numpy("prediction").tolist() == [6.0, 15.0]
    rows = [row for row in serves.logged("sum") if row["request_id"] == request_id]
    assert [(row["a"], row["b"], row["seats"]) for row in rows] == [(1, 2, 3), (4, 5, 6)]


def test_nan_is_a_missing_value(client: Any) -> None:
    answer = client.infer("sum", [tensor("x", "FP32", [[1, np.nan, 3], [np.nan] * 3])])
    assert answer.as_numpy("prediction").tolist() == [4.0, 0.0]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_body_is_read(client: Any, algorithm: str) -> None:
    inputs = [tensor("x", "FP32", [[1, 2, 3]] * 2_000)]
    answer = client.infer("sum", inputs, request_compression_algorithm=algorithm)
    assert answer.as_numpy("prediction").tolist() == [6.0] * 2_000


def test_a_version_may_be_named_and_parameters_are_passed_over(client: Any) -> None:
    inputs = [tensor("x", "FP32", [[1, 2, 3]])]
    answer = client.infer("sum", inputs, model_version="1", parameters={"mine": "x"}, priority=1, timeout=5_000_000)
    assert answer.get_response()["model_version"] == "1"


def test_wrong_requests_say_why(client: Any) -> None:
    def said(model: str, inputs: list[Any], **more: Any) -> tuple[str, str]:
        with pytest.raises(InferenceServerException) as error:
            client.infer(model, inputs, **more)
        return error.value.status(), error.value.message()

    whole = [tensor("x", "FP32", [[1, 2, 3]])]
    assert said("other", whole)[0] == "404"
    assert "version '9' of sum" in said("sum", whole, model_version="9")[1]
    assert said("sum", whole, model_version="9")[0] == "404"
    assert said("sum", [tensor("x", "FP32", [[1, 2]])])[0] == "400"
    status, words = said("sum", [tensor("seats", "INT64", [1, 901])])
    assert (status, "row 1: seats: 901 is out of range; allowed is 0 to 900" in words) == ("400", True)
    assert "share is missing" in said("late", flight()[1:])[1]
    assert "did you mean 'origin'" in said("late", [*flight(), tensor("orgin", "BYTES", ["a", "b"])])[1]
    assert "no output 'class'" in said("sum", whole, outputs=[triton.InferRequestedOutput("class")])[1]
    counted = [triton.InferRequestedOutput("prediction", class_count=2)]
    assert "classification" in said("kind", flight()[:2], outputs=counted)[1]
    uneven = [tensor("a", "FP32", [1, 2]), tensor("b", "FP32", [1])]
    assert "the same n" in said("sum", uneven)[1]


def test_many_rows_come_back_in_their_order(client: Any, serves: Any) -> None:
    values = np.arange(30_000, dtype=np.float32).reshape(10_000, 3) % 900
    answer = client.infer("sum", [tensor("x", "FP32", values)], request_id="many")
    assert np.array_equal(answer.as_numpy("prediction"), values.sum(axis=1, dtype=np.float64))
    rows = [row for row in serves.logged("sum") if row["request_id"] == "many"]
    assert [row["a"] for row in rows] == values[:, 0].tolist()
    assert rows[9_999]["prediction_id"] == "many#9999"
