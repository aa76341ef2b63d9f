package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// FolderPlan is what deleting a mailbox would take away.
type FolderPlan struct {
	Mailbox  string
	OnServer bool   // the server has it
	Messages uint32 // there
	Files    int    // mails in its folder here
	Alone    int    // of these, mails that the server was never given
}

// Mail tells whether there is any.
func (p FolderPlan) Mail() bool { return p.Messages > 0 || p.Files > 0 }

// Errors of DeleteFolder that have a remedy.
var (
	ErrNoMailbox = errors.New("neither the server nor this machine has such a mailbox")
	ErrInbox     = errors.New("INBOX cannot be deleted")
)

// DeleteFolder deletes a mailbox on the server, and then its folder here. Confirm
// is asked before; nothing happens unless it says yes, nor if there is other mail
// than it was told of. done tells whether the mailbox was deleted.
func DeleteFolder(ctx context.Context, o Options, mailbox string, confirm func(FolderPlan) (bool, error)) (done bool, err error) {
	if strings.EqualFold(mailbox, "INBOX") {
		return false, ErrInbox
	}
	r := newRun(o)
	if err := r.here.CheckRoot(ctx); err != nil {
		return false, err
	}
	rm := &remover{run: r, mailbox: mailbox}
	plan, err := rm.look(ctx)
	if err != nil {
		return false, err
	}
	if !plan.OnServer && rm.box == nil {
		return false, ErrNoMailbox
	}
	if yes, err := confirm(plan); err != nil || !yes {
		return false, err
	}
	// Much may have happened while a person thought about it.
	now, err := rm.look(ctx)
	if err != nil {
		return false, err
	}
	if now != plan {
		return false, fmt.Errorf("there is other mail in %s by now, so that nothing was deleted; look at it and say it again", mailbox)
	}
	return true, rm.remove(ctx, plan)
}

// remover deletes one mailbox.
type remover struct {
	*run
	mailbox string
	box     *box // with its folder here; nil if there is none
	journal.Removal
}

// look finds out what is there, on both sides.
func (rm *remover) look(ctx context.Context) (p FolderPlan, err error) {
	p.Mailbox = rm.mailbox
	s, err := rm.Dial(ctx)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, ignore(s.Close())) }()
	list, err := s.List(ctx, mail.Listing{Skip: func(m mail.Mailbox) bool { return m.Name != rm.mailbox }})
	if err != nil {
		return p, err
	}
	delim, holder := mail.Delim(list), false
	for _, m := range list {
		switch {
		case m.Name != rm.mailbox:
			continue
		case m.Err != nil:
			return p, m.Err
		case m.Status != nil:
			p.OnServer, p.Messages, rm.UIDValidity = true, m.Status.Messages, m.Status.UIDValidity
		default:
			holder = true
		}
		delim = m.Delim
	}
	boxes, err := rm.knownBoxes(ctx)
	if err != nil {
		return p, err
	}
	rm.box, rm.Mailbox, rm.Folder = boxes[rm.mailbox], rm.mailbox, ""
	if rm.box == nil {
		folder, err := rm.Layout.Folder(rm.mailbox, delim)
		if err != nil {
			return p, err
		}
		if rm.box = rm.unknown(folder); !rm.box.dir.Exists() {
			// A name that only holds others may be deleted, if it holds none.
			rm.box, p.OnServer = nil, p.OnServer || holder
			return p, nil
		}
	}
	rm.Folder = rm.box.known.Folder
	files, err := rm.box.dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	known, err := rm.messages(ctx)
	if err != nil {
		return p, err
	}
	keys := make(map[string]bool, 2*len(known))
	for _, m := range known {
		keys[m.Key], keys[m.StubKey] = true, true
	}
	beside, err := rm.notes().Beside.All(ctx)
	if err != nil {
		return p, err
	}
	for _, n := range beside {
		keys[n.Key] = true
	}
	rm.Keys = nil
	some, err := files.Some(func(key string) bool { return !keys[key] })
	if err != nil {
		return p, err
	}
	for _, f := range some {
		rm.Keys = append(rm.Keys, f.Key)
	}
	p.Files, p.Alone = files.Len(), len(rm.Keys)
	return p, nil
}

