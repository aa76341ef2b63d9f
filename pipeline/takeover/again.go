package takeover

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// WentOn gives a mailbox in which no sync has been since it was taken over, but the program from
// which it was, and what that is called; "" if there is none.
func WentOn(ctx context.Context, l *ledger.Ledger) (mailbox, program string, err error) {
	notes, err := journal.Of(l).Imported.All(ctx)
	if err != nil {
		return "", "", err
	}
	for _, m := range slices.Sorted(maps.Keys(notes)) {
		if changed, err := wentOn(notes[m]); err != nil || changed {
			return m, notes[m].Program, err
		}
	}
	return "", "", nil
}

func wentOn(n journal.Imported) (bool, error) {
	return takeover.State{File: n.File, Digest: n.Digest}.Changed()
}

// again forgets the mailboxes that no sync has been in since the other program, from which they were
// taken over, changed what it remembers of them, and gives the rest: what was agreed on is what it
// says now. why has, by name, those of the rest of which that cannot be read.
func (a *Account) again(ctx context.Context, known []ledger.Mailbox) (rest []ledger.Mailbox, why map[string]string, err error) {
	j := journal.Of(a.Ledger)
	notes, err := j.Imported.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	why = make(map[string]string)
	for _, k := range known {
		n, is := notes[k.Name]
		changed := false
		if is && n.Program == a.Program {
			if changed, err = wentOn(n); err != nil {
				return nil, nil, err
			}
		}
		if !changed {
			rest = append(rest, k)
			continue
		}
		if _, err := a.Read(filepath.Join(a.Root, k.Folder), mail.Mailbox{Name: k.Name, Delim: k.Delim}); err != nil && !errors.Is(err, takeover.ErrNever) {
			rest, why[k.Name] = append(rest, k), err.Error()
			continue
		}
		if a.DryRun {
			continue
		}
		if err := j.ForgetMailbox(ctx, k, journal.Change{}); err != nil {
			return nil, nil, err
		}
		if err := j.Before.Set(ctx, k.Folder, journal.SaidOnce); err != nil { // that it was here before is as true as it was
			return nil, nil, err
		}
	}
	return rest, why, nil
}
