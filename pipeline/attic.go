package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// newAttic gives that of an account, for a run: mail that was removed here, since it was on the server. It
// is beside the ledger, where notmuch does not look.
func (o *Options) newAttic() *maildir.Attic {
	return &maildir.Attic{Dir: filepath.Join(o.Ledger.Dir(), "attic"), Days: o.AtticDays, Size: o.AtticSize, Now: o.Now}
}

// lineAttic is the attic as the line fills it.
type lineAttic struct{ *run }

// Wants tells whether the mail of a message that is gone is in no other file here, and the attic takes it.
func (a lineAttic) Wants(ctx context.Context, row ledger.Message, going func(ledger.Message) bool) (bool, error) {
	if alone, err := a.alone(ctx, row, going); err != nil || !alone {
		return false, err
	}
	if a.NoAttic != "" {
		return false, journal.Once(ctx, a.notes().UnkeptSaid, row.Mailbox, journal.Text(row.Mailbox), true, func() bool {
			return a.rep.Note(row.Mailbox, "what is gone on the server is removed here and not kept: %s", a.NoAttic)
		})
	}
	name, here, err := a.here.FileOf(ctx, row)
	if err != nil || !here {
		return true, nil //nolint:nilerr // whoever removes it meets that, too
	}
	if fi, err := os.Stat(name); err == nil && fi.Size() > a.AtticSize {
		a.rep.Note(row.Mailbox, "UID %d is gone on the server, removed here and not kept: with %d bytes it is larger than the attic may be (attic_size)", row.UID, fi.Size())
		return false, nil
	}
	return true, nil
}

// alone tells whether the mail of a message that is gone is in no other file here. What cannot be found
// out about another file keeps this one.
func (a lineAttic) alone(ctx context.Context, row ledger.Message, going func(ledger.Message) bool) (bool, error) {
	if row.ID == "" {
		return true, nil
	}
	copies, err := a.Ledger.Like(ctx, row)
	if err != nil {
		return false, err
	}
	for _, c := range copies {
		if c.Key == "" || c.State != ledger.Present && c.State != ledger.Intended || going(c) ||
			plan.Weigh(plan.Agreed(&row), plan.Agreed(&c)).Text != plan.Equal {
			continue
		}
		if _, here, err := a.here.FileOf(ctx, c); err == nil && here {
			return false, nil
		}
	}
	return true, nil
}

// Keep moves the file of this name in a folder into the attic.
func (a lineAttic) Keep(dir maildir.Dir, name string) error {
	folder, err := filepath.Rel(a.Root, string(dir))
	if err != nil {
		return err
	}
	return a.attic.Keep(folder, dir.Path(name))
}

// pruneAttic removes what the attic is to keep no more. That it cannot be done now costs a run
// nothing but that it is said. err is what ended the run.
func (r *run) pruneAttic(err error) {
	early, err := r.attic.Prune(errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT))
	if early > 0 {
		r.rep.Note("", "%s from the attic before attic_days were over, since no more may be there than is free beside it on the disk", mail.Number(early, "mail went", "mails went"))
	}
	if err != nil {
		r.rep.Note("", "the attic could not be pruned, the next sync tries again: %v", err)
	}
}
