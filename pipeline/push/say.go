package push

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Held is the kind of a standing fault: deletions here of which the server is not told.
const Held = "held"

// say tells what the server will be told, or would be.
func (p *Pusher) say(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	if o.Held+o.Doubted > 0 {
		b.KeepMarks()
		p.Report.Tally(func(r *report.Report) {
			r.Held += o.Held
			r.HeldIn = append(r.HeldIn, report.Held{Mailbox: b.Name, Messages: o.Held + o.Doubted})
		})
	}
	if o.Held > 0 {
		gone := "gone from its folder"
		if len(b.Local.Marked) > 0 {
			gone = "marked for deletion, or gone from its folder"
		}
		p.Standing(b.Name, Held, fmt.Errorf("%s %s, and %s: not deleted or moved on the server, since that may be a mistake; "+
			"look at the folder, then run sync with --yes-delete=%s, or with --restore to have them back", mail.Number(o.Held, "message is", "messages are"), gone, o.Why, report.AnswerFor(p.Account, b.Name)))
	}
	if o.Doubted > 0 {
		p.Standing(b.Name, "doubted", fmt.Errorf("%s: %s not sent to the server; look at the folder, then run sync with --yes-delete=%s if it is right, "+
			"or with --restore if the server is", o.Why, mail.Number(o.Doubted, "new message or flag that was taken off is", "new messages and flags that were taken off are"), report.AnswerFor(p.Account, b.Name)))
	}
	if p.Plan {
		if err := p.plan(ctx, b, o); err != nil {
			return err
		}
	}
	// What of this is not done after a look at the server is not said either.
	if p.DryRun && !p.Restore {
		p.doing(b, len(b.Local.Flags), changesFlags)
		for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
			p.doing(b, len(o.Moves[to]), movesTo, b.Name, to)
		}
		p.sayDeleted(b, len(o.Deleted))
		for _, to := range slices.Sorted(maps.Keys(o.Tagged)) {
			p.doing(b, len(o.Tagged[to]), verbTo(to)+" %s: %s -> %s", b.Name, to)
		}
		if err := p.sayUploads(ctx, b, o.Uploads); err != nil {
			return err
		}
	}
	p.doing(b, len(o.Restore), "bring %s back here")
	if p.Restore {
		p.doing(b, o.Moved(), "move the files of %s back here")
	}
	if p.DryRun {
		p.Report.Tally(func(r *report.Report) {
			if !p.Restore {
				r.Pushed += len(b.Local.Flags)
				r.Moved += o.Moved()
			}
			r.Deleted += len(o.Deleted)
			p.tallyArriving(r, p.trashFor(b), o.Deleted)
			for to, rows := range o.Tagged {
				p.tallyArriving(r, to, rows)
			}
			r.Uploaded += len(o.Uploads)
		})
	}
	return nil
}

// tallyArriving counts messages of a mailbox as arriving in the one that they would go to.
func (p *Pusher) tallyArriving(r *report.Report, to string, rows []ledger.Message) {
	if in := p.boxes[to]; in == nil || in.Aside {
		return
	}
	r.New += len(rows)
	r.Ours += len(rows)
}

const (
	changesFlags = "change the flags of %s on the server"
	movesTo      = "move %s on the server: %s -> %s"
)

// doing says, in a line of its own, what is about to be done with so many messages, or
// would be.
func (p *Pusher) doing(b *Mailbox, n int, format string, args ...any) {
	if n == 0 {
		return
	}
	text := fmt.Sprintf(format, append([]any{mail.Number(n, "message", "messages")}, args...)...)
	if p.DryRun {
		text = "would: " + text
	}
	p.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Text: text})
}

func (p *Pusher) sayDeleted(b *Mailbox, n int) {
	if trash := p.trashFor(b); trash != "" {
		p.doing(b, n, "move %s to the Trash on the server: %s -> %s", b.Name, trash)
	} else {
		p.doing(b, n, "delete %s on the server")
	}
}

// sayUploads says also what becomes of mail that is marked as deleted, by a letter or by a tag.
func (p *Pusher) sayUploads(ctx context.Context, b *Mailbox, files []plan.Untracked) error {
	var tagged map[string]mail.Tagged
	ids, paths := make([]string, len(files)), make([]string, len(files))
	for i, f := range files {
		ids[i], paths[i] = f.ID, b.Dir.Path(f.Name)
	}
	if p.Tags.DeletedTag != "" && len(files) > 0 {
		var err error
		if tagged, err = p.InNotmuch(ctx, mail.Asking(ids, paths)); err != nil {
			return err
		}
	}
	marked := 0
	for i, f := range files {
		t, known := mail.Answer(tagged, ids[i], paths[i])
		_, letters := maildir.ParseName(f.Name)
		if p.Deletions != plan.DeletionsKeep && strings.Contains(letters, "T") || known && p.Here.DeletedByTag(b.Name, p.trash, t) {
			marked++
		}
	}
	text := "upload %s"
	if marked > 0 {
		text += fmt.Sprintf("; of these %d, marked as deleted here, the next run deletes there", marked)
	}
	p.doing(b, len(files), text)
	return nil
}

// verbTo says what moving mail there is called.
func verbTo(mailbox string) string {
	if strings.Contains(strings.ToLower(mailbox), "archive") {
		return "archive"
	}
	return "move"
}
