package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// wires are what the servers of these tests can do.
func wires() map[string]string {
	return map[string]string{"bare": "IMAP4rev1 UIDPLUS MOVE", "QRESYNC": "IMAP4rev1 ESEARCH LIST-STATUS ENABLE CONDSTORE QRESYNC UIDPLUS MOVE"}
}

// A run ends where the server dies of the newest mail, and is away while that is salvaged:
// for one connection, for all, or for good. What is left undone is said, and done when the
// server is well.
func TestARunEndsThoughTheServerDiesOfAMail(t *testing.T) {
	for kind, caps := range wires() {
		for _, connections := range []int{1, 3} {
			for _, away := range []int{-1, 1, 0} {
				if share.Spares(kind, connections, away) {
					continue
				}
				t.Run(fmt.Sprintf("%s, %d connections, away %d", kind, connections, away), func(t *testing.T) {
					t.Parallel()
					use := func(o *pipeline.Options) { o.Connections = connections }
					s, w := scripted(t, caps, use)
					for i := range 60 {
						came(s, "INBOX", 1000+i)
					}
					s.Break(imaptest.Dies(64, away))
					rep := w.sync(use) // a deadlock ends with its context
					missing := 0
					for i := range 60 {
						if !w.hasMail("INBOX", 1000+i) {
							missing++
						}
					}
					if missing != rep.NewStubs && len(rep.Faults) == 0 {
						t.Errorf("%d mails are missing, and nothing is said: %+v", missing, rep)
					}
					s.Heal()
					w.now = w.now.Add(time.Hour)
					if rep := w.sync(use); !rep.Clean() {
						t.Errorf("healed: %+v", rep)
					}
					for i := range 60 {
						if !w.hasMail("INBOX", 1000+i) {
							t.Errorf("mail %d is missing", 1000+i)
						}
					}
					if _, stubs := w.mails("INBOX"); len(stubs) > 0 {
						t.Errorf("%d stubs", len(stubs))
					}
				})
			}
		}
	}
}

// Mail that was under way on a connection that is lost comes on another one in the same
// run, or is said to be left.
func TestNoMailIsLostWithASpareConnection(t *testing.T) {
	for kind, caps := range wires() {
		for _, times := range []int{1, 2, -1} {
			t.Run(fmt.Sprintf("%s, %d times", kind, times), func(t *testing.T) {
				t.Parallel()
				use := func(o *pipeline.Options) { o.Connections = 3 }
				s, w := scripted(t, caps, use)
				for i := range 120 {
					came(s, []string{"INBOX", "Other", "Work"}[i%3], 1000+i)
				}
				s.Break(imaptest.LosesSpares(times))
				rep := w.sync(use)
				if rep.New != 120 || rep.NewStubs > 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				s.Heal()
				if rep := w.sync(use); rep.New > 0 || !rep.Clean() {
					t.Errorf("again: %+v", rep)
				}
			})
		}
	}
}

// What was moved into or out of a mailbox here while the server refuses it for a moment is
// moved there when it is back, and neither deleted nor uploaded.
func TestAMailboxThatIsRefusedForAMoment(t *testing.T) {
	for kind, caps := range wires() {
		for _, command := range []string{"STATUS", "EXAMINE", "SELECT"} {
			for _, line := range []string{"NO in use", "NO [NOPERM] not now", "NO [UNAVAILABLE] later", "BAD internal error", "nothing"} {
				if kind == "QRESYNC" && command == "STATUS" {
					continue // LIST tells it
				}
				if share.Spares(kind, command, line) {
					continue
				}
				t.Run(kind+", "+command+", "+line, func(t *testing.T) {
					t.Parallel()
					use := func(o *pipeline.Options) { o.Deletions = pipeline.DeletionsExpunge }
					s, w := scripted(t, caps, use)
					w.moveOne("INBOX", 1, "Work")
					w.moveOne("Work", 202, "INBOX")
					came(s, "Other", 1000)
					came(s, "Work", 1001)
					s.Break(imaptest.Refused(command, "Work", line))
					if line == "nothing" {
						s.Break(imaptest.SilentAbout("Work", command))
						w.sync(use) // in the next one it is left out
					}
					rep := w.sync(use)
					log := s.Log()
					if rep.Deleted+rep.Uploaded+rep.Removed > 0 || asked(log, "APPEND", "") || asked(log, "UID EXPUNGE", "") {
						t.Errorf("away: %+v, %q", rep, log)
					}
					if rep.Clean() || !w.hasMail("Other", 1000) {
						t.Errorf("away: %+v", rep)
					}
					s.Heal()
					w.now = w.now.Add(15 * time.Minute)
					for range 2 {
						if rep = w.sync(use); rep.Deleted+rep.Uploaded+rep.Removed > 0 || !rep.Clean() {
							t.Errorf("back: %+v", rep)
						}
					}
					s.With(func(boxes []*imaptest.ScriptBox) {
						for i, want := range [][]int{{2, 3, 4, 202}, nil, {1, 201, 203, 204, 1001}} {
							var all strings.Builder
							for _, m := range boxes[i].Mails {
								all.WriteString(m.Raw)
							}
							for _, n := range want {
								if strings.Count(all.String(), fmt.Sprintf("<f%d@example.org>", n)) != 1 || !w.hasMail(boxes[i].Name, n) {
									t.Errorf("%s lacks mail %d", boxes[i].Name, n)
								}
							}
							if want != nil && len(boxes[i].Mails) != len(want) {
								t.Errorf("%s has %d mails on the server, want %d", boxes[i].Name, len(boxes[i].Mails), len(want))
							}
						}
					})
				})
			}
		}
	}
}

// moveOne moves a mail to another folder.
func (w *world) moveOne(from string, n int, to string) {
	w.t.Helper()
	mails, _ := w.mails(from)
	for path, raw := range mails {
		if strings.Contains(raw, fmt.Sprintf("<f%d@example.org>", n)) {
			if err := os.Rename(path, filepath.Join(w.index.MailRoot(), "work", to, "cur", filepath.Base(path))); err != nil {
				w.t.Fatal(err)
			}
			return
		}
	}
	w.t.Fatalf("%s has no mail %d", from, n)
}
