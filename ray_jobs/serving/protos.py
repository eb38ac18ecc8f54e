"""Message classes straight from a .proto file: the part of the language that Open Inference needs, read at run time.

No generated code, so no version of protoc that must fit the installed protobuf; and a pool of descriptors of its own,
so a process may hold another client's copy of the same protocol beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

TOKEN = re.compile(r'"[^"]*"|[\w.]+|[{}<>=;,()]')
SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}
OPTIONAL, REPEATED = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED


def read_proto(path: Path) -> FileDescriptorProto:
    """The descriptor of a proto3 file of messages (nested ones, maps, oneofs) and services, without imports.

    ValueError where the file says something else.
    """
    text = re.sub(r"//[^\n]*", "", path.read_text())
    return _Reader(iter(TOKEN.findall(text))).file(path.name)


class Messages:
    """The message classes of one file, by name: `messages["ModelInferRequest"]`."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.package = file.package
        self.pool = descriptor_pool.DescriptorPool()
        self.pool.AddSerializedFile(file.SerializeToString())

    def __getitem__(self, name: str) -> Any:
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"{self.package}.{name}"))


class _Reader:
    """Reads tokens once from left to right."""

    def __init__(self, tokens: Iterator[str]) -> None:
        self._tokens = tokens

    def file(self, name: str) -> FileDescriptorProto:
        self._expect('syntax = "proto3" ;')
        file = FileDescriptorProto(name=name, syntax="proto3")
        for word in self._tokens:
            match word:
                case "package":
                    file.package = self._next()
                    self._expect(";")
                case "message":
                    self._message(file.message_type.add())
                case "service":
                    self._service(file)
                case _:
                    raise ValueError(f"{name}: {word!r} is not understood")
        return file

    def _service(self, file: FileDescriptorProto) -> None:
        service = file.service.add(name=self._next())
        self._expect("{")
        while self._next_of("rpc", "}") == "rpc":
            method = service.method.add(name=self._next())
            self._expect("(")
            method.input_type = f".{file.package}.{self._next()}"
            self._expect(") returns (")
            method.output_type = f".{file.package}.{self._next()}"
            self._expect(") ;")

    def _message(self, message: DescriptorProto) -> None:
        message.name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            match word:
                case "message":
                    self._message(message.nested_type.add())
                case "map":
                    self._map(message)
                case "oneof":
                    self._oneof(message)
                case "repeated":
                    self._field(message, self._next()).label = REPEATED
                case _:
                    self._field(message, word)

    def _field(self, message: DescriptorProto, kind: str) -> FieldDescriptorProto:
        name = self._next()
        self._expect("=")
        field = _typed(message, name, int(self._next()), kind)
        self._expect(";")
        return field

    def _oneof(self, message: DescriptorProto) -> None:
        message.oneof_decl.add(name=self._next())
        self._expect("{")
        while (kind := self._next()) != "}":
            self._field(message, kind).oneof_index = len(message.oneof_decl) - 1

    def _map(self, message: DescriptorProto) -> None:
        """A map is a repeated message of key and value."""
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        field = self._field(message, "")
        entry = message.nested_type.add(name="".join(map(str.capitalize, field.name.split("_"))) + "Entry")
        entry.options.map_entry = True
        _typed(entry, "key", 1, key)
        _typed(entry, "value", 2, value)
        field.label, field.type_name = REPEATED, entry.name

    def _next(self) -> str:
        word = next(self._tokens, None)
        if word is None:
            raise ValueError("the file ends too early")
        return word

    def _next_of(self, *allowed: str) -> str:
        word = self._next()
        if word not in allowed:
            raise ValueError(f"{word!r} where {' or '.join(allowed)} belongs")
        return word

    def _expect(self, words: str) -> None:
        for word in words.split():
            self._next_of(word)


def _typed(message: DescriptorProto, name: str, number: int, kind: str) -> FieldDescriptorProto:
    """A new field; a kind that is no scalar's is the name of a message, which the pool resolves."""
    field = message.field.add(name=name, number=number, label=OPTIONAL)
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type_name = kind
    return field
