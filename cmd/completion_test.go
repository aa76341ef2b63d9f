package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/contrib"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// completionWorld is a directory with a configuration of two accounts, and a ledger of
// the first, whose server calls mailboxes as it likes.
func completionWorld(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := ""
	for _, name := range []string{"work", "home"} {
		text += fmt.Sprintf("[account.%s]\nhost = \"127.0.0.1\"\nuser = \"me\"\nkeyring = true\n", name)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "state", "notmuch-imap", "work"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"INBOX", "Sent Items", "a:b=c@d", "x$(touch owned)", "it's", "two\nlines", "tab\there"} {
		if err := l.SaveMailbox(t.Context(), ledger.Mailbox{Name: name, UIDValidity: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Save(t.Context(), ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: 15541, State: ledger.Stub, StubKey: "k", Reason: "no answer"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func completionEnv(dir string) map[string]string {
	return map[string]string{"HOME": dir, "XDG_STATE_HOME": filepath.Join(dir, "state"), "NOTMUCH_IMAP_CONFIG": filepath.Join(dir, "config.toml")}
}

func TestWhatCanBeTypedNext(t *testing.T) {
	t.Parallel()
	dir := completionWorld(t)
	for _, tc := range []struct {
		typed string // words, parted by |
		want  string // the words of the answer; with ... at the end, the first ones of it
	}{
		{"st", "words|status|stubs"},
		{"setup|a", "words|account"},
		{"sync|", "words|home|work"},
		{"sync|w", "words|work"},
		{"sync|home|", "words|home|work"},
		{"sync|--m", "words|--mailbox"},
		{"sync|-m|I", "words|INBOX"},
		{"sync|--mailbox=I", "words|--mailbox=INBOX"},
		{"verify|work/S", "words|work/Sent Items"},
		{"verify|--quiet|work/a", "words|work/a:b=c@d"},
		{"folder|delete|work/", "words|work/INBOX|work/Sent Items|work/a:b=c@d|work/it's|work/x$(touch owned)"},
		{"inspect|", "words|work/INBOX/15541"},
		{"drop|--to|I", "words|INBOX"},
		{"log|--kind|mo", "words|move"},
		{"log|work/IN", "words|work/INBOX"},
		{"sync|--|-", "words"},
		{"sync|--log|x", "files"},
		{"--config|x", "files"},
		{"--config=x", "files"},
		{"--config|nowhere|sync|", "words"},
		{"help|ver", "words|verify|version"},
		{"complet", "words|completion"},
		{"completion|", "words|bash|fish|zsh"},
		{"nonsense|", "words"},
		{"", "words|sync|watch..."},
		{"hook|pre-new|", "words|home|work"},
	} {
		p := &program{getenv: func(k string) string { return completionEnv(dir)[k] }}
		var out, errs strings.Builder
		p.stdout, p.stderr = &out, &errs
		status := p.run(t.Context(), append([]string{name, "complete", "--"}, strings.Split(tc.typed, "|")...))
		var got []string
		for line := range strings.Lines(out.String()) {
			word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			got = append(got, word)
		}
		want, first := strings.CutSuffix(tc.want, "...")
		if first && len(got) > 2 {
			got = got[:3]
		} else if len(got) > 1 {
			slices.Sort(got[1:])
		}
		if status != 0 || errs.String() != "" || strings.Join(got, "|") != want {
			t.Errorf("%q: status %d, %q, want %q; %s", tc.typed, status, strings.Join(got, "|"), want, errs.String())
		}
	}
}

// Each shell is driven as its user does: the keys are typed in a terminal, and the line
// that stands there then is looked at.
func TestShellsComplete(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	for shell, start := range map[string][]string{
		"bash": {"bash", "--norc", "-i"},
		"zsh":  {"zsh", "-f", "-i"},
		"fish": {"fish", "--no-config", "-i"},
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			dir := completionWorld(t)
			file := filepath.Join(dir, "completion")
			if err := os.WriteFile(file, []byte(contrib.Completion(shell)), 0o600); err != nil {
				t.Fatal(err)
			}
			env := append(os.Environ(), "TERM=screen", "LC_ALL=C.UTF-8")
			for k, v := range completionEnv(dir) {
				env = append(env, k+"="+v)
			}
			r := startReader(t, env, append([]string{"env", "-C", dir}, start...)...)
			if shell == "zsh" {
				r.press("autoload -Uz compinit; compinit -D; echo READ''Y\r", "^READY")
			}
			r.press(". ./completion; echo LOAD''ED\r", "^LOADED")
			for _, tc := range []struct{ typed, want string }{
				{"stu", "stubs"},
				{"verify --dee", "verify --deep"},
				{"sync wo", "sync work"},
				{"verify work/Sen", `verify work/Sent\ Items`},
				{"verify work/a:b=", `verify work/a:b=c@d`},
				{"sync --mailbox=INB", "sync --mailbox=INBOX"},
				{"inspect w", "inspect work/INBOX/15541"},
				{"sync --log=comp", "sync --log=completion"},
				{"sync --log comp", "sync --log completion"},
				{"folder delete work/x", `folder delete work/x\$\(touch\ owned\)`},
			} {
				r.press("\x15\x0c", "!notmuch-imap")
				r.press("notmuch-imap "+tc.typed+"\t", regexp.QuoteMeta("notmuch-imap "+tc.want)+"( |$)")
			}
			r.press("\x15\x0c", "!notmuch-imap")
			if _, err := os.Stat(filepath.Join(dir, "owned")); err == nil {
				t.Error("a mailbox's name was run as a command")
			}
		})
	}
}
