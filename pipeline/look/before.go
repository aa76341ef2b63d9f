package look

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// left gives what is left for the server of messages that are paired with files: flags that the
// files alone have, what is deleted here, and, if that is asked for, files that are nobody's.
func (l *Looker) left(ctx context.Context, b *Mailbox, there []mail.Message, rows []ledger.Row, here []plan.Untracked, pairs map[imap.UID]plan.Untracked, files *maildir.Listing) (plan.Local, error) {
	out := plan.Local{Flags: make(map[imap.UID]plan.Delta)}
	if files == nil {
		return out, nil
	}
	if l.UploadHere {
		out.Untracked = unpaired(here, pairs)
	}
	tags, err := l.tagsOf(ctx, b)
	if err != nil {
		return out, err
	}
	keys := make(map[imap.UID]string)
	for _, r := range rows {
		if r.State == ledger.Present {
			keys[r.UID] = r.Key
		}
	}
	for uid, s := range pairs {
		keys[uid] = s.Key
	}
	for _, m := range there {
		name, found := files.Find(keys[m.UID])
		if !found || keys[m.UID] == "" || m.Flags == nil {
			continue
		}
		out.Have++
		_, letters := maildir.ParseName(name)
		flags := plan.FlagsOf(letters)
		deleted := strings.Contains(letters, "T") && !plan.HasFlag(m.Flags, `\Deleted`)
		if t, known := tags[keys[m.UID]]; known {
			flags = l.Tags.TagDelta(flags, t.Tags).Merged(flags)
			deleted = deleted || l.Here.DeletedByTag(b.Name, l.Trash, t) && !plan.HasFlag(m.Flags, `\Deleted`)
		}
		if add := slices.DeleteFunc(flags, func(f string) bool { return plan.HasFlag(m.Flags, f) }); len(add) > 0 {
			out.Flags[m.UID] = plan.Delta{Add: add}
		}
		if deleted {
			out.Marked = append(out.Marked, ledger.Message{
				Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: m.UID, State: ledger.Present, Key: keys[m.UID], Name: name, ID: m.MessageID,
				Size: m.Size, Date: m.InternalDate.UTC().Truncate(time.Second), Flags: plan.StoredFlags(m.Flags),
			})
		}
	}
	return out, nil
}

// tagsOf gives what notmuch has of the files of a mailbox's folder, by their keys.
func (l *Looker) tagsOf(ctx context.Context, b *Mailbox) (map[string]mail.Tagged, error) {
	tagged, err := l.Tagged(ctx, string(b.Dir))
	tags := make(map[string]mail.Tagged)
	for _, t := range tagged {
		for _, p := range t.Paths {
			key, _ := maildir.ParseName(p)
			tags[key] = t
		}
	}
	return tags, err
}

// changing is of how many files that are about to be the mailbox's mail the letters change, or the
// tags, since the server has flags or keywords that they have not.
//
// deleted are those that are marked as deleted here, by a letter or by a tag, and not there.
func (l *Looker) changing(ctx context.Context, b *Mailbox, listed []mail.Message, pairs map[imap.UID]plan.Untracked) (n, deleted int, err error) {
	if len(pairs) == 0 {
		return 0, 0, nil
	}
	tags, err := l.tagsOf(ctx, b)
	for _, m := range listed {
		s, ok := pairs[m.UID]
		if !ok {
			continue
		}
		here, off, clear := l.flagsAdopted(b, m, s)
		to := maildir.WithFlags(s.Name, plan.Letters(here), clear)
		_, are := maildir.ParseName(s.Name)
		_, will := maildir.ParseName(to)
		t := tags[s.Key]
		d := deliver.TagsOfFlags(l.Tags, l.Tags.AsNamed(plan.StoredFlags(here), to), off)
		own := func(tag string) bool { // it says something else than the name does, and is left alone
			return !l.Tags.TagFlags && plan.HasInfo(s.Name) && slices.ContainsFunc(plan.FlagRows(), func(r plan.FlagRow) bool {
				return r.Tag == tag && slices.Contains(t.Tags, tag) != (strings.Contains(are, r.Letter) != r.Absent)
			})
		}
		has := func(tag string) bool { return slices.Contains(t.Tags, tag) && !own(tag) }
		lacks := func(tag string) bool { return !slices.Contains(t.Tags, tag) && !own(tag) }
		if are != will || t.ID != "" && (slices.ContainsFunc(d.Add, lacks) || slices.ContainsFunc(d.Remove, has)) {
			n++
		}
		marked := l.Deletions != plan.DeletionsKeep && strings.Contains(are, "T") || t.ID != "" && l.Here.DeletedByTag(b.Name, l.Trash, t)
		if marked && !plan.HasFlag(m.Flags, `\Deleted`) && !l.ReadOnly {
			deleted++
		}
	}
	return n, deleted, err
}

// unpaired gives the files that are nobody's. One more copy of a mail that is paired is a twin.
func unpaired(here []plan.Untracked, pairs map[imap.UID]plan.Untracked) (out []plan.Untracked) {
	paired, have := make(map[string]bool), make(map[mail.Digest]bool)
	for _, s := range pairs {
		paired[s.Key], have[s.Digest] = true, true
	}
	for _, s := range here {
		if paired[s.Key] {
			continue
		}
		s.Twin = s.Twin || !s.Own && have[s.Digest]
		out = append(out, s)
	}
	return out
}

