package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// breaks counts what can fail on this machine, and lets one such thing fail.
type breaks struct {
	at   int64 // 1: the first; 0: none
	n    atomic.Int64
	what string // that which failed
}

// now tells whether this one is to fail.
func (x *breaks) now(what string) bool {
	if x.n.Add(1) != x.at {
		return false
	}
	x.what = what
	return true
}

func (x *breaks) met() bool { return x.n.Load() >= x.at }

// breaking is a kind of thing that can fail, and how to bring it into a run.
type breaking struct {
	floor int // on the number of points
	with  func(h *home, s *server, x *breaks) (*report.Report, error)
}

func breakings() map[string]breaking {
	// Result codes of SQLite: FULL, BUSY, IOERR, READONLY, CORRUPT, NOMEM, CANTOPEN.
	codes := []ledgertest.Error{13, 5, 10, 8, 11, 7, 14}
	return map[string]breaking{
		"SQLite": {80, func(h *home, s *server, x *breaks) (*report.Report, error) {
			d := &ledgertest.Driver{Fault: func(what string) error {
				if !x.now(what) {
					return nil
				}
				return codes[x.at%int64(len(codes))]
			}}
			l, err := ledger.OpenThrough(context.Background(), filepath.Join(h.dir, "state"), d)
			if err != nil {
				return &report.Report{}, err
			}
			rep, err := Sync(context.Background(), h.breakable(s, l))
			return rep, errors.Join(err, l.Close())
		}},
		"notmuch": {14, func(h *home, s *server, x *breaks) (*report.Report, error) {
			return h.try(s, h.careful, func(o *Options) { o.Index = &brokenIndex{o.Index, x} })
		}},
		"sockets": {1, func(h *home, s *server, x *breaks) (*report.Report, error) {
			s.dialErr = func(int) error {
				if !x.now("socket") {
					return nil
				}
				// As internal/remote gives it.
				return &mail.Fault{Kind: mail.KindDial, Op: "dial", Err: &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", unix.EMFILE)}, Do: "is the network there?"}
			}
			defer func() { s.dialErr = nil }()
			return h.try(s, h.careful)
		}},
	}
}

// careful has one connection, so that its loss is no matter of chance, and tells
// notmuch of little at a time, so that there is more that can fail.
func (h *home) careful(o *Options) { o.Connections, o.Batch = 1, 2 }

func (h *home) breakable(s *server, l *ledger.Ledger) Options {
	h.do(os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700))
	o := h.options(s, l)
	h.careful(&o)
	return o
}

// brokenIndex is a notmuch database that fails as a whole, before it does
// anything or with all of it done, or for one change.
type brokenIndex struct {
	Index
	x *breaks
}

func (b *brokenIndex) err() error {
	return []error{errors.New("the notmuch database cannot be written: out of memory"), fmt.Errorf("the notmuch database cannot be written: %w", unix.ENOSPC),
		&os.PathError{Op: "open", Path: "flintlock", Err: unix.EROFS}, errors.New("a Xapian exception occurred")}[b.x.at%4]
}

func (b *brokenIndex) Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error) {
	if b.x.now("Apply, nothing done") {
		return nil, b.err()
	}
	var doing []mail.Change
	failed := -1
	for i, c := range changes {
		if b.x.now(fmt.Sprintf("Apply, change %d of %d: %+v", i, len(changes), c)) {
			failed = i
			continue
		}
		doing = append(doing, c)
	}
	results, err := b.Index.Apply(ctx, doing)
	if err == nil && b.x.now("Apply, all done") {
		return nil, b.err()
	}
	if failed >= 0 && err == nil {
		results = slices.Insert(results, failed, mail.Result{Path: changes[failed].Path, Err: b.err()})
	}
	return results, err
}

func (b *brokenIndex) Changes(ctx context.Context, since mail.Revision, under string) (mail.Revision, []mail.Tagged, bool, error) {
	if b.x.now("Changes") {
		return mail.Revision{}, nil, false, b.err()
	}
	return b.Index.Changes(ctx, since, under)
}

