package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// storeAtOnce bounds how many messages one command names.
const storeAtOnce = 500

// pushAll tells the server what the user changed here, mailbox by mailbox,
// before anything is fetched. That mail was moved or deleted is recorded with the
// server's answer. The look that follows finds what came
// into the others and pairs it with its files, whoever brought it there and whenever.
func (w *worker) pushAll(ctx context.Context, boxes []*box, plans map[string]*plan.Outgoing) error {
	byName := make(map[string]*box, len(boxes))
	for _, b := range slices.Concat(boxes, w.unselected) {
		byName[b.Name] = b
	}
	whole := true
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		b, o := byName[name], plans[name]
		if b == nil || slices.Contains(w.unselected, b) {
			continue // of no mailbox, or of none that is asked for
		}
		o.Without(w.finished[name])
		if o.Held > 0 && b.Status.Messages == 0 {
			o.Held = 0 // the server has none of them either
		}
		if err := w.postpone(ctx, b, o); err != nil {
			return err
		}
		b.only = len(plans) == 1
		b.next = b.only && !slices.ContainsFunc(boxes, func(o *box) bool { return o != b && o.need != plan.NeedNothing })
		if w.DryRun {
			if err := w.foresee(ctx, b, o); err != nil {
				if ctx.Err() != nil || report.ScopeOf(err, report.AtMailbox) > report.ScopeMailbox {
					return err
				}
				w.mailboxFault(b, err)
			}
		}
		if err := w.say(ctx, b, o); err != nil {
			return err
		}
		// Tags of a mail that is about to get another row are looked at again then,
		// and those by which something is still to be done.
		whole = whole && o.Nothing() && len(b.local.Tagged) == 0
		if w.DryRun || o.Nothing() && len(b.local.Flags) == 0 {
			continue
		}
		err := w.push(ctx, b, o, byName)
		// There is no session after a failed attempt at a fresh one.
		if err != nil && ctx.Err() == nil && w.conn.Lost() && report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox {
			// As in look. What was done already is seen, and not done again.
			err = w.push(ctx, b, o, byName)
		}
		switch {
		case err == nil:
			whole = whole && (w.Restore || len(b.local.Flags) == 0 && !b.contradicted) // else they wait for a mailbox that can be written
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		}
		switch _, said := errors.AsType[*leftHere](err); {
		case said:
			w.keepMarks(b)
			if err := w.standingFault(ctx, b, "push", err); err != nil {
				return err
			}
		case report.ScopeOf(err, report.AtMailbox) > report.ScopeMailbox:
			return err
		default:
			w.mailboxFault(b, err)
		}
		whole = false
	}
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		if err := w.findStrays(ctx, byName[name], plans[name], byName); err != nil {
			return err
		}
	}
	if !whole || len(w.Only) > 0 {
		return nil
	}
	return w.here.MarkTags(ctx, w.tags)
}

// leftHere says why something cannot go to the server.
type leftHere struct{ text string }

func (e *leftHere) Error() string { return e.text }

// refusal makes of a refused command something that waits for the next run: it is
// of what the command named, and costs nothing else. Any other error stays.
func (w *worker) refusal(err error, what string) error {
	if !w.isRefusal(err) {
		return err
	}
	return leftf("%s: %v; the next run tries again", what, err)
}

func leftf(format string, args ...any) error { return &leftHere{fmt.Sprintf(format, args...)} }

