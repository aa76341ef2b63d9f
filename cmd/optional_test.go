package cmd

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// Whatever argument a server refuses that it advertises: all mail and flags come, no mailbox is
// left out, and a later run does not ask for it again.
func TestARefusedArgumentCostsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		caps, command, words string
	}{
		"LIST RETURN":          {"LIST-STATUS", "LIST", "RETURN"},
		"STATUS HIGHESTMODSEQ": {"CONDSTORE", "STATUS", "HIGHESTMODSEQ"},
		"EXAMINE (CONDSTORE)":  {"CONDSTORE", "EXAMINE", "(CONDSTORE)"},
		"EXAMINE (QRESYNC)":    {"ENABLE CONDSTORE QRESYNC", "EXAMINE", "(QRESYNC"},
		"ENABLE QRESYNC":       {"ENABLE CONDSTORE QRESYNC", "ENABLE", "QRESYNC"},
		"FETCH (CHANGEDSINCE)": {"CONDSTORE", "UID FETCH", "CHANGEDSINCE"},
		"SEARCH RETURN":        {"ESEARCH", "UID SEARCH", "RETURN"},
		"FETCH X-GM-MSGID":     {"X-GM-EXT-1", "UID FETCH", "X-GM-MSGID"},
	} {
		for _, line := range []string{"BAD what is that", "NO not so"} {
			t.Run(name+"/"+line[:3], func(t *testing.T) {
				t.Parallel()
				first := []string{faultMail(1), faultMail(2), faultMail(3)}
				s := newScript(t, "IMAP4rev1 "+c.caps, imaptest.RefusedWith(c.command, c.words, line), imaptest.Box("INBOX", first...), imaptest.Box("Other", faultMail(1001)))
				w := newWorld(t, s.Addr(), "user", "pass phrase")
				var asked atomic.Int32
				w.remote.Record = func(l mail.Line) {
					if _, said, _ := strings.Cut(l.Text, " "); l.Client && strings.HasPrefix(said, c.command) && strings.Contains(said, c.words) {
						asked.Add(1)
					}
				}
				run := func(mails int) int32 {
					t.Helper()
					w.remote.Names = &remote.Names{}
					before := asked.Load()
					if rep := w.sync(func(o *pipeline.Options) { o.Connections, o.Refusals = 1, &w.remote.Names.Refusals }); !rep.Clean() || rep.Removed > 0 {
						t.Errorf("%+v", rep)
					}
					w.holds("INBOX", first[:mails])
					return asked.Load() - before
				}
				met := run(3)
				for i := range 2 {
					s.With(func(boxes []*imaptest.ScriptBox) {
						raw := faultMail(10 + i)
						first = append(first, raw)
						boxes[0].Add(raw, "")
						boxes[0].ModSeq++
						boxes[0].Mails[0].Flags, boxes[0].Mails[0].ModSeq = []string{`\Seen`, `\Flagged`}[i], boxes[0].ModSeq
					})
					now := run(4 + i)
					if met > 0 && now > 0 {
						t.Errorf("asked again, %d times", now)
					}
					met += now
				}
				if met == 0 {
					t.Error("it was never asked for")
				}
			})
		}
	}
}
