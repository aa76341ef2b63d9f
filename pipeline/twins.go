package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// removeTwins removes the other files that a message has in the folder of the mailbox that it
// leaves, before its own one goes: they would be new mail then, and bring it back. That is
// for a message whose own file is removed by us: where its owner took it away, or marked it
// as deleted, the others are what he left.
func (r *run) removeTwins(ctx context.Context, it *deliver.Item) error {
	if it.Op != deliver.OpGone || it.Row.Digest.IsZero() || it.Forgotten() {
		return nil
	}
	twins, err := Twins(ctx, r.Ledger)
	if err != nil || len(twins) == 0 {
		return err
	}
	dir := it.Box.Dir
	name, here, err := dir.Locate(it.Row.Key, it.Row.Name)
	if _, letters := maildir.ParseName(name); err != nil || !here || strings.Contains(letters, "T") {
		return err
	}
	for key, mailbox := range twins {
		if mailbox != it.Box.Name || key == it.Row.Key {
			continue
		}
		if err := r.removeTwin(ctx, dir, key, it); err != nil {
			return err
		}
	}
	return nil
}

// removeTwin removes one of them, if it is one still. notmuch is told first: what comes
// between that and the end of the message is done again.
func (r *run) removeTwin(ctx context.Context, dir maildir.Dir, key string, it *deliver.Item) error {
	name, here, err := dir.Locate(key, "")
	if err != nil || !here {
		return err
	}
	sum := mail.NewDigester()
	if _, err := maildir.Read(dir.Path(name), make([]byte, 64<<10), sum); errors.Is(err, fs.ErrNotExist) || err == nil && sum.Sum() != it.Row.Digest {
		return nil
	} else if err != nil {
		return err
	}
	rows, err := r.Ledger.ByMessageID(ctx, it.Row.ID)
	if err != nil {
		return err
	}
	for _, m := range rows {
		if m.Key == key {
			return nil // it has become a message of its own
		}
	}
	if r.arrivals.Noted(key) {
		return nil
	}
	if err := r.line.Tell(ctx, []mail.Change{{Op: mail.OpRemove, Path: dir.Path(name), ID: it.Row.ID}}); err != nil {
		return err
	}
	r.step("twin forgotten")
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.step("twin removed")
	return nil
}

// Twins gives the mailboxes of files, by key, that are of messages which have another file
// there.
func Twins(ctx context.Context, l *ledger.Ledger) (map[string]string, error) {
	notes, err := journal.Of(l).TwinSaid.All(ctx)
	twins := make(map[string]string, len(notes))
	for key, text := range notes {
		in, _ := text.Said()
		twins[key] = string(in)
	}
	return twins, err
}

// HereBefore gives the mailboxes of files, by key, that were here before the first sync and that
// nothing sends unasked, and the folders that were here then and are of no mailbox.
func HereBefore(ctx context.Context, l *ledger.Ledger) (files map[string]string, folders map[string]bool, err error) {
	j := journal.Of(l)
	notes, err := j.HereBefore.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	before, err := j.Before.All(ctx)
	files, folders = make(map[string]string, len(notes)), make(map[string]bool, len(before))
	for key, in := range notes {
		files[key] = string(in)
	}
	for folder := range before {
		folders[folder] = true
	}
	return files, folders, err
}
