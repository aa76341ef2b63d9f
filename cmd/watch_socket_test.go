package cmd

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestHooksAndStatusAskTheWatch(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	appendAll(t, w.server, "INBOX", watchMail("first"))
	if out, status := w.run(name, "status"); status != 0 || strings.Contains(out, "running since") {
		t.Errorf("without a watch: %d %s", status, out)
	}
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	w.until("it watches", func() bool { out, _ := w.run(name, "status"); return strings.Contains(out, "by NOTIFY since") })
	w.until("a program is told the same, between two syncs", func() bool {
		out, status := w.run(name, "status", "--json")
		return status == 0 && regexp.MustCompile(`"watch":\{"running_since":"[^"]+","how":"notify","since":"[^"]+"\}`).MatchString(out)
	})
	w.until("so does one line", func() bool {
		out, _ := w.run(name, "status", "--line")
		return out == "mail: ok, watched\n"
	})
	sockets, err := filepath.Glob(filepath.Join(w.runtime, name, "watch-*"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("%v, %v", sockets, err)
	}
	for path, want := range map[string]fs.FileMode{sockets[0]: fs.ModeSocket | 0o600, filepath.Dir(sockets[0]): fs.ModeDir | 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v", path, fi.Mode(), err)
		}
	}

	// Without the secret nobody but the watch can sign in. On a busy machine it may answer too late, of
	// which the sign-in that then fails is told.
	secret := filepath.Join(w.dir, "secret")
	if err := os.Rename(secret, secret+".away"); err != nil {
		t.Fatal(err)
	}
	for n, asked := 0, 0; asked < 2; n++ {
		id := fmt.Sprintf("asked%d", n)
		appendAll(t, w.server, "INBOX", watchMail(id))
		out, status := w.run(name, "hook", "pre-new", "--timeout", "0")
		switch {
		case status == 0 && out == "" && w.here("id:"+id+"@example.org", 1)():
			asked++
		case n > 10:
			t.Fatalf("%s: status %d, %q; the mail is not here after the hook", id, status, out)
		}
	}
	if err := os.Rename(secret+".away", secret); err != nil {
		t.Fatal(err)
	}

	// One that does not answer is asked no more.
	thaw := w.freeze()
	appendAll(t, w.server, "INBOX", watchMail("fourth"))
	if out, status := w.run(name, "hook", "post-new", "--timeout", "0"); status != 0 || !w.here("id:fourth@example.org", 1)() {
		t.Errorf("beside a watch that does not answer: %d %q", status, out)
	}
	if out, status := w.run(name, "status"); status != 0 || strings.Contains(out, "running since") || !strings.Contains(out, "there is one, and it does not answer") {
		t.Errorf("status of a watch that does not answer: %d %s", status, out)
	}
	if out, status := w.run(name, "status", "--line"); status != 0 || out != "work: the watch does not answer\n" {
		t.Errorf("in one line: %d %s", status, out)
	}
	thaw()

	// There is one watch, wherever its socket would be, and it leaves nothing behind that keeps the next from its work.
	for _, dir := range []string{w.runtime, "", t.TempDir()} {
		if out, status := w.run("env", "XDG_RUNTIME_DIR="+dir, name, "watch"); status != exitLater || !strings.Contains(out, errWatched.Error()) {
			t.Errorf("a second watch: %d %s", status, out)
		}
	}
	w.stop(syscall.SIGKILL)
	w.start()
	appendAll(t, w.server, "INBOX", watchMail("fifth"))
	w.until("mail is here with the next watch", w.here("id:fifth@example.org", 1))
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Stat(sockets[0]); err == nil {
		t.Error("the socket is left")
	}
}

func TestASocketInADirectoryOfOthersIsNotUsed(t *testing.T) {
	t.Parallel()
	run := t.TempDir()
	p := &program{getenv: func(k string) string { return map[string]string{"XDG_RUNTIME_DIR": run}[k] }}
	path := p.watchSocket("/etc/config.toml")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if _, err := openDoor(path); err == nil || !strings.Contains(err.Error(), "mode 0700") {
		t.Errorf("%v", err)
	}
	if _, ok, err := p.askWatch(t.Context(), "/etc/config.toml", watchQuestion{}); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	long := filepath.Join(run, strings.Repeat("x", 108))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openDoor(filepath.Join(long, "watch")); err == nil || !strings.Contains(err.Error(), "of at most 107: set XDG_RUNTIME_DIR to") {
		t.Errorf("%v", err)
	}
	p.getenv = func(string) string { return "" }
	if path := p.watchSocket("/etc/config.toml"); path != "" {
		t.Errorf("without XDG_RUNTIME_DIR: %q", path)
	}
}