// say tells what the server will be told, or would be.
func (w *worker) say(ctx context.Context, b *box, o *plan.Outgoing) error {
	if o.Held+o.Doubted > 0 {
		w.keepMarks(b)
		w.tally(func(r *report.Report) {
			r.Held += o.Held
			r.HeldIn = append(r.HeldIn, report.Held{Mailbox: b.Name, Messages: o.Held + o.Doubted})
		})
	}
	if o.Held > 0 {
		gone := "gone from its folder"
		if len(b.local.Marked) > 0 {
			gone = "marked for deletion, or gone from its folder"
		}
		if err := w.standingFault(ctx, b, "held", fmt.Errorf("%s %s, and %s: not deleted or moved on the server, since that may be a mistake; "+
			"look at the folder, then run sync with --yes-delete=%s, or with --restore to have them back", mail.Number(o.Held, "message is", "messages are"), gone, o.Why, w.answerFor(b))); err != nil {
			return err
		}
	}
	if o.Doubted > 0 {
		if err := w.standingFault(ctx, b, "doubted", fmt.Errorf("%s: %s not sent to the server; look at the folder, then run sync with --yes-delete=%s if it is right, "+
			"or with --restore if the server is", o.Why, mail.Number(o.Doubted, "new message or flag that was taken off is", "new messages and flags that were taken off are"), w.answerFor(b))); err != nil {
			return err
		}
	}
	if !w.Restore {
		w.doing(b, len(b.local.Flags), "change the flags of %s on the server")
	}
	// What of this is not done after a look at the server is not said either.
	if w.DryRun && !w.Restore {
		for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
			w.doing(b, len(o.Moves[to]), movesTo, b.Name, to)
		}
		w.sayDeleted(b, len(o.Deleted))
		for _, to := range slices.Sorted(maps.Keys(o.Tagged)) {
			w.doing(b, len(o.Tagged[to]), verbTo(to)+" %s: %s -> %s", b.Name, to)
		}
		w.doing(b, len(o.Uploads), "upload %s")
	}
	w.doing(b, len(o.Restore), "bring %s back here")
	if w.Restore {
		w.doing(b, o.Moved(), "move the files of %s back here")
	}
	if w.DryRun {
		w.tally(func(r *report.Report) {
			if !w.Restore {
				r.Pushed += len(b.local.Flags)
				r.Moved += o.Moved()
			}
			r.Deleted += len(o.Deleted)
			r.Uploaded += len(o.Uploads)
		})
	}
	return nil
}

const movesTo = "move %s on the server: %s -> %s"

// doing says, in a line of its own, what is about to be done with so many messages, or
// would be.
func (w *worker) doing(b *box, n int, format string, args ...any) {
	if n == 0 {
		return
	}
	text := fmt.Sprintf(format, append([]any{mail.Number(n, "message", "messages")}, args...)...)
	if w.DryRun {
		text = "would: " + text
	}
	w.emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Text: text})
}

func (w *worker) sayDeleted(b *box, n int) {
	switch trash := w.trashFor(b); {
	case trash != nil:
		w.doing(b, n, "move %s to the Trash on the server: %s -> %s", b.Name, trash.Name)
	case w.Deletions != DeletionsTrash || w.trash != nil:
		w.doing(b, n, "delete %s on the server")
	}
}

