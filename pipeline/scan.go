package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// delta is what the user changed in a message's flags since the last agreement.
type delta struct {
	add, remove []string
}

// scan finds the flags that the user changed in a mailbox's files, by Mutt or by
// notmuch, which renames files for its tags (maildir.synchronize_flags). A folder
// in which no name changed since the last scan is not read. Nothing is asked of
// the server.
func (r *run) scan(ctx context.Context, b *box) error {
	if r.ReadOnly || !b.known.Complete || b.known.UIDValidity == 0 || b.known.UIDValidity != b.Status.UIDValidity {
		return nil
	}
	key := metaScanned + b.Name
	last, err := r.Ledger.Meta(ctx, key)
	if err != nil {
		return err
	}
	// The time before the listing: what changes while it is made shows in the
	// next run.
	now := b.dir.Changed()
	b.scanned = fmt.Sprintf("%d %d %d", b.known.UIDValidity, now[0].UnixNano(), now[1].UnixNano())
	if last == b.scanned {
		return nil
	}
	files, err := b.dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return err
	}
	b.local = localChanges(rows, files.Find)
	if len(b.local) > 0 || r.DryRun {
		return nil
	}
	return r.markScanned(ctx, b)
}

// metaScanned begins the ledger's keys that hold when a mailbox's folder was
// scanned last.
const metaScanned = "scanned/"

// markScanned records that nothing is left to tell the server of what the scan
// saw.
func (r *run) markScanned(ctx context.Context, b *box) error {
	if b.scanned == "" {
		return nil
	}
	if err := r.Ledger.SetMeta(ctx, metaScanned+b.Name, b.scanned); err != nil {
		return err
	}
	r.step("scan recorded")
	return nil
}

// localChanges compares the letters of files with the flags that were agreed on.
// Stubs are none of the server's business, nor are files that are gone; a file
// whose name has no letters at all, as in new, says nothing. The letter T is
// left alone: to delete is more than to flag.
func localChanges(rows []ledger.Row, find func(key string) (string, bool)) map[imap.UID]delta {
	out := make(map[imap.UID]delta)
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		name, ok := find(row.Key)
		if !ok || !strings.Contains(name, ":2,") {
			continue
		}
		_, letters := maildir.ParseName(name)
		var d delta
		for _, f := range flagRows() {
			is, was := strings.Contains(letters, f.letter), hasFlag(row.Flags, f.flag)
			switch {
			case f.tag == "" || is == was:
			case is:
				d.add = append(d.add, f.flag)
			default:
				d.remove = append(d.remove, f.flag)
			}
		}
		if len(d.add)+len(d.remove) > 0 {
			out[row.UID] = d
		}
	}
	return out
}

// merged gives flags with a delta applied: a flag that one side changed since
// they agreed is as that side has it, and both cannot have changed it apart,
// since it is there or not.
func (d delta) merged(flags []string) []string {
	out := slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return hasFlag(d.remove, f) })
	for _, f := range d.add {
		if !hasFlag(out, f) {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}
