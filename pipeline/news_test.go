package pipeline

import (
	"context"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/hooks"
)

// TestNewsIsWhatItsOwnerDidNotDo: what the owner, here or with another program, moved,
// deleted, sent or drafted comes, and is no news.
func TestNewsIsWhatItsOwnerDidNotDo(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for _, box := range []string{"Archive", "Sent", "Drafts", "Trash", "Spam"} {
				s.box(box)
			}
			for i := range 3 {
				in.add(plainMail(i))
			}
			var news, single int
			counting := with(hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
				if e.Point == hooks.PostSync {
					news = e.News
				} else {
					single += e.News
				}
				return hooks.Verdict{}, nil
			}, hooks.PostIndex, hooks.PostSync))
			want := func(what string, n int) {
				t.Helper()
				single = 0
				if rep := h.sync(s, counting); rep.News != n || news != n || single != n {
					t.Errorf("%s: %d, %d and %d news, want %d: %+v", what, rep.News, news, single, n, rep)
				}
			}
			want("mail that came", 3)
			h.remove("INBOX", 1)
			want("a mail that was deleted here", 0)
			want("its copy in the Trash", 0)
			moved := in.expunge(2)
			archive := s.box("Archive")
			archive.msgs[archive.add(moved.raw)].date = moved.date
			want("a mail that was moved elsewhere", 0)
			s.box("Sent").add(plainMail(10), `\Seen`)
			s.box("Sent").add(plainMail(11))
			s.box("Drafts").add(plainMail(12))
			s.box("Spam").add(plainMail(13))
			in.add(plainMail(14), `\Seen`)
			want("mail that is sent, drafted, junk or read", 0)
			in.add(plainMail(15))
			archive.add(plainMail(16))
			want("mail that came", 2)
		})
	}
}
