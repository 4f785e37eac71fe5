#!/usr/bin/env bash
# A throw-away SLURM cluster on this machine: a controller, two nodes (n1, n2) with two pretended GPUs each, a
# partition "main", and a partition "urgent" whose jobs preempt those of "main" (SIGTERM, 20 s, SIGKILL, requeue).
#
#   launch/local_slurm.sh up       start it; then   eval "$(launch/local_slurm.sh env)"   and sinfo, sbatch, ...
#   launch/local_slurm.sh status   what runs; exit status 0 when it is up
#   launch/local_slurm.sh env      what a shell needs to talk to it: one line
#   launch/local_slurm.sh slurmd n1    start a node daemon again that was killed
#   launch/local_slurm.sh down     stop everything, and remove the folder
#
# All state lies in one folder, ROBUST_ERM_SLURM (else /tmp/robust-erm-slurm); the system's own SLURM and munge, if it
# has any, are not touched. Needs root (a container's is enough) and, on Debian and its kin: apt install slurm-wlm munge
set -euo pipefail

HOME_DIR=${ROBUST_ERM_SLURM:-/tmp/robust-erm-slurm}
export SLURM_CONF=$HOME_DIR/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin
BASE_PORT=${ROBUST_ERM_SLURM_PORT:-16817}

die() { echo "local_slurm: $*" >&2; exit 1; }

# whether the daemon of that pid file runs; the number may have been given to another process since
alive() { [ -f "$HOME_DIR/$1.pid" ] && [ "$(cat "/proc/$(cat "$HOME_DIR/$1.pid")/comm" 2>/dev/null)" = "${1%%-*}" ]; }

configure() {
  local host cpus memory
  host=$(hostname -s)
  cpus=$(nproc)
  memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
  [ "$cpus" -ge 4 ] || cpus=4  # more than there are: tasks take turns
  cat >"$SLURM_CONF" <<CONF
ClusterName=robust-erm-throw-away
SlurmctldHost=$host
SlurmctldPort=$BASE_PORT
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its old credential has expired: 5 s in place of 120
AuthInfo=socket=$HOME_DIR/munge.socket,cred_expire=5
StateSaveLocation=$HOME_DIR/state
SlurmdSpoolDir=$HOME_DIR/spool-%n
SlurmctldPidFile=$HOME_DIR/slurmctld.pid
SlurmdPidFile=$HOME_DIR/slurmd-%n.pid
SlurmctldLogFile=$HOME_DIR/slurmctld.log
SlurmdLogFile=$HOME_DIR/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=512
GresTypes=gpu
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=10
SlurmdTimeout=15
SlurmctldTimeout=10
InactiveLimit=0
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=5
MaxArraySize=1001
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((BASE_PORT + 1)) CPUs=$cpus RealMemory=$memory Gres=gpu:2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((BASE_PORT + 2)) CPUs=$cpus RealMemory=$memory Gres=gpu:2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=600 DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=n1,n2 MaxTime=60 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
CONF
  # pretended GPUs need device nodes that are named like real ones: SLURM counts by the names
  mkdir -p "$HOME_DIR/dev"
  for k in 0 1; do
    mknod "$HOME_DIR/dev/nvidia$k" c 195 "$k" 2>/dev/null || [ -c "$HOME_DIR/dev/nvidia$k" ] \
      || die "cannot make device nodes below $HOME_DIR/dev (mknod): is this root, on a file system with devices?"
  done
  for node in n1 n2; do
    echo "NodeName=$node Name=gpu File=$HOME_DIR/dev/nvidia[0-1]"
  done >"$HOME_DIR/gres.conf"
  echo "CgroupPlugin=cgroup/v1" >"$HOME_DIR/cgroup.conf"
}

start_node() { slurmd -N "$1" -f "$SLURM_CONF" || die "slurmd $1 does not start: see $HOME_DIR/slurmd-$1.log"; }

up() {
  for tool in munged slurmctld slurmd sbatch srun scontrol; do
    command -v "$tool" >/dev/null || die "there is no $tool: apt install slurm-wlm munge"
  done
  [ "$(id -u)" = 0 ] || die "needs root, which a container has"
  if answers; then echo "local_slurm: is up already"; return; fi
  down quietly
  mkdir -p "$HOME_DIR/state"
  chmod 755 "$HOME_DIR"
  configure
  (umask 077 && head -c 1024 /dev/urandom >"$HOME_DIR/munge.key")
  munged --force --key-file="$HOME_DIR/munge.key" --socket="$HOME_DIR/munge.socket" --pid-file="$HOME_DIR/munged.pid" \
    --log-file="$HOME_DIR/munged.log" --seed-file="$HOME_DIR/munged.seed" || die "munged: see $HOME_DIR/munged.log"
  slurmctld -f "$SLURM_CONF" -c || die "slurmctld does not start: see $HOME_DIR/slurmctld.log"
  start_node n1
  start_node n2
  for _ in $(seq 150); do
    if [ "$(sinfo -h -p main -t idle -o %D 2>/dev/null)" = 2 ]; then
      echo "local_slurm: up; eval \"\$($0 env)\""
      return
    fi
    sleep 0.2
  done
  sinfo -N -l >&2 || true
  tail -n 5 "$HOME_DIR"/slurm*.log >&2
  die "the nodes did not become idle within 30 s"
}

answers() { [ -f "$SLURM_CONF" ] && alive slurmctld && sinfo -h >/dev/null 2>&1; }

down() {
  [ -d "$HOME_DIR" ] || { [ "${1:-}" = quietly ] || echo "local_slurm: is not up"; return 0; }
  [ -f "$SLURM_CONF" ] || [ -z "$(ls -A "$HOME_DIR")" ] || die "$HOME_DIR holds something else; nothing was removed"
  if answers; then
    scancel -Q --state=PENDING -u "$(id -un)" || true
    scancel -Q --signal=KILL --full -u "$(id -un)" || true
    scancel -Q -u "$(id -un)" || true
    for _ in $(seq 50); do [ -n "$(squeue -h)" ] || break; sleep 0.2; done
  fi
  for daemon in slurmd-n1 slurmd-n2 slurmctld munged; do
    if alive "$daemon"; then
      pid=$(cat "$HOME_DIR/$daemon.pid")
      kill "$pid" 2>/dev/null || true
      for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
      kill -9 "$pid" 2>/dev/null || true
    fi
  done
  for pid in $(pgrep slurmstepd || true); do  # ours only: the system may have its own
    if tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qxF "SLURM_CONF=$SLURM_CONF"; then kill -9 "$pid" || true; fi
  done
  rm -rf "$HOME_DIR"
  [ "${1:-}" = quietly ] || echo "local_slurm: down, and $HOME_DIR is removed"
}

status() {
  answers || { echo "local_slurm: is not up ($HOME_DIR)"; exit 1; }
  sinfo -N -o '%N %P %t %G'
  squeue -o '%i %P %T %N %r'
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  status) status ;;
  env) [ -f "$SLURM_CONF" ] || die "is not up"; echo "export SLURM_CONF=$SLURM_CONF" ;;
  slurmd) start_node "${2:?which node?}" ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
esac
