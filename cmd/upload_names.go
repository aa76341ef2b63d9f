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
func (p *program) inherit(ctx context.Context, a *config.Account, o *pipeline.Options) error {
	o.Were, o.Own = make(map[string]mail.Mailbox), make(map[string]bool)
	if err := p.readOthers(ctx, a, o); err != nil {
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

// readOthers reads what mailboxes the folders are, and which files messages, as the ledger of an
// account says that had them before: neither the folders' names need tell it, nor the mails.
func (p *program) readOthers(ctx context.Context, a *config.Account, o *pipeline.Options) error {
	state, err := config.StateDir(p.getenv)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(state)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == a.Name {
			continue
		}
		l, err := ledger.OpenReadOnly(ctx, filepath.Join(state, e.Name()))
		if err != nil {
			continue // it is no account's, or of another version
		}
		err = mailboxesIn(ctx, l, o)
		if err = errors.Join(err, l.Close()); err != nil {
			return err
		}
	}
	return nil
}

// mailboxesIn adds those of a ledger that has mail in the folders.
func mailboxesIn(ctx context.Context, l *ledger.Ledger, o *pipeline.Options) error {
	known, err := l.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, k := range known {
		files, err := maildir.Dir(filepath.Join(o.Root, k.Folder)).Scan()
		if err != nil {
			continue // it has no such folder
		}
		rows, err := l.Rows(ctx, k.Name, k.UIDValidity)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if _, here := files.Find(row.Key); here && row.Key != "" && row.State == ledger.Present {
				o.Were[k.Folder], o.Own[row.Key] = mail.Mailbox{Name: k.Name, Delim: k.Delim}, true
			}
		}
	}
	return nil
}
