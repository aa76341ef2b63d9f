package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// scripted is a world with an account on a scripted server with INBOX, Other and Work,
// four mails in each, which are here already.
func scripted(t *testing.T, caps string, use func(*pipeline.Options)) (*imaptest.Script, *world) {
	t.Helper()
	var boxes []*imaptest.ScriptBox
	for i, name := range []string{"INBOX", "Other", "Work"} {
		b := imaptest.Box(name)
		for j := range 4 {
			b.Add(faultMail(100*i+j+1), `\Seen`)
		}
		boxes = append(boxes, b)
	}
	s := newScript(t, caps, nil, boxes...)
	w := newWorld(t, s.Addr(), "user", "pass phrase")
	w.remote.DialContext = s.Dial
	if rep := w.sync(use); !rep.Clean() {
		t.Fatalf("%+v", rep)
	}
	s.Log()
	return s, w
}

// came puts a mail into a mailbox on the server.
func came(s *imaptest.Script, mailbox string, n int) {
	s.With(func(boxes []*imaptest.ScriptBox) {
		for _, b := range boxes {
			if b.Name == mailbox {
				b.Add(faultMail(n), "")
			}
		}
	})
}

// hasMail tells whether a folder has that mail.
func (w *world) hasMail(folder string, n int) bool {
	mails, _ := w.mails(folder)
	for _, raw := range mails {
		if strings.Contains(raw, fmt.Sprintf("<f%d@example.org>", n)) {
			return true
		}
	}
	return false
}

// flagOne flags a mail of a folder, or takes its flag off.
func (w *world) flagOne(folder string) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.index.MailRoot(), "work", folder, "cur", "*,*S"))
	if err != nil || len(files) == 0 {
		w.t.Fatal("no mail to flag", err)
	}
	to, flagged := strings.CutSuffix(files[0], "FS")
	if !flagged {
		to = strings.TrimSuffix(files[0], "S") + "F"
	}
	if err := os.Rename(files[0], to+"S"); err != nil {
		w.t.Fatal(err)
	}
}

// asked tells whether one of the commands begins so, and has these words.
func asked(log []string, begin, words string) bool {
	return slices.ContainsFunc(log, func(l string) bool { return strings.HasPrefix(l, begin) && strings.Contains(l, words) })
}