// unknown is a folder that the ledger does not know.
func (rm *remover) unknown(folder string) *box {
	return rm.newBox(mail.Mailbox{Name: rm.mailbox}, ledger.Mailbox{Folder: folder})
}

// messages gives all that the ledger has of the mailbox.
func (rm *remover) messages(ctx context.Context) ([]ledger.Message, error) {
	return rm.Ledger.EveryValidity(ctx, rm.mailbox)
}

// remove deletes the mailbox: on the server, which may refuse it, then here. The
// intent comes before, so that a later run can go on.
func (rm *remover) remove(ctx context.Context, p FolderPlan) (err error) {
	var c journal.Change
	rm.notes().Remove.Put(&c, rm.Removal)
	erase := rm.erase()
	erase.Why = fmt.Sprintf("you asked for it: %d on the server, %d in its folder here", p.Messages, p.Files)
	c.Begin(erase)
	if err := rm.notes().Record(ctx, c); err != nil {
		return err
	}
	rm.rep.Step("removal intended")
	if p.OnServer {
		if err := rm.onServer(ctx); err != nil {
			return err
		}
	}
	return rm.here(ctx)
}

// erase is what is done to the mailbox.
func (rm *remover) erase() mail.Action { return mail.Action{Kind: mail.ActErase, Mailbox: rm.mailbox} }

// over forgets what was about to be done, and says what became of it.
func (rm *remover) over(ctx context.Context, o mail.Outcome, said string) error {
	var c journal.Change
	rm.notes().Remove.Forget(&c)
	c.Became(o, said, rm.erase())
	return rm.notes().Record(ctx, c)
}

// onServer deletes the mailbox on the server, on a connection that has it not
// selected.
func (rm *remover) onServer(ctx context.Context) (err error) {
	s, err := rm.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ignore(s.Close())) }()
	err = s.Delete(ctx, rm.mailbox)
	if _, refused := mail.Refused(err); refused {
		return errors.Join(err, rm.over(ctx, mail.IsRefused, err.Error()))
	}
	if err != nil {
		return fmt.Errorf("%w; whether it is deleted shows with the next sync", err)
	}
	rm.rep.Step("mailbox deleted")
	err = s.Unsubscribe(ctx, rm.mailbox)
	if err != nil && ctx.Err() == nil {
		err = nil // it is deleted; the list of subscriptions has a name too many
	}
	return err
}

// here takes the folder away, with the mail that was in it when its owner was
// asked, and lets notmuch and the ledger forget it. It is done again after a
// crash in the middle of it.
func (rm *remover) here(ctx context.Context) error {
	if rm.box != nil {
		if err := rm.files(ctx); err != nil {
			return err
		}
		if err := rm.box.dir.RemoveEmpty(); err != nil {
			return err
		}
		// What was made to hold it goes with it, unless it holds more.
		for up := filepath.Dir(string(rm.box.dir)); up != rm.Root && os.Remove(up) == nil; {
			up = filepath.Dir(up)
		}
		rm.rep.Step("folder removed")
	}
	k := ledger.Mailbox{Name: rm.mailbox}
	if rm.box != nil {
		k.Folder = rm.box.known.Folder
	}
	var done journal.Change
	rm.notes().Remove.Forget(&done)
	done.Became(mail.IsDone, "", rm.erase())
	if err := rm.notes().ForgetMailbox(ctx, k, done); err != nil {
		return err
	}
	rm.rep.Step("mailbox forgotten")
	return nil
}

