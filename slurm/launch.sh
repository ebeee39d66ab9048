#!/usr/bin/env bash
# Trains a recipe on every node of a SLURM job. A job that is stopped early is requeued and resumes.
# Every template in this folder runs this once per job:  launch.sh RECIPE [options of `trainer train`]
# The working directory must be the repository's root, because accelerate_configs/ and ds_configs/ are looked up there.
#
#   TRAINER_CONFIG           launch configuration, a file of accelerate_configs/ [each template's own]
#   TRAINER_RANKS_PER_NODE   ranks on each node [its GPUs; 1 if the job has none]
#   TRAINER_MAX_REQUEUES     how often a job is requeued, at most [20]
#   TRAINER_VENV             virtual environment, visible to all nodes [.venv]
#   TRAINER_SEED             train with this seed, in its own folder inside the run directory
#   TRAINER_MASTER_ADDR      address where the nodes meet [the name of the first]
#   HF_HUB_OFFLINE           0 if compute nodes can reach the hub [1]
set -euo pipefail

say() { printf '%s launch.sh: %s\n' "$(date '+%F %T')" "$*"; }

if (($# == 0)) || [[ $1 == -* ]]; then
    say "the first argument is the recipe: sbatch [options of sbatch] slurm/TEMPLATE RECIPE [--set …]"
    exit 2
fi
for name in TRAINER_RANKS_PER_NODE TRAINER_MAX_REQUEUES TRAINER_SEED; do
    # bash would evaluate a word as 0, and digits with a leading 0 as octal.
    least=0
    if [[ $name == TRAINER_RANKS_PER_NODE ]]; then least=1; fi
    if [[ -n ${!name:-} ]] && { [[ ! ${!name} =~ ^(0|[1-9][0-9]{0,8})$ ]] || ((${!name} < least)); }; then
        say "$name=${!name} is not a whole number of at least $least; unset or correct it"
        exit 2
    fi
done
here=$(dirname "$(readlink -f "$0")")
# In an array, the plain job number of the first task would address all tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
restarts=${SLURM_RESTART_COUNT:-0}
asked=''
trap 'asked=USR1' USR1 # remember it until the ranks run
trap 'asked=TERM' TERM

# The run directory, by the rule of `trainer train`: its status.json says how the run ended.
name=${1##*/} name=${name%.yaml} name=${name%.yml} smoke='' run_dir='' arguments=()
while (($#)); do
    case $1 in
        --run-dir) run_dir=$2 && shift ;;
        --run-dir=*) run_dir=${1#*=} ;;
        # A requeued job continues the run that it began, even with --resume never.
        --resume) if ((restarts)) && [[ ${2:-} == never ]]; then shift; else arguments+=("$1"); fi ;;
        --resume=never) ((restarts)) || arguments+=("$1") ;;
        --smoke) smoke=-smoke arguments+=("$1") ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
if [[ -n ${TRAINER_SEED:-} ]]; then # the layout of `trainer sweep`
    run_dir=${run_dir:-runs/$name-sweep$smoke}/seed=$TRAINER_SEED
    arguments+=(--set "seed=$TRAINER_SEED")
fi
run_dir=${run_dir:-runs/$name$smoke}
logs=$run_dir/logs
mkdir -p "$logs"

venv=${TRAINER_VENV:-.venv}
# shellcheck disable=SC1091
if [[ -f $venv/bin/activate ]]; then . "$venv/bin/activate"; fi

export TRAINER_RANKS_PER_NODE=${TRAINER_RANKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
MASTER_NODE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export TRAINER_MASTER_ADDR=${TRAINER_MASTER_ADDR:-$MASTER_NODE}
# A port of the job's own, so that two jobs on one node do not meet; below the range of ephemeral ports.
export TRAINER_MASTER_PORT=$((10000 + SLURM_JOB_ID % 10000))
export TRAINER_LOGS=$logs
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
cpus=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > TRAINER_RANKS_PER_NODE ? cpus / TRAINER_RANKS_PER_NODE : 1))}

