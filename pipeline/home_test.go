package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// home is one user's local store.
type home struct {
	t      *testing.T
	dir    string
	now    time.Time
	events []report.Event
	index  *notmuch
	ended  bool // the last run came to its end, without a fault
	// givenUp are messages of INBOX of which nothing is to be here.
	givenUp []imap.UID
	// placeholders are messages of INBOX that a hook left on the server.
	placeholders []imap.UID
	texts        texts
	kept         *ledger.Ledger // see keep
}

// texts are those of files that were read before. It takes less to see that a file is the one that
// was read than to read it, and the long tests read each a thousand times.
type texts struct {
	mu   sync.Mutex
	read map[string]fileText
}

type fileText struct {
	info fs.FileInfo
	text string
}

// of gives the text of a file.
func (x *texts) of(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	before, ok := x.read[path]
	if ok && os.SameFile(before.info, info) && before.info.Size() == info.Size() && before.info.ModTime().Equal(info.ModTime()) {
		return before.text, nil
	}
	raw, err := os.ReadFile(path)
	// What was written just now may be written again at the same time, as far as a file system has it.
	if err == nil && time.Since(info.ModTime()) > time.Second/10 {
		if x.read == nil {
			x.read = make(map[string]fileText)
		}
		x.read[path] = fileText{info, string(raw)}
	}
	return string(raw), err
}

// spared tells whether a short run leaves out a case of a long test.
func spared(what ...any) bool { return share.Spares(what...) }

// pace is how far it is to the next place of a run that a long test disturbs.
func pace() int { return share.Pace() }

func newHome(t *testing.T) *home {
	t.Helper()
	dir := ledgertest.Dir(t)
	return &home{t: t, dir: dir, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), index: &notmuch{path: filepath.Join(dir, "index.json")}}
}

func (h *home) options(s *server, l *ledger.Ledger) Options {
	if l != nil {
		l.KeepLog(ledger.Keeping{Now: func() time.Time { return h.now }, For: 90 * 24 * time.Hour})
	}
	return Options{
		Account: Account{
			Name: "work", Address: "me@example.org", Root: filepath.Join(h.dir, "mail"), Dial: s.dial, Index: h.index, Ledger: l,
			Now: func() time.Time { return h.now },
			Pause: func(ctx context.Context, _ time.Duration) error {
				s.catchUp(1)
				return ctx.Err()
			},
			Emit: func(e report.Event) bool { h.events = append(h.events, e); return true },
		},
		Policy: Policy{Tags: plan.Tags{NewTags: []string{"inbox", "unread"}}, Connections: 2, Timeout: watchdog, AtticDays: 30, AtticSize: 1 << 20},
	}
}

// sync runs one sync; change may alter its options.
func (h *home) sync(s *server, change ...func(*Options)) *report.Report {
	h.t.Helper()
	rep, err := h.try(s, change...)
	if err != nil {
		h.t.Fatal(err)
	}
	return rep
}

func (h *home) try(s *server, change ...func(*Options)) (*report.Report, error) {
	return h.tryIn(context.Background(), s, change...)
}

// tryIn is try with a context that may end.
func (h *home) tryIn(ctx context.Context, s *server, change ...func(*Options)) (*report.Report, error) {
	l, done := h.open()
	defer done()
	if err := os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	o := h.options(s, l)
	for _, f := range change {
		f(&o)
	}
	// What a run before has said to be settled gives the next one nothing to tell the server.
	settled := false
	if h.ended && o.Step == nil {
		var err error
		if settled, err = Settled(context.WithoutCancel(ctx), o); err != nil {
			settled = false // as the run will say
		}
	}
	h.events = nil
	s.asked = nil
	rep, err := Sync(ctx, o)
	h.ended = err == nil && rep.Clean()
	if settled && rep != nil && rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded > 0 {
		h.t.Errorf("all was said to be settled: %+v", rep)
	}
	return rep, err
}

// keep has all runs from here on share one opening of the ledger, until what it gives is called. The
// long tests open it some ten thousand times otherwise, behind what they disturb.
func (h *home) keep() (done func()) {
	h.t.Helper()
	l, closes := h.open()
	h.kept = l
	return func() {
		h.kept = nil
		closes()
	}
}

// open gives the ledger, and what is to be called when that is not needed any more.
func (h *home) open() (l *ledger.Ledger, done func()) {
	h.t.Helper()
	if h.kept != nil {
		return h.kept, func() {}
	}
	l, err := ledger.Open(context.Background(), filepath.Join(h.dir, "state"))
	if err != nil {
		h.t.Fatal(err)
	}
	return l, func() {
		if err := l.Close(); err != nil {
			h.t.Error(err)
		}
	}
}

