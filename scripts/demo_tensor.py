#!/usr/bin/env python3
"""Reads one tensor out of the middle of a safetensors file on a mount; shows what that fetched."""

import json
import os
import struct
import sys
import time


def cached(path: str) -> int:
    return int(os.getxattr(path, "user.modelfs.cached"))


def main() -> None:
    path = sys.argv[1]
    size = os.stat(path).st_size
    before = cached(path)
    started = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        base = 8 + length

        def distance(entry: dict) -> int:
            return abs(base + entry["data_offsets"][0] - size // 2)

        # A weight, not a bias: something worth reading.
        weights = {k: v for k, v in tensors.items() if len(v["shape"]) > 1} or tensors
        name = min(weights, key=lambda k: distance(weights[k]))
        start, end = tensors[name]["data_offsets"]
        file.seek(base + start)
        data = b""
        while len(data) < end - start:
            data += file.read(end - start - len(data))
    took = time.monotonic() - started
    now = cached(path)
    print(f"{name} {tensors[name]['dtype']} {tensors[name]['shape']}: {len(data):,} bytes at offset {base + start:,}")
    print(f"fetched {now - before:,} bytes of {size:,} ({(now - before) / size:.1%}) in {took * 1000:.0f} ms")


main()
