package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// twins finds the other files that messages have in the folders of their mailboxes.
type twins struct {
	ledger *ledger.Ledger
	ours   func(key string) bool // this run has put the file on the server
	line   *deliver.Line
	rep    *report.Reporter
}

// remove removes the other files that messages have in the folders of the mailboxes that
// they leave, before their own ones go: they would be new mail then, and bring them back. That
// is for messages whose own file is removed by us: where its owner took it away, or marked it
// as deleted, the others are what he left.
func (t *twins) remove(ctx context.Context, items ...*deliver.Item) error {
	items = slices.DeleteFunc(slices.Clone(items), func(it *deliver.Item) bool {
		return it.Op != deliver.OpGone || it.Row.Digest.IsZero() || it.Forgotten()
	})
	others, err := t.of(ctx, items)
	if err != nil {
		return err
	}
	for _, it := range items {
		if len(others[it]) == 0 {
			continue
		}
		name, here, err := it.Box.Dir.Locate(it.Row.Key, it.Row.Name)
		if err != nil {
			return err
		}
		if _, letters := maildir.ParseName(name); !here || strings.Contains(letters, "T") {
			continue
		}
		for _, path := range others[it] {
			// notmuch is told first: what comes between that and the end of the message is
			// done again.
			if err := t.line.Tell(ctx, []mail.Change{{Op: mail.OpRemove, Path: path, ID: it.Row.ID}}); err != nil {
				return err
			}
			t.rep.Step("twin forgotten")
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				if it.Box.Bears(err) {
					break
				}
				return err
			}
			t.rep.Step("twin removed")
		}
	}
	return nil
}

// of gives the paths of the other files that messages have in the folders of their
// mailboxes, if they are of them still.
func (t *twins) of(ctx context.Context, items []*deliver.Item) (map[*deliver.Item][]string, error) {
	if len(items) == 0 {
		return nil, nil
	}
	notes, err := Twins(ctx, t.ledger)
	if err != nil || len(notes) == 0 {
		return nil, err
	}
	in := make(map[string][]*deliver.Item)
	for _, it := range items {
		if it.Row.Key != "" && !it.Row.Digest.IsZero() {
			in[it.Box.Name] = append(in[it.Box.Name], it)
		}
	}
	out := make(map[*deliver.Item][]string)
	for mailbox, items := range in {
		if err := t.in(ctx, mailbox, notes, items, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// in is of for messages of one mailbox: it reads each file once.
func (t *twins) in(ctx context.Context, mailbox string, notes map[string]string, items []*deliver.Item, out map[*deliver.Item][]string) error {
	dir := items[0].Box.Dir
	var files *maildir.Listing
	buf := make([]byte, 64<<10)
	for key, of := range notes {
		if of != mailbox || t.ours(key) {
			continue
		}
		if files == nil {
			var err error
			if files, err = dir.Scan(); errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
		}
		name, here := files.Find(key)
		if !here {
			continue
		}
		sum := mail.NewDigester()
		if _, err := maildir.Read(dir.Path(name), buf, sum); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		digest := sum.Sum()
		for _, it := range items {
			if it.Row.Digest != digest || it.Row.Key == key {
				continue
			}
			rows, err := t.ledger.Like(ctx, it.Row)
			if err != nil {
				return err
			}
			// It may have become a message of its own.
			if !slices.ContainsFunc(rows, func(m ledger.Message) bool { return m.Key == key }) {
				out[it] = append(out[it], dir.Path(name))
			}
		}
	}
	return nil
}

// Twins gives the mailboxes of files, by key, that are of messages which have another file
// there: one more of the mail, or the note beside one that notmuch does not take.
func Twins(ctx context.Context, l *ledger.Ledger) (map[string]string, error) {
	notes, err := journal.Of(l).TwinSaid.All(ctx)
	if err != nil {
		return nil, err
	}
	beside, err := journal.Of(l).Beside.All(ctx)
	twins := make(map[string]string, len(notes))
	for key, text := range notes {
		in, _ := text.Said()
		twins[key] = string(in)
	}
	for _, n := range beside {
		twins[n.Key] = n.Mailbox
	}
	return twins, err
}
