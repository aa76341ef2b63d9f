package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Deleter is a connection over which one message is deleted, in parts by what is done over it.
type Deleter struct {
	Opener
	Searcher
	Lister
	Transferrer
	Marker
	Expunger
}

// Notes keeps a note of what is about to be done until it is done: a later run puts
// right what an interrupted one left.
type Notes interface {
	Get(ctx context.Context) (m Marks, ok bool, err error)
	Set(ctx context.Context, m Marks) error
	Drop(ctx context.Context) error
}

// ExpungeOptions is the deletion of one message on the server.
type ExpungeOptions struct {
	mail.Target
	Dial  func(context.Context) (Deleter, error)
	Notes Notes
	// Protect allows to take \Deleted off other messages while this one is
	// expunged, where the server has no UIDPLUS.
	Protect bool
	// To is the mailbox that the message is moved to; "" deletes it.
	To string
	// Confirm is asked before anything is done. Nothing happens unless it says
	// yes.
	Confirm func(ExpungePlan) (bool, error)
	// Keep is called after that and before the server is told anything: what is
	// known of the message is to be kept.
	Keep func() error
	Step func(effect string) // as in Options
}

// ExpungePlan is what is about to happen.
type ExpungePlan struct {
	mail.Target
	Messages uint32     // in the mailbox
	UIDPlus  bool       // the server can expunge this message alone
	Move     bool       // the server can move
	Others   []imap.UID // marked \Deleted by somebody else, and in danger without UIDPLUS
	To       string
}

// Expunged is what happened.
type Expunged struct {
	Listed   bool       // false: the server had it no more, nothing was done
	Done     bool       // false: it was not confirmed
	Left     int        // other messages of the mailbox, all of them still there
	Missing  []imap.UID // others that went meanwhile, which nobody here asked for
	Restored int        // others whose \Deleted was taken off and put back
	Moved    imap.UID   // its UID in the mailbox it was moved to; 0 if that was not told
	MovedTo  uint64     // UIDVALIDITY of that mailbox
}

// Marks is a deletion that is under way: which messages lost or got \Deleted for it.
type Marks struct {
	Mailbox     string     `json:"mailbox"`
	UIDValidity uint64     `json:"uidvalidity"`
	UID         imap.UID   `json:"uid"`
	Had         bool       `json:"had"`    // the message was marked before
	Others      []imap.UID `json:"others"` // lost their mark
}

// Expunge deletes exactly one message on the server, and looks that it is gone
// and that all others are still there. The error says what kept it from that;
// a message that was marked for it is then unmarked, at once or by the next run.
func Expunge(ctx context.Context, o ExpungeOptions) (*Expunged, error) {
	m := &manual[Deleter]{Target: o.Target, dial: o.Dial, writing: true}
	defer m.close()
	s, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	o.UIDValidity = m.UIDValidity // as it is now, if that was not said
	x := &expunge{ExpungeOptions: o, s: s}
	if err := x.restore(ctx); err != nil {
		return nil, err
	}
	// The mailbox may have been left for that.
	if x.s, err = m.enter(ctx); err != nil {
		return nil, err
	}
	out := &Expunged{}
	if out.Listed, err = listed(ctx, x.s, o.UID); err != nil || !out.Listed {
		return out, err
	}
	if m.selected.ReadOnly {
		return nil, fmt.Errorf("the server opens %s for reading only: nothing can be deleted in it", o.Mailbox)
	}
	plan := ExpungePlan{Target: m.Target, Messages: m.selected.Messages, UIDPlus: x.s.Has("UIDPLUS"), Move: x.s.Has("MOVE"), To: o.To}
	deleted, err := marks(ctx, x.s, x.Mailbox)
	if err != nil {
		return nil, err
	}
	x.had = slices.Contains(deleted, o.UID)
	if !plan.UIDPlus && (o.To == "" || !plan.Move) {
		plan.Others = slices.DeleteFunc(deleted, func(u imap.UID) bool { return u == o.UID })
	}
	if len(plan.Others) > 0 && !o.Protect {
		return nil, fmt.Errorf("%w: the server can only expunge everything that is marked \\Deleted in %s, and so are %d other messages (UID %s). "+
			"Nothing was done. With --protect-others their marks are taken off meanwhile and put back", ErrOthersDeleted, o.Mailbox, len(plan.Others), some(plan.Others))
	}
	yes, err := o.Confirm(plan)
	if err != nil || !yes {
		return out, err
	}
	if err := o.Keep(); err != nil {
		return nil, fmt.Errorf("what is known of the message could not be kept, so it was not deleted: %w", err)
	}
	// The server may have grown tired of waiting for the answer, which shows
	// only when it is asked again.
	for range 2 {
		if x.s, err = m.enter(ctx); err != nil {
			return nil, err
		}
		if out.Listed, err = listed(ctx, x.s, o.UID); x.s.Alive() {
			break
		}
	}
	if err != nil || !out.Listed {
		return out, err
	}
	// Others may have been unmarked meanwhile: whoever did so wants to keep them.
	if deleted, err = marks(ctx, x.s, x.Mailbox); err != nil {
		return nil, err
	}
	x.had = slices.Contains(deleted, o.UID)
	plan.Others = slices.DeleteFunc(plan.Others, func(u imap.UID) bool {
		_, still := slices.BinarySearch(deleted, u)
		return !still
	})
	if err := x.do(ctx, plan, out); err != nil {
		return nil, err
	}
	out.Done = true
	return out, nil
}

