package pipeline

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// scanTags finds the tags that the user changed and that the server is to have,
// beside what scan found in the names of files, and those by which a mail is to
// be moved or deleted.
func (r *run) scanTags(ctx context.Context, boxes []*box) error {
	if r.ReadOnly || len(r.Keywords) == 0 && !r.TagFlags && r.RulesFingerprint() == "" {
		return nil
	}
	since, _, err := r.notes().Tags.Get(ctx) // without one, all is compared
	if err != nil {
		return err
	}
	now, tagged, whole, err := r.Index.Changes(ctx, since.Revision, r.Root)
	if err != nil {
		return err
	}
	r.tags = now
	for b, byKey := range r.byBox(boxes, tagged) {
		rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
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
			d := r.DeltaAgain(r.TagDelta(row.Flags, have.Tags), r.toldBefore[b.Name][row.UID], have.Tags)
			if whole {
				// A database that was made anew lacks tags that nobody took off, also
				// those that stand for a flag's absence.
				d.Remove = nil
				d.Add = slices.DeleteFunc(d.Add, func(f string) bool {
					return slices.ContainsFunc(plan.FlagRows(), func(row plan.FlagRow) bool { return row.Absent && row.Flag == f })
				})
			}
			b.addLocal(row, d)
		}
	}
	if r.RulesFingerprint() != since.Rules && !whole {
		// New rules are about all mail.
		if _, tagged, _, err = r.Index.Changes(ctx, mail.Revision{}, r.Root); err != nil {
			return err
		}
	}
	return r.obey(ctx, boxes, tagged, whole && since.UUID != "")
}

// followTags does here what notmuch could not: it gives files the letters of tags that
// their owner changed when notmuch knew them by an older name, and a database that was
// made anew the tags of keywords, which no file has. all is false if something of that
// is left, since notmuch lacks the mail yet or a folder cannot be read.
func (r *run) followTags(ctx context.Context, boxes []*box) (all bool, err error) {
	if r.DryRun || len(r.Only) > 0 {
		return true, nil
	}
	last, _, err := r.notes().TagNames.Get(ctx)
	if err != nil {
		return false, err
	}
	since := last.Revision
	var now mail.Revision
	var changes []mail.Change
	if since.UUID == "" {
		all = true
		now.UUID, now.N, err = r.Index.Revision(ctx)
	} else {
		now, changes, all, err = r.toFollow(ctx, boxes, since)
	}
	if err != nil || now == since {
		return true, err
	}
	for part := range slices.Chunk(changes, deliver.BatchSize) {
		if err := r.tell(ctx, part); err != nil {
			return false, err
		}
		r.step("tags followed")
	}
	if !all {
		return false, nil
	}
	return true, r.notes().TagNames.Set(ctx, journal.Revision{Revision: now})
}

func (r *run) toFollow(ctx context.Context, boxes []*box, since mail.Revision) (now mail.Revision, changes []mail.Change, all bool, err error) {
	now, tagged, whole, err := r.Index.Changes(ctx, since, r.Root)
	switch {
	case err != nil:
	case whole:
		changes, all, err = r.keywordsAgain(ctx, boxes, tagged)
	default:
		changes, all, err = r.unwritten(ctx, boxes, tagged)
	}
	return now, changes, all, err
}

