#!/usr/bin/env bash
# A real, throw-away SLURM cluster of two nodes on this host, as root.
#
#   cluster.sh up DIR      starts munged, slurmctld and two slurmd, waits until the nodes are idle, and prints the
#                          shell lines that point SLURM's commands at them
#   cluster.sh down DIR    cancels jobs, stops what belongs to DIR and nothing else, and removes it
#   cluster.sh logs DIR    the end of every daemon's log
#
# DIR is an absolute path of at most 60 characters; its sockets must fit in 107. Partitions are main and urgent,
# whose jobs preempt those of main. Each node says that it has 32 CPUs, 64 GB and 2 GPUs. Nothing is installed, and
# nothing outside DIR is changed.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
umask 022

NODES=(n1 n2)
STARTUP=60 KILL_WAIT=5
command=${1:-} S=${2:-}
CONF=$S/etc/slurm.conf
MUNGE=$S/run/munge.sock
HOST=$(uname -n) HOST=${HOST%%.*}

die() { printf 'cluster.sh: %s\n' "$*" >&2; exit 1; }
logs() { tail -n 20 "$S"/log/*.log 2>/dev/null || true; }

# ---- processes -------------------------------------------------------------------------------------------
alive() { # not a zombie: the first process of a container may never reap
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
    [[ -n $state && $state != [ZX] ]]
}
ours() { # whether a daemon belongs to DIR: its arguments or an open file say so
    local file
    { tr '\0' '\n' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF -- "$S/" && return 0
    for file in "/proc/$1/fd"/*; do
        [[ $(readlink "$file" 2>/dev/null) == "$S/"* ]] && return 0
    done
    return 1
}
daemons() { # daemons NAME…   the processes of ours with those names
    local process name
    for process in /proc/[0-9]*; do
        name=$(readlink "$process/exe" 2>/dev/null) || continue
        name=${name##*/} name=${name% (deleted)} name=${name%-wlm}
        [[ " $* " == *" $name "* ]] || continue
        if alive "${process#/proc/}" && ours "${process#/proc/}"; then echo "${process#/proc/}"; fi
    done
}
job_processes() { # what a job of this cluster left behind
    local process variables
    for process in /proc/[0-9]*; do
        [[ ${process#/proc/} == "$$" || ${process#/proc/} == "$BASHPID" ]] && continue
        variables=$({ tr '\0' '\n' <"$process/environ"; } 2>/dev/null) || continue
        [[ $'\n'$variables$'\n' == *$'\n'"SLURM_CONF=$CONF"$'\n'* ]] || continue
        if [[ $'\n'$variables == *$'\n'SLURM_JOB_ID=* ]] && alive "${process#/proc/}"; then echo "${process#/proc/}"; fi
    done
}
stop() { # stop SECONDS PID…   TERM, a bounded wait, KILL
    local end=$((SECONDS + $1)) process left
    shift
    (($#)) || return 0
    kill -TERM "$@" 2>/dev/null || true
    while :; do
        left=()
        for process in "$@"; do if alive "$process"; then left+=("$process"); fi; done
        ((${#left[@]})) || return 0
        ((SECONDS < end)) || break
        sleep 0.1
    done
    kill -KILL "${left[@]}" 2>/dev/null || true
}
wait_for() { # wait_for WHAT COMMAND…
    local end=$((SECONDS + STARTUP)) what=$1
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then logs >&2; die "$what did not come up (logs above)"; fi
        sleep 0.2
    done
}

# ---- configuration ---------------------------------------------------------------------------------------
in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_ports() { # the first of three free ports in a row
    local base try port
    base=$((20000 + $(printf %s "$S" | cksum | cut -d' ' -f1) % 9000))
    for ((try = 0; try < 20; try++)); do
        for ((port = base; port < base + 3; port++)); do
            if in_use "$port"; then base=$((port + 1)); continue 2; fi
        done
        echo "$base" && return
    done
    die "no three free ports in a row near $base"
}
write_configuration() {
    local base version i
    mkdir -p "$S"/{etc,run,log,state,spool,dev}
    chmod 755 "$S" # munged wants its socket to be reachable by everybody
    (umask 077 && head -c 128 /dev/urandom >"$S/etc/munge.key")
    base=$(free_ports)
    version=$(slurmctld -V | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
    # Containers may not make cgroups. From 24.05 on SLURM asks for them unless it is told not to.
    if ((10#${version/./} >= 2405)); then echo "CgroupPlugin=disabled"; else echo "IgnoreSystemd=yes"; fi >"$S/etc/cgroup.conf"
    touch "$S"/dev/gpu{0,1}
    # Not CUDA_VISIBLE_DEVICES: there is no device behind them.
    echo "Name=gpu File=$S/dev/gpu[0-1] Flags=amd_gpu_env" >"$S/etc/gres.conf"
    {
        cat <<CONFIGURATION
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits as long as a credential lives, by default 120 s.
AuthInfo=socket=$MUNGE,cred_expire=5
SlurmctldPort=$base
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd-%n.pid
SlurmdSpoolDir=$S/spool/%n
StateSaveLocation=$S/state
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SwitchType=switch/none
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=$KILL_WAIT
SlurmctldTimeout=30
SlurmdTimeout=30
BatchStartTimeout=30
MessageTimeout=20
InactiveLimit=0
MinJobAge=7200
GresTypes=gpu
CONFIGURATION
        for i in "${!NODES[@]}"; do
            echo "NodeName=${NODES[i]} NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((base + 1 + i)) CPUs=32 RealMemory=64000 Gres=gpu:2"
        done
        echo "PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=20 DefaultTime=00:30:00"
        echo "PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF DefaultTime=00:30:00"
    } >"$CONF"
    {
        grep -vE "[[:space:]](${NODES[0]}|${NODES[1]})([[:space:]]|\$)" /etc/hosts || true
        grep -qwF -- "$HOST" /etc/hosts || echo "127.0.0.1 $HOST"
        printf '127.0.0.1 %s\n' "${NODES[@]}"
    } >"$S/etc/hosts"
    echo "export SLURM_CONF=$CONF" >"$S/env.sh"
    # Where namespaces are not allowed, nodes have no names of their own, and meet at the host's.
    can_isolate || echo "export TRAINER_MASTER_ADDR=127.0.0.1" >>"$S/env.sh"
}

# ---- start and stop --------------------------------------------------------------------------------------
can_isolate() {
    # shellcheck disable=SC2016
    unshare --mount --uts sh -c 'hostname x && mount --bind "$1" /etc/hosts' sh "$S/etc/hosts" >/dev/null 2>&1
}
launch() { # launch NAME HOSTNAME COMMAND…   a daemon that forks itself; with a host name, in namespaces of its own
    local name=$1 host=$2 before=()
    shift 2
    if [[ -n $host ]] && can_isolate; then
        # shellcheck disable=SC2016
        before=(unshare --mount --uts sh -c 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"' sh
            "$host" "$S/etc/hosts")
    fi
    # Variables of a job around this one stay outside.
    env -i PATH="$PATH" HOME="${HOME:-/}" LANG=C SLURM_CONF="$CONF" timeout "$STARTUP" "${before[@]}" "$@" \
        </dev/null >>"$S/log/$name.start.log" 2>&1 || { logs >&2; die "$name did not start (logs above)"; }
}
munge_answers() { munge -S "$MUNGE" -n </dev/null | unmunge -S "$MUNGE"; }
controller_answers() { timeout 10 scontrol ping | grep -q ' is UP'; }
nodes_are_idle() { [[ $(timeout 10 sinfo -h -N -p main -o %T | sort | uniq -c | xargs) == "${#NODES[@]} idle" ]]; }
up() {
    local node origin=()
    [[ $(id -u) == 0 ]] || die "needs root"
    [[ $S =~ ^/[A-Za-z0-9_./+-]{1,59}$ ]] || die "'$S' is no plain absolute path of at most 60 characters"
    [[ ! -e $S || -z $(ls -A "$S") ]] || die "$S is not empty"
    write_configuration
    export SLURM_CONF=$CONF
    trap 'code=$?; if ((code)); then stop_all || true; fi' EXIT
    if munged --help 2>&1 | grep -q -- --origin; then origin=(--origin=127.0.0.1); fi
    launch munged "" munged --socket="$MUNGE" --key-file="$S/etc/munge.key" --pid-file="$S/run/munged.pid" \
        --log-file="$S/log/munged.log" --seed-file="$S/run/munged.seed" --num-threads=4 "${origin[@]}"
    wait_for munged munge_answers
    launch slurmctld "$HOST" slurmctld -i -f "$CONF"
    wait_for slurmctld controller_answers
    for node in "${NODES[@]}"; do
        mkdir -p "$S/spool/$node"
        launch "slurmd-$node" "$node" slurmd -N "$node" -f "$CONF"
    done
    wait_for "every node" nodes_are_idle
    cat "$S/env.sh"
}
stop_all() {
    local end
    if [[ -n $(daemons slurmctld) ]]; then
        export SLURM_CONF=$CONF
        timeout 20 scancel --user=root --quiet || true
        end=$((SECONDS + KILL_WAIT + 15))
        while ((SECONDS < end)) && [[ -n $(timeout 10 squeue -h 2>/dev/null) ]]; do sleep 0.3; done
    fi
    # shellcheck disable=SC2046
    {
        stop 10 $(daemons slurmd)
        stop 15 $(daemons slurmctld)
        stop 5 $(daemons slurmstepd)
        stop 3 $(job_processes)
        stop 5 $(daemons munged)
    }
}
down() {
    [[ -f $CONF ]] || die "$S is no cluster"
    stop_all
    rm -rf -- "$S"
}

case $command in
    up | down | logs) "$command" ;;
    *) sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2 && exit 2 ;;
esac
