package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The units are as systemd wants them.
func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing; it comes with Debian's package systemd")
	}
	dir := t.TempDir()
	var files []string
	for _, unit := range []string{"systemd/notmuch-imap.service", "systemd/notmuch-imap.timer", "systemd/notmuch-imap-watch.service", "fleet/notmuch-imap@.service", "fleet/notmuch-imap@.timer"} {
		text, err := os.ReadFile("../contrib/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		// The program that is verified is there, which ours need not be.
		s := strings.Replace(string(text), "ExecStart=notmuch-imap", "ExecStart=/bin/true", 1)
		if strings.HasSuffix(unit, ".service") && s == string(text) {
			t.Errorf("%s does not call the program", unit)
		}
		file := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	cmd := exec.CommandContext(t.Context(), verify, append([]string{"--user", "--man=no", "verify"}, files...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "SYSTEMD_LOG_LEVEL=warning")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), dir) {
		t.Errorf("%v: %s", err, out)
	}
}
