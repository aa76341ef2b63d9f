package deliver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// world is all that a line needs: what notmuch was told and what was recorded.
type world struct {
	told    []mail.Change
	batch   []int
	indexed chan int
	rows    []ledger.Message
	gone    []imap.UID
	refuse  error
	deleted map[imap.UID]ledger.Message // rows, with their tags as their flags
}

func (w *world) Apply(_ context.Context, cs []mail.Change) ([]mail.Result, error) {
	w.told, w.batch = append(w.told, cs...), append(w.batch, len(cs))
	out := make([]mail.Result, len(cs))
	for i, c := range cs {
		out[i] = mail.Result{Path: c.Path, ID: c.ID, Err: w.refuse}
		if c.Op == mail.OpRemove {
			out[i].Tags = []string{"work"}
		}
	}
	if w.indexed != nil {
		w.indexed <- len(cs)
	}
	return out, nil
}

func (w *world) Save(context.Context, ...ledger.Message) error { return nil }
func (w *world) Record(_ context.Context, c journal.Change) error {
	w.rows = append(w.rows, c.Save...)
	for _, row := range c.Forget {
		w.gone = append(w.gone, row.UID)
	}
	return nil
}
func (w *world) ByMessageID(context.Context, string) ([]ledger.Message, error) { return nil, nil }

func (w *world) IntendFlags(context.Context, []ledger.Message) error { return nil }
func (w *world) FlagsDone(context.Context) error                     { return nil }
func (w *world) Recorded(_ context.Context, c *journal.Change, rows []ledger.Message) error {
	c.Save = append(c.Save, rows...)
	return nil
}
func (w *world) ToTellGone(*journal.Change, ledger.Message, []string) {}
func (w *world) ToldGone(context.Context, *journal.Change, ledger.Message, []string) error {
	return nil
}
func (w *world) Deleted(_ context.Context, _ *journal.Change, row ledger.Message, tags []string) error {
	if row.Flags = tags; w.deleted == nil {
		w.deleted = make(map[imap.UID]ledger.Message)
	}
	w.deleted[row.UID] = row
	return nil
}
func (w *world) At(...hooks.Point) bool { return false }
func (w *world) JudgeFile(context.Context, hooks.Event, string, time.Time) (hooks.Outcome, error) {
	return hooks.Outcome{}, errors.New("nobody is to be asked")
}

func (w *world) line() *Line {
	return New(Options{Index: w, Ledger: w, Journal: w, Hooks: w, Now: time.Now,
		Report: report.NewReporter(report.Report{}, time.Now, nil, nil), FlagTags: func(_, _ []string) (add, remove []string, set, clear string) { return }})
}

