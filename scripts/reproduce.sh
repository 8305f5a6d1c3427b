#!/usr/bin/env bash
# Computes the published tables from nothing: bash scripts/reproduce.sh [row ...]
#
# A row is DATASET:BUDGET; all eight of the paper's grid by default, those that a CPU can do first.
# Resumable: run it again after an interruption, finished runs are skipped. Corpora are downloaded, or
# found in CHARCMP_DATA. Needs a clean checkout (published runs name their commit).
#
# What it costs on a CPU, measured on two cores of a shared AMD EPYC, one thread a run:
#   wp:50k    9 runs, 2.1 core hours of training steps (8 to 21 minutes a run, two side by side)
#   lk:50k    9 runs, 6.6 core hours (22 to 72 minutes a run, two to four side by side)
#   wp:130k   9 runs, 4.2 core hours (21 to 49 minutes a run, two side by side)
# The other rows have not been measured, nor has any on a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
rows=("$@")
if [ ${#rows[@]} -eq 0 ]; then
    rows=({wp,lk}:50k {wp,lk}:130k {wp,lk}:400k {wp,lk}:1300k)
fi
[ -x "$bin/charcmp" ] || bash scripts/install.sh
for row in "${rows[@]}"; do
    "$bin/charcmp" sweep experiment=paper "dataset=${row%%:*}" "budget=${row##*:}"
    "$bin/python" scripts/publish.py results
done
