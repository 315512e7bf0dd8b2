#!/usr/bin/env python3
"""Describes what lies in ./cache: inode numbers, pins, the recorded load, and what of each file is cached."""

import json
import os
import pathlib
import sqlite3
import sys


def data(path):
    """Where a sparse file has data."""
    file, found, at = os.open(path, os.O_RDONLY), [], 0
    size = os.fstat(file).st_size
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(file, start, os.SEEK_HOLE)
        found.append([start, at])
    os.close(file)
    return found


index = sqlite3.connect("file:cache/index.db?mode=ro&immutable=1", uri=True)
version = index.execute("PRAGMA user_version").fetchone()[0]
assert version == int(sys.argv[1]), f"the index has version {version}"
pins = sorted(index.execute('SELECT grp, model, version, owner FROM pins').fetchall())
blobs = {}
for path in pathlib.Path("cache/blobs").glob("*/*"):
    if path.suffix != ".sums":
        blobs[path.stat().st_size] = data(path)
cached = {}
for version in map(json.loads, open("info.jsonl")):
    for file in filter(lambda file: file["cached"], version["files"]):
        ranges = [list(found) for found in blobs[file["size"]]]
        # Data ends with a block, what is cached may end before.
        beyond = sum(end - start for start, end in ranges) - file["cached"]
        assert 0 <= beyond < 4096
        ranges[-1][1] -= beyond
        cached["{group}/{model}/{version}/".format(**version) + file["path"]] = ranges
print(json.dumps({
    "inodes": json.load(open("used.json")),
    "pins": pins,
    "trace": json.load(open("trace.json")),
    "cached": cached,
}, indent=1))
