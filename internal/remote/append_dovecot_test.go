package remote

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// TestAppendToDovecot reads the mails back.
func TestAppendToDovecot(t *testing.T) {
	t.Parallel()
	server, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := server.Command("CREATE plain", "CREATE LITERAL+", "CREATE MULTIAPPEND"); err != nil {
		t.Fatal(err)
	}
	cert, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	roots := cert.Pool()
	roots.AppendCertsFromPEM(server.CertPEM())
	date := time.Date(2021, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	for box, disable := range map[string][]string{"plain": {"LITERAL+"}, "LITERAL+": {"MULTIAPPEND"}, "MULTIAPPEND": nil} {
		o := plain(server.Port)
		o.TLS, o.RootCAs, o.User, o.Disable = "implicit", roots, server.User, disable
		o.Password = func(context.Context) (string, error) { return server.Password, nil }
		var h heard
		s := dialed(t, h.options(o))
		if s.Has("LITERAL+") == (box == "plain") || s.Has("MULTIAPPEND") == (box == "LITERAL+") {
			t.Fatal(s.Capabilities())
		}
		mails := oddMails()
		for i := range 300 {
			mails = append(mails, letter(10+i, 14_000))
		}
		var uploads []mail.Upload
		for _, text := range mails {
			u := upload(t, text, `\Seen`, `\Recent`, "$Forwarded", "work")
			u.InternalDate = date
			uploads = append(uploads, u)
		}
		// Neither costs the mails around it anything.
		uploads[20].Flags = []string{"bad flag"}
		empty := len(uploads) - 10
		uploads[empty] = upload(t, "")
		start := time.Now()
		results, err := s.Append(t.Context(), box, uploads, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d mails in %v", box, len(uploads), time.Since(start))
		wantFault(t, results[20].Err, mail.KindBad)
		t.Logf("an empty mail: %v", results[empty].Err)
		if results[empty].Err == nil {
			t.Error("an empty mail is stored")
		}
		sel, err := s.Examine(t.Context(), box, nil)
		if err != nil || int(sel.Messages) != len(uploads)-2 {
			t.Fatalf("%d messages, %v", sel.Messages, err)
		}
		byUID := make(map[imap.UID]string)
		for i, r := range results {
			if i == 20 || i == empty {
				continue
			}
			if r.Err != nil || r.UIDValidity != sel.UIDValidity || r.UID == 0 || byUID[r.UID] != "" {
				t.Fatalf("mail %d: %+v", i, r)
			}
			byUID[r.UID] = onWire(mails[i])
			if i == 2 { // Dovecot stores lines with LF, and makes CRLF of CR CR LF
				byUID[r.UID] = "Subject: mixed\r\n\r\nbare\r\nboth\r\n\r\nalone\rhere\r\n"
			}
		}
		var b basket
		if err := s.Fetch(t.Context(), imap.UIDSet{{Start: 1, Stop: maxUID}}, b.sink()); err != nil || len(b.got) != len(byUID) {
			t.Fatalf("%d mails, %v", len(b.got), err)
		}
		for i, m := range b.got {
			if b.bodies[i] != byUID[m.UID] {
				t.Errorf("mail %d: %.200q, want %.200q", m.UID, b.bodies[i], byUID[m.UID])
			}
			if !m.InternalDate.Equal(date) || len(m.Flags) != 3 || !strings.Contains(strings.Join(m.Flags, " "), "$Forwarded") {
				t.Errorf("mail %d: %v, %q", m.UID, m.InternalDate, m.Flags)
			}
		}

		results, err = s.Append(t.Context(), "nowhere", uploads[:3], nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if f := wantFault(t, r.Err, mail.KindNo); f.Code != "TRYCREATE" {
				t.Errorf("%+v", f)
			}
		}
		results, err = s.Append(t.Context(), box, []mail.Upload{upload(t, "Subject: NUL\n\n\x00\n"), uploads[0]}, nil, nil)
		t.Logf("a NUL: %+v, %v", results, err)
		if err != nil || results[1].Err != nil {
			t.Errorf("after a NUL: %+v, %v", results, err)
		}

		// A mail of which only the beginning came is not stored.
		before, err := s.Examine(t.Context(), box, nil)
		if err != nil {
			t.Fatal(err)
		}
		u := upload(t, letter(1, 200_000))
		o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &truncates{conn, u.Path}, err
		}
		o.Record = nil
		cut := dialed(t, o)
		results, err = cut.Append(t.Context(), box, []mail.Upload{uploads[0], u}, nil, nil)
		want := before.Messages + 1
		if box == "MULTIAPPEND" {
			want-- // it went with the other
		}
		if f := wantFault(t, err, mail.KindCut); !errors.Is(f, errChanged) || (results[0].Err == nil) != (want > before.Messages) || !errors.Is(results[1].Err, err) {
			t.Errorf("%v, %+v", f, results)
		}
		if sel, err := s.Examine(t.Context(), box, nil); err != nil || sel.Messages != want {
			t.Errorf("%d messages, then %d, %v", before.Messages, sel.Messages, err)
		}
		if strings.Contains(h.String(t), "C: line of letter") {
			t.Error("mail is in the transcript")
		}
	}
}

// truncates makes a file empty as soon as much is written.
type truncates struct {
	net.Conn
	path string
}

func (c *truncates) Write(p []byte) (int, error) {
	if len(p) > 8<<10 {
		_ = os.Truncate(filepath.Clean(c.path), 0) // else the test fails
	}
	return c.Conn.Write(p)
}

// TestAppendToTheOpenMailbox ends, though the server may answer what goes with the mails
// before them.
func TestAppendToTheOpenMailbox(t *testing.T) {
	t.Parallel()
	server, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	o := plain(server.Port)
	o.User, o.Password = server.User, func(context.Context) (string, error) { return server.Password, nil }
	s := dialed(t, o)
	if err := s.Create(t.Context(), "New"); err != nil {
		t.Fatal(err)
	}
	sel, err := s.Select(t.Context(), "New")
	if err != nil {
		t.Fatal(err)
	}
	known := &mail.Known{UIDValidity: sel.UIDValidity, HighestModSeq: sel.HighestModSeq, Identify: imap.UIDSet{{Start: 1, Stop: 4294967295}}}
	results, err := s.Append(t.Context(), "New", []mail.Upload{upload(t, letter(1, 100))}, nil, known)
	if err != nil || results[0].UID != 1 {
		t.Errorf("%+v, %v", results, err)
	}
	if sel, err = s.Examine(t.Context(), "New", known); err != nil || sel.Messages != 1 {
		t.Errorf("%+v, %v", sel, err)
	}
}
