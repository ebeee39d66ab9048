#!/usr/bin/env bash
# Starts the ranks of one node. launch.sh runs it once on each node, with the arguments of `trainer train`.
set -euo pipefail

# Signals reach every process of a job step. Launchers die of them and leave or kill their ranks in the midst of
# a checkpoint; ranks have handlers of their own. What is ignored here, launchers ignore, too; but torchrun
# listens to TERM unless it is told not to.
trap '' USR1 TERM
export PET_SIGNALS_TO_HANDLE=SIGHUP,SIGINT,SIGQUIT

# What is compiled belongs to the machine and to one job, whose locks nobody else waits for. Models and prepared
# data stay in the caches that all nodes share.
scratch=$(mktemp -d "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/trainer-$SLURM_JOB_ID-XXXXXX")
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$scratch/triton}
export TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-$scratch/torch_extensions}

code=0
accelerate launch --config_file "$TRAINER_CONFIG" \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes $((SLURM_NNODES * TRAINER_RANKS_PER_NODE)) \
    --main_process_ip "$TRAINER_MASTER_ADDR" --main_process_port "$TRAINER_MASTER_PORT" \
    --log_dir "$TRAINER_LOGS/job-$SLURM_JOB_ID-node-$SLURM_NODEID" --tee 3 \
    -m trainer train "$@" || code=$?
rm -rf "$scratch"
exit "$code"
