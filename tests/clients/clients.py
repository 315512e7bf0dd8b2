"""Loads a model from a plain folder and from a mount with real libraries; everything must be equal."""

import pathlib
import sys

import numpy
import onnxruntime
from safetensors import safe_open
from tokenizers import Tokenizer


def tensors(folder: pathlib.Path) -> dict:
    with safe_open(folder / "model.safetensors", framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def main() -> None:
    plain, mounted = map(pathlib.Path, sys.argv[1:3])

    ours, theirs = tensors(mounted), tensors(plain)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, tensor in theirs.items():
        assert numpy.array_equal(ours[name], tensor), name
    print(f"safetensors: {len(ours)} tensors equal, {sum(t.nbytes for t in ours.values()):,} bytes")

    if (plain / "tokenizer.json").exists():
        text = "modelfs puts model weights in front of an inference process."
        ids = [Tokenizer.from_file(str(at / "tokenizer.json")).encode(text).ids for at in (plain, mounted)]
        assert ids[0] == ids[1] and len(ids[0]) > 10
        print(f"tokenizers: {len(ids[0])} equal ids")

    x = numpy.random.default_rng(2).standard_normal((1, 768), dtype=numpy.float32)
    outputs = [
        onnxruntime.InferenceSession(str(at / "onnx/model.onnx"), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for at in (plain, mounted)
    ]
    assert numpy.array_equal(*outputs) and numpy.abs(outputs[0]).max() > 0
    print(f"onnxruntime: {outputs[0].size} equal outputs")


main()
