"""Loads a model by name, as programs do; prints what it found. Run by tests/e2e/programs/views.rs.

Arguments: the model's name and a plain folder with the same files. Everything has to be found through the
variables of `modelfs run` alone.
"""

import filecmp
import json
import os
import sys

import huggingface_hub
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.file_download import _CACHED_NO_EXIST
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

name, plain = sys.argv[1:]
folder = snapshot_download(name)
assert folder.startswith(os.environ["HF_HUB_CACHE"]), folder
files = [os.path.relpath(os.path.join(at, file), plain) for at, _, all in os.walk(plain) for file in all]
_, different, unreadable = filecmp.cmpfiles(plain, folder, files, shallow=False)
assert not different and not unreadable, (different, unreadable)
assert hf_hub_download(name, "config.json") == os.path.join(folder, "config.json")
assert try_to_load_from_cache(name, "adapter_config.json") is _CACHED_NO_EXIST
try:
    hf_hub_download(name, "none.json")
    raise AssertionError("a file that does not exist was found")
except EntryNotFoundError:
    pass
config = AutoConfig.from_pretrained(name)
ids = AutoTokenizer.from_pretrained(name)("hello world")["input_ids"]
assert ids == AutoTokenizer.from_pretrained(plain)("hello world")["input_ids"] and len(ids) > 3, ids
with safe_open(hf_hub_download(name, "model.safetensors"), framework="numpy") as tensors:
    total = float(tensors.get_tensor("a").sum())
scanned = huggingface_hub.scan_cache_dir()
assert name in [repo.repo_id for repo in scanned.repos], scanned
assert not scanned.warnings, scanned.warnings
print(json.dumps({
    "version": huggingface_hub.__version__,
    "commit": os.path.basename(folder),
    "model_type": config.model_type,
    "sum": total,
}))
