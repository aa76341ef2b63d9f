package cmd

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// dovecot starts a real server.
func dovecot(t *testing.T, hide ...string) *imaptest.DovecotServer {
	t.Helper()
	return dovecotOf(t, imaptest.DovecotOptions{Hide: hide})
}

func dovecotOf(t *testing.T, o imaptest.DovecotOptions) *imaptest.DovecotServer {
	t.Helper()
	otherPrograms(t)
	s, err := imaptest.StartDovecot(t.Context(), t.TempDir(), o)
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

func mails(raws ...string) iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		for i, raw := range raws {
			if !yield(time.Date(2021, 5, 1, 12, 0, i, 0, time.UTC), []byte(raw)) {
				return
			}
		}
	}
}

func appendAll(t *testing.T, s *imaptest.DovecotServer, mailbox string, raws ...string) {
	t.Helper()
	if err := s.AppendAll(mailbox, mails(raws...)); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, s *imaptest.DovecotServer, lines ...string) {
	t.Helper()
	if out, err := s.Command(lines...); err != nil {
		t.Fatalf("%v: %v\n%s", lines, err, strings.Join(out, "\n"))
	}
}

// spoken records what clients say, tags left out.
type spoken struct {
	mu    sync.Mutex
	lines []string
}

func (s *spoken) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return lines
}

func (s *spoken) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &spokenConn{Conn: c, s: s}, nil
}

type spokenConn struct {
	net.Conn
	s    *spoken
	part []byte
}

func (c *spokenConn) Write(p []byte) (int, error) {
	c.s.mu.Lock()
	c.part = append(c.part, p...)
	for {
		i := bytes.IndexByte(c.part, '\n')
		if i < 0 {
			break
		}
		_, line, _ := strings.Cut(strings.TrimSpace(string(c.part[:i])), " ")
		c.s.lines = append(c.s.lines, line)
		c.part = c.part[i+1:]
	}
	c.s.mu.Unlock()
	return c.Conn.Write(p)
}

// extensions of Dovecot that the tests hide, each set on its own.
func dovecots() map[string][]string {
	return map[string][]string{
		"everything":   nil,
		"no QRESYNC":   {"QRESYNC"},
		"no CONDSTORE": {"QRESYNC", "CONDSTORE"},
		"bare":         {"QRESYNC", "CONDSTORE", "LIST-STATUS", "ESEARCH", "UIDPLUS", "MOVE"},
	}
}

