package local

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
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
	// Revision is what Changes starts from to give what changes from now on.
	Revision(ctx context.Context) (uuid string, revision uint64, err error)
}

// ScanTags finds the tags that the user changed and that the server is to have,
// beside what Scan found in the names of files, and those by which a mail is to
// be moved or deleted. It adds them to the folders. trash is the account's Trash; ""
// if it has none. The revision is that of the database up to which all tags were
// looked at; zero if some must be looked at again.
func (r *Reader) ScanTags(ctx context.Context, all []View, trash string) (mail.Revision, error) {
	rules := r.Tags.RulesFingerprint()
	if r.ReadOnly || len(r.Tags.Keywords) == 0 && !r.Tags.TagFlags && rules == "" {
		return mail.Revision{}, nil
	}
	since, _, err := r.Journal.Tags.Get(ctx) // without one, all is compared
	if err != nil {
		return mail.Revision{}, err
	}
	now, tagged, whole, err := r.Index.Changes(ctx, since.Revision, r.Root)
	if err != nil {
		return mail.Revision{}, err
	}
	folders, looked := byFolder(all, tagged)
	for v, byKey := range folders {
		if err := r.addTags(ctx, v, byKey, whole, since.UUID != ""); err != nil {
			return mail.Revision{}, err
		}
	}
	if rules != since.Rules && !whole {
		// New rules are about all mail.
		if _, tagged, _, err = r.Index.Changes(ctx, mail.Revision{}, r.Root); err != nil {
			return mail.Revision{}, err
		}
	}
	ruled, err := r.applyRules(ctx, all, tagged, trash, whole && since.UUID != "")
	if err != nil || !looked || !ruled {
		return mail.Revision{}, err
	}
	return now, nil
}

// addTags adds to what Scan found in a folder what the tags of its messages, by the keys of
// their files, say beside what was agreed on. whole: the database is another one than before,
// if tags were looked at before.
func (r *Reader) addTags(ctx context.Context, v *View, byKey map[string]mail.Tagged, whole, before bool) error {
	rows, err := r.Ledger.Rows(ctx, v.Name, v.Known.UIDValidity)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		have, ok := byKey[row.Key]
		if !ok {
			continue
		}
		d := r.Tags.DeltaAgain(r.Tags.TagDelta(row.Flags, have.Tags), r.Told[v.Name][row.UID], have.Tags)
		if whole {
			d = r.Tags.Unlost(d, before)
		}
		v.AddFlags(row.UID, d)
	}
	if whole {
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
	byDir := make(map[string]*View, len(views))
	for i := range views {
		byDir[string(views[i].Dir)] = &views[i]
	}
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

// Unfollowed gives the changes by which what is here becomes what its tags want, where
// notmuch could not see to it: files get the letters of tags that their owner changed when
// notmuch knew them by an older name, and a database that was made anew gets the tags of
// keywords, which no file has. since is up to where that was done, now up to where it will
// be. all is false if something of that is left, since notmuch lacks the mail yet or a folder
// cannot be read.
func (r *Reader) Unfollowed(ctx context.Context, views []View, since mail.Revision) (now mail.Revision, changes []mail.Change, all bool, err error) {
	if since.UUID == "" {
		now.UUID, now.N, err = r.Index.Revision(ctx)
		return now, nil, true, err
	}
	now, tagged, whole, err := r.Index.Changes(ctx, since, r.Root)
	switch {
	case err != nil:
	case whole:
		changes, all, err = r.keywordsAgain(ctx, views, tagged)
	default:
		changes, all, err = r.unwritten(ctx, views, tagged)
	}
	return now, changes, all, err
}

// unwritten gives the changes of names that tags want. all is false if a folder that
// may have such a file cannot be read.
func (r *Reader) unwritten(ctx context.Context, views []View, tagged []mail.Tagged) (changes []mail.Change, all bool, err error) {
	all = true
	for _, t := range tagged {
		if t.Set+t.Clear == "" {
			continue
		}
		rows, err := r.Ledger.ByMessageID(ctx, t.ID)
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

// keywordsAgain gives the changes that bring a new database the tags of the keywords
// that were agreed on. all is false if it lacks a message that has some.
func (r *Reader) keywordsAgain(ctx context.Context, views []View, tagged []mail.Tagged) (changes []mail.Change, all bool, err error) {
	all = true
	folders, _ := byFolder(views, tagged)
	for i := range views {
		b := &views[i]
		rows, err := r.Ledger.Rows(ctx, b.Name, b.Known.UIDValidity)
		if err != nil {
			return nil, false, err
		}
		var lacking []imap.UID
		for _, row := range rows {
			var tags []string
			for _, f := range row.Flags {
				if tag := plan.KeywordTag(f); tag != "" && !r.Tags.IsOrder(tag) {
					tags = append(tags, tag)
				}
			}
			if len(tags) == 0 || row.State != ledger.Present || row.Key == "" {
				continue
			}
			have, ok := folders[b][row.Key]
			if !ok {
				lacking = append(lacking, row.UID)
				continue
			}
			tags = slices.DeleteFunc(tags, func(t string) bool { return slices.Contains(have.Tags, t) })
			if len(tags) > 0 {
				changes = append(changes, mail.Change{Op: mail.OpFlag, Path: have.Paths[0], ID: have.ID, Add: tags})
			}
		}
		messages, err := r.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, lacking)
		if err != nil {
			return nil, false, err
		}
		for _, m := range messages {
			// What notmuch never took for a mail has no id, and what is gone is dealt with.
			if _, here, err := b.Dir.Locate(m.Key, m.Name); m.ID != "" && (here || err != nil) {
				all = false
			}
		}
	}
	return changes, all, nil
}

// Renewed has the marks that count in the database was count in the one that took its place,
// which has all that it had. That begins anew to count, so all tags are compared once more; and as
// it is no database that was lost, what a message lacks there was taken off.
func (r *Reader) Renewed(ctx context.Context, was string) error {
	now, _, err := r.Index.Revision(ctx)
	if err != nil {
		return err
	}
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

// MarkTags notes up to where the server was told of tags.
func (r *Reader) MarkTags(ctx context.Context, at mail.Revision) error {
	if at.UUID == "" || r.DryRun {
		return nil
	}
	r.marking.Lock()
	defer r.marking.Unlock()
	if at.UUID == r.renewed[0] {
		at = mail.Revision{UUID: r.renewed[1]}
	}
	now := journal.Revision{Revision: at, Rules: r.Tags.RulesFingerprint()}
	if last, _, err := r.Journal.Tags.Get(ctx); err != nil || last == now {
		return err
	}
	if err := r.Journal.Tags.Set(ctx, now); err != nil {
		return err
	}
	r.Report.Step("tags recorded")
	return nil
}
