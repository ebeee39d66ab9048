#!/usr/bin/env bash
# Trains a recipe on every node of a SLURM job; a job that is stopped early goes back into the queue and goes on.
# The templates in this folder end here, once for each job:  launch.sh RECIPE [options of `trainer train`]
# The working directory is the repository's root, where accelerate_configs/ and ds_configs/ are found.
#
#   TRAINER_CONFIG           who runs where: a file of accelerate_configs/ (each template has its own)
#   TRAINER_RANKS_PER_NODE   [the GPUs of a node; 1 where the job has none]
#   TRAINER_MAX_REQUEUES     how often a job is started again, at most [20]
#   TRAINER_VENV             virtual environment, seen by all nodes [.venv]
#   TRAINER_SEED             trains with this seed, in a folder of its own in the run directory
#   TRAINER_MASTER_ADDR      where the nodes meet [the name of the first]
#   HF_HUB_OFFLINE           0 where compute nodes reach the hub [1]
set -euo pipefail

say() { printf '%s launch.sh: %s\n' "$(date '+%F %T')" "$*"; }

if (($# == 0)) || [[ $1 == -* ]]; then
    say "the first argument is the recipe: sbatch [options of sbatch] slurm/TEMPLATE RECIPE [--set …]"
    exit 2
fi
for name in TRAINER_RANKS_PER_NODE TRAINER_MAX_REQUEUES TRAINER_SEED; do
    # bash would count a word as 0, and take digits that begin with 0 for octal.
    least=0
    if [[ $name == TRAINER_RANKS_PER_NODE ]]; then least=1; fi
    if [[ -n ${!name:-} ]] && { [[ ! ${!name} =~ ^(0|[1-9][0-9]{0,8})$ ]] || ((${!name} < least)); }; then
        say "$name=${!name} is no whole number from $least on; unset it or give it one"
        exit 2
    fi
done
here=$(dirname "$(readlink -f "$0")")
# Of an array, the plain number of the task that starts first would mean all tasks.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
restarts=${SLURM_RESTART_COUNT:-0}
asked=''
trap 'asked=USR1' USR1 # until there is somebody to ask
trap 'asked=TERM' TERM

# The run directory, as `trainer train` names it: its status.json says how the run ended.
name=${1##*/} name=${name%.yaml} name=${name%.yml} smoke='' run_dir='' arguments=()
while (($#)); do
    case $1 in
        --run-dir) run_dir=$2 && shift ;;
        --run-dir=*) run_dir=${1#*=} ;;
        # A job that was queued again goes on with the run that it began.
        --resume) if ((restarts)) && [[ ${2:-} == never ]]; then shift; else arguments+=("$1"); fi ;;
        --resume=never) ((restarts)) || arguments+=("$1") ;;
        --smoke) smoke=-smoke arguments+=("$1") ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
if [[ -n ${TRAINER_SEED:-} ]]; then # as `trainer sweep` has it
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
# Two jobs on one node do not meet by accident. Below the ports that systems give out by themselves.
export TRAINER_MASTER_PORT=$((10000 + SLURM_JOB_ID % 10000))
export TRAINER_LOGS=$logs
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
cpus=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cpus > TRAINER_RANKS_PER_NODE ? cpus / TRAINER_RANKS_PER_NODE : 1))}

job_says() { # job_says KEY   what SLURM says of this job; nothing where its controller does not answer
    local said=''
    for _ in 1 2 3; do
        said=$(scontrol show job "$job" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1) || true
        if [[ -n $said ]]; then break; fi
        sleep 2
    done
    printf '%s' "$said"
}
# Older versions of SLURM do not tell a job when its time is over.
end=$(job_says EndTime)
if [[ -n $end ]] && end=$(date -d "$end" +%s 2>/dev/null); then export SLURM_JOB_END_TIME=$end; fi

status_says() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\).*/\1/p" "$run_dir/status.json" 2>/dev/null || true; }
status_file() { stat -c '%i %y' "$run_dir/status.json" 2>/dev/null || true; }
status_before=$(status_file) # what an earlier run left says nothing of this one
begun() { [[ $(status_file) != "$status_before" ]]; }

say "job $job, start $((restarts + 1)): $SLURM_JOB_NUM_NODES node(s) x $TRAINER_RANKS_PER_NODE rank(s) under" \
    "$TRAINER_CONFIG, meeting at $TRAINER_MASTER_ADDR:$TRAINER_MASTER_PORT"
say "run directory $run_dir, logs $logs/job-$SLURM_JOB_ID-*"

# srun does not take the CPUs of a task from the job by itself. A task that fails ends all of them.
srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$cpus" --mpi=none --kill-on-bad-exit=1 \
    --input=none --open-mode=append --output="$logs/job-%j-node-%n.log" \
    "$here/launch-node.sh" "${arguments[@]}" --run-dir "$run_dir" &
step=$!

pass_on() { # asks the ranks to save and stop, once: they end at once where they are asked again later
    [[ -z $asked ]] || return 0
    # TERM with any other state comes from SLURM, which has sent it to the ranks as well.
    if [[ $1 == TERM && $(job_says JobState) != RUNNING ]]; then return 0; fi
    asked=$1
    say "SIG$1: asking the ranks to save and stop"
    # Ranks that are still starting would not hear it.
    until begun || ! kill -0 "$step" 2>/dev/null; do sleep 1; done
    kill -USR1 "$step" 2>/dev/null || true
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
if [[ -n $asked ]]; then early=$asked asked='' && pass_on "$early"; fi
while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal ends a wait
code=0
wait "$step" || code=$?
trap '' USR1 TERM

state='' exit_code=$code
if begun; then
    # Ranks that were killed may be there a little longer than srun.
    in_use=''
    flock --wait 15 "$run_dir/.lock" true || in_use=yes # or another job trains there, and this one was refused
    state=$(status_says state) exit_code=$(status_says exit_code)
    if [[ -n $in_use ]]; then
        state="in use by another job" exit_code=$code
    elif [[ $state == running ]]; then # nobody is left to write how it ended
        state=failed exit_code=1
        { sed -e 's/"state": .*/"state": "failed",/' -e 's/"exit_code": .*/"exit_code": 1,/' \
            -e "s/\"message\": .*/\"message\": \"the ranks of job $job were killed; the same command goes on from the last checkpoint\"/" \
            "$run_dir/status.json" >"$run_dir/.status.json.launch" &&
            mv "$run_dir/.status.json.launch" "$run_dir/status.json"; } || # on a full disk, say
            say "status.json cannot be written, and still says running"
    fi
elif [[ -n $asked && $code != 0 ]]; then
    state=stopped exit_code=85 # before anything had begun
fi
say "srun ended with $code, status.json says ${state:-nothing new}, exit code $exit_code"
if [[ $exit_code != 85 ]]; then exit "${exit_code:-1}"; fi

job_state=$(job_says JobState)
if [[ -n $job_state && $job_state != RUNNING ]]; then
    say "SLURM is ending this job itself ($job_state): not queued again from here"
elif ((restarts >= ${TRAINER_MAX_REQUEUES:-20})); then
    say "stopped early, and started $((restarts + 1)) times already: TRAINER_MAX_REQUEUES=${TRAINER_MAX_REQUEUES:-20} is" \
        "reached, so the job is not queued again; the same sbatch command goes on from the last checkpoint"
elif scontrol requeue "$job"; then
    say "queued again; goes on from the last checkpoint"
    trap - USR1 TERM
    sleep 300 # SLURM ends this script
else
    say "the job could not be queued again (--no-requeue?); the same sbatch command goes on from the last checkpoint"
fi
exit 85
