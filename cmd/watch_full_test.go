package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWatchWaitsForRoom also where there was none when it began, and goes on by itself when
// there is. Its log goes on, too. The small file system is in a namespace of its own.
func TestWatchWaitsForRoom(t *testing.T) {
	t.Parallel()
	for kind, c := range map[string]struct{ before, said string }{
		"no database":      {"", "the notmuch database cannot be opened"},
		"a database":       {"notmuch new 2>/dev/null", "no space left on device"},
		"nothing at all":   {"export XDG_STATE_HOME=$PWD/mail/state", "the notmuch database cannot be opened"},
		"an older account": {"notmuch-imap sync --quiet", "no space left on device"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, "")
			appendAll(t, w.server, "INBOX", watchMail("first"))
			w.before = []string{"unshare", "--map-root-user", "--mount", "sh", "-e", "-c", `
				mount -t tmpfs -o size=2m tmpfs mail
				` + c.before + `
				mkfifo fill room clear
				{
					read it <fill
					dd if=/dev/zero of=mail/fill bs=4k 2>/dev/null || :
					echo >room
					read it <clear
					rm mail/fill
				} &
				read it <room
				exec "$@"`, "sh"}
			w.args = []string{"watch", "--log", "mail/log"}
			w.start()
			// Each word has a pipe of its own: of one pipe, the script could take the end of
			// the first word for the end of the second. No word is said to nobody.
			say := func(word string) {
				t.Helper()
				pipe := w.toReader(word)
				_, err := pipe.WriteString("\n")
				if err := errors.Join(err, pipe.Close()); err != nil {
					t.Fatal(err)
				}
			}
			if kind == "an older account" {
				w.until("the script has begun", func() bool { _, err := os.Stat(filepath.Join(w.dir, "fill")); return err == nil })
				appendAll(t, w.server, "INBOX", watchMail("second"))
			}
			say("fill")
			w.until("it says that there is no room", w.said(c.said))
			w.until("it says so of the log", w.said("not in it until there is room"))
			say("clear")
			w.until("the mail is here", w.said("work: 1 new"))
			w.mu.Lock()
			defer w.mu.Unlock()
			if n := strings.Count(strings.Join(w.lines, "\n"), "make space"); n > 2 {
				t.Errorf("it said so %d times", n)
			}
			log, err := os.ReadFile(fmt.Sprintf("/proc/%d/cwd/mail/log", w.cmd.Process.Pid))
			if err != nil || !strings.Contains(string(log), "1 new") {
				t.Errorf("the log has %q (%v)", log, err)
			}
		})
	}
}
