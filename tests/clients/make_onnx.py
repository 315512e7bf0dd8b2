"""Writes a small ONNX model with its weights in an external file, as large models have them."""

import pathlib
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    noise = numpy.random.default_rng(1)
    weights = [noise.standard_normal((768, 768), dtype=numpy.float32) / 28 for _ in range(8)]
    nodes, names = [], ["x"]
    for i in range(len(weights)):
        nodes.append(helper.make_node("MatMul", [names[-1], f"w{i}"], [f"h{i}"]))
        names.append(f"h{i}")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [value("x", TensorProto.FLOAT, [1, 768])],
        [value(names[-1], TensorProto.FLOAT, [1, 768])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")


main()
