package cmd

import (
	"context"
	"errors"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// errDatabaseGone says that there was a notmuch database, and is none. It is not made anew
// by itself: it may only be away, and it had tags that are nowhere else.
var errDatabaseGone = errors.New("the notmuch database is gone: put it back, or run `" + name + " sync`, which makes a new one, and then `notmuch new`, which puts the mail into it that is here; tags that it alone had are lost then")

// openIndex opens the notmuch database for runs of these accounts, and makes it where
// nothing was synchronised yet; else it is errDatabaseGone that there is none.
func (p *program) openIndex(ctx context.Context, accounts []config.Account, out *output) (*index.Index, error) {
	idx, err := p.lookedInto(ctx, out)
	if err != nil || !idx.Missing() {
		return idx, err
	}
	had, err := p.synchronised(ctx, accounts)
	if err != nil {
		return nil, err
	}
	if had {
		return nil, errDatabaseGone
	}
	return index.Open(ctx, p.indexOptions(out))
}

// lookedInto opens the notmuch database, and makes none. Accounts whose folders are one are
// refused: nothing was written yet.
func (p *program) lookedInto(ctx context.Context, out *output) (*index.Index, error) {
	look := p.indexOptions(out)
	look.Existing = true
	idx, err := index.Open(ctx, look)
	if err != nil {
		return nil, err
	}
	return idx, p.apart(idx.MailRoot())
}

// synchronised tells whether any of the accounts has mail here.
func (p *program) synchronised(ctx context.Context, accounts []config.Account) (bool, error) {
	for i := range accounts {
		n, err := inLedger(ctx, p, &accounts[i], func(ctx context.Context, l *ledger.Ledger) (int, error) {
			rows, err := l.Mailboxes(ctx)
			return len(rows), err
		})
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}
