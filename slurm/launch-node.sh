#!/usr/bin/env bash
# Starts the ranks of one node. launch.sh runs this once on each node, with the arguments of `trainer train`.
set -euo pipefail

# Launchers that receive these signals exit, and abandon or kill their ranks in the middle of a checkpoint; ranks have
# handlers of their own. Launchers inherit what is ignored here, but torchrun handles TERM unless told otherwise.
trap '' USR1 TERM
export PET_SIGNALS_TO_HANDLE=SIGHUP,SIGINT,SIGQUIT

# Compile into a folder of this machine and this job, so that no other job waits for its locks. Models and prepared
# data stay in the caches that all nodes share.
scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/trainer-$SLURM_JOB_ID-$SLURMD_NODENAME
rm -rf "$scratch"-* # left by an earlier start of this job that was killed before it could clean up
scratch=$(mktemp -d "$scratch-XXXXXX")
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$scratch/triton}
export TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-$scratch/torch_extensions}

accelerate launch --config_file "$TRAINER_CONFIG" \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes $((SLURM_NNODES * TRAINER_RANKS_PER_NODE)) \
    --main_process_ip "$TRAINER_MASTER_ADDR" --main_process_port "$TRAINER_MASTER_PORT" \
    --log_dir "$TRAINER_LOGS/job-$SLURM_JOB_ID-node-$SLURM_NODEID" --tee 3 \
    -m trainer train "$@" &
launcher=$!

# If SLURM tracks processes by cgroup, it signals only this script; otherwise it signals every process of the step.
# Ranks, the launcher's children, treat a repeated signal as one.
# shellcheck disable=SC2317  # the trap calls it
pass_on() { pkill -USR1 -P "$launcher" || true; }
trap pass_on USR1 TERM
while kill -0 "$launcher" 2>/dev/null; do wait "$launcher" || true; done # a signal interrupts wait
code=0
wait "$launcher" || code=$?
rm -rf "$scratch"
exit "$code"
