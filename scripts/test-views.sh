#!/usr/bin/env bash
# Real programs find models on the view of the Hugging Face cache: two generations of huggingface_hub and
# transformers. Downloads some 200 MB of wheels and a tokenizer the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
mkdir -p "$target"
target=$(cd "$target" && pwd)

environment() { # name, packages
    local venv="$target/views-venv-$1"
    shift
    if [ ! -x "$venv/bin/pip" ]; then
        python3 -m venv "$venv" 2>/dev/null || {
            [ "$(id -u)" -eq 0 ] || { echo "please install python3-venv" >&2; exit 1; }
            apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
            python3 -m venv "$venv"
        }
    fi
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}
environment new huggingface_hub==2.4.0 'transformers>=5.20,<6' safetensors numpy
environment old huggingface_hub==0.36.2 'transformers>=4.57,<5' safetensors numpy

# A tokenizer and a configuration as they are published, and weights small enough for a test.
model="$target/views-model"
rm -rf "$model"
scripts/demo_model.py "$model" >/dev/null
"$target/views-venv-new/bin/python" - "$model/model.safetensors" <<'PYTHON'
import sys
import numpy
from safetensors.numpy import save_file
rows = numpy.arange(1 << 18, dtype=numpy.float32).reshape(512, 512)
save_file({"a": rows, "b": rows + 1}, sys.argv[1])
PYTHON

export MODELFS_TEST_MODEL="$model"
export MODELFS_TEST_PYTHONS="$target/views-venv-new/bin/python:$target/views-venv-old/bin/python"
cargo test --workspace --locked --test programs -- --nocapture --test-threads 1 views::