// ErrOthersDeleted says that expunging one message would take others along.
var ErrOthersDeleted = errors.New("this would delete other messages, too")

// some names the first few UIDs.
func some(uids []imap.UID) string {
	var out []string
	for i, u := range uids {
		if i == 10 {
			out = append(out, "...")
			break
		}
		out = append(out, strconv.FormatUint(uint64(u), 10))
	}
	return strings.Join(out, ", ")
}

// expunge is a deletion while it goes on.
type expunge struct {
	ExpungeOptions
	s   Deleter
	had bool
}

func (x *expunge) step(effect string) {
	if x.Step != nil {
		x.Step(effect)
	}
}

// all gives every UID of the mailbox.
func (x *expunge) all(ctx context.Context) (imap.UIDSet, error) {
	return x.s.Search(ctx, mail.EveryUID())
}

// do deletes or moves the message.
func (x *expunge) do(ctx context.Context, plan ExpungePlan, out *Expunged) (err error) {
	before, err := x.all(ctx)
	if err != nil {
		return err
	}
	if plan.To != "" {
		if err := x.transfer(ctx, plan.Move, out); err != nil {
			return err
		}
		if plan.Move {
			return x.verify(ctx, before, nil, out)
		}
	}
	// Intent before effect: what is marked and unmarked now is put right by the
	// next run if this one does not come to its end.
	if err := x.Notes.Set(ctx, Marks{x.Mailbox, x.UIDValidity, x.UID, x.had, plan.Others}); err != nil {
		return err
	}
	x.step("marks recorded")
	if err := x.kill(ctx, plan); err != nil {
		if x.To != "" {
			err = fmt.Errorf("%w; a copy of it is in %s already", err, x.To)
		}
		if ctx.Err() != nil || !x.s.Alive() {
			return fmt.Errorf("%w; the marks are put right by the next sync", err)
		}
		return errors.Join(err, x.restore(ctx))
	}
	if err := x.mark(ctx, true, plan.Others); err != nil {
		return fmt.Errorf("UID %d is deleted, but the marks of others could not be put back: %w; the next sync does it", x.UID, err)
	}
	if err := x.verify(ctx, before, plan.Others, out); err != nil {
		return err
	}
	out.Restored = len(plan.Others)
	if err := x.Notes.Drop(ctx); err != nil {
		return err
	}
	x.step("marks forgotten")
	return nil
}

// transfer moves or copies the message.
func (x *expunge) transfer(ctx context.Context, move bool, out *Expunged) error {
	verb := "copy"
	if move {
		verb = "move"
	}
	there, err := Transfer(ctx, x.s, move, []imap.UID{x.UID}, x.To, x.step)
	if f, refused := mail.Refused(err); refused {
		return fmt.Errorf("the server does not %s UID %d to %s: %w; nothing was deleted", verb, x.UID, x.To, f)
	}
	if err != nil {
		return err
	}
	if to, ok := there.UIDs[x.UID]; ok {
		out.MovedTo, out.Moved = there.UIDValidity, to
	}
	x.step("message transferred")
	return nil
}

