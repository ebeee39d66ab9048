#!/usr/bin/env bash
# Starts the ranks of one node. launch.sh runs it once on each node, with the arguments of `trainer train`.
set -euo pipefail

# Launchers die of signals and leave or kill their ranks in the midst of a checkpoint; ranks have handlers of their
# own. What is ignored here, launchers ignore, too; but torchrun listens to TERM unless it is told not to.
trap '' USR1 TERM
export PET_SIGNALS_TO_HANDLE=SIGHUP,SIGINT,SIGQUIT

# What is compiled belongs to the machine and to one job, whose locks nobody else waits for. Models and prepared
# data stay in the caches that all nodes share.
scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/trainer-$SLURM_JOB_ID-$SLURMD_NODENAME
rm -rf "$scratch"-* # of an earlier start of this job, which may have been ended too soon for it
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

# Where SLURM tracks processes by cgroup, it signals this script alone, elsewhere every process of the step: ranks
# take what comes twice for one. They are the launcher's children.
# shellcheck disable=SC2317  # the trap calls it
pass_on() { pkill -USR1 -P "$launcher" || true; }
trap pass_on USR1 TERM
while kill -0 "$launcher" 2>/dev/null; do wait "$launcher" || true; done # a signal ends a wait
code=0
wait "$launcher" || code=$?
rm -rf "$scratch"
exit "$code"
