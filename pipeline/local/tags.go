package local

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Index is notmuch's database.
type Index interface {
	// Changes gives the messages with files below the directory under that
	// changed after since; all of them, and whole, if since means nothing to the
	// database.
	Changes(ctx context.Context, since mail.Revision, under string) (now mail.Revision, tagged []mail.Tagged, whole bool, err error)
	// Messages gives those of the messages with these ids that there are, by id, with their
	// files below the directory under, and their others.
	Messages(ctx context.Context, ids []string, under string) (map[string]mail.Tagged, error)
	// Stamped gives what Changes starts from to give what changes from now on, and the
	// stamps that the database got for an account, when its UUID was of; zero if there is no
	// database.
	Stamped(ctx context.Context, account string) (now mail.Revision, of string, stamps []string, err error)
	// Stamp gives it these in their place. done is false if another program writes to it.
	Stamp(ctx context.Context, account string, stamps ...string) (done bool, err error)
}

// ScanTags finds the tags that the user changed and that the server is to have,
// beside what Scan found in the names of files, and those by which a mail is to
// be moved or deleted. It adds them to the folders. trash is the account's Trash; ""
// if it has none. The revision is that of the database up to which all tags were
// looked at; zero if some must be looked at again.
func (r *Reader) ScanTags(ctx context.Context, all []View, trash string) (mail.Revision, error) {
	rules := r.Tags.RulesFingerprint(r.Deletions)
	if r.ReadOnly || len(r.Tags.Keywords) == 0 && !r.Tags.TagFlags && rules == "" {
		return mail.Revision{}, nil
	}
	d, err := r.database(ctx)
	if err != nil {
		return mail.Revision{}, err
	}
	since := d.told // without one, all is compared
	now, tagged, _, err := r.Index.Changes(ctx, since.Revision, r.Root)
	if err != nil {
		return mail.Revision{}, err
	}
	folders, looked := byFolder(all, tagged)
	for v, byKey := range folders {
		if err := r.addTags(ctx, d, v, byKey); err != nil {
			return mail.Revision{}, err
		}
	}
	if (rules != since.Rules || r.Rules) && since.UUID != "" {
		// New rules are about all mail, and so are all on request.
		if _, tagged, _, err = r.Index.Changes(ctx, mail.Revision{}, r.Root); err != nil {
			return mail.Revision{}, err
		}
	}
	ruled, err := r.applyRules(ctx, d, all, tagged, trash)
	if err != nil || !looked || !ruled {
		return mail.Revision{}, err
	}
	return now, nil
}

// addTags adds to what Scan found in a folder what the tags of its messages, by the keys of
// their files, say beside what was agreed on.
func (r *Reader) addTags(ctx context.Context, d *database, v *View, byKey map[string]mail.Tagged) error {
	rows, err := r.Ledger.Rows(ctx, v.Name, v.Known.UIDValidity)
	if err != nil {
		return err
	}
	first := d.told.UUID == ""
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" || d.unseen(v, row.UID) {
			continue
		}
		have, ok := byKey[row.Key]
		if !ok {
			continue
		}
		delta := r.Tags.DeltaAgain(r.Tags.TagDelta(row.Flags, have.Tags), r.Told[v.Name][row.UID], have.Tags)
		if first {
			delta = r.Tags.Unlost(delta)
		}
		v.AddFlags(row.UID, delta)
	}
	if first || d.another {
		return nil // what it lacks nobody took off
	}
	for i := range v.Untracked { // a file that was moved has its message's tags with it
		if have, ok := byKey[v.Untracked[i].Key]; ok {
			v.Untracked[i].Tags = append([]string{}, have.Tags...)
		}
	}
	return nil
}

// byFolder sorts what notmuch has of messages by folder, and there by the key of
// the file. all is false if some are in a mailbox that is not agreed upon, or that cannot
// be read: its tags are looked at again later.
func byFolder(views []View, tagged []mail.Tagged) (out map[*View]map[string]mail.Tagged, all bool) {
	byDir := byDirectory(views)
	all = true
	out = make(map[*View]map[string]mail.Tagged)
	for _, t := range tagged {
		for _, p := range t.Paths {
			v := byDir[filepath.Dir(filepath.Dir(p))]
			if v == nil {
				continue
			}
			if !v.Agreed() || v.Unread {
				all = false
				continue
			}
			if out[v] == nil {
				out[v] = make(map[string]mail.Tagged)
			}
			key, _ := maildir.ParseName(p)
			out[v][key] = t
		}
	}
	return out, all
}

// byDirectory gives mailboxes by the directories of their folders.
func byDirectory(views []View) map[string]*View {
	out := make(map[string]*View, len(views))
	for i := range views {
		out[string(views[i].Dir)] = &views[i]
	}
	return out
}

