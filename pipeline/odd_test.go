package pipeline

import (
	"context"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// oddList is a connection whose list has one more mailbox.
type oddList struct {
	Lister
	more mail.Mailbox
}

func (l oddList) List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error) {
	list, err := l.Lister.List(ctx, how)
	return append(list, l.more), err
}

// A mailbox whose name no command can have is left out, which is said once.
func TestAMailboxThatCannotBeNamedIsToldOnce(t *testing.T) {
	t.Parallel()
	s, h := inbox(2), newHome(t)
	with := func(o *Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context) (Session, error) {
			session, err := dial(ctx)
			session.Lister = oddList{session.Lister, mail.Mailbox{Name: `"In\r\nbox"`, Delim: '/', Attrs: []string{`\Trash`, `\Noselect`}, Odd: true}}
			return session, err
		}
	}
	for _, want := range []int{1, 0, 0} {
		rep := h.sync(s, with)
		said := 0
		for _, e := range h.events {
			if strings.Contains(e.Mailbox, "In") && strings.Contains(e.Text, "left out") {
				said++
			}
		}
		if said != want || !rep.Clean() || rep.Mailboxes != 1 {
			t.Errorf("said %d times, want %d: %+v", said, want, rep)
		}
	}
	h.check(s)
}
