#!/usr/bin/env python3
"""Uses the mounted models: reads one file whole and two others in part; prints every inode number."""

import json
import os
import pathlib
import sys

mounted = pathlib.Path(sys.argv[1])
for whole in ["net/v1/config.json", "net/v1/complete.bin"]:
    (mounted / whole).read_bytes()
for name, ranges in {"net/v1/partial.bin": [(0, 550_000), (1_000_000, 4096)], "small/v1/weights.bin": [(40_000, 100)]}.items():
    file = os.open(mounted / name, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for start, size in ranges:
        os.pread(file, size, start)
    os.close(file)
paths = [mounted, *sorted(mounted.rglob("*"))]
print(json.dumps({str(path.relative_to(mounted.parent)): path.stat().st_ino for path in paths}))