// push tells the server of one mailbox.
func (w *worker) push(ctx context.Context, b *box, o *plan.Outgoing, boxes map[string]*box) error {
	if len(o.Renamed) > 0 {
		if err := w.Ledger.Save(ctx, o.Renamed...); err != nil {
			return err
		}
		w.step("new names recorded")
		// From here on they are known: no other message may get their files.
		for _, m := range o.Renamed {
			b.local.Missing = slices.DeleteFunc(b.local.Missing, func(l ledger.Message) bool { return l.UID == m.UID })
			b.local.Untracked = slices.DeleteFunc(b.local.Untracked, func(s plan.Untracked) bool { return s.Key == m.Key })
		}
	}
	if w.Restore {
		return w.restore(ctx, b, o, boxes)
	}
	if len(b.local.Flags)+o.Moved()+len(o.Deleted)+len(o.Uploads) == 0 {
		return nil
	}
	if err := w.prePush(ctx, b, o, boxes); err != nil {
		return err
	}
	if o.Moved()+len(o.Deleted)+len(o.Uploads)+len(b.local.Flags) == 0 {
		if b.settled(o) {
			return w.here.MarkScanned(ctx, b.Name, b.local.Scanned)
		}
		return nil
	}
	unvisited, err := w.unvisited(ctx, b, o)
	if err != nil {
		return err
	}
	var sel *mail.Selected
	if unvisited {
		err = w.conn.Connect(ctx)
	} else {
		sel, err = w.openFor(ctx, b)
	}
	if err != nil {
		return err
	}
	if sel != nil && sel.ReadOnly {
		w.staysReadOnly(b)
		return nil // the scan is not recorded: it may be so for today only
	}
	b.need = plan.NeedChanges
	// The push may be repeated.
	if m, ok, err := w.notes().Moving.Get(ctx, b.Name); err != nil {
		return err
	} else if ok {
		if err := w.finishMove(ctx, b, &m, boxes); err != nil {
			return err
		}
		o.Without(w.finished[b.Name])
		if sel, err = w.openFor(ctx, b); err != nil {
			return err
		}
	}
	if same, err := w.sameFlagged(ctx, b); err != nil || !same {
		return err
	}
	// What is refused of it keeps nothing else from being tried.
	unable := w.refusal(w.pushFlags(ctx, b, sel), "flags not changed")
	if _, ok := errors.AsType[*leftHere](unable); unable != nil && !ok {
		return unable
	}
	for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
		err := w.refusal(w.pushMoves(ctx, b, o.Moves[to], boxes[to]), "not moved to "+to)
		if _, ok := errors.AsType[*leftHere](err); err != nil && !ok {
			return err
		}
		unable = errors.Join(unable, err)
	}
	err = w.refusal(w.pushDeleted(ctx, b, o.Deleted), "not deleted")
	if _, ok := errors.AsType[*leftHere](err); err != nil && !ok {
		return err
	}
	unable = errors.Join(unable, err)
	err = w.pushTagged(ctx, b, o.Tagged, boxes)
	if _, ok := errors.AsType[*leftHere](err); err != nil && !ok {
		return err
	}
	unable = errors.Join(unable, err)
	if err := w.pushUploads(ctx, b, sel, o.Uploads); err != nil {
		return err
	}
	if unable == nil && b.settled(o) {
		return w.here.MarkScanned(ctx, b.Name, b.local.Scanned)
	}
	return unable
}

func (w *worker) staysReadOnly(b *box) {
	w.note(b, "the server opens this mailbox for reading only; what changed here stays here")
}

// settled tells whether nothing of what the scan saw waits for another mailbox's
// turn: a file that came from there is new here until it is adopted, and to a run
// that does not see it, it would look deleted there.
func (b *box) settled(o *plan.Outgoing) bool {
	return o.Nothing() && !slices.ContainsFunc(b.local.Untracked, plan.Untracked.New)
}

// openFor opens a mailbox for changes, on a fresh connection if the one before
// has died.
func (w *worker) openFor(ctx context.Context, b *box) (*mail.Selected, error) {
	if err := w.conn.Connect(ctx); err != nil {
		return nil, err
	}
	sel, err := w.conn.Select(ctx, b.Name)
	if err != nil {
		return nil, err
	}
	if sel.UIDValidity != b.known.UIDValidity {
		return nil, &mail.Fault{Kind: mail.KindMalformed, Op: "SELECT", Mailbox: b.Name, Text: "UIDVALIDITY changed during the run"}
	}
	return sel, nil
}

