package cmd

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The file system that the mail is on is full, or is for reading only, when one
// new mail each comes to two mailboxes of a real server with QRESYNC. The run ends
// with status 1 and says what to do; when there is room again, the next one brings
// both. The small file system is in a namespace of its own, so that this wants no
// rights, and the script waits there while mail is delivered.
func TestAFileSystemThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at, break_, mend, word string
		lines                  int // of what cannot be written; a full disk ends the run
	}{
		"full": {"mail/work", `dd if=/dev/zero of=fill bs=4k 2>/dev/null || :`, `rm -f fill`, "make space", 1},
		// notmuch is told first that a file has another name: what Xapian fails with has no cause.
		"full, of notmuch's": {"mail", `for f in INBOX/new/*; do mv "$f" "INBOX/cur/${f##*/}:2,F"; done; dd if=/dev/zero of=fill bs=4k 2>/dev/null || :`, `rm -f fill`, "no space left on device", 1},
		"readonly":           {"mail/work", `mount -o remount,ro "$PWD"`, `mount -o remount,rw "$PWD"`, "see that it can be written to", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			command(t, s, "CREATE Work")
			appendAll(t, s, "INBOX", smallMail(1))
			appendAll(t, s, "Work", smallMail(2))
			m := newMachine(t)
			write := func(file, text string) {
				if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("config.toml", fmt.Sprintf("[account.work]\nhost = %q\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = \"secret\"\n", s.Host, s.Port, s.User))
			write("secret", s.Password+"\n")
			cmd := exec.CommandContext(t.Context(), "unshare", "--map-root-user", "--mount", "sh", "-e", "-c", `
				mkdir -p mail/work
				mount -t tmpfs -o size=2m tmpfs `+c.at+`
				mkdir -p mail/work
				notmuch-imap sync
				cd mail/work
				`+c.break_+`
				echo ready
				read go
				notmuch-imap sync && echo status 0 || echo status $?
				`+c.mend+`
				notmuch-imap sync && echo status 0 || echo status $?
				notmuch-imap sync && echo status 0 || echo status $?
				notmuch search --output=messages '*'
				echo files $(find . -type f -name '*.*' | wc -l) left $(find . -path '*/tmp/*' | wc -l)`)
			cmd.Env, cmd.Dir = m.env, m.dir
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			said := ""
			for !strings.HasSuffix(said, "ready\n") {
				line, err := lines.ReadString('\n')
				if said += line; err != nil {
					t.Fatalf("%v: %s", err, said)
				}
			}
			appendAll(t, s, "INBOX", smallMail(3))
			appendAll(t, s, "Work", smallMail(4))
			if _, err := io.WriteString(in, "go\n"); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(lines)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v: %s%s", err, said, rest)
			}
			broken, after, _ := strings.Cut(string(rest), "status 1\n")
			if strings.Count(broken, c.word) != c.lines || strings.Contains(broken, "status 0") {
				t.Errorf("with nothing to be written: %s", broken)
			}
			if !strings.Contains(after, "2 new") || strings.Count(after, "status 0") != 2 || !strings.Contains(after, nothingNew) ||
				!strings.Contains(after, "id:3@small.example") || !strings.Contains(after, "id:4@small.example") || !strings.Contains(after, "files 4 left 0") {
				t.Errorf("and then: %s", after)
			}
		})
	}
}

func smallMail(n int) string {
	return fmt.Sprintf("From: ann@example.org\r\nSubject: %d\r\nMessage-ID: <%d@small.example>\r\n\r\nsmall\r\n", n, n)
}
