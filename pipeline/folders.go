package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// folders sorts out what the list of mailboxes does not explain: mailboxes that
// the server has no more, and folders here that are of none. rows are those of
// the ledger, before this run.
func (r *run) folders(ctx context.Context, s Lister, list []mail.Mailbox, rows []ledger.Mailbox, boxes []*box) error {
	if len(r.Only) > 0 {
		return r.closeOthers(ctx, rows, boxes)
	}
	there := make(map[string]bool, len(list)) // mailboxes that can hold mail
	taken := make(map[string]bool, len(list)) // their folders
	for _, m := range list {
		if m.Status == nil && m.Err == nil && !m.Unasked {
			continue
		}
		there[m.Name] = true
		if f, err := maildir.Folder(m.Name, m.Delim); err == nil {
			taken[f] = true
		}
	}
	for _, b := range boxes {
		taken[b.known.Folder] = true
	}
	for _, k := range rows {
		taken[k.Folder] = true
		if !there[k.Name] {
			if err := r.goneMailbox(ctx, k); err != nil {
				return err
			}
		}
	}
	if err := r.forgetSaid(ctx, there, taken); err != nil || r.ReadOnly || r.Restore {
		return err
	}
	n := &naming{list: list, there: there, delim: delimOf(list), first: len(rows) == 0}
	return r.eachFolder(taken, func(f string) error { return r.newFolder(ctx, s, f, n) })
}

// forgetSaid forgets what was said of mailboxes that are there again, and of folders that
// are not, or have become those of mailboxes: should it come so again, it is news.
func (r *run) forgetSaid(ctx context.Context, there, taken map[string]bool) error {
	if r.DryRun {
		return nil
	}
	if err := r.notes().GoneSaid.DropWhere(ctx, func(about string, _ journal.Text) bool {
		_, name, _ := strings.Cut(about, "/")
		return there[name]
	}); err != nil {
		return err
	}
	return r.notes().FolderSaid.DropWhere(ctx, func(folder string, _ journal.Text) bool {
		_, err := os.Lstat(filepath.Join(r.Root, folder))
		return taken[folder] || errors.Is(err, fs.ErrNotExist)
	})
}

