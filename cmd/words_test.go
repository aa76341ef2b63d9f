package cmd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// TestInspectSaysWhatOftenHelpsWithExchange, to a person and to an administrator.
func TestInspectSaysWhatOftenHelpsWithExchange(t *testing.T) {
	t.Parallel()
	for _, exchange := range []bool{true, false} {
		i := &inspection{Inspection: &probe.Inspection{Exchange: exchange}, account: config.Account{Name: "work", Host: "h", Port: 993, User: "me@example.org"}}
		for name, text := range map[string]string{"inspect": showInspection(i), "report": showReport(i)} {
			const command = "  Set-CASMailbox me@example.org -ImapUseProtocolDefaults $false `\n      -ImapForceICalForCalendarRetrievalOption $true\n"
			if strings.Contains(text, command) != exchange || strings.Contains(text, "often helps") != exchange {
				t.Errorf("%s, Exchange %v:\n%s", name, exchange, text)
			}
		}
	}
}

// TestInspectKnowsExchange by the mail that it sends in place of the real one.
func TestInspectKnowsExchange(t *testing.T) {
	t.Parallel()
	s, err := imaptest.NewScript("IMAP4rev1", nil, imaptest.SeedScript())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing hangs on it
	w := newWorld(t, s.Addr(), "user", "pass phrase")
	if in := w.inspect(imaptest.SeedBadUID); !in.Exchange || in.Verdict.Advice == "" {
		t.Errorf("%+v", in)
	}
}

// TestAlertsAreShownOnce a run, however quiet it is.
func TestAlertsAreShownOnce(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	o := &output{stdout: &out, stderr: &errs, most: showFaults, limit: -1}
	for range 3 {
		o.alert("work", "your mailbox\x1b[31m is full")
	}
	o.alert("home", "your mailbox is full")
	if want := "work: the server says: your mailbox?[31m is full\nhome: the server says: your mailbox is full\n"; errs.String() != want || out.Len() > 0 {
		t.Errorf("%q, %q", out.String(), errs.String())
	}
	for i := range 100 {
		o.alert("work", strings.Repeat("x", i))
	}
	if n := strings.Count(errs.String(), "\n"); n != maxAlerts {
		t.Errorf("%d alerts were shown", n)
	}
	out.Reset()
	j := &output{stdout: &out, stderr: &errs, most: showFaults, limit: -1, json: true}
	j.alert("work", "full")
	if !strings.Contains(out.String(), `"type":"note","account":"work","text":"the server says: full"`) {
		t.Errorf("%q", out.String())
	}
}

// TestCheckOfTLS gives the fingerprint that tls_pin wants, and says each time what
// old TLS costs.
func TestCheckOfTLS(t *testing.T) {
	t.Parallel()
	srv, err := imaptest.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(imaptest.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(a config.Account) string {
		var out bytes.Buffer
		a.Name, a.Host, a.Port, a.TLS, a.User, a.PasswordFile, a.Timeout = "work", srv.Host(), srv.Port(), config.TLSImplicit, imaptest.User, secret, tooLong
		state := t.TempDir()
		c := &checker{p: &program{stdout: &out, stderr: &out, getenv: func(string) string { return state }}, account: a.Name}
		c.server(t.Context(), &a, c.p.newSecrets(nil), t.TempDir())
		return out.String()
	}
	pin := srv.Certificate.Pin()
	if text := check(config.Account{}); !strings.Contains(text, `tls_pin = "`+pin+`"`) || !strings.Contains(text, "fail  work: sign-in: ") {
		t.Errorf("the check of an untrusted server says\n%s", text)
	}
	if text := check(config.Account{TLSPin: pin}); !strings.Contains(text, "ok    work: sign-in: ") || strings.Contains(text, "tls_legacy") {
		t.Errorf("the check of a pinned server says\n%s", text)
	}
	if text := check(config.Account{TLSPin: pin, TLSLegacy: true}); !strings.Contains(text, "warn  work: tls: tls_legacy: old TLS is allowed") {
		t.Errorf("the check with tls_legacy says\n%s", text)
	}
}

// Several errors are one line, which a semicolon parts, to a person and in check.
func TestSeveralErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	both := errors.Join(errors.New("the ledger is damaged"), errors.New("the lock is lost"))
	o := &output{stdout: &out, stderr: &errs, most: showFaults, limit: -1}
	o.broken("work", both)
	p := &program{stdout: &out, stderr: &errs}
	p.complain("work", both)
	const line = "work: the ledger is damaged; the lock is lost\n"
	if errs.String() != line+line {
		t.Errorf("%q", errs.String())
	}
	c := &checker{p: p, account: "work"}
	c.fail("folder", "", both)
	if !strings.Contains(out.String(), "work: folder: the ledger is damaged; the lock is lost\n") {
		t.Errorf("%q", out.String())
	}
}

// A full disk that ends an account's run has what to do beside it, once.
func TestAFullDiskSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"the ledger cannot grow", "the ledger cannot grow; make space; the next sync does the rest"} {
		var errs bytes.Buffer
		o := &output{stdout: &errs, stderr: &errs, most: showFaults, limit: -1}
		o.broken("work", worded{text, syscall.ENOSPC})
		if want := "work: the ledger cannot grow; make space; the next sync does the rest\n"; errs.String() != want {
			t.Errorf("%q, want %q", errs.String(), want)
		}
	}
}

// worded is an error with words of its own.
type worded struct {
	text string
	error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.error }
