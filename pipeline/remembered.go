package pipeline

import (
	"context"
	"errors"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/look"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
	"github.com/notmuch-imap/notmuch-imap/pipeline/verify"
)

// Remembered is what a verification is to know of what runs of an account remember.
func Remembered(ctx context.Context, account string, l *ledger.Ledger, index local.Index) (m verify.Memory, err error) {
	j := journal.Of(l)
	all := func(of journal.Notes[journal.Text]) map[string]string {
		notes, e := of.All(ctx)
		err = errors.Join(err, e)
		out := make(map[string]string, len(notes))
		for about, text := range notes {
			if what, _ := text.Said(); what != journal.SaidOnce {
				out[about] = string(what)
			} else {
				out[about] = ""
			}
		}
		return out
	}
	m.HereBefore, m.NeverUpload, m.FoldersBefore, m.FoldersSaid = all(j.HereBefore), all(j.NeverUpload), all(j.Before), all(j.FolderSaid)
	m.HeldHere, m.HeldThere = make(map[string]bool), make(map[string]bool)
	standing, e4 := j.Standing.All(ctx)
	for about := range standing {
		switch kind, mailbox, _ := strings.Cut(about, "/"); kind {
		case push.Held:
			m.HeldHere[mailbox] = true
		case look.Held:
			m.HeldThere[mailbox] = true
		}
	}
	twins, e := Twins(ctx, l)
	at, unseen, e2 := (&local.Reader{Account: account, Ledger: l, Index: index, Journal: j, DryRun: true}).TagsTold(ctx)
	old, e3 := j.Old.All(ctx)
	m.Twins, m.TagsAt, m.Rules, m.Unseen = twins, at.Revision, at.Rules, unseen
	m.OldTags = func(mailbox, key string) plan.OldTags { return old[journal.AboutFile(mailbox, key)] }
	m.Note, m.NoteFields = isNote, stub.ClaimFields()
	return m, errors.Join(err, e, e2, e3, e4)
}

// isNote tells whether a file says by all that a stub has that it is one: no sync sends it, whoever
// wrote it.
func isNote(h mail.Header) bool {
	c, err := stub.ClaimOf(h)
	return err == nil && c.Whole()
}
