package cmd

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestWatchUnderAUserManager: the unit that `setup systemd` installs runs under a real systemd
// of a user, hardened as it is, where one can be had: in a control group and namespaces of its
// own, which root may make. Elsewhere TestWatchTellsItsServiceManager, which starts the watch
// by the same unit and plays the manager, is all that is known.
func TestWatchUnderAUserManager(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	appendAll(t, w.server, "INBOX", watchMail("first"))
	const inner = `
		mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
			mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system || { echo "no user manager: no mounts"; exit; }
		env -i HOME="$HOME" PATH="$PATH" TMPDIR="$TMPDIR" XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" $1 --user --log-target=null &
		until_ok() { for i in $(seq 3000); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*"; return 1; }
		up() { systemctl --user show -p SystemState | grep -q running; }
		is() { systemctl --user show -p StatusText notmuch-imap-watch | grep -q "$1"; }
		watched() { notmuch-imap status --line | grep -x "mail: ok, watched"; } # it connects anew
		here() { test "$(notmuch count '*')" = 1; }
		cp --remove-destination "$(readlink -f bin/notmuch-imap)" bin/notmuch-imap # what a unit starts is called so
		until_ok up || { echo "no user manager: it does not start"; exit; }
		notmuch-imap setup systemd && until_ok here && until_ok is "^StatusText=1 account$" && echo "it runs"
		systemctl --user show -p ActiveState -p NoNewPrivileges -p Type -p NRestarts notmuch-imap-watch
		systemctl --user reload notmuch-imap-watch && until_ok is "^StatusText=1 account$" && echo "it was reloaded"
		until_ok watched && notmuch-imap status --line
		notmuch-imap setup systemd --remove
		systemctl --user show -p ActiveState -p LoadState -p UnitFileState notmuch-imap-watch`
	const outer = `
		for manager in /lib/systemd/systemd /usr/lib/systemd/systemd; do test -x $manager && break; done
		for group in /sys/fs/cgroup/unified /sys/fs/cgroup; do test -e $group/cgroup.controllers && break; done
		mkdir "$group/notmuch-imap-test.$$" 2>/dev/null && echo $$ >"$group/notmuch-imap-test.$$/cgroup.procs" &&
			unshare --cgroup --mount --pid --fork --kill-child --mount-proc --propagation private sh -c "$1" sh $manager ||
			echo "no user manager: no control group, or no namespaces, of its own"
		echo $$ >"$group/cgroup.procs"
		until rmdir $(find "$group/notmuch-imap-test.$$" -depth -type d) 2>/dev/null; do sleep 0.1; test -e "$group/notmuch-imap-test.$$" || break; done`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", outer, "sh", inner)
	cmd.Env, cmd.Dir = slices.Clone(w.env), w.dir
	raw, err := cmd.CombinedOutput()
	out := string(raw)
	if strings.Contains(out, "no user manager: ") {
		t.Log(out)
		return
	}
	for _, want := range []string{"it runs\n", "it was reloaded\n", "ActiveState=active\n", "NoNewPrivileges=yes\n", "Type=notify\n", "NRestarts=0\n", "mail: ok, watched\n", "ActiveState=inactive\n", "LoadState=not-found\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing of %q (%v) in\n%s", want, err, out)
		}
	}
}