// unwritten gives the changes of names that tags want. all is false if a folder that
// may have such a file cannot be read.
func (r *run) unwritten(ctx context.Context, boxes []*box, tagged []mail.Tagged) (changes []mail.Change, all bool, err error) {
	all = true
	for _, t := range tagged {
		if t.Set+t.Clear == "" {
			continue
		}
		rows, err := r.Ledger.ByMessageID(ctx, t.ID)
		if err != nil {
			return nil, false, err
		}
		for _, b := range boxes {
			here := slices.DeleteFunc(slices.Clone(rows), func(m ledger.Message) bool { return m.Mailbox != b.Name || m.State != ledger.Present })
			for _, s := range b.local.Untracked {
				if s.ID == t.ID {
					here = append(here, s.Message)
				}
			}
			for _, m := range here {
				name, ok, err := b.find(m.Key, m.Name)
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
func (r *run) keywordsAgain(ctx context.Context, boxes []*box, tagged []mail.Tagged) (changes []mail.Change, all bool, err error) {
	all = true
	byBox := r.byBox(boxes, tagged)
	for _, b := range boxes {
		rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
		if err != nil {
			return nil, false, err
		}
		var lacking []imap.UID
		for _, row := range rows {
			var tags []string
			for _, f := range row.Flags {
				if tag := plan.KeywordTag(f); tag != "" && !r.IsOrder(tag) {
					tags = append(tags, tag)
				}
			}
			if len(tags) == 0 || row.State != ledger.Present || row.Key == "" {
				continue
			}
			have, ok := byBox[b][row.Key]
			if !ok {
				lacking = append(lacking, row.UID)
				continue
			}
			tags = slices.DeleteFunc(tags, func(t string) bool { return slices.Contains(have.Tags, t) })
			if len(tags) > 0 {
				changes = append(changes, mail.Change{Op: mail.OpFlag, Path: have.Paths[0], ID: have.ID, Add: tags})
			}
		}
		messages, err := r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, lacking)
		if err != nil {
			return nil, false, err
		}
		for _, m := range messages {
			// What notmuch never took for a mail has no id, and what is gone is dealt with.
			if _, here, err := b.find(m.Key, m.Name); m.ID != "" && (here || err != nil) {
				all = false
			}
		}
	}
	return changes, all, nil
}

// byBox sorts what notmuch has of messages by mailbox, and there by the key of
// the file. Of a mailbox that is not in step the tags are looked at again later.
func (r *run) byBox(boxes []*box, tagged []mail.Tagged) map[*box]map[string]mail.Tagged {
	byDir := make(map[string]*box, len(boxes))
	for _, b := range boxes {
		byDir[string(b.dir)] = b
	}
	out := make(map[*box]map[string]mail.Tagged)
	for _, t := range tagged {
		for _, p := range t.Paths {
			b := byDir[filepath.Dir(filepath.Dir(p))]
			if b == nil {
				continue
			}
			if at := b.place(); !at.Agreed() || b.local.Unread {
				r.tags = mail.Revision{}
				continue
			}
			if out[b] == nil {
				out[b] = make(map[string]mail.Tagged)
			}
			key, _ := maildir.ParseName(p)
			out[b][key] = t
		}
	}
	return out
}

// addLocal adds a delta to what scan found of the message.
func (b *box) addLocal(row ledger.Row, d plan.Delta) {
	if len(d.Add)+len(d.Remove) == 0 {
		return
	}
	if b.local.Flags == nil {
		b.local.Flags = make(map[imap.UID]plan.Delta)
	}
	have := b.local.Flags[row.UID]
	for _, f := range d.Add {
		if !plan.HasFlag(have.Add, f) && !plan.HasFlag(have.Remove, f) {
			have.Add = append(have.Add, f)
		}
	}
	for _, f := range d.Remove {
		if !plan.HasFlag(have.Add, f) && !plan.HasFlag(have.Remove, f) {
			have.Remove = append(have.Remove, f)
		}
	}
	b.local.Flags[row.UID] = have
}

// markTags records up to where the server was told of tags.
func (r *run) markTags(ctx context.Context) error {
	if r.tags.UUID == "" || r.DryRun || len(r.Only) > 0 {
		return nil
	}
	now := journal.Revision{Revision: r.tags, Rules: r.RulesFingerprint()}
	if last, _, err := r.notes().Tags.Get(ctx); err != nil || last == now {
		return err
	}
	if err := r.notes().Tags.Set(ctx, now); err != nil {
		return err
	}
	r.step("tags recorded")
	return nil
}