// Followed is what Unfollowed found.
type Followed struct {
	Now mail.Revision // of the database that was looked at
	// Changes are those by which what is here becomes what its tags want, where notmuch could
	// not see to it.
	Changes []mail.Change
	// Seen notes of mail that a database has that it is known there. It is recorded when the
	// changes are done.
	Seen journal.Change
	All  bool // nothing of that is left
}

// Unfollowed finds what notmuch could not see to: files get the letters of tags that their
// owner changed when notmuch knew them by an older name, and mail that another database has
// now gets the tags that were agreed on.
func (r *Reader) Unfollowed(ctx context.Context, views []View, trash string) (f Followed, err error) {
	d, err := r.database(ctx)
	if err != nil {
		return f, err
	}
	f.Now, f.All = d.now, true
	if d.now == d.named.Revision || d.named.UUID == "" {
		return f, nil
	}
	now, tagged, _, err := r.Index.Changes(ctx, d.named.Revision, r.Root)
	if err != nil {
		return f, err
	}
	f.Now = now
	settled, all, err := r.settle(ctx, d, views, tagged, trash, &f)
	if err != nil {
		return f, err
	}
	changes, written, err := r.unwritten(ctx, views, slices.DeleteFunc(tagged, func(t mail.Tagged) bool { return settled[t.ID] }))
	f.Changes, f.All = append(f.Changes, changes...), all && written
	return f, err
}

// unwritten gives the changes of names that tags want. all is false if a folder that
// may have such a file cannot be read.
func (r *Reader) unwritten(ctx context.Context, views []View, tagged []mail.Tagged) (changes []mail.Change, all bool, err error) {
	all = true
	for _, t := range tagged {
		if t.Set+t.Clear == "" {
			continue
		}
		rows, err := r.Ledger.Like(ctx, ledger.Message{ID: t.ID})
		if err != nil {
			return nil, false, err
		}
		for _, b := range views {
			here := slices.DeleteFunc(slices.Clone(rows), func(m ledger.Message) bool { return m.Mailbox != b.Name || m.State != ledger.Present })
			for _, s := range b.Untracked {
				if s.ID == t.ID {
					here = append(here, s.Message)
				}
			}
			for _, m := range here {
				name, ok, err := b.Dir.Locate(m.Key, m.Name)
				all = all && err == nil
				if ok {
					changes = append(changes, mail.Change{Op: mail.OpFlag, Path: b.path(name), ID: t.ID, Set: t.Set, Clear: t.Clear})
				}
			}
		}
	}
	return changes, all, nil
}

// Renewed has the marks that count in the database was count in the one that took its place,
// which has all that it had. That begins anew to count, so all tags are compared once more; and as
// it is no database that was lost, what a message lacks there was taken off.
func (r *Reader) Renewed(ctx context.Context, was string) error {
	db, _, _, err := r.Index.Stamped(ctx, r.Account)
	if err != nil {
		return err
	}
	now := db.UUID
	r.marking.Lock()
	defer r.marking.Unlock()
	r.renewed = [2]string{was, now}
	for _, note := range []journal.Note[journal.Revision]{r.Journal.Tags, r.Journal.TagNames} {
		at, _, err := note.Get(ctx)
		if err == nil && at.UUID == was {
			at.Revision = mail.Revision{UUID: now}
			err = note.Set(ctx, at)
		}
		if err != nil {
			return err
		}
	}
	r.Report.Step("tags renewed")
	return nil
}

// TagsAreOlder has all tags compared once more, from the next run on: mail that is here becomes a
// mailbox's, and was tagged before, so that notmuch does not tell it again. What this run marks
// counts no more.
func (r *Reader) TagsAreOlder(ctx context.Context) error {
	r.marking.Lock()
	defer r.marking.Unlock()
	r.older = true
	at, _, err := r.Journal.Tags.Get(ctx)
	if err != nil || at.N == 0 {
		return err
	}
	at.N = 0
	if err := r.Journal.Tags.Set(ctx, at); err != nil {
		return err
	}
	r.Report.Step("older tags noted")
	return nil
}

// MarkTags notes up to where the server was told of tags.
func (r *Reader) MarkTags(ctx context.Context, at mail.Revision) error {
	if at.UUID == "" || r.DryRun {
		return nil
	}
	r.marking.Lock()
	defer r.marking.Unlock()
	if r.older {
		return nil
	}
	if at.UUID == r.renewed[0] {
		at = mail.Revision{UUID: r.renewed[1]}
	}
	now := journal.Revision{Revision: at, Rules: r.Tags.RulesFingerprint(r.Deletions)}
	if last, _, err := r.Journal.Tags.Get(ctx); err != nil || last == now {
		return err
	}
	if err := r.Journal.Tags.Set(ctx, now); err != nil {
		return err
	}
	r.Report.Step("tags recorded")
	return nil
}
