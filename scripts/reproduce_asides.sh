#!/usr/bin/env bash
# Recomputes what docs/ says beside the published tables: bash scripts/reproduce_asides.sh [PART ...]
#
#   weights    seven models of one layer with their weights; mean gate values, reach of gradients
#   reset      the LSTM with peepholes, its state zeroed at the start of each epoch
#   own_rates  50 epochs by the protocol at other learning rates than its own: results/own_rates
#   shuffles   LSTM 1 and GRU 2 on another order of the Linux files (needs lk.txt in CHARCMP_DATA)
#
# Into results/asides, or $RESULTS. Resumable, as every sweep. Measured on two cores of a shared AMD
# EPYC, one thread a run: weights 1.6 core hours, reset 0.3, shuffles 1; own_rates 3.5 on a Xeon.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
results=${RESULTS:-results/asides}
[ -x "$bin/charcmp" ] || bash scripts/install.sh
[ $# -gt 0 ] || set -- weights reset own_rates shuffles
for part in "$@"; do
    case $part in
    weights)
        "$bin/charcmp" sweep experiment=variants layers=1 seed=0 "results_dir=$results/weights"
        "$bin/python" scripts/mean_gates.py "$results/weights" --output "$results/mean_gates.csv"
        "$bin/python" scripts/gradient_reach.py "$results/weights" \
            --runs wp-rnn-* wp-lstm-* wp-gru-* --output "$results/gradient_reach"
        ;;
    reset)
        "$bin/charcmp" sweep experiment=paper dataset=wp budget=50k cell=lstm_peephole layers=1 \
            reset_state=epoch "results_dir=$results/reset"
        ;;
    own_rates)
        while read -r budget cell layers rates seeds; do
            "$bin/charcmp" sweep experiment=paper dataset=wp "budget=$budget" "cell=$cell" \
                "layers=$layers" "optimizer.lr=$rates" "seed=$seeds" "results_dir=$results/own_rates" </dev/null
        done <<'END'
50k gru 1 0.006 0
50k gru 1 0.012 0,1,2
50k lstm 2 0.012 0,1,2
50k lstm 2 0.024 0
50k rnn 2 0.003,0.006 0
130k gru 1 0.012 0
130k lstm 2 0.012 0
130k rnn 2 0.006 0
END
        ;;
    shuffles)
        mkdir -p "$results"
        "$bin/python" scripts/reorder_lk.py "${CHARCMP_DATA:?names the folder of lk.txt}/lk.txt" 2 \
            "$results/lk_order2.txt"
        for model in "cell=lstm layers=1" "cell=gru layers=2"; do
            # shellcheck disable=SC2086  # several words are meant
            "$bin/charcmp" sweep experiment=paper dataset=text dataset.layout=columns \
                'dataset.split=[90,5,5]' "dataset.path=$results/lk_order2.txt" budget=50k $model \
                "results_dir=$results/shuffles"
        done
        ;;
    *)
        echo "reproduce_asides: $part: one of weights, reset, own_rates, shuffles" >&2
        exit 2
        ;;
    esac
done
