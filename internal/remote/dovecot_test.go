//go:build linux

package remote

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// TestDovecotMechanisms signs in at a Dovecot that offers one mechanism alone, and
// is refused with another secret.
func TestDovecotMechanisms(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{TLS: true, Mechanisms: []string{name}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
			var h heard
			secret, wrong := srv.Password, "wrong"
			o := h.options(Options{Host: srv.Host, Port: srv.Port, TLS: "implicit", RootCAs: x509.NewCertPool(), User: srv.User, Timeout: 5 * time.Minute,
				Password: func(context.Context) (string, error) { return secret, nil }})
			o.RootCAs.AppendCertsFromPEM(srv.CertPEM())
			switch name {
			case "OAUTHBEARER", "XOAUTH2":
				secret, wrong = srv.Token(time.Now().Add(time.Hour)), srv.Token(time.Now().Add(-time.Minute))
				o.Token = func(ctx context.Context, _ bool) (string, error) { return o.Password(ctx) }
			case "EXTERNAL":
				if o.Certificate, err = srv.ClientCertificate(); err != nil {
					t.Fatal(err)
				}
			}
			s := dialed(t, o)
			if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
				t.Error(err)
			}
			if text := h.String(t); !strings.Contains(text, " AUTHENTICATE "+name+" [...]\n") || strings.Contains(text, secret) {
				t.Errorf("the transcript is\n%s", text)
			}
			if name == "EXTERNAL" {
				o.Certificate, o.Auth = nil, "external"
			}
			secret = wrong
			_, err = Dial(t.Context(), o)
			f := wantFault(t, err, mail.KindAuth)
			t.Log(f)
		})
	}
}

// TestDovecotCompressed fetches many mails compressed, and sends one.
func TestDovecotCompressed(t *testing.T) {
	t.Parallel()
	srv, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	var h heard
	o := h.options(plain(srv.Port))
	o.User, o.Compress = srv.User, true
	o.Password = func(context.Context) (string, error) { return srv.Password, nil }
	s := dialed(t, o)
	const n = 50
	var uploads []mail.Upload
	file := filepath.Join(t.TempDir(), "mail")
	text := "Subject: x\n\n" + strings.Repeat("All work and no play. ", 500) + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range n {
		uploads = append(uploads, mail.Upload{Path: file, Size: int64(len(text) + strings.Count(text, "\n"))})
	}
	put := func() {
		t.Helper()
		results, err := s.Append(t.Context(), "INBOX", uploads, nil, nil)
		if err != nil || len(results) != n || results[n-1].Err != nil {
			t.Fatalf("%v, %d results", err, len(results))
		}
	}
	put()
	if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
		t.Fatal(err)
	}
	fetch := func(n int) {
		t.Helper()
		var b basket
		if err := s.Fetch(t.Context(), imap.UIDSet{{Start: 1, Stop: imap.UID(n)}}, b.sink()); err != nil || len(b.bodies) != n {
			t.Fatalf("%v, %d mails", err, len(b.bodies))
		}
		for _, body := range b.bodies {
			if strings.ReplaceAll(body, "\r\n", "\n") != text {
				t.Fatalf("%.100q", body)
			}
		}
	}
	fetch(n)
	if s.inflated < 10*s.came {
		t.Errorf("%d bytes were made of %d", s.inflated, s.came)
	}
	put()
	if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
		t.Fatal(err)
	}
	fetch(2 * n)
	var b basket
	whole := strings.ReplaceAll(text, "\n", "\r\n")
	if err := s.FetchRest(t.Context(), 2, 5000, b.sink()); err != nil || len(b.bodies) != 1 || b.bodies[0] != whole[5000:] || b.got[0].Size != int64(len(whole)) {
		t.Errorf("the rest of a mail: %v, %d mails, %+v", err, len(b.bodies), b.got)
	}
	if got := strings.Count(h.String(t), " COMPRESS DEFLATE\n"); got != 1 {
		t.Errorf("COMPRESS was said %d times", got)
	}
}

// TestDovecotByTunnel speaks with an imap process that nobody signs in at.
func TestDovecotByTunnel(t *testing.T) {
	t.Parallel()
	srv, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	var h heard
	s := dialed(t, h.options(Options{Tunnel: srv.Tunnel(), TLS: "none", User: srv.User, Timeout: 5 * time.Minute, Version: "1"}))
	boxes, err := s.List(t.Context(), mail.Listing{})
	if err != nil || len(boxes) != 1 || boxes[0].Name != "INBOX" {
		t.Errorf("%v, %+v", err, boxes)
	}
	if text := h.String(t); !strings.Contains(text, "S: * PREAUTH ") || !strings.Contains(text, `ID ("name" "notmuch-imap" "version" "1")`) {
		t.Errorf("the transcript is\n%s", text)
	}
}

// TestDovecotListsADeletedMailbox that has others below it: it is no mailbox any more, whatever
// attributes it is listed with.
func TestDovecotListsADeletedMailbox(t *testing.T) {
	t.Parallel()
	srv, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{Maildir: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	s := dialed(t, Options{Tunnel: srv.Tunnel(), TLS: "none", User: srv.User, Timeout: 5 * time.Minute})
	boxes, err := s.List(t.Context(), mail.Listing{})
	if err != nil || len(boxes) != 1 {
		t.Fatalf("%v, %+v", err, boxes)
	}
	parent := "a"
	child := parent + string(boxes[0].Delim) + "b"
	for _, do := range []error{s.Create(t.Context(), parent), s.Create(t.Context(), child), s.Delete(t.Context(), parent)} {
		if do != nil {
			t.Fatal(do)
		}
	}
	boxes, err = s.List(t.Context(), mail.Listing{})
	there := slices.IndexFunc(boxes, func(m mail.Mailbox) bool { return m.Name == child && m.Selectable() && m.Status != nil })
	if err != nil || there < 0 {
		t.Errorf("%v, %+v", err, boxes)
	}
	if slices.ContainsFunc(boxes, func(m mail.Mailbox) bool { return m.Name == parent && (m.Selectable() || m.Err != nil) }) {
		t.Errorf("%+v", boxes)
	}
}
