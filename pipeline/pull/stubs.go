package pull

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// sendStub puts a stub on the line in the message's place.
func (w *Worker) sendStub(ctx context.Context, f failure, now time.Time) error {
	b := f.box
	date := f.Date(now)
	s, err := b.Dir.Spool(w.Keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(stub.Failed(w.origin(f.box), f.Salvaged, now)); err != nil {
		s.Discard()
		return err
	}
	it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpStub, Spool: s, Row: ledger.Message{
		Mailbox: b.Name, UIDValidity: b.UIDValidity, UID: f.UID,
		StubKey: s.Key(), Size: f.Told.Size, WireSize: int64(f.Size()), Date: date, Flags: plan.StoredFlags(f.Told.Flags),
		Attempts: 1, Since: now, NextTry: report.RetryAt(now, 1), Reason: f.Reason(),
	}}
	it.Add, it.Remove = w.Tags.InitialTags(it.Row.Flags, b.Add, b.Remove)
	it.Add = append(it.Add, stub.LabelFailed)
	w.tagPreFetched(it)
	return w.Line.Send(ctx, it)
}

// origin says of stubs of a mailbox where their messages are.
func (w *Worker) origin(b *Mailbox) stub.Origin {
	o := w.Origin
	o.Mailbox, o.UIDValidity = b.Name, b.UIDValidity
	return o
}

// enrich writes a stub anew if more of its mail could be had than before. The
// file keeps its name, so that nobody who looks at it loses it. WireSize of its
// row says how much of the mail notmuch has read in it: after a crash in the
// middle of this the file has more.
func (w *Worker) enrich(ctx context.Context, f failure, old *ledger.Message, now time.Time) error {
	name, ok, err := f.box.Dir.Locate(old.StubKey, old.StubName)
	if err != nil || !ok {
		return err
	}
	had, err := salvagedSize(f.box.Dir.Path(name))
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
	results, err := w.Index.Apply(ctx, []mail.Change{{Op: mail.OpReindex, Path: f.box.Dir.Path(name), ID: old.ID}})
	if err != nil {
		return err
	}
	w.Report.Step("stub read anew")
	if len(results) == 1 && results[0].Err != nil {
		// It stands as it is; that notmuch cannot read it costs nothing else.
		w.Report.Note(f.box.Name, "UID %d: %v", f.UID, results[0].Err)
	}
	old.WireSize = int64(had)
	return nil
}

// rewrite puts a stub into the place of the one that is there.
func (w *Worker) rewrite(f failure, old ledger.Message, name string, now time.Time) error {
	s, err := f.box.Dir.Written(w.Keys.New(now), stub.Failed(w.origin(f.box), f.Salvaged, now), old.Date)
	if err != nil {
		return err
	}
	if err := s.Replace(name); err != nil {
		s.Discard()
		return err
	}
	w.Report.Step("stub written anew")
	return nil
}

// salvagedSize reads from a stub how much of the mail it has.
func salvagedSize(path string) (int, error) {
	f, err := maildir.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	return stub.SalvagedSize(f), nil
}

// Due gives the UIDs of the stubs to ask for again. A stub whose file the
// user removed means: stop asking.
func (f *Fetching) Due(ctx context.Context, b *Mailbox, due []ledger.Message, gone []imap.UID) ([]imap.UID, error) {
	var uids []imap.UID
	for _, st := range due {
		if slices.Contains(gone, st.UID) {
			continue
		}
		_, ok, err := b.Dir.Locate(st.StubKey, st.StubName)
		if err != nil {
			return nil, err
		}
		if ok || f.Wanted(st) || heldByHook(st) && st.StubKey == "" {
			uids = append(uids, st.UID)
			continue
		}
		st.State = ledger.GivenUp
		if err := f.Ledger.Save(ctx, st); err != nil {
			return nil, err
		}
		f.Report.Step("given up recorded")
		f.Report.Note(b.Name, "UID %d: its stub was removed, so it is not asked for any more", st.UID)
	}
	return uids, nil
}
