package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/look"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
	"github.com/notmuch-imap/notmuch-imap/pipeline/verify"
)

// Remembered is what a verification is to know of what runs of an account remember. root is the path of
// its folder.
func Remembered(ctx context.Context, account, root string, l *ledger.Ledger, index local.Index) (m verify.Memory, err error) {
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
	m.HereBefore, m.NeverUpload = all(j.HereBefore), all(j.NeverUpload)
	kept, e5 := l.InState(ctx, ledger.Kept)
	m.Kept = make(map[string]string, len(kept))
	for _, row := range kept {
		m.Kept[row.Key] = row.Mailbox
	}
	renumbered, e6 := l.Renumbered(ctx)
	for _, rows := range renumbered {
		for _, row := range rows { // unless the next sync finds it elsewhere
			m.Kept[row.Key] = row.Mailbox
		}
	}
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
	scanned, e7 := j.Scanned.All(ctx)
	m.Doubt = func(mailbox string, dir maildir.Dir) string {
		return local.DoubtBefore(scanned[mailbox], dir.Identity())
	}
	twins, e := Twins(ctx, l)
	here := &local.Reader{Account: account, Root: root, Ledger: l, Index: index, Journal: j, DryRun: true}
	at, unseen, e2 := here.TagsTold(ctx)
	old, e3 := j.Old.All(ctx)
	m.Twins, m.TagsAt, m.Rules, m.Unseen = twins, at.Revision, at.Rules, unseen
	m.OldTags = func(mailbox, key string) plan.OldTags { return old[journal.AboutFile(mailbox, key)] }
	m.HeldBack = func(ctx context.Context, mailbox string, dir maildir.Dir, f *plan.Untracked) (plan.Held, ledger.Message, error) {
		return here.HeldBack(ctx, mailbox, dir, f, nil)
	}
	m.Note, m.NoteFields = isNote, stub.ClaimFields()
	return m, errors.Join(err, e, e2, e3, e4, e5, e6, e7)
}

// Strays gives what says of an account's folders that are of no mailbox of a list, as s gives it,
// what becomes of one, as runs judge it; "" if it takes no part.
func Strays(o Options, s Lister) verify.Strays {
	o.DryRun = true
	r := newRun(o)
	return func(list []mail.Mailbox) func(ctx context.Context, folder string) (string, error) {
		fates := r.here.Strays(local.Listed{Mailboxes: list, Personal: func(ctx context.Context) (string, error) { return personal(ctx, s, list) }})
		return func(ctx context.Context, folder string) (string, error) {
			sync, upload, err := fates(ctx, folder)
			if err != nil {
				return "", err
			}
			return r.strayText(ctx, sync, upload)
		}
	}
}

// strayText says what becomes of a folder that is of no mailbox.
func (r *run) strayText(ctx context.Context, sync, upload local.Fate) (string, error) {
	name := upload.Mailbox
	if sync.Made {
		name = sync.Mailbox
	}
	if sync.Made || upload.Made {
		tries, refused, err := r.notes().Unavailable.Get(ctx, journal.AboutWord("CREATE", name))
		switch {
		case err != nil:
			return "", err
		case refused && tries.GivenUp:
			return fmt.Sprintf("%s; `notmuch imap retry %s` asks again", tries.Reason, mail.Typed(r.Name+"/"+name)), nil
		case refused:
			return (&leftOut{"CREATE", tries.Reason}).Error(), nil
		}
	}
	switch {
	case sync.Made:
		return "a sync makes it one", nil
	case upload.Made:
		return fmt.Sprintf("`notmuch imap upload %s` makes it one, and sends all that was here before the first sync", mail.Typed(r.Name)), nil
	}
	return sync.Why, nil
}

// isNote tells whether a file says by all that a stub has that it is one: no sync sends it, whoever
// wrote it.
func isNote(h mail.Header) bool {
	c, err := stub.ClaimOf(h)
	return err == nil && c.Whole()
}
