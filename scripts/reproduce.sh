#!/usr/bin/env bash
# Computes the published tables of results/paper from nothing: bash scripts/reproduce.sh
# Other parts of the paper's grid:  bash scripts/reproduce.sh 'dataset=lk budget=400k' 'dataset=lk budget=1300k'
# Only the list of the runs:        bash scripts/reproduce.sh --dry-run [...]
#
# Each argument is one sweep's overrides. Resumable: run it again after an interruption, finished runs
# are skipped. Corpora are downloaded, or found in CHARCMP_DATA. Needs a clean checkout (published runs
# name their commit).
#
# Each line below says what its runs cost: on two cores of a shared AMD EPYC, one thread a run, or, where it
# says so, on an H200 that up to 27 runs shared. On a CPU a run at 1300k takes hours of a core (GRU 2: four to
# six). The rest of the grid has not been measured.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
published=(
    "dataset=wp budget=50k seed=0,1,2"          # 27 runs, 6.6 core hours (8 to 23 minutes a run)
    "dataset=wp budget=130k"                    # 9 runs, 4.2 core hours (21 to 49 minutes a run)
    "dataset=wp budget=130k layers=1 seed=1,2"  # 6 runs, 2.2 core hours (20 to 26 minutes a run)
    "dataset=lk budget=50k"                     # 9 runs, 6.6 core hours (22 to 72 minutes a run)
    "dataset=lk budget=130k"                    # LSTM, RNN: on an H200, 2 to 6 minutes a run; GRU: on a CPU, 41 to 57
    "dataset=wp budget=400k"                    # 9 runs, on an H200: 2 to 8 minutes a run, ten in all with those six
    "dataset=wp budget=1300k"                   # 9 runs, on an H200: 5 to 9 minutes a run (GRU 2 ended on a CPU: 95); RNN 2 diverges at once
)
flags=()
if [ "${1:-}" = --dry-run ]; then
    flags=(--dry-run --no-cost)
    shift
fi
[ $# -gt 0 ] || set -- "${published[@]}"
[ -x "$bin/charcmp" ] || bash scripts/install.sh
for overrides in "$@"; do
    # shellcheck disable=SC2086  # several words are meant
    "$bin/charcmp" sweep "${flags[@]}" experiment=paper $overrides
    [ ${#flags[@]} -gt 0 ] || "$bin/python" scripts/publish.py results
done
