package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// leaveGone removes files in the folders of mailboxes that the server has no more, of mail that it has
// in other mailboxes, as here, when that is recorded: it was moved there before its mailbox was deleted.
// A folder in which no mail is left goes. What stays is said.
func (r *run) leaveGone(ctx context.Context, o *overview) error {
	if r.PairOnly || len(o.gone) == 0 {
		return nil
	}
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	there := make(map[string]uint64, len(known)) // UIDVALIDITY
	for _, k := range known {
		if o.listed[k.Name] {
			there[k.Name] = k.UIDValidity
		}
	}
	for _, g := range o.gone {
		moved, empty := 0, false
		if g.Apart == "" && !g.Unread {
			if moved, empty, err = r.leaveOne(ctx, o, g, there); err != nil {
				return err
			}
		}
		if err := r.here.SayGone(ctx, g, moved, empty); err != nil {
			return err
		}
	}
	return nil
}

// leaveOne does that with one. It gives how many files go, and whether the folder does.
func (r *run) leaveOne(ctx context.Context, o *overview, g local.Gone, there map[string]uint64) (moved int, empty bool, err error) {
	rows, err := r.Ledger.EveryValidity(ctx, g.Name)
	if err != nil {
		return 0, false, err
	}
	b := o.detached[slices.IndexFunc(o.detached, func(b *box) bool { return b.Name == g.Name })]
	var leaving, strays []*deliver.Item
	lost := false // some, of which nobody knows where they are: the list may lack the mailbox for a moment only
	files := make(map[string]bool)
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		_, here, err := g.Dir.Locate(row.Key, row.Name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, false, err
		}
		it := &deliver.Item{Box: b.line, Op: deliver.OpGone, Row: row, Known: !here}
		elsewhere, err := r.isElsewhere(ctx, row, g.Dir, there)
		switch {
		case err != nil:
			return 0, false, err
		case elsewhere && here:
			leaving, files[row.Key] = append(leaving, it), true
			moved++
			if r.DryRun && r.Plan {
				r.rep.Plan(deliver.Removal(it))
			}
		case elsewhere || !here && r.looking.Strayed(row):
			strays = append(strays, it)
		case !here:
			lost = true
		}
	}
	list, err := g.Dir.Scan()
	if err != nil {
		return 0, false, ignoreGone(err)
	}
	rest, err := list.Some(func(key string) bool { return !files[key] })
	if err != nil {
		return 0, false, err
	}
	empty = len(rest) == 0 && !lost && !g.Dir.Elsewhere()
	if r.DryRun {
		r.rep.Tally(func(rep *report.Report) { rep.Removed += moved })
		return moved, empty, nil
	}
	if empty {
		leaving = append(leaving, strays...)
	}
	gone, err := r.removeFiles(ctx, leaving)
	if err != nil {
		return 0, false, err
	}
	if stay := len(leaving) - len(gone); stay > 0 {
		moved, empty = moved-stay, false
	}
	if !empty {
		return moved, false, nil
	}
	return moved, true, removeFolder(g.Dir, r.Root)
}

// isElsewhere tells whether the mail of a message, with the text of its file, is that of a message of
// another mailbox which the server has, and whose file is here; in a dry run, whether it would be.
func (r *run) isElsewhere(ctx context.Context, row ledger.Message, dir maildir.Dir, there map[string]uint64) (bool, error) {
	if row.ID == "" || row.Digest.IsZero() {
		return false, nil
	}
	if name, here, err := dir.Locate(row.Key, row.Name); err != nil {
		return false, err
	} else if here {
		if digest, err := maildir.Digest(dir.Path(name)); err != nil || digest != row.Digest {
			return false, ignoreGone(err) // its owner has another text in its place
		}
	}
	if r.DryRun && r.looking.Linked(row) {
		return true, nil
	}
	copies, err := r.Ledger.ByMessageID(ctx, row.ID)
	if err != nil {
		return false, err
	}
	for _, c := range copies {
		validity, listed := there[c.Mailbox]
		if !listed || c.Mailbox == row.Mailbox || c.UIDValidity != validity || c.State != ledger.Present || c.Key == "" ||
			plan.Weigh(plan.Agreed(&row), plan.Agreed(&c)).Text != plan.Equal {
			continue
		}
		if _, here, err := r.here.FileOf(ctx, c); err != nil || here {
			return err == nil, err
		}
	}
	return false, nil
}

// removeFolder takes a folder away in which no mail is left, and those above it that were there for it.
func removeFolder(dir maildir.Dir, root string) error {
	if err := dir.RemoveEmpty(); err != nil {
		return err
	}
	for up := filepath.Dir(string(dir)); strings.HasPrefix(up, root+"/") && os.Remove(up) == nil; {
		up = filepath.Dir(up)
	}
	return nil
}
