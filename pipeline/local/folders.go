package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Folders is what the list of the server's mailboxes does not explain.
type Folders struct {
	Create []NewFolder
	// Detached are folders whose mail the server cannot have now, and which take part in nothing:
	// of mailboxes that it has no more, and of none. What is missing elsewhere may be in them.
	Detached []View
	Forget   []ledger.Mailbox // those that are gone on both sides
	Gone     []Gone           // those that the server has no more, which was not said yet
	Moved    bool             // mail may have another place now: a mailbox may have another name
}

// Gone is a mailbox that the server has no more, or by a name that takes no part.
type Gone struct {
	View
	Apart string // that name, perhaps; "" if there is none
	Again bool   // it was said before, and some of its mail came since
}

// NewFolder is a folder of which the server is to make a mailbox.
type NewFolder struct {
	mail.Mailbox        // its name and delimiter
	Folder       string // below the account's
}

// Listed is what is known when folders are sorted out.
type Listed struct {
	Mailboxes []mail.Mailbox   // those that the server listed
	Rows      []ledger.Mailbox // those of the ledger, before this run
	Taken     []string         // folders of those that take part in this run
	Wanted    []string         // folders of mailboxes that are made anyway
	// Told are mailboxes, by the names of the rows, of which it was said what has become of them.
	Told map[string]string
	// Apart are mailboxes that take no part, by the names of the rows that they are of, perhaps.
	Apart map[string]string
	// Personal gives the prefix that the user's own mailboxes have, such as "INBOX.". It
	// is asked for when a new name depends on it.
	Personal func(ctx context.Context) (string, error)
}

// Folders sorts out what the list of mailboxes does not explain: mailboxes that
// the server has no more, and folders here that are of none.
func (r *Reader) Folders(ctx context.Context, l Listed) (out Folders, err error) {
	n := l.naming()
	taken := make(map[string]bool, len(l.Mailboxes)) // folders of mailboxes that can hold mail
	for _, m := range l.Mailboxes {
		if f, err := r.Layout.Folder(m.Name, m.Delim); err == nil && n.there[m.Name] {
			taken[f] = true
		}
	}
	for _, f := range l.Taken {
		taken[f] = true
	}
	for _, k := range l.Rows {
		if !n.there[k.Name] && k.UIDValidity == 0 && !k.Complete {
			continue // a run ended before its mailbox was made
		}
		taken[k.Folder] = true
		if !n.there[k.Name] {
			if err := r.goneMailbox(ctx, k, l, &out); err != nil {
				return out, err
			}
		}
	}
	if err := r.forgetSaid(ctx, n.there, taken); err != nil || r.ReadOnly || r.Restore {
		return out, err
	}
	err = r.eachFolder(taken, func(f string) error {
		if slices.Contains(l.Wanted, f) {
			return nil
		}
		return r.newFolder(ctx, f, n, &out)
	})
	return out, err
}

// Others gives the folders of no mailbox that takes part, where only some mailboxes are
// asked for: what is missing in these may be in those.
func (r *Reader) Others(ctx context.Context, l Listed) (out []View, err error) {
	rows, not := l.Rows, make(map[string]bool, len(l.Taken))
	for _, f := range l.Taken {
		not[f] = true
	}
	err = r.eachFolder(not, func(f string) (err error) {
		v := View{Mailbox: r.of(ledger.Mailbox{Name: f, Folder: f}), Folder: &Folder{}}
		if i := slices.IndexFunc(rows, func(k ledger.Mailbox) bool { return k.Folder == f }); i >= 0 {
			v.Mailbox = r.of(rows[i])
			said, apart, err := r.saidGone(ctx, rows[i], l)
			if err != nil {
				return err
			}
			if !said || apart != "" {
				if *v.Folder, err = r.Scan(ctx, v.Mailbox, nil); err != nil {
					return err
				}
			}
		}
		out = append(out, v)
		return nil
	})
	return out, err
}

// forgetSaid forgets what was said of mailboxes that are there again, and of folders that
// are not, or have become those of mailboxes: should it come so again, it is news.
func (r *Reader) forgetSaid(ctx context.Context, there, taken map[string]bool) error {
	if r.DryRun {
		return nil
	}
	if err := r.Journal.GoneSaid.DropWhere(ctx, func(about string, _ journal.Text) bool {
		_, name, _ := strings.Cut(about, "/")
		return there[name]
	}); err != nil {
		return err
	}
	return r.Journal.FolderSaid.DropWhere(ctx, func(folder string, _ journal.Text) bool {
		_, err := os.Lstat(filepath.Join(r.Root, folder))
		return taken[folder] || errors.Is(err, fs.ErrNotExist)
	})
}