// files takes the mails away, in batches: each file, then what notmuch has of it.
func (rm *remover) files(ctx context.Context) error {
	known, err := rm.messages(ctx)
	if err != nil {
		return err
	}
	here, err := rm.box.dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		here, err = &maildir.Listing{}, nil
	}
	if err != nil {
		return err
	}
	var all []mail.Change
	add := func(key, name, id string) {
		if key == "" {
			return
		}
		if now, ok := here.Find(key); ok {
			name = now
		}
		if name != "" {
			all = append(all, mail.Change{Op: mail.OpRemove, Path: rm.box.path(name), ID: id})
		}
	}
	for _, m := range known {
		add(m.Key, m.Name, m.ID)
		add(m.StubKey, m.StubName, "")
	}
	for _, key := range rm.Keys {
		add(key, "", "")
	}
	for part := range slices.Chunk(all, deliver.BatchSize) {
		for _, c := range part {
			if err := os.Remove(c.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		rm.rep.Step("files removed")
		results, err := rm.Index.Apply(ctx, part)
		if err != nil {
			return err
		}
		for _, res := range results {
			if res.Err != nil && !errors.Is(res.Err, fs.ErrNotExist) {
				rm.rep.Note(rm.box.Name, "notmuch: %v", res.Err)
			}
		}
		rm.rep.Step("files forgotten")
	}
	return nil
}

// finishFolder ends the deletion of a mailbox that was interrupted: if the server
// has it no more, the rest follows; otherwise nothing was deleted, and it is to be
// said again.
func (r *run) finishFolder(ctx context.Context, list []mail.Mailbox) error {
	removal, ok, err := r.notes().Remove.Get(ctx)
	if err != nil || !ok || r.DryRun {
		return err
	}
	rm := &remover{run: r, mailbox: removal.Mailbox, Removal: removal}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	if rm.box = boxes[rm.mailbox]; rm.box == nil && rm.Folder != "" {
		rm.box = rm.unknown(rm.Folder)
	}
	said := &box{Mailbox: mail.Mailbox{Name: rm.mailbox}}
	for _, m := range list {
		switch {
		case m.Name != rm.mailbox:
		case m.Err != nil || m.Unasked:
			return nil //nolint:nilerr // not to be seen today; a later run ends it
		case m.Status != nil && m.Status.UIDValidity == rm.UIDValidity:
			r.rep.Note(said.Name, "the deletion of this mailbox was interrupted, and nothing of it was deleted; say `notmuch imap folder delete` again")
			return rm.over(ctx, mail.IsUndone, "that was interrupted before the server did it")
		}
	}
	r.rep.Note(said.Name, "the deletion of this mailbox was interrupted; it is ended now")
	r.prescan.Discard() // it may have found what is removed here
	return rm.here(ctx)
}

// ignore drops the error of closing a connection whose work is done: a server
// that hangs up on LOGOUT has cost nothing.
func ignore(error) error { return nil }

// NewFolder makes a folder here, of which the next sync makes a mailbox on the
// server: also one that was here before the first sync, or whose mailbox was
// deleted on the server.
func NewFolder(ctx context.Context, o Options, mailbox string) error {
	r := newRun(o)
	if err := r.here.CheckRoot(ctx); err != nil {
		return err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	var delim rune
	for _, b := range boxes {
		delim = max(delim, b.Delim)
	}
	if len(boxes) == 0 {
		return errors.New("nothing was synchronised yet; run `notmuch imap sync` first")
	}
	b := boxes[mailbox]
	if b == nil {
		folder, err := r.Layout.Folder(mailbox, delim)
		if err != nil {
			return err
		}
		b = r.newBox(mail.Mailbox{Name: mailbox}, ledger.Mailbox{Folder: folder})
	} else {
		_, gone, err := r.notes().GoneSaid.Get(ctx, journal.AboutGone(b.known))
		if err != nil {
			return err
		}
		if !gone {
			return fmt.Errorf("the server has a mailbox %s already", mailbox)
		}
		// Stubs stand for messages that are gone with it.
		stubs, err := r.Ledger.InState(ctx, ledger.Stub)
		if err != nil {
			return err
		}
		for _, m := range stubs {
			if m.Mailbox == mailbox {
				if err := r.shower.RemoveStub(ctx, b.dir, m); err != nil {
					return err
				}
			}
		}
	}
	if err := b.dir.Create(); err != nil {
		return err
	}
	r.rep.Step("folder made")
	return r.notes().ForgetMailbox(ctx, ledger.Mailbox{Name: mailbox, Folder: b.known.Folder}, journal.Change{})
}
