package pipeline

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// answering is a notmuch that is told of those changes alone for which answer gives nothing.
type answering struct {
	Index
	answer func(mail.Change) *mail.Result
}

func (x answering) Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error) {
	out := make([]mail.Result, len(changes))
	var taken []mail.Change
	var at []int
	for i, c := range changes {
		if r := x.answer(c); r != nil {
			out[i] = *r
			continue
		}
		taken, at = append(taken, c), append(at, i)
	}
	results, err := x.Index.Apply(ctx, taken)
	for i, r := range results {
		out[at[i]] = r
	}
	return out, err
}

// choosy takes no mail without a sender.
func choosy(c mail.Change) *mail.Result {
	if raw, err := os.ReadFile(c.Path); err == nil && c.Op == mail.OpAdd && !strings.Contains(string(raw), "From: ") {
		return &mail.Result{Path: c.Path, NotMail: true}
	}
	return nil
}

// A run that is stopped at any point while it writes the note beside a mail that notmuch does not
// take, or removes it, leaves one note in the end, and none when the mail has gone.
func TestTheNoteBesideAMailIsOneWhereverARunIsStopped(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for at, reached := 1, true; reached; at++ {
		s, h := newServer("UIDPLUS", "MOVE", "CONDSTORE"), newHome(t)
		use := func(o *Options) { o.Index = answering{o.Index, choosy} }
		s.box("INBOX").add(plainMail(1))
		h.sync(s, use)
		s.box("INBOX").add("X-Nothing: of use\r\n\r\nbody\r\n")
		notes := func(want int, when string) {
			t.Helper()
			h.sync(s, use)
			h.sync(s, use)
			files, shown := 0, 0
			for _, raw := range h.files("INBOX") {
				if strings.Contains(raw, "Subject: [not in notmuch]") {
					files++
				}
			}
			db, err := h.index.load()
			h.do(err)
			for _, m := range db {
				if len(m.Files) > 0 && strings.Contains(strings.Join(m.Tags, " "), TagFailed) {
					shown++
				}
			}
			if files != want || shown != want {
				t.Errorf("stopped behind effect %d, %s: %d notes, %d in notmuch, want %d", at, when, files, shown, want)
			}
		}
		reached = h.stopAt(s, at, use)
		notes(1, "when it came")
		s.box("INBOX").expunge(2)
		reached = h.stopAt(s, at, use) || reached
		notes(0, "when it went")
		if at > 60 {
			t.Fatal("the run does not end")
		}
	}
}
