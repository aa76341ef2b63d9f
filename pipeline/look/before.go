package look

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// foreseeFlags says of how many messages the server would be told flags, after they are paired
// with files.
func (l *Looker) foreseeFlags(ctx context.Context, b *Mailbox, there []mail.Message, rows []ledger.Row, pairs map[imap.UID]plan.Untracked, files *maildir.Listing) error {
	if l.NothingSent || len(rows)+len(pairs) == 0 || files == nil {
		return nil
	}
	tagged, err := l.Tagged(ctx, string(b.Dir))
	if err != nil {
		return err
	}
	tags := make(map[string][]string)
	for _, t := range tagged {
		for _, p := range t.Paths {
			key, _ := maildir.ParseName(p)
			tags[key] = t.Tags
		}
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
	n, deleted := 0, 0
	for _, m := range there {
		name, here := files.Find(keys[m.UID])
		if !here || keys[m.UID] == "" || m.Flags == nil {
			continue
		}
		_, letters := maildir.ParseName(name)
		if strings.Contains(letters, "T") && !plan.HasFlag(m.Flags, `\Deleted`) {
			deleted++
		}
		flags := plan.FlagsOf(letters)
		if t, known := tags[keys[m.UID]]; known {
			flags = l.Tags.TagDelta(flags, t).Merged(flags)
		}
		if slices.ContainsFunc(flags, func(f string) bool { return !plan.HasFlag(m.Flags, f) }) {
			n++
		}
	}
	l.would(b, n, "change the flags of %s on the server")
	switch {
	case l.Deletions == plan.DeletionsTrash && l.Trash == "", l.Deletions == plan.DeletionsKeep:
		deleted = 0
	case l.Deletions == plan.DeletionsTrash && l.Trash != b.Name:
		l.would(b, deleted, "move %s to the Trash on the server: "+strings.ReplaceAll(b.Name+" -> "+l.Trash, "%", "%%"))
	default:
		l.would(b, deleted, "delete %s on the server")
	}
	l.Report.Tally(func(r *report.Report) { r.Pushed, r.Deleted = r.Pushed+n, r.Deleted+deleted })
	return nil
}

// foreseeUploads says how many files would be uploaded, but for a second copy of a mail that is
// paired.
func (l *Looker) foreseeUploads(b *Mailbox, here []plan.Untracked, pairs map[imap.UID]plan.Untracked) {
	have := make(map[string][]plan.Untracked)
	for _, s := range pairs {
		have[s.ID] = append(have[s.ID], s)
	}
	n := 0
	for _, s := range here {
		if slices.ContainsFunc(have[s.ID], func(o plan.Untracked) bool { return o.Key == s.Key || s.SameContent(&o.Message) }) {
			continue
		}
		have[s.ID] = append(have[s.ID], s)
		n++
	}
	l.would(b, n, "upload %s")
	l.Report.Tally(func(r *report.Report) { r.Uploaded += n })
}

// would says what a run would do with so many messages.
func (l *Looker) would(b *Mailbox, n int, format string) {
	if n > 0 {
		l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: n, Text: "would: " + fmt.Sprintf(format, mail.Number(n, "message", "messages"))})
	}
}

// wantsText tells whether only the text says that a message is a file that was here before.
// What another program put in place of a large mail, and each draft of a mail, has its
// Message-ID, too; without one, mails of a machine may have one size and time. A file that we
// wrote has the server's size and time; Exchange's sizes are not exact.
func (l *Looker) wantsText(m mail.Message, s plan.Untracked) bool {
	doubtful := !s.Sized(m) && !l.Exchange || m.MessageID == "" || plan.RealID(s.ID) == ""
	return !s.Near(m) || doubtful && !maildir.Ours(s.Key)
}

// keepHere says of a folder with mail of which the ledger knows nothing what was found
// on the other side. What is here alone stays so until its owner says otherwise, if it was
// here before the first sync.
func (l *Looker) keepHere(ctx context.Context, b *Mailbox, listed []mail.Message, here []plan.Untracked, pairs map[imap.UID]plan.Untracked) error {
	before, err := l.Here.WasHere(ctx, b.Known.Folder)
	if err != nil || !before {
		return err
	}
	paired := make(map[string]bool, len(pairs))
	for _, s := range pairs {
		paired[s.Key] = true
	}
	alone := slices.DeleteFunc(slices.Clone(here), func(s plan.Untracked) bool { return paired[s.Key] })
	rest := slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { _, ok := pairs[m.UID]; return ok })
	unsure := len(plan.Unsure(rest, alone))
	there := len(rest) - unsure
	if len(here) > 0 && (!l.UploadHere || len(pairs) > 0) {
		l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(pairs), Text: l.foundHere(b.Name, len(pairs), len(alone)-unsure, there, unsure)})
	}
	if l.DryRun || l.UploadHere {
		return nil
	}
	var c journal.Change
	for _, s := range alone {
		l.Journal.HereBefore.Put(&c, s.Key, journal.Text(b.Name))
	}
	l.Journal.Before.Forget(&c, b.Known.Folder)
	return l.commit(ctx, c, "mail here noted")
}

// foundHere says how the mail of a folder and that of its mailbox fit, and what to type.
func (l *Looker) foundHere(mailbox string, paired, here, there, unsure int) string {
	parts := []string{mail.Number(paired, "message", "messages") + " paired"}
	switch {
	case here == 0:
	case l.UploadHere:
		parts = append(parts, mail.Number(here, "is only here: it is uploaded", "are only here: they are uploaded"))
	default:
		parts = append(parts, mail.Number(here, "is only here: it stays here", "are only here: they stay here")+"; `notmuch imap upload "+l.Account+"/"+mailbox+"` sends what is only here")
	}
	if there > 0 {
		parts = append(parts, mail.Number(there, "is only there: a sync fetches it", "are only there: a sync fetches them"))
	}
	if unsure > 0 {
		what := "; a sync fetches that, too, and uploads none"
		if l.UploadHere {
			what = "; that is fetched, and the one here is uploaded"
		}
		parts = append(parts, mail.Number(unsure, "is unsure: another text here has its Message-ID", "are unsure: other texts here have their Message-IDs")+what)
	}
	return strings.Join(parts, "; ")
}
