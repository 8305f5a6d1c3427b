#!/usr/bin/env bash
# Installs charcmp into $VENV, with the versions of constraints.txt:  bash scripts/install.sh
# With the tools for its development and its tests as well:          bash scripts/install.sh dev
# Called by make; safe to call again. Needs Python 3.11 to 3.13, no root.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}

# A name on the PATH may be a shim that fails: a candidate counts only if it runs and can make a venv.
usable='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
if [ ! -x "$venv/bin/python" ]; then
    for python in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$python" -c "$usable" >/dev/null 2>&1; then break; fi
        python=
    done
    if [ -z "$python" ]; then
        echo "charcmp needs Python 3.11, 3.12 or 3.13 with venv; name one: make PYTHON=/path/to/python" >&2
        exit 1
    fi
    "$python" -m venv "$venv"
fi

# torch in a step of its own, so that an index concerns torch alone. On a machine without an NVIDIA
# GPU PyTorch's CPU index is added: pip then prefers the +cpu build to gigabytes of CUDA packages.
# Where that index cannot be reached, this costs a warning and three seconds.
torch_args=${TORCH_ARGS:-}
cpu_index=https://download.pytorch.org/whl/cpu
has_gpu() {  # WSL2 has a driver without the file in /proc
    [ -e /proc/driver/nvidia/version ] || nvidia-smi -L 2>/dev/null | grep -q '^GPU '
}
if [ -z "$torch_args" ] && [ "$(uname -s)" = Linux ] && ! has_gpu; then
    probe="import urllib.request as u; u.urlopen('$cpu_index/torch/', timeout=3)"
    if "$venv/bin/python" -c "$probe" >/dev/null 2>&1; then
        torch_args="--extra-index-url $cpu_index"
    else
        echo "note: $cpu_index cannot be reached; torch comes from pip's own index" >&2
    fi
fi
# shellcheck disable=SC2086  # several words are meant
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt $torch_args torch
"$venv/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[${1:-tsne}]"