// wantsText tells whether only the text says that a message is a file that was here before.
// What another program put in place of a large mail, and each draft of a mail, has its
// Message-ID, too; without one, mails of a machine may have one size and time. A file that we
// wrote has the server's size and time; Exchange's sizes are not exact.
func (l *Looker) wantsText(m mail.Message, s plan.Untracked) bool {
	size := plan.Weigh(plan.Told(m), s.Traits()).Size
	doubtful := size != plan.Equal && !l.Exchange || m.MessageID == "" || plan.RealID(s.ID) == ""
	return size < plan.Near || doubtful && !maildir.Ours(s.Key)
}

// keepHere says of a folder with mail of which the ledger knows nothing what was found
// on the other side. What is here alone stays so until its owner says otherwise, if it was
// here before the first sync.
func (l *Looker) keepHere(ctx context.Context, b *Mailbox, listed []mail.Message, here []plan.Untracked, pairs map[imap.UID]plan.Untracked) error {
	before, err := l.Here.WasHere(ctx, b.Known.Folder)
	if err != nil {
		return err
	}
	if b.TakenOver = before; !before {
		b.TakenOver, err = l.stands(ctx, b.Name)
		return err
	}
	paired := make(map[string]bool, len(pairs))
	for _, s := range pairs {
		paired[s.Key] = true
	}
	alone := slices.DeleteFunc(slices.Clone(here), func(s plan.Untracked) bool { return paired[s.Key] })
	moved, err := l.Here.MovedHere(ctx, b.Name, alone)
	if err != nil {
		return err
	}
	var c journal.Change
	for _, s := range alone {
		l.Journal.Stood.Put(&c, s.Key, journal.Text(b.Name))
	}
	alone = slices.DeleteFunc(alone, func(s plan.Untracked) bool { return moved[s.Key] })
	rest := slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { _, ok := pairs[m.UID]; return ok })
	unsure := len(plan.Unsure(rest, alone))
	there := len(rest) - unsure
	stay, err := l.staying(ctx, b, here, paired)
	if err != nil {
		return err
	}
	changing, deleted, err := l.changing(ctx, b, listed, pairs)
	if err != nil {
		return err
	}
	if len(here) > 0 && (!l.uploads() || len(pairs) > 0 || stay > 0) {
		text := l.foundHere(b.Name, len(pairs), len(moved), len(alone)-unsure, there, unsure)
		if changing > 0 {
			text += "; " + mail.Number(changing, "of the paired changes here: the server alone has some of its flags", "of the paired change here: the server alone has some of their flags")
		}
		if deleted > 0 && (l.Deletions != plan.DeletionsTrash || l.Trash != "") {
			text += "; " + plan.DeletingText(deleted)
		}
		if stay > 0 {
			text += "; " + plan.StayingText(stay, l.Account)
		}
		l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(pairs), Text: text})
	}
	if l.DryRun {
		return nil
	}
	for _, s := range alone { // also in an upload, which judges each when all is looked into
		l.Journal.HereBefore.Put(&c, s.Key, journal.Text(b.Name))
	}
	l.Journal.Before.Forget(&c, b.Known.Folder)
	return l.commit(ctx, c, "mail here noted")
}

// stands tells whether a file of the mailbox was there before a first sync that was stopped.
func (l *Looker) stands(ctx context.Context, mailbox string) (bool, error) {
	notes, err := l.Journal.Stood.All(ctx)
	for _, in := range notes {
		if string(in) == mailbox {
			return true, err
		}
	}
	return false, err
}

// staying is how many of the files that are about to be the mailbox's mail have tags by which a
// rule would move it: these were there before, and order nothing.
func (l *Looker) staying(ctx context.Context, b *Mailbox, here []plan.Untracked, paired map[string]bool) (n int, err error) {
	if len(l.Tags.Moves) == 0 || l.ReadOnly || len(here) == 0 {
		return 0, nil
	}
	comes := make(map[string]bool)
	for _, s := range here {
		comes[s.Key] = paired[s.Key] || l.uploads() && s.New()
	}
	tagged, err := l.Tagged(ctx, string(b.Dir))
	for _, t := range tagged {
		_, moves := l.Tags.MovedBy(b.Name, t.Tags, nil, func(plan.MoveRule) bool { return true })
		if moves && slices.ContainsFunc(t.Paths, func(p string) bool { key, _ := maildir.ParseName(p); return comes[key] }) {
			n++
		}
	}
	return n, err
}

// uploads tells whether this is an upload of what was here, or its first part.
func (l *Looker) uploads() bool { return l.UploadHere || l.UploadNext }

// foundHere says how the mail of a folder and that of its mailbox fit, and what to type.
func (l *Looker) foundHere(mailbox string, paired, moved, here, there, unsure int) string {
	parts := []string{mail.Number(paired, "message", "messages") + " paired"}
	if moved > 0 {
		parts = append(parts, mail.Number(moved, "was moved here: the next sync moves it there, too", "were moved here: the next sync moves them there, too"))
	}
	switch {
	case here == 0 || l.uploads(): // what of that is uploaded shows when all mailboxes are looked into
	case l.ReadOnly:
		parts = append(parts, mail.Number(here, "is only here, and stays here (read_only)", "are only here, and stay here (read_only)"))
	default:
		parts = append(parts, mail.Number(here, "is only here: it stays here", "are only here: they stay here")+"; `notmuch imap upload "+mail.Typed(l.Account+"/"+mailbox)+"` sends what the server has nowhere")
	}
	if there > 0 {
		parts = append(parts, mail.Number(there, "is only there: a sync fetches it", "are only there: a sync fetches them"))
	}
	if unsure > 0 {
		parts = append(parts, mail.Number(unsure, "is unsure: another text here has its Message-ID", "are unsure: other texts here have their Message-IDs")+"; a sync fetches that, too, and uploads none")
	}
	return strings.Join(parts, "; ")
}
