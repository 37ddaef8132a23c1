"""A graph of TensorFlow.js as an ONNX file: the same bytes each time, of operations that are known here."""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from curation.weights.onnx_file import OnnxGraph
from curation.weights.web import FetchError

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_ELEMENTWISE = {"AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "Maximum": "Max", "Minimum": "Min"}
_INPUT, _OUTPUT = "input:0", "output:0"  # no node of a graph has a colon in its name
_DTYPES = {"float32": "<f4", "int32": "<i4"}
# What a graph raises that is not built as it should be: parts of another type, missing ones, large numbers.
_BROKEN = (
    *(KeyError, IndexError, TypeError, AttributeError, ValueError),
    *(StopIteration, RuntimeError, OverflowError, struct.error),
)


def weight_files(graph: bytes, called: str) -> list[str]:
    """The files with a graph's weights, relative to it, in the order of its manifest. Raises FetchError."""
    try:
        names = [str(path) for group in json.loads(graph)["weightsManifest"] for path in group["paths"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FetchError(f"{called}: is no graph of TensorFlow.js") from None
    for name in names:
        if names.count(name) > 1:
            raise FetchError(f"{called}: its manifest names {name} twice")
    return names


def write_onnx(graph: bytes, weights: list[bytes], target: Path, called: str) -> None:
    """Writes the graph as ONNX: `input:0` float32 [batch, c, h, w] to `output:0`, the graph's only ones.

    `weights` are the contents of `weight_files`. What the graph does to channels-last pictures is done to
    channels-first ones: around its convolutions the axes are turned, and ONNX Runtime takes the turns out.
    Raises FetchError, which names the operation, type or layout that is not known here.
    """
    try:
        _Writer(json.loads(graph), weights, called).write(target)
    except _BROKEN as error:
        first = " ".join(str(error).split())[:200]
        raise FetchError(f"{called}: cannot be made an ONNX file: {type(error).__name__}: {first}") from None


@dataclass
class _Writer:
    """Nodes of ONNX, each behind those that it reads."""

    about: dict[str, Any]
    weights: list[bytes]
    called: str
    onnx: OnnxGraph = field(default_factory=OnnxGraph)

    def write(self, target: Path) -> None:
        """The whole of it."""
        signature = self.about["signature"]
        (given,), (wanted,) = signature["inputs"].values(), signature["outputs"].values()
        self._values = self._read_weights()
        self._graph = {node["name"]: node for node in self.about["modelTopology"]["node"]}
        self._written: set[str] = set()
        self.onnx.node("Transpose", [_INPUT], _plain(given["name"]), perm=_TO_NHWC)
        self._write(_plain(wanted["name"]), _plain(given["name"]))
        self.onnx.node("Identity", [_plain(wanted["name"])], _OUTPUT)
        (h, w, c), answer = self._shape(given), self._shape(wanted)
        self.onnx.write(target, (_INPUT, (c, h, w)), (_OUTPUT, answer), producer="persona")

    def _read_weights(self) -> dict[str, np.ndarray]:
        values, files = {}, iter(self.weights)
        for group in self.about["weightsManifest"]:
            data, at = b"".join([next(files) for _ in group["paths"]]), 0
            for one in group["weights"]:
                if "quantization" in one or one["dtype"] not in _DTYPES:
                    raise self._unknown(f"weights as {one.get('quantization', one['dtype'])}")
                if any(size < 0 for size in one["shape"]):
                    raise self._unknown(f"the shape {one['shape']} of {one['name']}")
                count = prod(one["shape"])
                value = np.frombuffer(data, _DTYPES[one["dtype"]], count, at)
                values[one["name"]] = value.reshape(one["shape"])
                at += value.nbytes
            if at != len(data):
                raise FetchError(f"{self.called}: its weights are {len(data)} bytes, its graph has {at}")
        return values

    def _unknown(self, what: str) -> FetchError:
        return FetchError(f"{self.called}: is not made an ONNX file: {what} is not known here")

    def _shape(self, tensor: dict[str, Any]) -> tuple[int, ...]:
        """Behind the batch."""
        sizes = tuple(int(one["size"]) for one in tensor["tensorShape"]["dim"][1:])
        if any(size < 1 for size in sizes):
            raise self._unknown(f"the size {min(sizes)} of {tensor['name']}")
        return sizes

    def _write(self, wanted: str, given: str) -> None:
        """Writes a node behind those that it reads; a deep graph has no deep recursion here."""
        waiting, looked_at = [wanted], set[str]()
        while waiting:
            name = waiting[-1]
            node = self._graph[name]
            if name in self._written or name == given or node["op"] == "Const":
                waiting.pop()
                continue
            reads = [_plain(one) for one in node["input"]]
            if name not in looked_at:
                looked_at.add(name)
                waiting += reversed(reads)
                continue
            self._written_as(node["op"])(node, reads)
            self._written.add(waiting.pop())

    def _written_as(self, op: str) -> Callable[[dict[str, Any], list[str]], None]:
        if op in _ELEMENTWISE:
            return lambda node, reads: self._plainly(_ELEMENTWISE[op], node, reads)
        known = {
            "Pad": self._pad,
            "Conv2D": self._convolution,
            "DepthwiseConv2dNative": self._convolution,
            "Reshape": self._reshape,
            "MatMul": self._product,
        }
        if op not in known:
            raise self._unknown(f"the operation {op}")
        return known[op]

    def _plainly(self, op: str, node: dict[str, Any], reads: list[str]) -> None:
        """The same operation, on the same tensors; constants are written when they are first read."""
        for name in reads:
            if self._graph[name]["op"] == "Const" and name not in self._written:
                self._written.add(self.onnx.constant(name, self._values[name]))
        self.onnx.node(op, reads, node["name"])

    def _constant(self, node: dict[str, Any], reads: list[str], change: Callable[[Any], Any]) -> str:
        """A constant that a node reads second, changed, under a name of the node's own."""
        return self.onnx.constant(f"{node['name']}:constant", change(self._values[reads[1]]))

    def _pad(self, node: dict[str, Any], reads: list[str]) -> None:
        widths = self._constant(node, reads, lambda value: value.T.reshape(-1).astype(np.int64))
        self.onnx.node("Pad", [reads[0], widths], node["name"])

    def _reshape(self, node: dict[str, Any], reads: list[str]) -> None:
        shape = self._constant(node, reads, lambda value: value.astype(np.int64))
        self.onnx.node("Reshape", [reads[0], shape], node["name"])

    def _product(self, node: dict[str, Any], reads: list[str]) -> None:
        if any(node["attr"].get(key, {}).get("b") for key in ("transpose_a", "transpose_b")):
            raise self._unknown("MatMul of a transposed matrix")
        self._plainly("MatMul", node, reads)

    def _convolution(self, node: dict[str, Any], reads: list[str]) -> None:
        """Kernels are [h, w, in, out], depthwise ones [h, w, in, times]; ONNX has [out, in, h, w]."""
        name, attr = node["name"], node["attr"]
        strides = [int(number) for number in attr["strides"]["list"]["i"]]
        dilations = [int(number) for number in attr["dilations"]["list"]["i"]]
        kind = [_text(attr["data_format"]), _text(attr["padding"])]
        if kind != ["NHWC", "VALID"]:
            raise self._unknown(f"{node['op']} {' '.join(kind)}")
        depthwise, groups = node["op"] == "DepthwiseConv2dNative", 1
        if depthwise:
            groups = self._values[reads[1]].shape[2]

        def turned(value: np.ndarray) -> np.ndarray:
            if depthwise:
                return value.transpose(2, 3, 0, 1).reshape(-1, 1, *value.shape[:2])
            return value.transpose(3, 2, 0, 1)

        kernel = self._constant(node, reads, turned)
        self.onnx.node("Transpose", [reads[0]], f"{name}:given", perm=_TO_NCHW)
        self.onnx.node(
            *("Conv", [f"{name}:given", kernel], f"{name}:made"),
            group=groups,
            strides=strides[1:3],
            dilations=dilations[1:3],
        )
        self.onnx.node("Transpose", [f"{name}:made"], name, perm=_TO_NHWC)


def _plain(name: str) -> str:
    """A tensor's name is its node's, for a node's first output."""
    return name.removesuffix(":0")


def _text(attribute: dict[str, str]) -> str:
    return base64.b64decode(attribute["s"]).decode()
