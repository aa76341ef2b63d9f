package pipeline

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// A message whose file was gone before a run, of which the server was not to be told, or was told
// before, is dealt with as ever when it changes or goes there: nothing of it is left for ever.
func TestAFileThatWasGoneBeforeIsNotWaitedFor(t *testing.T) {
	ways := map[string]func(o *Options){
		"kept":     func(o *Options) { o.Deletions = DeletionsKeep },
		"readonly": func(o *Options) { o.ReadOnly = true },
	}
	changes := map[string]func(in *serverBox){
		"gone":    func(in *serverBox) { in.expunge(1) },
		"flagged": func(in *serverBox) { in.flag(1, `\Seen`, `\Answered`) },
		"both":    func(in *serverBox) { in.flag(1, `\Seen`, `\Answered`); in.expunge(2) },
	}
	for wire, caps := range wires() {
		for way, policy := range ways {
			for what, change := range changes {
				for _, moved := range []bool{false, true} {
					if moved && way == "kept" {
						continue // it is moved on the server
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%v", wire, way, what, moved), func(t *testing.T) {
						t.Parallel()
						s, h := newServer(caps...), newHome(t)
						in := s.box("INBOX")
						s.box("Work").add(plainMail(90), `\Seen`)
						for i := range 8 {
							in.add(plainMail(i+1), `\Seen`)
						}
						h.sync(s, policy)
						for m := 1; m <= 2; m++ {
							if name := h.mailFile("INBOX", plainMail(m)); moved {
								h.moveFile("INBOX", name, "Work", false)
							} else {
								h.do(os.Remove(h.path("INBOX", name)))
							}
						}
						h.sync(s, policy)
						h.sync(s, policy)
						change(in)
						h.sync(s, policy)
						for range 2 {
							if rep := h.sync(s, policy); rep.New+rep.Flagged+rep.Pushed+rep.Removed != 0 || !rep.Clean() {
								t.Errorf("it does not come to rest: %+v", rep)
							}
						}
						h.edit(func(l *ledger.Ledger) error {
							known, err := l.Mailboxes(t.Context())
							if err != nil {
								return err
							}
							k := known[slices.IndexFunc(known, func(k ledger.Mailbox) bool { return k.Name == "INBOX" })]
							if int(k.Messages) != len(in.msgs) {
								t.Errorf("the mailbox is not agreed upon: %+v, and has %d messages", k, len(in.msgs))
							}
							rows, err := l.Rows(t.Context(), k.Name, k.UIDValidity)
							for _, row := range rows {
								m := in.msgs[row.UID]
								if m == nil || plan.HasFlag(m.flags, `\Answered`) != plan.HasFlag(row.Flags, `\Answered`) {
									t.Errorf("row %d has the flags %v; the server has %+v", row.UID, row.Flags, m)
								}
							}
							return err
						})
					})
				}
			}
		}
	}
}

// What was deleted while deletions were kept back is deleted by the next sync under another policy.
func TestDeletionsAreKeptNoMore(t *testing.T) {
	t.Parallel()
	for _, deletions := range []Deletions{DeletionsTrash, DeletionsExpunge} {
		t.Run(string(deletions), func(t *testing.T) {
			t.Parallel()
			s, h := newServer("CONDSTORE"), newHome(t)
			s.box("Trash")
			in := s.box("INBOX")
			for i := range 6 {
				in.add(plainMail(i))
			}
			keep := func(o *Options) { o.Deletions = DeletionsKeep }
			h.sync(s, keep)
			h.sync(s, keep)
			h.remove("INBOX", 1)
			h.flag("INBOX", 2, "ST")
			for range 3 {
				h.sync(s, keep)
			}
			h.quiet(s, keep)
			if len(in.msgs) != 6 {
				t.Fatalf("%d messages while they are kept", len(in.msgs))
			}
			now := func(o *Options) { o.Deletions = deletions }
			if rep := h.sync(s, now); rep.Deleted != 2 || len(in.msgs) != 4 || !rep.Clean() {
				t.Errorf("%d messages, %+v", len(in.msgs), rep)
			}
		})
	}
}