func TestDovecot(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			var inbox, archive []string
			for i := range 300 {
				inbox = append(inbox, faultMail(i))
			}
			for i := range 40 {
				archive = append(archive, faultMail(1000+i))
			}
			drafts := faultMail(2000)
			appendAll(t, s, "INBOX", inbox...)
			appendAll(t, s, "Archive/2024", archive...)
			appendAll(t, s, "Entw&APw-rfe", drafts)
			command(t, s, "SELECT INBOX", `STORE 1:100 +FLAGS (\Seen)`, `STORE 5 +FLAGS (\Flagged todo)`)

			w := newWorld(t, s.Addr(), s.User, s.Password)
			said := &spoken{}
			w.remote.DialContext = said.dial
			if rep := w.sync(); rep.New != 341 || !rep.Clean() {
				t.Fatalf("first: %+v", rep)
			}
			w.holds("INBOX", inbox)
			w.holds("Archive/2024", archive)
			w.holds("Entwürfe", []string{drafts})
			for query, want := range map[string]string{"*": "341", "tag:unread": "241", "tag:flagged": "1", "tag:todo and tag:flagged": "1", "tag:inbox": "341"} {
				if got := w.notmuch("count", query); got != want {
					t.Errorf("notmuch count %s: %s, want %s", query, got, want)
				}
			}

			said.take()
			if rep := w.sync(); rep.New+rep.Flagged+rep.Removed != 0 || !rep.Clean() {
				t.Errorf("idle: %+v", rep)
			}
			if want := idle(name); want != nil {
				if got := redacted(said.take()); !slices.Equal(got, want) {
					t.Errorf("an idle sync says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}

			fresh := faultMail(3000)
			appendAll(t, s, "INBOX", fresh)
			command(t, s, "SELECT INBOX", `STORE 200 +FLAGS (\Answered \Seen)`, `STORE 5 -FLAGS (\Flagged todo)`, `STORE 7,9 +FLAGS (\Deleted)`, "EXPUNGE")
			rep := w.sync()
			if rep.New != 1 || rep.Flagged != 2 || rep.Removed != 2 || !rep.Clean() {
				t.Errorf("changes: %+v", rep)
			}
			inbox = append(slices.Delete(slices.Delete(slices.Clone(inbox), 8, 9), 6, 7), fresh)
			w.holds("INBOX", inbox)
			for query, want := range map[string]string{"*": "340", "tag:flagged": "0", "tag:todo": "0", "tag:replied": "1"} {
				if got := w.notmuch("count", query); got != want {
					t.Errorf("notmuch count %s: %s, want %s", query, got, want)
				}
			}

			// Moved on the server: linked, and its tags stay.
			w.notmuch("tag", "+mine", "--", "id:f150@example.org")
			command(t, s, "SELECT INBOX", "SEARCH HEADER Message-ID f150@", "COPY 149 Archive/2024", `STORE 149 +FLAGS (\Deleted)`, "EXPUNGE")
			rep = w.sync()
			if rep.Linked != 1 || rep.Removed != 1 || !rep.Clean() {
				t.Errorf("moved: %+v", rep)
			}
			w.holds("Archive/2024", append(archive, faultMail(150)))
			if got := w.notmuch("count", "tag:mine"); got != "1" {
				t.Errorf("tag of moved mail: %s", got)
			}

			// UIDVALIDITY changes: nothing is downloaded again, nothing is lost.
			if out, err := s.Doveadm("mailbox", "update", "--uid-validity", "4242", "INBOX"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			said.take()
			rep = w.sync()
			if rep.New+rep.Removed+rep.Held != 0 || !rep.Clean() {
				t.Errorf("UIDVALIDITY: %+v", rep)
			}
			if log := strings.Join(said.take(), "\n"); strings.Contains(log, "BODY.PEEK[])") {
				t.Errorf("mail was downloaded again:\n%s", log)
			}
			w.holds("INBOX", slices.DeleteFunc(inbox, func(m string) bool { return m == faultMail(150) }))

			// And a lost ledger likewise.
			if err := removeAll(w.state()); err != nil {
				t.Fatal(err)
			}
			rep = w.sync()
			if log := strings.Join(said.take(), "\n"); strings.Contains(log, "BODY.PEEK[])") || !rep.Clean() {
				t.Errorf("after the ledger was lost: %+v\n%s", rep, log)
			}
			if rep := w.sync(); rep.New+rep.Flagged+rep.Removed != 0 || !rep.Clean() {
				t.Errorf("in the end: %+v", rep)
			}
			if out := w.notmuch("new"); !strings.Contains(out, "No new mail") {
				t.Errorf("notmuch new after us: %s", out)
			}
			if out, err := s.Command("SELECT INBOX", `SEARCH SEEN`); err != nil || !strings.Contains(strings.Join(out, "\n"), "* SEARCH ") {
				t.Errorf("%v %v", out, err)
			} else if n := len(strings.Fields(searchLine(out))) - 2; n != 98+1 {
				t.Errorf("%d messages are seen on the server, want 99: a sync never marks one", n)
			}
		})
	}
}

func searchLine(lines []string) string {
	for _, l := range lines {
		if strings.HasPrefix(l, "* SEARCH") {
			return l
		}
	}
	return ""
}

// idle is what an idle sync says, command by command.
func idle(server string) []string {
	if server != "everything" {
		return nil
	}
	return []string{
		"AUTHENTICATE PLAIN <secret>",
		`ID ("name" "notmuch-imap")`, // not waited for: remote's TestAnIdleRunTakesFewRoundTrips
		`LIST "" "*" RETURN (STATUS (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ))`,
		"LOGOUT",
	}
}

func redacted(lines []string) []string {
	for i, l := range lines {
		lines[i] = regexp.MustCompile(`^(AUTHENTICATE PLAIN) .*`).ReplaceAllString(l, "$1 <secret>")
	}
	return lines
}

func TestTwoHundredMailboxes(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	var lines []string
	for i := range 199 {
		lines = append(lines, fmt.Sprintf("CREATE box%d/sub", i))
	}
	command(t, s, lines...)
	for _, i := range []int{0, 99, 198} {
		appendAll(t, s, fmt.Sprintf("box%d/sub", i), faultMail(i))
	}
	proxy, err := imaptest.NewProxy(s.Addr(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = proxy.Close() }()
	w := newWorld(t, proxy.Addr(), s.User, s.Password)
	if rep := w.sync(); rep.New != 3 || rep.Mailboxes < 200 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	before := proxy.Flights()
	if rep := w.sync(); rep.Changed != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	// The TCP handshake is one more.
	if n := proxy.Flights() - before; n > 7 {
		t.Errorf("an idle sync takes %d round trips", n)
	}
	if entries, err := filepath.Glob(filepath.Join(w.index.MailRoot(), "work", "box*", "sub", "cur")); err != nil || len(entries) != 199 {
		t.Errorf("%d folders, %v", len(entries), err)
	}
}

func TestDovecotDryRunSaysAndDoesNothing(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", faultMail(1), faultMail(2))
	w := newWorld(t, s.Addr(), s.User, s.Password)
	if rep := w.sync(func(o *pipeline.Options) { o.DryRun = true }); rep.New != 2 {
		t.Errorf("%+v", rep)
	}
	w.holds("INBOX", nil)
}
