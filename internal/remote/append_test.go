package remote

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// uploads writes mails with LF to disk.
func uploads(t *testing.T, mails ...string) (out []mail.Upload) {
	t.Helper()
	dir := t.TempDir()
	for i, m := range mails {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(m, "\r\n", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		out = append(out, mail.Upload{
			Path: path, Size: int64(len(m)), Flags: []string{`\Seen`, "work"}, InternalDate: time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600)),
		})
	}
	return out
}

// mailroom takes mails and remembers them. wait is how many commands it wants
// before it answers one.
type mailroom struct {
	mu   sync.Mutex
	got  []string
	most int // commands that came before the first of them was answered
}

func (m *mailroom) serve(caps string, answer func(n int, command string) string) func(*peer) {
	return func(p *peer) {
		p.greet(caps)
		for n := 1; ; {
			var tags, commands []string
			for {
				tag, command := p.command()
				if tag == "" {
					return
				}
				tags, commands = append(tags, tag), append(commands, command)
				if p.r.Buffered() == 0 {
					break
				}
			}
			m.mu.Lock()
			m.most = max(m.most, len(tags))
			m.mu.Unlock()
			for i, tag := range tags {
				a := answer(n, commands[i])
				n++
				if a == "" {
					return
				}
				m.mu.Lock()
				m.got = append(m.got, commands[i])
				m.mu.Unlock()
				p.send("* %d EXISTS\r\n%s %s\r\n", n, tag, a)
			}
		}
	}
}

func TestMailsAreUploadedAsTheyAre(t *testing.T) {
	t.Parallel()
	mails := []string{"Subject: a\r\n\r\nbody\r\n", "Subject: b\r\n\r\n" + strings.Repeat("a long line of text\r\n", 200_000), "no end of line"}
	for caps, literal := range map[string]string{testCaps: "}", testCaps + " LITERAL+": "+}", testCaps + " LITERAL-": "+}"} {
		var m mailroom
		s := dialed(t, plain(serve(t, m.serve(caps, func(n int, _ string) string { return fmt.Sprintf("OK [APPENDUID 14 %d] done", 100+n) }))))
		got, err := s.Append(t.Context(), "Entwürfe", uploads(t, mails...))
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range got {
			if a.Err != nil || a.UIDValidity != 14 || int(a.UID) != 101+i {
				t.Errorf("%s: %d: %+v", caps, i, a)
			}
			if strings.HasSuffix(caps, "LITERAL-") && len(mails[i]) > literalMinus {
				literal = "}"
			}
			want := fmt.Sprintf("APPEND \"Entw&APw-rfe\" (\\Seen work) \"04-Mar-2026 05:06:07 +0100\" {%d%s\r\n%s", len(mails[i]), literal, mails[i])
			if m.got[i] != want {
				t.Errorf("%s: mail %d was sent as %.200q, want %.200q", caps, i, m.got[i], want)
			}
			if strings.HasSuffix(caps, "LITERAL-") {
				literal = "+}"
			}
		}
	}
}

func TestManyMailsGoInOneFlight(t *testing.T) {
	t.Parallel()
	var m mailroom
	s := dialed(t, plain(serve(t, m.serve(testCaps+" LITERAL+", func(int, string) string { return "OK done" }))))
	var mails []string
	for i := range 200 {
		mails = append(mails, fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i))
	}
	got, err := s.Append(t.Context(), "INBOX", uploads(t, mails...))
	if err != nil || len(got) != 200 || len(m.got) != 200 {
		t.Fatalf("%v, %d, %d", err, len(got), len(m.got))
	}
	if m.most < 2 {
		t.Errorf("at most %d commands came at once", m.most)
	}
}

// What the server does not want, and what cannot be read, costs the others
// nothing.
func TestARefusedUploadCostsOnlyItself(t *testing.T) {
	t.Parallel()
	for _, caps := range []string{testCaps, testCaps + " LITERAL+"} {
		var m mailroom
		s := dialed(t, plain(serve(t, m.serve(caps, func(_ int, command string) string {
			if strings.Contains(command, "Subject: 1") {
				return "NO [OVERQUOTA] full"
			}
			return "OK done"
		}))))
		us := uploads(t, "Subject: 0\r\n\r\n", "Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n", "Subject: 3\r\n\r\n", "Subject: 4\r\n\r\n")
		if err := os.Remove(us[2].Path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(us[3].Path, []byte("another size"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Append(t.Context(), "INBOX", us)
		if err != nil {
			t.Fatal(err)
		}
		if f := wantFault(t, got[1].Err, mail.KindNo); f.Code != "OVERQUOTA" {
			t.Errorf("%+v", f)
		}
		for i, bad := range []bool{false, true, true, true, false} {
			if (got[i].Err != nil) != bad {
				t.Errorf("%s: %d: %v", caps, i, got[i].Err)
			}
		}
		if len(m.got) != 3 || !s.Alive() {
			t.Errorf("%d commands, alive %v", len(m.got), s.Alive())
		}
	}
}

// A server may refuse a literal before it is sent.
func TestAnUploadThatIsNotInvited(t *testing.T) {
	t.Parallel()
	s := dialed(t, plain(serve(t, func(p *peer) {
		p.greet(testCaps)
		for {
			tag, _, ok := strings.Cut(p.line(), " ")
			if !ok {
				return
			}
			p.send("* OK thinking\r\n%s NO [TRYCREATE] no such mailbox\r\n", tag)
		}
	})))
	got, err := s.Append(t.Context(), "INBOX", uploads(t, "a: b\r\n\r\n", "c: d\r\n\r\n"))
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", err, got)
	}
	for _, a := range got {
		if f := wantFault(t, a.Err, mail.KindNo); f.Code != "TRYCREATE" {
			t.Errorf("%+v", f)
		}
	}
}

func TestAnUploadThatIsCut(t *testing.T) {
	t.Parallel()
	for _, caps := range []string{testCaps, testCaps + " LITERAL+"} {
		var m mailroom
		s := dialed(t, plain(serve(t, m.serve(caps, func(n int, _ string) string {
			if n == 2 {
				return "" // stored, perhaps
			}
			return "OK [APPENDUID 14 7] done"
		}))))
		got, err := s.Append(context.Background(), "INBOX", uploads(t, "a: b\r\n\r\n", "c: d\r\n\r\n", "e: f\r\n\r\n"))
		wantFault(t, err, mail.KindCut)
		if len(got) != 3 || got[0].Err != nil || got[0].UID != 7 || got[1].Err == nil || got[2].Err == nil || s.Alive() {
			t.Errorf("%s: %+v", caps, got)
		}
	}
}
