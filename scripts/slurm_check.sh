#!/usr/bin/env bash
# charcmp on a real Slurm: a one-node cluster set up in a folder of its own, a sweep of eight runs on
# it, one of them cancelled and two cut off by their time limit, finished by the same command again.
#
#   apt-get install slurmctld slurmd slurm-client munge; pip install -e '.[slurm]'
#   bash scripts/slurm_check.sh        (as root; about ten minutes)
#
# Exit status 0: all runs finished, each trained once and as an undisturbed sweep trains it;
# 77: this machine cannot run it, with the reason.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}

skip() { echo "skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root to start Slurm's daemons"
for program in slurmctld slurmd munged sbatch; do
    command -v "$program" > /dev/null || skip "no $program (Debian: slurmctld slurmd slurm-client munge)"
done
"$PYTHON" -c "import hydra_plugins.hydra_submitit_launcher" 2> /dev/null || skip "pip install -e '.[slurm]'"

WORK=$(mktemp -d)
HOST=$(hostname -s)
cleanup() {
    set +e
    export SLURM_CONF="$WORK/slurm.conf"
    scancel --user=root 2> /dev/null
    for pid in "$WORK"/*.pid; do [ -f "$pid" ] && kill "$(cat "$pid")" 2> /dev/null; done
    sleep 1
    [ "${KEEP:-}" ] || rm -rf "$WORK"
}
trap cleanup EXIT

mkdir -p "$WORK"/{state,spool,munge}
dd if=/dev/urandom of="$WORK/munge/key" bs=128 count=8 status=none
chown -R munge "$WORK/munge"; chmod 400 "$WORK/munge/key"; chmod 711 "$WORK"
setpriv --reuid=munge --clear-groups munged --key-file="$WORK/munge/key" --socket="$WORK/munge/socket" \
    --pid-file="$WORK/munge/pid" --log-file="$WORK/munge/log" --seed-file="$WORK/munge/seed" --force
cp "$WORK/munge/pid" "$WORK/munged.pid"
cat > "$WORK/slurm.conf" << CONF
ClusterName=one
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$WORK/munge/socket
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$WORK/slurm.conf"
slurmctld
slurmd -N "$HOST"
for _ in $(seq 30); do srun --time=1 true 2> /dev/null && break; sleep 1; done
echo "Slurm answers: $(srun --time=1 hostname), $(sinfo --version)"

TEXT="experiment=demo dataset=pydocs hidden_size=32 layers=1 device=cpu threads=1 checkpoint_seconds=2"
SHORT="cell=rnn,gru seed=0,1,2 epochs=4 batch_size=20 unroll_steps=20"
LONG="cell=lstm,gru seed=9 epochs=30 batch_size=20 unroll_steps=20"
SLURM="hydra/launcher=submitit_slurm hydra.launcher.cpus_per_task=1
       hydra.launcher.timeout_min=2 hydra.launcher.signal_delay_s=60"
charcmp() { "$PYTHON" -m charcmp "$@"; }

echo "== eight runs on Slurm: one cancelled, two with more to do than the time limit allows"
charcmp sweep $TEXT $LONG $SLURM results_dir="$WORK/results" &
LONG_SWEEP=$!
charcmp sweep $TEXT $SHORT $SLURM results_dir="$WORK/results" &
SHORT_SWEEP=$!
until [ "$(ls "$WORK"/results/runs/*-s[012]-*/owner 2> /dev/null)" ]; do sleep 0.2; done
VICTIM=$(ls "$WORK"/results/runs/*-s[012]-*/owner | head -1)
NAME=$(basename "$(dirname "$VICTIM")")
squeue --noheader --states=RUNNING --format="%A %i" | while read -r id job; do
    # The owner file names the process, and that belongs to a job.
    if scontrol listpids "$id" 2> /dev/null | grep -qw "$(sed -n 's/^pid=//p' "$VICTIM")"; then
        echo "scancel $job ($NAME)"; scancel "$job"
    fi
done
wait "$SHORT_SWEEP" || echo "exit status $?"
wait "$LONG_SWEEP" || echo "exit status $?"
charcmp status results_dir="$WORK/results"
for round in $(seq 10); do
    echo "== the same commands again, round $round"
    if charcmp sweep $TEXT $SHORT $SLURM results_dir="$WORK/results" &&
        charcmp sweep $TEXT $LONG $SLURM results_dir="$WORK/results"; then break; fi
done
charcmp status results_dir="$WORK/results"
echo "== undisturbed, on this machine"
charcmp sweep $TEXT $SHORT results_dir="$WORK/alone" > /dev/null
charcmp sweep $TEXT $LONG results_dir="$WORK/alone" > /dev/null
cd "$WORK/alone/runs"
for file in */best.safetensors */test_nll.npy; do cmp "$file" "$WORK/results/runs/$file"; done
echo "equal: the weights and losses of $(ls | wc -l) runs"
