//go:build linux

package remote

import (
	"context"
	"strings"
	"testing"
	"time"

	"crypto/x509"

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
			o := h.options(Options{Host: srv.Host, Port: srv.Port, TLS: "implicit", RootCAs: x509.NewCertPool(), User: srv.User, Timeout: 20 * time.Second,
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
