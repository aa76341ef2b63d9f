package cmd

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// otherPrograms is called by tests with other programs, that take minutes together. make
// test runs them all; make quick has no part of them.
func otherPrograms(t testing.TB) {
	t.Helper()
	if share.Quick() {
		t.Skip("make quick starts no other programs")
	}
}

// tooLong is for what ends at all: nothing takes so long on any machine, however busy. A test that
// waits for it to pass has failed.
const tooLong = 5 * time.Minute

// world is one user's machine: a mail root, a notmuch database of its own, and
// an account on some server.
type world struct {
	t      testing.TB
	dir    string
	config string // notmuch's
	index  *index.Index
	remote remote.Options
	now    time.Time
	events []pipeline.Event
	notes  []string
	policy func(*pipeline.Options) // what its configuration wants beside; nil: nothing
	pause  func(context.Context, time.Duration) error
}

// newWorld makes a world whose account is on the server at addr, without TLS.
func newWorld(t testing.TB, addr, user, password string) *world {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: ledgertest.Dir(t), now: time.Now()}
	w.remote = remote.Options{
		Host: host, Port: n, TLS: "none", AllowPlaintext: true, User: user, Timeout: time.Minute, Names: &remote.Names{},
		Password: func(context.Context) (string, error) { return password, nil },
	}
	w.open()
	return w
}

// open makes or reopens the notmuch database.
func (w *world) open() {
	w.t.Helper()
	w.config = filepath.Join(w.dir, "notmuch-config")
	root := filepath.Join(w.dir, "Mail")
	text := "[database]\npath=" + root + "\n[user]\nname=Test\nprimary_email=test@example.org\n[new]\ntags=inbox;unread\n"
	if err := errors.Join(os.MkdirAll(root, 0o700), os.WriteFile(w.config, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
	idx, err := index.Open(context.Background(), index.Options{Config: w.config})
	if err != nil {
		w.t.Fatal(err)
	}
	w.index = idx
}

// options is a sync of the world's account; l is its ledger.
func (w *world) options(l *ledger.Ledger) pipeline.Options {
	o := pipeline.Options{
		Account: pipeline.Account{
			Name: "work", Address: "test@example.org", Root: filepath.Join(w.index.MailRoot(), "work"),
			Dial: func(ctx context.Context) (pipeline.Session, error) {
				s, err := remote.Dial(ctx, w.remote)
				if err != nil {
					return pipeline.Session{}, err
				}
				return sessionOf(s), nil
			},
			Index: w.index, Ledger: l,
			Now: func() time.Time { return w.now }, Pause: w.pause,
			Emit: func(e pipeline.Event) bool { w.events = append(w.events, e); return true },
		},
		Policy: pipeline.Policy{Tags: plan.Tags{NewTags: w.index.NewTags()}, Connections: 3, Timeout: w.remote.Timeout},
	}
	if w.policy != nil {
		w.policy(&o)
	}
	return o
}

func (w *world) state() string { return filepath.Join(w.dir, "state") }

// sync runs one sync, which is to end in time whatever the server does; change
// may alter its options.
func (w *world) sync(change ...func(*pipeline.Options)) *pipeline.Report {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	l, err := ledger.Open(ctx, w.state())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.index.MailRoot(), "work"), 0o700); err != nil {
		w.t.Fatal(err)
	}
	w.events = nil
	o := w.options(l)
	for _, f := range change {
		f(&o)
	}
	rep, err := pipeline.Sync(ctx, o)
	if err := errors.Join(err, l.Close()); err != nil {
		w.t.Fatal(err)
	}
	return rep
}

// mails gives the bytes of a folder's mails, by path, stubs apart.
func (w *world) mails(folder string) (mails, stubs map[string]string) {
	w.t.Helper()
	mails, stubs = map[string]string{}, map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		dir := filepath.Join(w.index.MailRoot(), "work", folder, sub)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				w.t.Fatal(err)
			}
			if _, err := stub.ReadKey(strings.NewReader(string(b))); err == nil {
				stubs[filepath.Join(dir, e.Name())] = string(b)
			} else {
				mails[filepath.Join(dir, e.Name())] = string(b)
			}
		}
	}
	return mails, stubs
}

// newScript gives a scripted server that ends with the test.
func newScript(t *testing.T, caps string, fault *imaptest.Fault, boxes ...*imaptest.ScriptBox) *imaptest.Script {
	t.Helper()
	s, err := imaptest.NewScript(caps, fault, boxes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// notmuch runs the real notmuch on the world's database.
func (w *world) notmuch(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("notmuch", args...)
	cmd.Env = append(os.Environ(), "NOTMUCH_CONFIG="+w.config)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("notmuch %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// holds asserts that a folder holds exactly these mails, CRLF ones, each once
// and byte for byte, and that nothing lies in its tmp.
func (w *world) holds(folder string, want []string) {
	w.t.Helper()
	count := map[string]int{}
	for _, raw := range want {
		count[strings.ReplaceAll(raw, "\r\n", "\n")]++
	}
	mails, _ := w.mails(folder)
	for path, raw := range mails {
		if count[raw]--; count[raw] < 0 {
			w.t.Errorf("%s is one too many, or not as sent: %.60q", path, raw)
		}
	}
	for raw, n := range count {
		if n > 0 {
			w.t.Errorf("%s lacks %.60q", folder, raw)
		}
	}
	tmp, err := os.ReadDir(filepath.Join(w.index.MailRoot(), "work", folder, "tmp"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	if len(tmp) > 0 {
		w.t.Errorf("%s/tmp holds %d files", folder, len(tmp))
	}
}

// removeAll is for state that a test loses on purpose.
func removeAll(dir string) error { return os.RemoveAll(dir) }
