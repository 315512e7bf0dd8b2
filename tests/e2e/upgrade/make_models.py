#!/usr/bin/env python3
"""Writes the models of the fixture: no zeros, all pages different, and yet small when packed."""

import hashlib
import pathlib
import sys

PAGE = 4096


def content(seed: str, size: int) -> bytes:
    pages = (hashlib.sha256(f"{seed} {page}".encode()).hexdigest().encode() for page in range(size // PAGE + 1))
    return b"".join(digits * (PAGE // len(digits)) for digits in pages)[:size]


FILES = {
    "net/v1": {
        "config.json": b'{"layers": 1}\n',
        "empty": b"",
        "complete.bin": content("complete", 600_001),
        "twin.bin": content("complete", 600_001),
        "partial.bin": content("partial", 1_500_000),
        "sub/untouched.bin": content("untouched", 200_000),
    },
    "net/v2": {
        "config.json": b'{"layers": 12}\n',
        "complete.bin": content("complete", 600_001),
        "new.bin": content("new", 100_000),
    },
    "small/v1": {"weights.bin": content("small", 90_000)},
}
for version, files in FILES.items():
    for name, body in files.items():
        path = pathlib.Path(sys.argv[1], version, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
