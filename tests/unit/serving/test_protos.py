"""Our copy of the protocol's file against a copy that nobody here wrote: tritonclient's."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from tritonclient.grpc import service_pb2

from lakeloop.ray_jobs.serving.inference_messages import MESSAGES, SERVICE
from lakeloop.ray_jobs.serving.protos import Messages, read_proto


def test_every_field_of_ours_is_a_field_of_theirs_with_the_same_number_and_type() -> None:
    ours = FileDescriptorProto.FromString(MESSAGES.pool.FindFileByName("open_inference.proto").serialized_pb)
    theirs = FileDescriptorProto.FromString(service_pb2.DESCRIPTOR.serialized_pb)
    assert ours.package == theirs.package
    others = {message.name: message for message in theirs.message_type}
    for message in ours.message_type:
        assert_part_of(message, others[message.name])


def assert_part_of(ours: DescriptorProto, theirs: DescriptorProto) -> None:
    fields = {field.name: field for field in theirs.field}
    for field in ours.field:
        other = fields[field.name]
        assert (field.number, field.type, field.label) == (other.number, other.type, other.label), field.name
        assert field.type_name == other.type_name
        assert field.HasField("oneof_index") == other.HasField("oneof_index")
    assert {field.name for field in ours.field} == fields.keys()
    nested = {message.name: message for message in theirs.nested_type}
    for message in ours.nested_type:
        assert message.options.map_entry == nested[message.name].options.map_entry
        assert_part_of(message, nested[message.name])


def test_the_six_calls_of_the_protocol_take_and_give_what_theirs_do() -> None:
    ours = MESSAGES.pool.FindServiceByName(SERVICE)
    theirs = service_pb2.DESCRIPTOR.services_by_name[ours.name]
    assert len(ours.methods) == 6
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert names(method.input_type, method.output_type) == names(other.input_type, other.output_type)


def names(*messages: Descriptor) -> list[str]:
    return [message.full_name for message in messages]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('syntax = "proto2";', "proto3"),
        ('syntax = "proto3"; import "other.proto";', "import"),
        ('syntax = "proto3"; message A { string name = 1;', "too early"),
        ('syntax = "proto3"; service A { option b = 1; }', "option"),
    ],
)
def test_a_file_that_says_more_than_is_understood_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "other.proto"
    path.write_text(text)
    with pytest.raises(ValueError, match=what):
        read_proto(path)


def test_a_field_of_a_message_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.proto"
    path.write_text('syntax = "proto3"; package a; message A { Missing one = 1; }')
    with pytest.raises(TypeError, match="Missing"):
        Messages(read_proto(path))
