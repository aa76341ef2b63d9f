package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// holding is a user's machine with an account whose mailbox Lists has eight mails.
func holding(t *testing.T) (*newcomer, string) {
	t.Helper()
	s := dovecot(t)
	command(t, s, "CREATE Lists", "CREATE Trash")
	for i := range 8 {
		appendAll(t, s, "Lists", faultMail(i))
	}
	n := newNewcomer(t)
	for path, text := range map[string]string{
		newConfig: fmt.Sprintf("[account.work]\nhost = %q\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = %q\n",
			s.Host, s.Port, s.User, filepath.Join(n.home, "password")),
		"password":        s.Password + "\n",
		".notmuch-config": "[database]\npath=" + n.home + "/Mail\n[user]\nname=me\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\n",
	} {
		path = filepath.Join(n.home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(n.home, "Mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.run(0, "", "notmuch", "new")
	n.run(exitDone, "", name, "sync")
	return n, filepath.Join(n.home, "Mail/work/Lists")
}

// files are those of a Maildir.
func filesIn(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(folder + "/[cn]*/*")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// moved asserts that the eight mails are in the Trash, here as on the server.
func (n *newcomer) moved(lists string) {
	n.t.Helper()
	if in, trash := filesIn(n.t, lists), filesIn(n.t, filepath.Join(lists, "../Trash")); len(in) != 0 || len(trash) != 8 {
		n.t.Errorf("%d in Lists, %d in the Trash", len(in), len(trash))
	}
	if out := n.run(exitDone, "", name, "sync", "--full"); !strings.Contains(out, nothingNew) {
		n.t.Error(out)
	}
}

// What the guard holds back is asked about where somebody sits, and each answer does
// what it says; where nobody does, it is told once.
func TestWhatIsHeldIsAskedAbout(t *testing.T) {
	t.Parallel()
	n, lists := holding(t)
	for _, f := range filesIn(t, lists) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if out := n.run(exitPartly, "", name, "sync"); !strings.Contains(out, "--yes-delete=work/Lists") {
		t.Error(out)
	}
	if out := n.run(exitDone, "", name, "sync", "--quiet"); out != "" {
		t.Errorf("told again: %q", out)
	}
	at := func(keys string, patterns ...string) {
		t.Helper()
		r := startReader(t, n.env, "sh", "-c", name+" sync; echo status $?; exec cat")
		r.shows(`work/Lists: 8 messages gone here or in doubt`, `\[l/d/r, Enter is l\]`)
		r.tmux("send-keys", "-l", keys)
		r.tmux("send-keys", "Enter")
		r.shows(patterns...)
	}
	at("", "status 3")
	// Ctrl-D is for later, too; that nothing was changed would be a lie after a sync.
	r := startReader(t, n.env, "sh", "-c", name+" sync; echo status $?; exec cat")
	r.shows(`\[l/d/r, Enter is l\]`)
	r.tmux("send-keys", "C-d")
	r.shows("status 3", "!nothing was changed")
	at("r", "8 new", "status 0")
	if got := len(filesIn(t, lists)); got != 8 {
		t.Errorf("%d files", got)
	}
	if err := os.RemoveAll(lists); err != nil {
		t.Fatal(err)
	}
	at("d", "8 deleted", "status 0")
	n.moved(lists)
}

// The word for one mailbox is no word for another, and a name that is none is refused.
func TestYesDeleteIsForAMailbox(t *testing.T) {
	t.Parallel()
	n, lists := holding(t)
	if err := os.RemoveAll(lists); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"Lists", "work/", "/Lists", "home/Lists"} {
		if out := n.run(exitUsage, "", name, "sync", "--yes-delete="+bad); !strings.Contains(out, bad) {
			t.Errorf("%s: %s", bad, out)
		}
	}
	n.run(exitPartly, "", name, "sync", "--yes-delete=work/Trash")
	if out := n.run(exitDone, "", name, "sync", "-m", "Lists", "--yes-delete=work/Lists", "-n"); !strings.Contains(out, "would: move 8 messages to the Trash") {
		t.Error(out)
	}
	n.run(exitDone, "", name, "sync", "-m", "Lists", "--yes-delete", "work")
	n.run(exitDone, "", name, "sync")
	n.moved(lists)
}
