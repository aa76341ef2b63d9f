package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
)

// elsewhere gives what notmuch is to hear before it forgets the files of messages: where their
// mail is now, if it would have no other name of that. Else a mail that its owner moves while a
// run, or what an interrupted one has left, is ended, would lose its tags.
func (r *run) elsewhere(ctx context.Context, gone []*deliver.Item) ([]mail.Change, error) {
	ids := make([]string, len(gone))
	going, keys := make(map[string]bool), make(map[string]bool)
	for i, it := range gone {
		ids[i], going[it.Place()], keys[filepath.Base(it.Place())] = it.Row.ID, true, true
	}
	goes := func(path string) bool {
		place := maildir.Place(path)
		if going[place] || !keys[filepath.Base(place)] {
			return going[place]
		}
		_, err := os.Lstat(path) // its folder had another name
		return errors.Is(err, fs.ErrNotExist)
	}
	known, err := r.Index.Messages(ctx, ids, r.Root)
	if err != nil {
		return nil, err
	}
	var rows []ledger.Message
	for _, it := range gone {
		t, is := known[it.Row.ID]
		if !is || len(t.Others) > 0 || slices.ContainsFunc(t.Paths, func(path string) bool { return !goes(path) }) {
			continue
		}
		row := it.Row
		if it.Forgotten() {
			row.Key, _ = maildir.ParseName(row.StubName)
		} else if !it.Absent {
			// It was taken away just now. That its mail is elsewhere says another row.
			others, err := r.Ledger.Like(ctx, row)
			if err != nil {
				return nil, err
			}
			if len(others) < 2 {
				continue
			}
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	paths, err := r.here.Elsewhere(ctx, rows)
	if err != nil {
		return nil, err
	}
	var out []mail.Change
	for i, path := range paths {
		if path != "" {
			out = append(out, mail.Change{Op: mail.OpAdd, Path: path, ID: rows[i].ID})
		}
	}
	return out, nil
}