// eachFolder does something with each folder here but for those that are taken.
func (r *run) eachFolder(taken map[string]bool, do func(folder string) error) error {
	folders, err := maildir.Folders(r.Root)
	if err != nil {
		return err
	}
	for _, f := range folders {
		if taken[f] {
			continue
		}
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// closeOthers lets the folders that are of no listed mailbox take part where only some
// mailboxes are asked for: what is missing in these may be in those.
func (r *run) closeOthers(ctx context.Context, rows []ledger.Mailbox, boxes []*box) error {
	taken := make(map[string]bool)
	for _, b := range slices.Concat(boxes, r.beside) {
		taken[b.known.Folder] = true
	}
	return r.eachFolder(taken, func(f string) error {
		b := r.knownBox(ledger.Mailbox{Name: f, Folder: f})
		if i := slices.IndexFunc(rows, func(k ledger.Mailbox) bool { return k.Folder == f }); i >= 0 {
			b = r.knownBox(rows[i])
			if err := r.scanBox(ctx, b); err != nil {
				return err
			}
		}
		r.closed = append(r.closed, b)
		return nil
	})
}

// naming is what the names of new mailboxes depend on.
type naming struct {
	list  []mail.Mailbox
	there map[string]bool
	delim rune
	first bool // nothing was synchronised before
	// prefix is what the user's own mailboxes begin with, once it was asked for.
	prefix string
	asked  bool
}

// goneMailbox deals with a mailbox that was deleted on the server. Its mail here
// stays, in a folder that takes part in nothing, until its owner says what is to
// become of it. Once the folder is gone, too, both sides agree.
func (r *run) goneMailbox(ctx context.Context, k ledger.Mailbox) error {
	b := r.knownBox(k)
	r.closed = append(r.closed, b)
	key := journal.AboutWord(k.UIDValidity, k.Name) // not of a mailbox of the same name that comes after it
	if _, err := os.Lstat(string(b.dir)); !errors.Is(err, fs.ErrNotExist) {
		_, said, err := r.notes().GoneSaid.Get(ctx, key)
		if err != nil || said {
			return err
		}
		// It may be left out of the list for a moment only: what went out of it here
		// is new elsewhere if the next list does not have it either.
		if err := r.scanBox(ctx, b); err != nil {
			return err
		}
		r.moved = true // it may have another name now, with the same mail
		return r.noteOnce(ctx, b, r.notes().GoneSaid, key, "the server has this mailbox no more; its mail here stays, and goes nowhere. To have it elsewhere, move it to another folder; "+
			"`notmuch imap folder delete %s/%s` removes it here, `notmuch imap folder create` makes the mailbox anew with it", r.Account.Name, k.Name)
	}
	if r.DryRun {
		return nil
	}
	if err := r.notes().ForgetMailbox(ctx, k, journal.Change{}); err != nil {
		return err
	}
	r.step("mailbox forgotten")
	return nil
}

// newFolder decides about a folder that is of no mailbox. What was here before
// the account's first sync is not taken for something that its owner just made.
func (r *run) newFolder(ctx context.Context, s Lister, folder string, n *naming) error {
	b := r.newBox(mail.Mailbox{Name: folder, Delim: n.delim}, ledger.Mailbox{Folder: folder})
	if slices.ContainsFunc(r.fresh, func(o *box) bool { return o.known.Folder == folder }) {
		return nil // tags want it
	}
	_, before, err := r.notes().Before.Get(ctx, folder)
	if err != nil {
		return err
	}
	why := ""
	name, err := maildir.Mailbox(folder, n.delim)
	back, e := maildir.Folder(name, n.delim)
	switch {
	case err != nil || e != nil || back != folder || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		why = "the server can have no mailbox of this name; give the folder another one"
	case before:
		r.closed = append(r.closed, b)
		return nil
	default:
		if b.Name, err = n.below(ctx, s, name); err != nil {
			return err
		}
		switch {
		case strings.EqualFold(b.Name, "INBOX") || r.Selects != nil && !r.Selects(b.Name, b.Delim):
			return nil
		case n.there[b.Name]:
			why = fmt.Sprintf("its mailbox would be %s, whose folder is another one", b.Name)
		case n.first:
			why = fmt.Sprintf("it was here before the first sync, and the server has no such mailbox; `notmuch imap folder create %s/%s` lets the next sync make it", r.Account.Name, b.Name)
			if r.DryRun {
				break
			}
			if err := r.notes().Before.Set(ctx, folder, journal.SaidOnce); err != nil {
				return err
			}
		default:
			r.fresh = append(r.fresh, b)
			return nil
		}
	}
	r.closed = append(r.closed, b)
	return r.noteOnce(ctx, b, r.notes().FolderSaid, folder, "the folder %s does not go to the server: %s", folder, why)
}

// delimOf is the server's hierarchy delimiter; 0 if it has no hierarchy.
func delimOf(list []mail.Mailbox) rune {
	for _, m := range list {
		if m.Delim != 0 {
			return m.Delim
		}
	}
	return 0
}

// personal gives the prefix that the user's own mailboxes have, such as "INBOX.".
func personal(ctx context.Context, s Lister, list []mail.Mailbox) (string, error) {
	if !s.Has("NAMESPACE") {
		return prefixOf(list), nil
	}
	if prefix, told, err := s.Namespace(ctx); err != nil || told {
		return prefix, err
	}
	return prefixOf(list), nil
}

// prefixOf tells from the mailboxes alone whether all are below INBOX.
func prefixOf(list []mail.Mailbox) (prefix string) {
	for _, m := range list {
		if m.Name == "INBOX" {
			continue
		}
		if m.Delim == 0 || !strings.HasPrefix(m.Name, "INBOX"+string(m.Delim)) {
			return ""
		}
		prefix = "INBOX" + string(m.Delim)
	}
	return prefix
}

// below puts the prefix before a mailbox's name, unless it has it, or other
// mailboxes beside it have none.
func (n *naming) below(ctx context.Context, s Lister, name string) (string, error) {
	if !n.asked {
		var err error
		if n.prefix, err = personal(ctx, s, n.list); err != nil {
			return "", err
		}
		n.asked = true
	}
	top := func(s string) string { s, _, _ = strings.Cut(s, string(n.delim)); return s }
	if n.prefix == "" || n.delim == 0 || strings.HasPrefix(name+string(n.delim), n.prefix) ||
		slices.ContainsFunc(n.list, func(m mail.Mailbox) bool { return m.Name != "INBOX" && top(m.Name) == top(name) }) {
		return name, nil
	}
	return n.prefix + name, nil
}

// folderOf gives the folder of a mailbox that the ledger does not know: one of
// its name, or of the name without prefix if its owner made that before the
// ledger was lost.
func (r *run) folderOf(m mail.Mailbox, prefix string) (string, error) {
	folder, err := maildir.Folder(m.Name, m.Delim)
	rest, ok := strings.CutPrefix(m.Name, prefix)
	if err != nil || !ok || prefix == "" || rest == "" {
		return folder, err
	}
	short, err := maildir.Folder(rest, m.Delim)
	if exists := func(f string) bool { return maildir.Dir(filepath.Join(r.Root, f)).Exists() }; err != nil || exists(folder) || !exists(short) {
		return folder, nil //nolint:nilerr // the long name is good, then
	}
	return short, nil
}

// makeMailboxes makes mailboxes of the new folders, which then go the way of all
// others: mail in them is uploaded, or moved from where it is on the server. One
// that is refused costs only itself.
func (w *worker) makeMailboxes(ctx context.Context, boxes []*box) ([]*box, error) {
	for _, b := range w.fresh {
		files, err := b.dir.Scan()
		if errors.Is(err, fs.ErrNotExist) {
			files, err = &maildir.Listing{}, nil // one that tags want
		}
		if err != nil {
			b.local.Unread = true
			w.closed = append(w.closed, b)
			w.mailboxFault(b, fmt.Errorf("its folder cannot be read: %w", err))
			continue
		}
		if files.Len() == 0 && w.listed[b.Name] {
			continue // on the server it only holds other mailboxes, as here
		}
		text := fmt.Sprintf("new folder: %s (%s)", b.known.Folder, mail.Number(files.Len(), "message", "messages"))
		if w.DryRun {
			text = "would: " + text
		}
		w.emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Text: text})
		switch err := w.makeMailbox(ctx, b); {
		case err == nil:
			w.tally(func(r *report.Report) { r.Mailboxes++ })
			boxes = append(boxes, b)
			continue
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case report.ScopeOf(err, report.AtMailbox) != report.ScopeMailbox:
			return nil, err
		default:
			w.closed = append(w.closed, b)
			w.mailboxFault(b, fmt.Errorf("the server did not make this mailbox, so that the mail of its folder stays here: %w", err))
		}
	}
	return boxes, nil
}