// breakStories are a first sync, and one in both directions.
func breakStories() map[string]func(*home, *server) {
	first := func(_ *home, s *server) {
		for n := 1; n <= 6; n++ {
			s.box("INBOX").add(plainMail(n), [][]string{nil, {`\Seen`}}[n%2]...)
		}
		s.box("Archive").add(plainMail(8) + strings.Repeat("a line of a mail that is not small\r\n", 3000))
		s.box("Trash").add(plainMail(9))
	}
	return map[string]func(*home, *server){"first": first, "both": func(h *home, s *server) {
		first(h, s)
		h.sync(s)
		in := s.box("INBOX")
		in.add(plainMail(11) + strings.Repeat("a line of a mail that is not small\r\n", 3000))
		s.box("Archive").add(plainMail(12), `\Flagged`)
		in.flag(2, `\Seen`, `\Answered`)
		in.expunge(4)
		h.flag("INBOX", 1, "FS")
		h.move("INBOX", 3, "Archive", true)
		h.remove("INBOX", 5)
		h.put("Archive", plainMail(13), "S")
		h.put("New", plainMail(14), "")
		h.do(errors.Join(os.Mkdir(h.path("New", "new"), 0o700), os.Mkdir(h.path("New", "tmp"), 0o700)))
	}}
}

// broken is a machine before the run that is to fail.
func broken(t *testing.T, begin func(*home, *server)) (*home, *server) {
	t.Helper()
	s, h := newServer("CONDSTORE", "QRESYNC", "UIDPLUS", "MOVE"), newHome(t)
	begin(h, s)
	return h, s
}

// all is what there is on both sides and in notmuch, without what may differ from
// one run to another.
func (h *home) all(s *server) string {
	h.t.Helper()
	var out []string
	for name, b := range s.boxes {
		for _, m := range b.msgs {
			out = append(out, fmt.Sprintf("there %s %s %x", name, plan.Letters(m.flags), sha256.Sum256([]byte(m.raw))))
		}
		for file, raw := range h.files(name) {
			_, l, _ := strings.Cut(file, ":2,")
			out = append(out, fmt.Sprintf("here %s %s %x", name, l, sha256.Sum256([]byte(raw))))
		}
	}
	db, err := h.index.load()
	h.do(err)
	for id, m := range db {
		out = append(out, fmt.Sprintf("notmuch %s %s %d", id, m.Tags, len(m.Files)))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// rest syncs until there is nothing to do.
func (h *home) rest(s *server) {
	h.t.Helper()
	for range 5 {
		rep := h.sync(s, h.careful)
		if !rep.Clean() {
			h.t.Errorf("without a fault: %+v", rep)
		}
		if rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed == 0 {
			return
		}
	}
	h.t.Error("it does not come to rest")
}

// Each thing that SQLite, notmuch and the system are asked for is made to fail, one
// at a time, over a first sync and one in both directions. The run then ends with an
// error, or says in its report that this machine failed, or the fault cost nothing;
// and the next run ends where one without a fault ends.
func TestNoErrorOfThisMachineIsASuccess(t *testing.T) {
	share.Sweep(t)
	for kind, br := range breakings() {
		for story, begin := range breakStories() {
			t.Run(kind+"/"+story, func(t *testing.T) {
				t.Parallel()
				h, s := broken(t, begin)
				h.rest(s)
				want := h.all(s)
				points, stride := 0, 1
				if testing.Short() {
					stride = 10
				}
				for at := int64(1); ; at += int64(stride) {
					h, s := broken(t, begin)
					x := &breaks{at: at}
					rep, err := br.with(h, s, x)
					if !x.met() {
						break
					}
					points++
					if err == nil && !rep.Broken() {
						if got := h.all(s); got != want {
							t.Errorf("%q (%d) passes for success: %+v\n%s\nis not\n%s", x.what, at, rep, got, want)
						}
					}
					h.rest(s)
					h.notmuchNew()
					h.check(s)
					if got := h.all(s); got != want {
						t.Errorf("after %q (%d), error %v, the next run ends in\n%s\nnot in\n%s", x.what, at, err, got, want)
					}
					h.do(os.RemoveAll(h.dir))
					if t.Failed() {
						break
					}
				}
				t.Logf("%d points", points)
				if points*stride < br.floor {
					t.Errorf("only %d points, want %d", points, br.floor)
				}
			})
		}
	}
}