// A mailbox that never answers costs no other anything, in either direction; one that is
// not synchronised is not asked. What was silent is left alone by the runs that follow,
// until its time comes or a person asks for it.
func TestAMailboxThatNeverAnswers(t *testing.T) {
	const bare, all = "IMAP4rev1 UIDPLUS MOVE", "IMAP4rev1 ESEARCH LIST-STATUS ENABLE CONDSTORE QRESYNC UIDPLUS MOVE"
	for _, tc := range []struct {
		name, caps string
		silent     []string
		excluded   bool
	}{
		{"STATUS", bare, []string{"STATUS"}, false},
		{"STATUS, excluded", bare, []string{"STATUS"}, true},
		{"LIST and STATUS", all, []string{"LIST", "STATUS"}, false},
		{"LIST alone", all, []string{"LIST"}, false},
		{"LIST and STATUS, excluded", all, []string{"LIST", "STATUS"}, true},
		{"EXAMINE", bare, []string{"EXAMINE", "SELECT"}, false},
		{"EXAMINE with QRESYNC", all, []string{"EXAMINE", "SELECT"}, false},
	} {
		for _, connections := range []int{1, 3} {
			if share.Spares(tc.name, connections) {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d connections", tc.name, connections), func(t *testing.T) {
				t.Parallel()
				selects := func(name string, _ rune) bool { return !tc.excluded || name != "Other" }
				use := func(o *pipeline.Options) {
					o.Selects, o.Connections, o.Remind = selects, connections, 24*time.Hour
				}
				s, w := scripted(t, tc.caps, use)
				s.Break(imaptest.SilentAbout("Other", tc.silent...))
				left := !tc.excluded && !slices.Equal(tc.silent, []string{"LIST"})

				round := func(n int, change ...func(*pipeline.Options)) (log []string, rep *pipeline.Report) {
					t.Helper()
					for i, name := range []string{"INBOX", "Other", "Work"} {
						came(s, name, n+i)
					}
					w.flagOne("INBOX")
					s.Log()
					rep = w.sync(append([]func(*pipeline.Options){use}, change...)...)
					log = s.Log()
					if !w.hasMail("INBOX", n) || !w.hasMail("Work", n+2) || !asked(log, "UID STORE", `\Flagged`) {
						t.Errorf("mail of other mailboxes waits: %+v, %q", rep, log)
					}
					if w.hasMail("Other", n+1) != (!left && !tc.excluded) {
						t.Errorf("Other: %+v", rep)
					}
					if rep.Removed+rep.Deleted+rep.Moved+rep.Uploaded > 0 {
						t.Errorf("%+v", rep)
					}
					return log, rep
				}
				flagged := left
				if flagged {
					w.flagOne("Other")
				}
				_, rep := round(1000)
				if faults := len(rep.Faults); faults != 0 != left || faults > 1 || left && (rep.Faults[0].Mailbox != "Other" || rep.Clean()) {
					t.Errorf("first: %+v", rep.Faults)
				}
				round(1005) // once it may be the line's fault
				still := func(n int) {
					t.Helper()
					log, rep := round(n)
					if !rep.Clean() || left != (len(rep.Faults) == 1) {
						t.Errorf("known: %+v", rep.Faults)
					}
					if slices.ContainsFunc(tc.silent, func(c string) bool {
						return c == "LIST" && asked(log, "LIST", "STATUS") || c != "LIST" && left && asked(log, c, "Other")
					}) {
						t.Errorf("asked again: %q", log)
					}
					if tc.excluded && asked(log, "STATUS", "Other") {
						t.Errorf("asked for what is excluded: %q", log)
					}
				}
				still(1010)
				w.now = w.now.Add(14 * time.Minute)
				still(1020)
				if left {
					last := "STATUS" // what is asked that is not answered
					if slices.Contains(tc.silent, "EXAMINE") {
						last = "SELECT" // the flag waits
					}
					if log, rep := round(1030, func(o *pipeline.Options) { o.Full = true }); !asked(log, last, "Other") || rep.Clean() {
						t.Errorf("in full: %+v, %q", rep, log)
					}
					still(1040) // it was silent twice: for an hour
					w.now = w.now.Add(59 * time.Minute)
					still(1050)
					s.Log()
					rep := w.sync(use, func(o *pipeline.Options) { o.Only = []string{"Other"} })
					if log := s.Log(); !asked(log, last, "Other") || asked(log, "STATUS", "Work") || rep.Clean() {
						t.Errorf("by name: %+v, %q", rep, log)
					}
					w.now = w.now.Add(23*time.Hour + 59*time.Minute)
					if last == "SELECT" { // else no other mailbox answered, and it was not sure whose fault it was
						still(1060)
					}
				}
				w.now = w.now.Add(2 * time.Minute)
				s.Heal()
				left = false
				log, rep := round(1070)
				s.With(func(boxes []*imaptest.ScriptBox) {
					if flagged && !slices.ContainsFunc(boxes[1].Mails, func(m *imaptest.ScriptMail) bool { return strings.Contains(m.Flags, `\Flagged`) }) {
						t.Error("the flag in Other did not reach the server")
					}
				})
				if len(rep.Faults) > 0 || slices.Contains(tc.silent, "LIST") && !asked(log, "LIST", "STATUS") {
					t.Errorf("healed: %+v, %q", rep, log)
				}
				if all := w.metas("silent/"); len(all) > 0 {
					t.Errorf("remembered: %v", all)
				}
			})
		}
	}
}

// A server that answers for no mailbox at all is not well, and no mailbox is left out for it.
func TestAServerThatAnswersForNoMailbox(t *testing.T) {
	t.Parallel()
	use := func(*pipeline.Options) {}
	s, w := scripted(t, "IMAP4rev1", use)
	came(s, "Other", 1000)
	w.remote.DialContext, w.remote.Timeout = nil, time.Second // by the clock
	s.Break(imaptest.SilentAbout("", "STATUS"))
	rep := w.sync(use)
	if len(rep.Faults) != 1 || rep.Faults[0].Scope != pipeline.ScopeAccount || !rep.Nothing() {
		t.Errorf("%+v", rep)
	}
	if all := w.metas("silent/"); len(all) > 0 {
		t.Errorf("remembered: %v", all)
	}
	s.Heal()
	w.remote.Timeout = time.Minute
	if rep := w.sync(use); rep.New != 1 || !rep.Clean() {
		t.Errorf("healed: %+v", rep)
	}
}

// metas are the account's notes in the ledger whose keys begin so.
func (w *world) metas(prefix string) map[string]string {
	w.t.Helper()
	l, err := ledger.Open(w.t.Context(), w.state())
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	all, err := l.Metas(w.t.Context(), prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range all {
		if v == "" {
			delete(all, k)
		}
	}
	return all
}