// makeMailbox makes one mailbox, records it, and scans its folder. A crash before
// that leaves a mailbox as others make them.
func (w *worker) makeMailbox(ctx context.Context, b *box) error {
	b.known.Name, b.known.Delim = b.Name, b.Delim
	if w.TagRules != nil {
		b.add, b.remove = w.TagRules(b.Name, b.Delim)
	}
	if w.DryRun {
		b.known.Complete, b.known.UIDValidity = true, 1
		b.Status = &mail.Status{UIDValidity: 1, UIDNext: 1}
		return w.scanBox(ctx, b)
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := w.create(ctx, b); err != nil {
		return err
	}
	w.selected = nil
	sel, err := w.session.Select(ctx, b.Name)
	if err != nil {
		return err
	}
	b.Status = &sel.Status
	if sel.Messages > 0 {
		b.need = plan.NeedChanges // somebody made it at the same time
		return nil
	}
	b.known.UIDValidity, b.known.UIDNext, b.known.HighestModSeq, b.known.Complete = sel.UIDValidity, sel.UIDNext, sel.HighestModSeq, true
	if err := w.Ledger.SaveMailbox(ctx, b.known); err != nil {
		return err
	}
	w.step("mailbox recorded")
	return w.scanBox(ctx, b)
}

// create makes a mailbox, and subscribes to it, since most mail readers show no
// others.
func (w *worker) create(ctx context.Context, b *box) error {
	try := func(name string) error {
		if err := w.session.Create(ctx, name); err != nil {
			return err
		}
		w.step("mailbox made")
		err := w.session.Subscribe(ctx, name)
		if _, refused := mail.Refused(err); refused {
			return nil
		}
		return err
	}
	err := try(b.Name)
	if f, refused := mail.Refused(err); refused && f.Kind == mail.KindNo && b.Delim != 0 {
		// A server should make what is above it by itself (RFC 9051 6.3.4).
		again := false
		for i, c := range b.Name {
			if up := b.Name[:i]; c == b.Delim && up != "" && !w.listed[up] {
				w.listed[up], again = true, true
				err := try(up)
				if _, refused := mail.Refused(err); err != nil && !refused {
					return err
				}
			}
		}
		if again {
			err = try(b.Name)
		}
	}
	return err
}