// eachFolder does something with each folder here but for those that are taken.
func (r *Reader) eachFolder(taken map[string]bool, do func(folder string) error) error {
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

// goneMailbox deals with a mailbox that was deleted on the server. Its mail here
// stays, in a folder that takes part in nothing, until its owner says what is to
// become of it. Once the folder is gone, too, both sides agree. Where the server has it by a name that
// takes no part, it is still there: what waits in it is not for elsewhere.
func (r *Reader) goneMailbox(ctx context.Context, k ledger.Mailbox, l Listed, out *Folders) error {
	v := View{Mailbox: r.of(k), Folder: &Folder{}}
	out.Detached = append(out.Detached, v)
	if _, err := os.Lstat(string(v.Dir)); errors.Is(err, fs.ErrNotExist) {
		out.Forget = append(out.Forget, k)
		return nil
	}
	said, apart, err := r.saidGone(ctx, k, l)
	if err != nil || said && apart == "" {
		return err
	}
	// It may be left out of the list for a moment only: what went out of it here
	// is new elsewhere if the next list does not have it either.
	if *v.Folder, err = r.Scan(ctx, v.Mailbox, nil); err != nil {
		return err
	}
	out.Moved = true // it may have another name now, with the same mail
	if l.Told[k.Name] == "" {
		out.Gone = append(out.Gone, Gone{View: v, Apart: apart})
	}
	return nil
}

// SayGone says, once, that the server has a mailbox no more, when it is known which of its mail is in
// other mailboxes: so many files went for that. empty is that no mail is left in its folder.
func (r *Reader) SayGone(ctx context.Context, g Gone, moved int, empty bool) error {
	k, apart := g.Known, g.Apart
	would := ""
	if r.DryRun {
		would = "would: "
	}
	say := func() bool {
		text := "the server has this mailbox no more; "
		if moved > 0 {
			text += "it has " + mail.Number(moved, "message of it", "messages of it") + " in other mailboxes, and so it is here; "
		}
		switch {
		case apart != "":
			return r.Report.Note(k.Name, "the server has this mailbox as %s now, it seems, which takes no part: the configuration excludes it, or the server tells nothing of it. The mail stays here and there, and what was moved "+
				"out of the folder or into it waits until that takes part. If it is another one, `notmuch imap folder delete %s` removes this one here", mail.Typed(r.Account+"/"+apart), mail.Typed(r.Account+"/"+k.Name))
		case empty:
			return r.Report.Note(k.Name, "%s%sno mail is left in its folder here, which goes, too", would, text)
		case moved > 0:
			text = would + text + "the rest of "
		}
		return r.Report.Note(k.Name, "%sits mail here stays, and goes nowhere. To have it elsewhere, move it to another folder; "+
			"`notmuch imap folder delete %s` removes it here, `notmuch imap folder create` makes the mailbox anew with it", text, mail.Typed(r.Account+"/"+k.Name))
	}
	if r.DryRun { // it was said of some of them, of which more is known now
		say()
		return nil
	}
	return journal.Once(ctx, r.Journal.GoneSaid, journal.AboutGone(k), journal.Text(cmp.Or(apart, k.Name)), true, say)
}

// GoneAsBefore notes that what was said of a mailbox which the server has no more is so still.
func (r *Reader) GoneAsBefore(ctx context.Context, g Gone) error {
	if r.DryRun {
		return nil
	}
	return r.Journal.GoneSaid.Set(ctx, journal.AboutGone(g.Known), journal.Text(g.Known.Name))
}

// saidGone tells whether it was said that the server has a mailbox no more, and by which name it has it
// perhaps that takes no part; "" if by none, or no more.
func (r *Reader) saidGone(ctx context.Context, k ledger.Mailbox, l Listed) (said bool, apart string, err error) {
	text, noted, err := r.Journal.GoneSaid.Get(ctx, journal.AboutGone(k))
	was, said := text.Said()
	if !noted || !said {
		return false, l.Apart[k.Name], err
	}
	is := func(name string) bool { return name == string(was) }
	if !is(k.Name) && slices.ContainsFunc(l.Mailboxes, func(m mail.Mailbox) bool { return is(m.Name) }) && !slices.ContainsFunc(l.Rows, func(k ledger.Mailbox) bool { return is(k.Name) }) {
		apart = string(was)
	}
	return true, apart, err
}

// naming is what the names of new mailboxes depend on.
type naming struct {
	list  []mail.Mailbox
	there map[string]bool // those of it that can hold mail
	delim rune
	// prefix is what the user's own mailboxes begin with, once it was asked for.
	personal func(ctx context.Context) (string, error)
	prefix   string
	asked    bool
}

func (l *Listed) naming() *naming {
	n := &naming{list: l.Mailboxes, personal: l.Personal, there: make(map[string]bool, len(l.Mailboxes)), delim: mail.Delim(l.Mailboxes)}
	for _, m := range l.Mailboxes {
		if m.Status != nil || m.Err != nil || m.Unasked {
			n.there[m.Name] = true
		}
	}
	return n
}

// was gives what a folder that is uploaded would be called if it were named by its mailbox: that
// of another server, or the one whose name it has as other programs write it, in modified UTF-7;
// "" if that is not known.
func (r *Reader) was(folder string) string {
	if m, known := r.Were[folder]; known {
		if f, err := maildir.Folder(m.Name, m.Delim); err == nil {
			return f
		}
	}
	if r.Layout == maildir.MaildirPP { // which has names so by itself
		return ""
	}
	levels := strings.Split(folder, "/")
	for i, l := range levels {
		name, err := mail.DecodeName(l)
		if err != nil || mail.EncodeName(name) != l || strings.HasPrefix(l, ".") { // as of Maildir++
			return ""
		}
		if levels[i], err = maildir.Folder(name, 0); err != nil {
			return ""
		}
	}
	if was := strings.Join(levels, "/"); was != folder {
		return was
	}
	return ""
}

// Fate is what a run makes of a folder that is of no mailbox.
type Fate struct {
	Mailbox string // what it is called: as its mailbox would be, if it can have one
	Made    bool   // the server is asked to make that mailbox
	Why     string // why it is not; "" if it would take no part either
}

// Strays gives what tells of folders that are of no mailbox of a list what a sync makes of one, and
// what an upload does.
func (r *Reader) Strays(l Listed) func(ctx context.Context, folder string) (sync, upload Fate, err error) {
	n := l.naming()
	return func(ctx context.Context, folder string) (sync, upload Fate, err error) {
		if sync, err = r.fate(ctx, folder, false, n); err == nil {
			upload, err = r.fate(ctx, folder, true, n)
		}
		return sync, upload, err
	}
}

// fate decides about a folder that is of no mailbox. What was here before the account's first
// sync is not taken for something that its owner just made, unless it is uploaded.
func (r *Reader) fate(ctx context.Context, folder string, upload bool, n *naming) (f Fate, err error) {
	name, err := r.Layout.Mailbox(folder, n.delim)
	named := r.Layout.Names(folder, n.delim)
	if upload {
		if was := r.was(folder); was != "" && was != "INBOX" {
			name, err = maildir.Mailbox(was, n.delim)
			named = maildir.Nested.Names(was, n.delim)
		}
	}
	if err != nil || !named {
		return r.unnamed(ctx, folder, upload, n)
	}
	if f.Mailbox, err = n.below(ctx, name); err != nil {
		return f, err
	}
	before, err := r.WasHere(ctx, folder)
	switch {
	case err != nil || strings.EqualFold(f.Mailbox, "INBOX") || r.Selects != nil && !r.Selects(f.Mailbox, n.delim):
	case n.there[f.Mailbox]:
		f.Why = fmt.Sprintf("its mailbox would be %s, whose folder is another one", f.Mailbox)
	case before && !upload:
		// The command gets what the folder is called, since it puts no prefix away.
		f.Why = fmt.Sprintf("it was here before the first sync, and the server has no such mailbox; `notmuch imap folder create %s` lets the next sync make it", mail.Typed(r.Account+"/"+name))
	default:
		f.Made = true
	}
	return f, err
}

// unnamed is fate of a folder that is called as that of no mailbox is.
func (r *Reader) unnamed(ctx context.Context, folder string, upload bool, n *naming) (Fate, error) {
	f := Fate{Mailbox: folder, Why: "the server can have no mailbox of this name; give the folder another one"}
	if strings.HasPrefix(folder, ".") && r.Layout != maildir.MaildirPP {
		f.Why += ", or set layout = \"maildir++\", if it is called as that has it"
	}
	if upload {
		return f, nil
	}
	sent, err := r.fate(ctx, folder, true, n)
	switch {
	case sent.Made:
		f.Why = fmt.Sprintf("a sync would give its mailbox a folder of another name; `notmuch imap upload %s` makes the mailbox, and sends all that was here before the first sync", mail.Typed(r.Account))
	case sent.Why == "":
		f.Why = ""
	}
	return f, err
}

// newFolder does with a folder that is of no mailbox what becomes of it.
func (r *Reader) newFolder(ctx context.Context, folder string, n *naming, out *Folders) error {
	detach := func(name string) {
		m := r.of(ledger.Mailbox{Folder: folder})
		m.Name = name
		out.Detached = append(out.Detached, View{Mailbox: m, Folder: &Folder{}})
	}
	text, noted, err := r.Journal.FolderSaid.Get(ctx, folder)
	if err != nil {
		return err
	}
	if _, said := text.Said(); said && noted && !r.UploadHere || r.UploadNext || len(r.UploadIn) > 0 {
		if before, err := r.WasHere(ctx, folder); err != nil || before {
			detach(folder)
			return err
		}
	}
	f, err := r.fate(ctx, folder, r.UploadHere, n)
	switch {
	case err != nil:
		return err
	case f.Why != "":
		detach(f.Mailbox)
		return journal.Once(ctx, r.Journal.FolderSaid, folder, journal.Text(f.Why), !r.DryRun, func() bool {
			return r.Report.Note(f.Mailbox, "the folder %s does not go to the server: %s", folder, f.Why)
		})
	case f.Made:
		out.Create = append(out.Create, NewFolder{mail.Mailbox{Name: f.Mailbox, Delim: n.delim}, folder})
	}
	if noted && !r.DryRun { // it is so no more
		return r.Journal.FolderSaid.Drop(ctx, folder)
	}
	return nil
}

// below puts the prefix before a mailbox's name, unless it has it, or other
// mailboxes beside it have none.
func (n *naming) below(ctx context.Context, name string) (string, error) {
	if !n.asked {
		var err error
		if n.prefix, err = n.personal(ctx); err != nil {
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

// FolderOf gives the folder of a mailbox that the ledger does not know: one of
// its name, or of the name without prefix if its owner made that before the
// ledger was lost, or that in which another program had it. taken has folders of other
// mailboxes.
func (r *Reader) FolderOf(ctx context.Context, m mail.Mailbox, prefix string, taken *maildir.Taken) (string, error) {
	folder, err := r.Layout.Folder(m.Name, m.Delim)
	exists := func(f string) bool { return maildir.Dir(filepath.Join(r.Root, f)).Exists() }
	names := []string{m.Name}
	if rest, ok := strings.CutPrefix(m.Name, prefix); err == nil && ok && prefix != "" && rest != "" {
		short, err := r.Layout.Folder(rest, m.Delim)
		if err != nil || exists(folder) {
			return folder, nil //nolint:nilerr // the long name is good, then
		}
		if exists(short) {
			return short, nil
		}
		names = append(names, rest)
	}
	if err != nil || r.Layouts == nil || exists(folder) {
		return folder, err
	}
	for _, name := range names {
		for _, f := range r.Layouts(name, m.Delim) {
			if taken.Has(f) || !exists(f) {
				continue
			}
			if before, err := r.WasHere(ctx, f); err != nil || before {
				return f, err
			}
		}
	}
	return folder, nil
}

// CheckRoot refuses to work when the account's folder, or all that was in it, is
// gone although the ledger has mail there: a disk that is not mounted looks just
// like that.
func (r *Reader) CheckRoot(ctx context.Context) error {
	if _, err := os.Stat(r.Root); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the mail folder: %w", err)
	}
	boxes, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	var unread error // what cannot be looked at may be there
	for _, b := range boxes {
		_, err := os.Stat(filepath.Join(r.Root, b.Folder))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			unread = err
		}
	}
	if unread != nil {
		return fmt.Errorf("cannot read the mail folder: %w", unread)
	}
	for _, b := range boxes {
		n, err := r.Ledger.Count(ctx, b.Name, b.UIDValidity, ledger.Present, ledger.Stub)
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("the mail folder %s is gone or empty, though mail was put there: is its disk mounted? "+
				"Nothing was done. If you removed it to begin anew, remove this account's ledger too", r.Root)
		}
	}
	return nil
}