// pushFlags sets and clears flags where the user did. The look that comes after
// it finds them on the server, beside what others changed, and records both; it
// also tells notmuch, which may not have seen a file's new name yet. Messages of which
// the server refuses one are left out of that: the next run finds them again.
func (w *worker) pushFlags(ctx context.Context, b *box, sel *mail.Selected) error {
	flags := make(map[string]bool)
	for _, d := range b.local.Flags {
		for _, f := range slices.Concat(d.Add, d.Remove) {
			flags[f] = true
		}
	}
	if err := w.intendFlagsThere(ctx, b); err != nil {
		return err
	}
	var unable error
	left := make(map[imap.UID]plan.Delta)
	for _, f := range slices.Sorted(maps.Keys(flags)) {
		for _, sign := range []string{"+", "-"} {
			err := w.store(ctx, b, sel, f, sign)
			some, ok := errors.AsType[*someRefused](err)
			if !ok && err != nil {
				return err
			}
			if ok {
				unable = err
				for _, u := range some.uids {
					left[u] = b.local.Flags[u]
				}
			}
		}
	}
	maps.DeleteFunc(b.local.Flags, func(u imap.UID, _ plan.Delta) bool { _, is := left[u]; return is })
	maps.DeleteFunc(b.local.Flags, func(_ imap.UID, d plan.Delta) bool { return len(d.Add)+len(d.Remove) == 0 })
	n := len(b.local.Flags)
	w.tally(func(r *report.Report) { r.Pushed += n })
	if w.stored == nil {
		w.stored = make(map[string]map[imap.UID]plan.Delta)
	}
	// The push may be repeated: what was told stays told.
	if w.stored[b.Name] == nil {
		w.stored[b.Name] = make(map[imap.UID]plan.Delta)
	}
	maps.Copy(w.stored[b.Name], b.local.Flags)
	if b.local.Flags = nil; len(left) > 0 {
		b.local.Flags = left
	}
	var c journal.Change
	for u := range left { // the server does not have what it refused
		w.told.Forget(&c, ledger.Message{Mailbox: b.Name, UIDValidity: b.known.UIDValidity, UID: u})
	}
	if !c.Empty() {
		if err := w.commit(ctx, c, "refused flags noted"); err != nil {
			return err
		}
	}
	return unable
}