// reading is open, for what changes nothing in it.
func (h *home) reading() (l *ledger.Ledger, done func()) {
	h.t.Helper()
	if h.kept != nil {
		return h.open()
	}
	l, err := ledger.OpenReadOnly(context.Background(), filepath.Join(h.dir, "state"))
	if err != nil {
		h.t.Fatal(err)
	}
	return l, func() { _ = l.Close() }
}

// files gives the mails of a mailbox's folder by name.
func (h *home) files(mailbox string) map[string]string {
	out := map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(h.dir, "mail", mailbox, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.t.Fatal(err)
		}
		for _, e := range entries {
			text, err := h.texts.of(filepath.Join(h.dir, "mail", mailbox, sub, e.Name()))
			if err != nil {
				h.t.Fatal(err)
			}
			out[sub+"/"+e.Name()] = text
		}
	}
	return out
}

// check asserts that the store holds the server's mail, each once, byte for
// byte, with its flags, indexed and recorded; that nothing lies in tmp; and that
// exactly the given messages have a stub.
func (h *home) check(s *server, stubs ...imap.UID) {
	h.t.Helper()
	db, err := h.index.load()
	if err != nil {
		h.t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, m := range db {
		for _, f := range m.Files {
			paths[f] = true
			key, _ := maildir.ParseName(f)
			if info, err := os.Stat(f); err == nil && m.Read[key] != int(info.Size()) {
				h.t.Errorf("notmuch has read %d bytes of %s, which has %d", m.Read[key], f, info.Size())
			}
		}
	}
	n := 0
	for name, b := range s.boxes {
		want := map[string]int{}
		for u, m := range b.msgs {
			if !slices.Contains(stubs, u) && (name != "INBOX" || !slices.Contains(h.givenUp, u) && !slices.Contains(h.placeholders, u)) {
				want[strings.ReplaceAll(m.raw, "\r\n", "\n")+"|"+plan.Letters(m.flags)]++
			}
		}
		got := map[string]int{}
		gotStubs, gotPlaceholders := 0, 0
		for file, raw := range h.files(name) {
			n++
			if !paths[filepath.Join(h.dir, "mail", name, file)] {
				h.t.Errorf("%s/%s is not indexed", name, file)
			}
			if _, err := stub.ReadKey(strings.NewReader(raw)); err == nil {
				if strings.Contains(raw, "\nX-Label: "+TagSkipped+"\n") {
					gotPlaceholders++
				} else {
					gotStubs++
				}
				m := db[stubID(raw)]
				if m == nil || slices.Contains(m.Tags, TagSkipped) == slices.Contains(m.Tags, TagFailed) || slices.Contains(m.Tags, TagSkipped) != strings.Contains(raw, "X-Label: "+TagSkipped) {
					h.t.Errorf("%s/%s has the tags %+v", name, file, m)
				}
				continue
			}
			_, flags := maildir.ParseName(file)
			got[raw+"|"+flags]++
		}
		if !maps.Equal(want, got) {
			h.t.Errorf("%s holds %d mails, want %d: %s", name, len(got), len(want), difference(want, got))
		}
		if name == "INBOX" && gotStubs != len(stubs) {
			h.t.Errorf("%d stubs, want %d", gotStubs, len(stubs))
		}
		if name == "INBOX" && gotPlaceholders != len(h.placeholders) {
			h.t.Errorf("%d placeholders, want %d", gotPlaceholders, len(h.placeholders))
		}
		if tmp, _ := os.ReadDir(filepath.Join(h.dir, "mail", name, "tmp")); len(tmp) > 0 {
			h.t.Errorf("%s/tmp holds %d files", name, len(tmp))
		}
	}
	if len(paths) != n {
		h.t.Errorf("notmuch knows %d files, there are %d", len(paths), n)
	}
	l, done := h.reading()
	defer done()
	for name, b := range s.boxes {
		rows, err := l.Rows(context.Background(), name, b.validity)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(rows) != len(b.msgs) {
			h.t.Errorf("%s: %d rows for %d messages", name, len(rows), len(b.msgs))
		}
		for _, r := range rows {
			m := b.msgs[r.UID]
			if m == nil || !plan.SameFlags(r.Flags, m.flags) || r.State == ledger.Intended {
				h.t.Errorf("%s UID %d: row %+v", name, r.UID, r)
			}
		}
	}
}

// stubID gives the Message-ID of a stub.
func stubID(raw string) string {
	key, _ := stub.ReadKey(strings.NewReader(raw))
	return key.MessageID()
}

func difference(want, got map[string]int) string {
	var b bytes.Buffer
	for k, n := range want {
		if b.Len() > 1000 {
			break
		}
		if got[k] != n {
			fmt.Fprintf(&b, "\n  want %d, have %d of %.80q%s", n, got[k], k, k[strings.LastIndexByte(k, '|'):])
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			fmt.Fprintf(&b, "\n  %d too many of %.80q%s", n, k, k[strings.LastIndexByte(k, '|'):])
		}
	}
	return b.String()
}
