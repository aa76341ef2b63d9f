package cmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// inherit has an upload name new mailboxes as those of which the folders were, and look there for
// mail of those that the server has.
func (p *program) inherit(ctx context.Context, a *config.Account, o *pipeline.Options) (err error) {
	if o.Were, err = p.mailboxesOf(ctx, a, o.Root); err != nil {
		return err
	}
	others := o.Folders
	o.Folders = func(mailbox string, delim rune) (folders []string) {
		for folder, m := range o.Were {
			if slices.Equal(takeover.Levels(m.Name, m.Delim), takeover.Levels(mailbox, delim)) {
				folders = append(folders, folder)
			}
		}
		slices.Sort(folders)
		return append(folders, others(mailbox, delim)...)
	}
	return nil
}

// mailboxesOf gives what mailboxes the folders below root are, as the ledger of an account says
// that had them before: the folders' names need not tell it.
func (p *program) mailboxesOf(ctx context.Context, a *config.Account, root string) (map[string]mail.Mailbox, error) {
	state, err := config.StateDir(p.getenv)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(state)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out := make(map[string]mail.Mailbox)
	for _, e := range entries {
		if !e.IsDir() || e.Name() == a.Name {
			continue
		}
		l, err := ledger.OpenReadOnly(ctx, filepath.Join(state, e.Name()))
		if err != nil {
			continue // it is no account's, or of another version
		}
		err = mailboxesIn(ctx, l, root, out)
		if err = errors.Join(err, l.Close()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mailboxesIn adds those of a ledger that has mail in the folders.
func mailboxesIn(ctx context.Context, l *ledger.Ledger, root string, out map[string]mail.Mailbox) error {
	known, err := l.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, k := range known {
		files, err := maildir.Dir(filepath.Join(root, k.Folder)).Scan()
		if err != nil {
			continue // it has no such folder
		}
		rows, err := l.Rows(ctx, k.Name, k.UIDValidity)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if _, here := files.Find(row.Key); here && row.Key != "" && row.State == ledger.Present {
				out[k.Folder] = mail.Mailbox{Name: k.Name, Delim: k.Delim}
				break
			}
		}
	}
	return nil
}