// kill marks the message and expunges it, and nothing else.
func (x *expunge) kill(ctx context.Context, plan ExpungePlan) error {
	if err := x.mark(ctx, false, plan.Others); err != nil {
		return err
	}
	if err := x.mark(ctx, true, []imap.UID{x.UID}); err != nil {
		return err
	}
	marked, done, err := ExpungeOnly(ctx, x.s, x.Mailbox, []imap.UID{x.UID}, x.step)
	if err == nil && !done {
		err = fmt.Errorf("%w: UID %s are marked \\Deleted where only UID %d should be; nothing was expunged", ErrOthersDeleted, some(marked), x.UID)
	}
	return err
}

// mark sets or clears \Deleted.
func (x *expunge) mark(ctx context.Context, set bool, uids []imap.UID) error {
	return Store(ctx, x.s, uids, set, `\Deleted`, x.step)
}

// verify looks that the message is gone, that the others are there, and that
// those that were marked are marked again.
func (x *expunge) verify(ctx context.Context, before imap.UIDSet, others []imap.UID, out *Expunged) error {
	after, err := x.all(ctx)
	if err != nil {
		return fmt.Errorf("whether UID %d is gone could not be seen: %w", x.UID, err)
	}
	if after.Contains(x.UID) {
		return fmt.Errorf("the server says OK, but still lists UID %d", x.UID)
	}
	uids, ok := mail.UIDList(before, mail.MaxUIDs)
	if !ok {
		return errors.New("the server's list of messages cannot be true")
	}
	for _, u := range uids {
		switch {
		case u == x.UID:
		case after.Contains(u):
			out.Left++
		default:
			out.Missing = append(out.Missing, u)
		}
	}
	if len(others) == 0 {
		return nil
	}
	deleted, err := marks(ctx, x.s, x.Mailbox)
	if err != nil {
		return err
	}
	for _, u := range others {
		if after.Contains(u) && !slices.Contains(deleted, u) {
			return fmt.Errorf("UID %d was marked \\Deleted before and is not any more", u)
		}
	}
	return nil
}

// restore puts the marks right that an interrupted deletion left.
func (x *expunge) restore(ctx context.Context) error {
	_, err := RestoreMarks(ctx, x.Notes, x.s, x.step)
	return err
}

// RestoreMarks does that for any run. What was marked by somebody else is
// marked again, and the message itself, if it is still there, is not.
func RestoreMarks(ctx context.Context, n Notes, s Deleter, step func(string)) (text string, err error) {
	m, ok, err := n.Get(ctx)
	if err != nil || !ok {
		return "", err
	}
	x := &expunge{ExpungeOptions: ExpungeOptions{Target: mail.Target{Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID}, Notes: n, Step: step}, s: s}
	text = fmt.Sprintf("the deletion of UID %d was interrupted; ", m.UID)
	sel, err := s.Select(ctx, m.Mailbox)
	gone := err != nil && s.Alive() && DeletedSince(ctx, s, m.Mailbox)
	if err != nil && !gone {
		return "", err
	}
	if gone {
		text += fmt.Sprintf("the server has the mailbox %s no more, so that nothing is left to put right", m.Mailbox)
	} else if sel.UIDValidity != m.UIDValidity {
		text += "the mailbox has a new UIDVALIDITY since, so that nothing can be put right"
	} else {
		after, err := x.all(ctx)
		if err != nil {
			return "", err
		}
		there := slices.DeleteFunc(slices.Clone(m.Others), func(u imap.UID) bool { return !after.Contains(u) })
		if err := x.mark(ctx, true, there); err != nil {
			return "", err
		}
		if len(there) > 0 {
			text += fmt.Sprintf("%d other messages are marked \\Deleted again as they were; ", len(there))
		}
		switch {
		case !after.Contains(m.UID):
			text += "it is gone"
		case m.Had:
			text += "it is still there"
		default:
			if err := x.mark(ctx, false, []imap.UID{m.UID}); err != nil {
				return "", err
			}
			text += "it is still there and unmarked again"
		}
	}
	if err := n.Drop(ctx); err != nil {
		return "", err
	}
	x.step("marks forgotten")
	return text, nil
}
