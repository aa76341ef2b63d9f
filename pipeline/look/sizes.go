package look

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// askSizes asks how large messages are, so that large ones keep none waiting, and it is
// known how much is to come. One by itself keeps none waiting, unless other runs wait. A server that
// breaks off on that is asked no more of it in this run, and loses nothing else by it.
func (l *Looker) askSizes(ctx context.Context, b *Mailbox, uids []imap.UID) error {
	uids = slices.DeleteFunc(slices.Clone(uids), func(u imap.UID) bool { return b.Sizes[u] > 0 })
	if len(uids) == 0 || len(uids) == 1 && !l.SizeAll || l.sizeless.Load() || !l.conn.Alive() {
		return nil
	}
	listed, err := l.conn.Session().Sizes(ctx, mail.UIDSet(uids))
	if err != nil {
		l.sizeless.Store(true)
		l.Report.Note(b.Name, "how large its messages are is not known: %v", err)
		return ctx.Err()
	}
	b.sized(listed)
	return nil
}

// sized notes how large messages are.
func (b *Mailbox) sized(listed []mail.Message) {
	if b.Sizes == nil {
		b.Sizes = make(map[imap.UID]int64, len(listed))
	}
	for _, m := range listed {
		b.Sizes[m.UID] = m.Size
	}
}
