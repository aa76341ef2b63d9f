#!/bin/sh
# A job array with a task for each person: sbatch --array=0-199%8 slurm.sh people
# The file has a name in a line. Each has a configuration of their own, and so a mail root, a notmuch
# database and a state that no other task touches.
#SBATCH --job-name=mail
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
set -eu
person=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$1")
[ -n "$person" ] || exit 0
export NOTMUCH_CONFIG="/srv/mail/$person/notmuch-config" XDG_STATE_HOME="/srv/mail/$person/state"
status=0
notmuch-imap --config "/srv/mail/$person/config.toml" sync --quiet || status=$?
case $status in
0 | 3) ;;                                     # what is left waits for the next run, and was told
75) scontrol requeue "$SLURM_ARRAY_JOB_ID"_"$SLURM_ARRAY_TASK_ID" ;; # nothing could be done for now
*) exit "$status" ;;                          # a person is needed
esac
