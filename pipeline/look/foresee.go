package look

import (
	"context"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// foresees notes which messages a dry run finds new in a mailbox, where some may have
// come from another one.
func (l *Looker) foresees(ctx context.Context, uids []imap.UID) error {
	if !l.MayHaveMoved || len(uids) == 0 {
		return nil
	}
	listed, err := l.conn.Session().Identify(ctx, mail.UIDSet(uids))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range listed {
		l.foreseen[placeless(m.MessageID, m.Size, m.InternalDate)] = true
	}
	return nil
}

// placeless is what a message is known by wherever it is.
func placeless(id string, size int64, date time.Time) string {
	return fmt.Sprint(id, " ", size, " ", date.Unix())
}

// Foreseen tells whether a dry run has found a message that is new in another mailbox, and
// that may be this one.
func (l *Looking) Foreseen(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.foreseen[placeless(plan.RealID(row.ID), row.Size, row.Date)]
}
