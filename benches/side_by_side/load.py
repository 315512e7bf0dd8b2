#!/usr/bin/env python3
"""Loads every tensor of every safetensors file of a folder, as inference programs do; prints seconds.

`keys` instead reads the headers only. It begins when a line comes on standard input: importing is over
by then, and programs that are to start together do."""

import pathlib
import sys
import time

import numpy
from safetensors import safe_open


def load(folder: pathlib.Path, keys_only: bool) -> int:
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                total += 1 if keys_only else file.get_tensor(name).nbytes
    return total


def main() -> None:
    kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    print("ready", numpy.__version__, flush=True)
    if not sys.stdin.readline():
        return
    started = time.perf_counter()
    total = load(folder, kind == "keys")
    seconds = time.perf_counter() - started
    if not total:
        sys.exit(f"{folder}: no tensors")
    print(seconds, flush=True)


main()