// mailbox is a folder in which a file with each of the keys lies.
func mailbox(t *testing.T, settled func(context.Context) error, keys ...string) *Mailbox {
	t.Helper()
	dir := maildir.Dir(t.TempDir())
	if err := dir.Create(); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := os.WriteFile(filepath.Join(string(dir), "cur", key+":2,"), []byte("Subject: x\n\ny\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return NewMailbox("INBOX", dir, settled, nil)
}

func add(b *Mailbox, uid imap.UID, key string) *Item {
	return &Item{Box: b, Op: OpAdd, ID: key, Row: ledger.Message{Mailbox: b.Name, UIDValidity: 1, UID: uid, Key: key, Name: "cur/" + key + ":2,", ID: key}}
}

// A mailbox's marks move on once, when the look into it is over and all is recorded
// that was put onto the line, the deletions last.
func TestMarksMoveOnWhenAllIsRecorded(t *testing.T) {
	t.Parallel()
	w, settled := &world{}, 0
	b := mailbox(t, nil, "a", "b")
	b.settled = func(context.Context) error {
		settled++
		if len(w.rows) != 1 || !slices.Equal(w.gone, []imap.UID{2}) {
			t.Errorf("they moved on with %v recorded and %v gone", w.rows, w.gone)
		}
		return nil
	}
	l := w.line()
	if err := l.Run(t.Context(), func(ctx context.Context) error {
		gone := add(b, 2, "b")
		gone.Op = OpGone
		l.Hold(gone)
		if err := errors.Join(l.Send(ctx, add(b, 1, "a")), b.End(ctx)); err != nil {
			return err
		}
		return l.Finish(ctx, func(*Item) bool { return true })
	}); err != nil || settled != 1 {
		t.Errorf("%v, they moved on %d times", err, settled)
	}
	if b.Dir.Has("cur/b:2,") || !b.Dir.Has("cur/a:2,") {
		t.Error("the folder has not what is recorded")
	}
}

// What stays for the next run keeps the marks: a deletion that is held back, what
// notmuch could not be told, and what somebody says.
func TestWhatIsLeftKeepsTheMarks(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		goes   bool
		refuse error
		keep   bool
	}{"all goes": {goes: true}, "held": {}, "refused": {goes: true, refuse: errors.New("no memory")}, "kept": {goes: true, keep: true}} {
		w, settled, left := &world{refuse: tc.refuse}, 0, 0
		b := mailbox(t, func(context.Context) error { settled++; return nil }, "a")
		b.failed = func(error) { left++ }
		l := w.line()
		if err := l.Run(t.Context(), func(ctx context.Context) error {
			it := add(b, 1, "a")
			it.Op = OpGone
			l.Hold(it)
			if tc.keep {
				b.KeepMarks()
			}
			if err := b.End(ctx); err != nil {
				return err
			}
			return l.Finish(ctx, func(*Item) bool { return tc.goes })
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if all := name == "all goes"; settled > 0 != all || left > 0 != (tc.refuse != nil) {
			t.Errorf("%s: the marks moved on %d times, %d were left", name, settled, left)
		}
	}
}

// An announced file is told to notmuch at the flush, while the run goes on, and not
// again when it is found on the server.
func TestAnAnnouncedFileIsToldOnce(t *testing.T) {
	t.Parallel()
	w := &world{indexed: make(chan int, 8)}
	b := mailbox(t, nil, "a", "b")
	l := w.line()
	if err := l.Run(t.Context(), func(ctx context.Context) error {
		for i, key := range []string{"a", "b"} {
			it := add(b, imap.UID(i+1), key)
			it.Op = OpPreindex
			l.Announce(ctx, it)
		}
		l.Flush(ctx)
		for n := 0; n < 2; n += <-w.indexed { // it comes without anything more
		}
		return errors.Join(l.Send(ctx, add(b, 1, "a")), l.Send(ctx, add(b, 2, "b")))
	}); err != nil {
		t.Fatal(err)
	}
	if len(w.told) != 2 || len(w.rows) != 2 {
		t.Errorf("notmuch was told of %d, and %d are recorded", len(w.told), len(w.rows))
	}
}

// The tags of a mail that goes since the server has it no more are noted with its digest,
// also where an older ledger has none; not those of one that goes from here. A mail that
// comes with tags of its own gets these in place of those of new mail.
func TestTagsOfRemovedMail(t *testing.T) {
	t.Parallel()
	w := &world{}
	b := mailbox(t, nil, "a", "b", "c")
	l := w.line()
	l.NewTags = []string{"inbox"}
	if err := l.Run(t.Context(), func(ctx context.Context) error {
		gone, moved, again := add(b, 1, "a"), add(b, 2, "b"), add(b, 3, "c")
		gone.Op, moved.Op, moved.Known, again.Tags = OpGone, OpGone, true, []string{"work"}
		return errors.Join(l.Send(ctx, gone), l.Send(ctx, moved), l.Send(ctx, again))
	}); err != nil {
		t.Fatal(err)
	}
	if row := w.deleted[1]; !slices.Equal(row.Flags, []string{"work"}) || row.Digest.IsZero() {
		t.Errorf("noted of the one that is gone: tags %v, digest %v", row.Flags, row.Digest)
	}
	if row, ok := w.deleted[2]; !ok || row.Flags != nil {
		t.Errorf("noted of the one that went from here: %t, tags %v", ok, row.Flags)
	}
	if i := slices.IndexFunc(w.told, func(c mail.Change) bool { return c.Op == mail.OpAdd }); i < 0 || !slices.Equal(w.told[i].New, []string{"work"}) {
		t.Errorf("notmuch was told %v", w.told)
	}
}

// deaf is a notmuch that has broken down.
type deaf struct{ *world }

var errDeaf = errors.New("the database is gone")

func (deaf) Apply(context.Context, []mail.Change) ([]mail.Result, error) { return nil, errDeaf }

// Each channel has one sender, which closes it: whoever puts something on the line while its
// last stages end for an error meets no closed one.
func TestALineThatBreaksIsNotPutOnBehindItsEnd(t *testing.T) {
	t.Parallel()
	w := &world{}
	b := mailbox(t, nil, "a", "b")
	l := New(Options{Index: deaf{w}, Ledger: w, Journal: w, Hooks: w, Now: time.Now, Report: w.line().Report, FlagTags: w.line().FlagTags})
	announced := add(b, 1, "a")
	announced.Op = OpPreindex
	if err := l.Run(t.Context(), func(ctx context.Context) error {
		l.Announce(ctx, announced)
		l.Flush(ctx)
		<-ctx.Done()
		l.Flush(context.WithoutCancel(ctx)) // by which write ends
		for range l.written {               // until that has closed it
		}
		l.Announce(context.WithoutCancel(ctx), announced)
		l.Flush(context.WithoutCancel(ctx))
		return l.Send(context.WithoutCancel(ctx), add(b, 2, "b"))
	}); !errors.Is(err, errDeaf) {
		t.Error(err)
	}
}