job_says() { # job_says KEY   prints what SLURM knows of this job; nothing if its controller does not answer
    local said=''
    for _ in 1 2 3; do
        said=$(scontrol show job "$job" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1) || true
        if [[ -n $said ]]; then break; fi
        sleep 2
    done
    printf '%s' "$said"
}
# Older versions of SLURM do not set this variable.
end=$(job_says EndTime)
if [[ -n $end ]] && end=$(date -d "$end" +%s 2>/dev/null); then export SLURM_JOB_END_TIME=$end; fi

status_says() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" "$run_dir/status.json" 2>/dev/null || true; }
status_file() { stat -c '%i %y' "$run_dir/status.json" 2>/dev/null || true; }
status_before=$(status_file) # a status left by an earlier run does not count
begun() { [[ $(status_file) != "$status_before" ]]; }

say "job $job, start $((restarts + 1)): $SLURM_JOB_NUM_NODES node(s) x $TRAINER_RANKS_PER_NODE rank(s) under" \
    "$TRAINER_CONFIG, meeting at $TRAINER_MASTER_ADDR:$TRAINER_MASTER_PORT"
say "run directory $run_dir, logs $logs/job-$SLURM_JOB_ID-*"

# srun does not inherit --cpus-per-task from the job. A task that fails ends all of them.
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$cpus" --mpi=none --kill-on-bad-exit=1 \
    --input=none --open-mode=append --output="$logs/job-%j-node-%n.log" \
    "$here/launch-node.sh" "${arguments[@]}" --run-dir "$run_dir" &
step=$!

pass_on() { # asks the ranks to save and stop, only once: a later second signal would end them without saving
    [[ -z $asked ]] || return 0
    # In any other state TERM comes from SLURM, which has sent it to the ranks as well.
    if [[ $1 == TERM && $(job_says JobState) != RUNNING ]]; then return 0; fi
    asked=$1
    say "SIG$1: asking the ranks to save and stop"
    # Ranks that are still starting have no handler yet.
    until begun || ! kill -0 "$step" 2>/dev/null; do sleep 1; done
    kill -USR1 "$step" 2>/dev/null || true
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
if [[ -n $asked ]]; then early=$asked asked='' && pass_on "$early"; fi
while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal interrupts wait
code=0
wait "$step" || code=$?
trap '' USR1 TERM

state='' exit_code=$code
if begun; then
    # Killed ranks may outlive srun for a moment.
    in_use=''
    flock --wait 15 "$run_dir/.lock" true || in_use=yes # or another job trains there, so this one was refused
    state=$(status_says state) exit_code=$(status_says exit_code)
    if [[ -n $in_use ]]; then
        state="in use by another job" exit_code=$code
    elif [[ $state == running ]]; then # no rank is left to write how it ended
        state=failed exit_code=1
        { sed -e 's/"state": .*/"state": "failed",/' -e 's/"exit_code": .*/"exit_code": 1,/' \
            -e "s/\"message\": .*/\"message\": \"the ranks of job $job were killed; the same command resumes from the last checkpoint\"/" \
            "$run_dir/status.json" >"$run_dir/.status.json.launch" &&
            mv "$run_dir/.status.json.launch" "$run_dir/status.json"; } || # for example on a full disk
            say "status.json cannot be written and still says running"
    fi
elif [[ -n $asked && $code != 0 ]]; then
    state=stopped exit_code=85 # before training began
fi
say "srun ended with $code, status.json says ${state:-nothing new}, exit code $exit_code"
if [[ $exit_code != 85 ]]; then exit "${exit_code:-1}"; fi

job_state=$(job_says JobState)
if [[ -n $job_state && $job_state != RUNNING ]]; then
    say "SLURM is already ending this job ($job_state): not requeued from here"
elif ((restarts >= ${TRAINER_MAX_REQUEUES:-20})); then
    say "stopped early, after $((restarts + 1)) starts: TRAINER_MAX_REQUEUES=${TRAINER_MAX_REQUEUES:-20} is reached, so" \
        "the job is not requeued; the same sbatch command resumes from the last checkpoint"
elif scontrol requeue "$job"; then
    say "requeued; resumes from the last checkpoint"
    trap - USR1 TERM
    sleep 300 # SLURM ends this script meanwhile
else
    say "the job could not be requeued (--no-requeue?); the same sbatch command resumes from the last checkpoint"
fi
exit 85