// store sets or clears one flag where the user did so.
func (w *worker) store(ctx context.Context, b *box, sel *mail.Selected, flag, sign string) error {
	var uids []imap.UID
	for u, d := range b.local.Flags {
		if sign == "+" && plan.HasFlag(d.Add, flag) || sign == "-" && plan.HasFlag(d.Remove, flag) {
			uids = append(uids, u)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	if p := sel.PermanentFlags; len(p) > 0 && !plan.HasFlag(p, flag) && (flag[0] == '\\' || !slices.Contains(p, `\*`)) {
		return w.staysHere(ctx, b, flag, len(uids))
	}
	return w.storeFlag(ctx, b, uids, sign, flag)
}

func (w *worker) storeFlag(ctx context.Context, b *box, uids []imap.UID, sign, flag string) error {
	slices.Sort(uids)
	return inParts(w, uids, func(u imap.UID) imap.UID { return u }, func(part []imap.UID) error {
		return probe.Store(ctx, w.conn.Session(), part, sign == "+", flag, w.step)
	})
}

// staysHere leaves a flag that the server does not keep to the files. That is
// said once.
func (w *worker) staysHere(ctx context.Context, b *box, flag string, n int) error {
	for u, d := range b.local.Flags {
		other := func(f string) bool { return strings.EqualFold(f, flag) }
		b.local.Flags[u] = plan.Delta{Add: slices.DeleteFunc(d.Add, other), Remove: slices.DeleteFunc(d.Remove, other)}
	}
	return w.noteOnce(ctx, b, w.notes().StaysSaid, journal.AboutWord(flag, b.Name), "the server keeps no flag %s in this mailbox; that of %d messages stays here", flag, n)
}

// pushMoves moves messages on the server as their files were moved here.
func (w *worker) pushMoves(ctx context.Context, b *box, moves []plan.Move, to *box) error {
	rows := make([]ledger.Message, len(moves))
	keys := make(map[imap.UID]string, len(moves))
	for i, m := range moves {
		rows[i], keys[m.Row.UID] = m.Row, m.Key
	}
	rows, err := w.sameMessages(ctx, b, rows)
	if err != nil || len(rows) == 0 {
		return err
	}
	w.doing(b, len(rows), movesTo, b.Name, to.Name)
	pairs, err := w.transfer(ctx, b, rows, to, keys)
	for from, uid := range pairs {
		to.expect(uid, keys[from])
	}
	w.tally(func(r *report.Report) { r.Moved += done(err, len(rows)) })
	return err
}

// took remembers messages that we took out of the mailbox on the server: the guard
// against a server that loses mail does not count them.
func (b *box) took(uids []imap.UID) {
	if b.ours == nil {
		b.ours = make(map[imap.UID]bool)
	}
	for _, u := range uids {
		b.ours[u] = true
	}
}

// expect remembers which file a new message is.
func (b *box) expect(uid imap.UID, key string) {
	if b.expected == nil {
		b.expected = make(map[imap.UID]string)
	}
	b.expected[uid] = key
}

// trashFor gives the mailbox that deleted messages of b go to; nil if they are
// expunged, or if there is none.
func (r *run) trashFor(b *box) *box {
	if r.Deletions != DeletionsTrash || r.trash == nil || r.trash.Name == b.Name {
		return nil
	}
	return r.trash
}

// pushDeleted deletes messages on the server whose files were deleted here.
func (w *worker) pushDeleted(ctx context.Context, b *box, rows []ledger.Message) error {
	rows, err := w.stillWanted(ctx, b, rows)
	if err != nil || len(rows) == 0 {
		return err
	}
	w.sayDeleted(b, len(rows))
	switch trash := w.trashFor(b); {
	case trash != nil:
		_, err = w.transfer(ctx, b, rows, trash, nil)
	case w.Deletions == DeletionsTrash && w.trash == nil:
		return leftf("%s deleted here, and the account has no Trash to move them to: name it in the configuration (trash = \"...\"), "+
			"or say there deletions = \"expunge\" or \"keep\"; nothing was deleted on the server", mail.Number(len(rows), "message was", "messages were"))
	default:
		err = inParts(w, rows, uidOf, func(part []ledger.Message) error {
			expunged, err := w.expunge(ctx, b, ledger.UIDs(part))
			if expunged {
				err = w.goneThere(ctx, b, part)
			}
			return err
		})
	}
	w.tally(func(r *report.Report) { r.Deleted += done(err, len(rows)) })
	return err
}

// incomplete lets the look compare the mailbox as a whole, and these messages come
// again: at once, since of what is not here the look would take the changes that
// kept it for agreed.
func (w *worker) incomplete(ctx context.Context, b *box, again ...imap.UID) error {
	b.need, b.known.Complete, b.now.UIDValidity = plan.NeedChanges, false, b.known.UIDValidity
	b.local.Missing = slices.DeleteFunc(b.local.Missing, func(m ledger.Message) bool { return slices.Contains(again, m.UID) })
	return w.saveMailbox(ctx, b, false, again...)
}

// fetchAgain lets messages come again that are not here any more. One that is
// here, marked with T or by its tag, loses the mark.
func (w *worker) fetchAgain(ctx context.Context, b *box, rows []ledger.Message) error {
	if err := w.untag(ctx, b, rows); err != nil {
		return err
	}
	var gone []imap.UID
	var c journal.Change // the files that notmuch knows of them are gone
	for _, m := range rows {
		name, ok, err := b.find(m.Key, "")
		if err != nil {
			return err
		}
		if !ok {
			gone = append(gone, m.UID)
			w.line.Forget(&c, b.line, m)
			continue
		}
		if err := b.dir.Rename(name, maildir.WithFlags(name, "", "T")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		b.local.Marked = slices.DeleteFunc(b.local.Marked, func(l ledger.Message) bool { return l.UID == m.UID })
		w.step("mark taken off")
	}
	if len(gone) == 0 {
		return nil
	}
	if err := w.commit(ctx, c, "forgotten files noted"); err != nil {
		return err
	}
	return w.incomplete(ctx, b, gone...)
}
