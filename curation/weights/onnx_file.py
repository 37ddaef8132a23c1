"""Writes an ONNX file: the few parts of its protobuf format that a small convolutional network needs.

The format is published as onnx/onnx.proto (ONNX, Apache-2.0); the numbers below are its field numbers.
The package onnx would do the same, for one more dependency; and cards pin what is written here by its sha256,
which is then no matter of the versions of onnx and protobuf.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_IR_VERSION, _OPSET = 8, 17
_FLOAT, _HALF = 1, 10  # TensorProto.DataType
_STORED = {np.dtype("<f4"): _FLOAT, np.dtype("<i8"): 7, np.dtype("<f2"): _HALF}
_KIND_INT, _KIND_INTS = 2, 7  # AttributeProto.AttributeType


class OnnxGraph:
    """Nodes and weights, added in the order in which they are computed."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._weights: list[bytes] = []

    def weight(self, name: str, values: np.ndarray) -> str:
        """Stores values in half precision; computed with in single. Returns the name to compute with."""
        self.constant(f"{name}.half", values.astype("<f2"))
        return self.node("Cast", [f"{name}.half"], name, to=_FLOAT)

    def constant(self, name: str, values: np.ndarray) -> str:
        """Stores float32, float16 or int64 as they are. Raises KeyError for another type."""
        dims = b"".join(_number(1, size) for size in values.shape)
        kind = _number(2, _STORED[values.dtype.newbyteorder("<")])
        data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        self._weights.append(_bytes(5, dims + kind + _text(8, name) + _bytes(9, data)))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]
    ) -> str:
        """Adds an operator of one output. Returns the output's name."""
        body = b"".join(_text(1, name) for name in inputs)
        body += _text(2, output) + _text(3, output) + _text(4, operator)
        for name, value in attributes.items():
            if isinstance(value, int):
                kind = _number(3, value) + _number(20, _KIND_INT)
            else:
                kind = b"".join(_number(8, one) for one in value) + _number(20, _KIND_INTS)
            body += _bytes(5, _text(1, name) + kind)
        self._nodes.append(_bytes(1, body))
        return output

    def write(
        self,
        file: Path,
        source: tuple[str, tuple[int, ...]],
        result: tuple[str, tuple[int, ...]],
        producer: str = "persona demo",
    ) -> None:
        """Writes the model; `source` and `result` are names and shapes behind a free batch size."""
        graph = b"".join(self._nodes) + _text(2, "network") + b"".join(self._weights)
        graph += _bytes(11, _value(*source)) + _bytes(12, _value(*result))
        model = _number(1, _IR_VERSION) + _text(2, producer)
        model += _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, _OPSET))
        temporary = file.with_suffix(".new")
        temporary.write_bytes(model)
        temporary.replace(file)


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = _bytes(1, _text(2, "batch")) + b"".join(_bytes(1, _number(1, size)) for size in shape)
    tensor = _number(1, _FLOAT) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
