package pipeline

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	wire "github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Tags of ours on messages.
const (
	TagFailed   = stub.LabelFailed  // on a stub
	TagSalvaged = plan.TagSalvaged  // on a mail that came by another road
	TagSkipped  = stub.LabelSkipped // on a stub of a message that a hook left on the server
)

// KeyOf gives the key of a row's message.
func KeyOf(account string, row ledger.Message) stub.Key {
	return stub.NewKey(account, row.Mailbox, row.UIDValidity, row.UID)
}

// readSecret reads the secret, or makes one.
func (r *run) readSecret(ctx context.Context) (err error) {
	secret, ok, err := r.notes().Secret.Get(ctx)
	if r.secret = string(secret); err != nil || ok {
		return err
	}
	r.secret = rand.Text()
	if r.DryRun {
		return nil
	}
	if err := r.notes().Secret.Set(ctx, journal.Text(r.secret)); err != nil {
		return err
	}
	r.step("secret recorded")
	return nil
}

// VerifyStub tells whether r, a mail from its beginning, can be a stub of the ledger's
// account: it is signed, or has no sign of having come by mail, as those of before
// signatures. That there is such a message, the ledger's rows say.
func VerifyStub(ctx context.Context, l *ledger.Ledger, r io.Reader) (bool, error) {
	c, err := stub.ReadClaim(r)
	if err != nil {
		return false, nil //nolint:nilerr // then it is none
	}
	secret, _, err := journal.Of(l).Secret.Get(ctx)
	return err == nil && (c.SignedBy(string(secret)) || !c.Mailed), err
}

// sendStub puts a stub on the line in the message's place.
func (w *worker) sendStub(ctx context.Context, f failure, now time.Time) error {
	b := f.box
	date := f.Date(now)
	s, err := b.dir.Spool(w.keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(stub.Failed(w.origin(f.box), f.Salvaged, now)); err != nil {
		s.Discard()
		return err
	}
	it := &deliver.Item{Box: b.line, Op: deliver.OpStub, Spool: s, Row: ledger.Message{
		Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: f.UID,
		StubKey: s.Key(), Size: f.Told.Size, WireSize: int64(f.Size()), Date: date, Flags: storedFlags(f.Told.Flags),
		Attempts: 1, Since: now, NextTry: report.RetryAt(now, 1), Reason: f.Reason(),
	}}
	it.Add, it.Remove = w.InitialTags(it.Row.Flags, b.add, b.remove)
	it.Add = append(it.Add, TagFailed)
	w.tagPreFetched(it)
	return w.line.Send(ctx, it)
}

// origin says of stubs of a mailbox where their messages are.
func (w *worker) origin(b *box) stub.Origin {
	return stub.Origin{Account: w.Name, Address: w.Address, Mailbox: b.Name, UIDValidity: b.now.UIDValidity, Secret: w.secret, Exchange: w.exchange}
}

// enrich writes a stub anew if more of its mail could be had than before. The
// file keeps its name, so that nobody who looks at it loses it. WireSize of its
// row says how much of the mail notmuch has read in it: after a crash in the
// middle of this the file has more.
func (w *worker) enrich(ctx context.Context, f failure, old *ledger.Message, now time.Time) error {
	name, ok, err := f.box.find(old.StubKey, old.StubName)
	if err != nil || !ok {
		return err
	}
	had, err := salvagedSize(f.box.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // renamed or removed this moment; the next attempt looks again
	}
	if err != nil {
		return err
	}
	if size := f.Size(); size > had {
		if err := w.rewrite(f, *old, name, now); err != nil {
			return err
		}
		had = size
	}
	if old.WireSize == int64(had) {
		return nil
	}
	results, err := w.Index.Apply(ctx, []wire.Change{{Op: wire.OpReindex, Path: f.box.path(name), ID: old.ID}})
	if err != nil {
		return err
	}
	w.step("stub read anew")
	if len(results) == 1 && results[0].Err != nil {
		// It stands as it is; that notmuch cannot read it costs nothing else.
		w.note(f.box, "UID %d: %v", f.UID, results[0].Err)
	}
	old.WireSize = int64(had)
	return nil
}

// rewrite puts a stub into the place of the one that is there.
func (w *worker) rewrite(f failure, old ledger.Message, name string, now time.Time) error {
	s, err := f.box.dir.Spool(w.keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(stub.Failed(w.origin(f.box), f.Salvaged, now)); err != nil {
		s.Discard()
		return err
	}
	s.SetTime(old.Date)
	if err := maildir.SyncAll([]*maildir.Spool{s}); err != nil {
		s.Discard()
		return err
	}
	if err := s.Replace(name); err != nil {
		s.Discard()
		return err
	}
	w.step("stub written anew")
	return nil
}

// salvagedSize reads from a stub how much of the mail it has.
func salvagedSize(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	return stub.SalvagedSize(f), nil
}

// dueStubs gives the UIDs of the stubs to ask for again. A stub whose file the
// user removed means: stop asking.
func (w *worker) dueStubs(ctx context.Context, b *box, gone []imap.UID) ([]imap.UID, error) {
	var uids []imap.UID
	for _, st := range b.due {
		if slices.Contains(gone, st.UID) {
			continue
		}
		_, ok, err := b.find(st.StubKey, st.StubName)
		if err != nil {
			return nil, err
		}
		if ok || w.wants(st) || waits(st) && st.StubKey == "" {
			uids = append(uids, st.UID)
			continue
		}
		st.State = ledger.GivenUp
		if err := w.Ledger.Save(ctx, st); err != nil {
			return nil, err
		}
		w.step("given up recorded")
		w.note(b, "UID %d: its stub was removed, so it is not asked for any more", st.UID)
	}
	return uids, nil
}
