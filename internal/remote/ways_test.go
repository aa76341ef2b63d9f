package remote

import (
	"bufio"
	"compress/flate"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// through gives options for a tunnel of a shell's script.
func through(script string, args ...string) Options {
	o := plain(0)
	o.AllowPlaintext, o.Password = false, nil
	o.Tunnel = append([]string{"sh", "-c", script, "sh"}, args...)
	return o
}

// obeying is a server in a shell that says OK to everything.
const obeying = `while read -r tag command; do case $command in LOGOUT*) exit;; *) printf '%s OK done\r\n' "$tag";; esac; done`

func TestTunnel(t *testing.T) {
	t.Parallel()
	t.Run("signed in already", func(t *testing.T) {
		t.Parallel()
		s := dialed(t, through(`printf '* PREAUTH [CAPABILITY IMAP4rev1 IDLE] hi\r\n'; `+obeying))
		if !s.Has("IDLE") || s.Greeting() != "hi" {
			t.Errorf("capabilities %v, greeting %q", s.Capabilities(), s.Greeting())
		}
		if ex, err := s.Exchange(t.Context(), "NOOP"); err != nil || ex.Status != "OK" {
			t.Errorf("%v, %+v", err, ex)
		}
	})
	t.Run("with a password", func(t *testing.T) {
		t.Parallel()
		o := through(`printf '* OK [CAPABILITY IMAP4rev1] hi\r\n'; read -r tag login; case $login in LOGIN*hunter2*) ;; *) exit;; esac; printf '%s OK [CAPABILITY IMAP4rev1] hi\r\n' "$tag"; ` + obeying)
		o.Password = func(context.Context) (string, error) { return testSecret, nil }
		_ = dialed(t, o)
	})
	t.Run("arguments are no shell's", func(t *testing.T) {
		t.Parallel()
		s := dialed(t, through(`printf '* PREAUTH [CAPABILITY IMAP4rev1] %s\r\n' "$1"; `+obeying, "$HOME; `id` *"))
		if want := "$HOME; `id` *"; s.Greeting() != want {
			t.Errorf("greeting %q, want %q", s.Greeting(), want)
		}
	})
	t.Run("PREAUTH before STARTTLS", func(t *testing.T) {
		t.Parallel()
		o := through(`printf '* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n'; ` + obeying)
		o.TLS = "starttls"
		_, err := Dial(t.Context(), o)
		_ = wantFault(t, err, mail.KindTLS)
	})
	for name, c := range map[string]struct{ script, words string }{
		"it fails":             {`echo 'ssh: Could not resolve hostname' >&2; printf 'a\033[31mb' >&2; exit 255`, `ssh: Could not resolve hostname; a\x1b[31mb`},
		"it fails in silence":  {`exit 3`, "exit status 3"},
		"it is no IMAP server": {`yes | head -c 5000000 >&2; exit 1`, "y; y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Dial(t.Context(), through(c.script))
			if f := wantFault(t, err, mail.KindDial); !strings.Contains(f.Error(), c.words) || !strings.Contains(f.Error(), "tunnel sh") || len(f.Error()) > 1000 {
				t.Errorf("%v does not say %q", f, c.words)
			}
		})
	}
	t.Run("there is no such program", func(t *testing.T) {
		t.Parallel()
		o := through("")
		o.Tunnel = []string{"/nonexistent/ssh"}
		_, err := Dial(t.Context(), o)
		if f := wantFault(t, err, mail.KindDial); !strings.Contains(f.Error(), "/nonexistent/ssh") {
			t.Error(f)
		}
	})
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		o := through("sleep 1000")
		o.Timeout = 150 * time.Millisecond
		_, err := Dial(t.Context(), o)
		_ = wantFault(t, err, mail.KindSilent)
	})
	t.Run("it ends in the middle", func(t *testing.T) {
		t.Parallel()
		s := dialed(t, through(`printf '* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n'; read -r line; echo 'Connection reset by peer' >&2; exit 255`))
		_, err := s.List(t.Context(), mail.Listing{})
		if f := wantFault(t, err, mail.KindCut); !strings.Contains(f.Error(), "Connection reset by peer") {
			t.Error(f)
		}
	})
}

// TestNothingOfATunnelIsLeft: the program and what it has started are ended,
// whatever they think of it.
func TestNothingOfATunnelIsLeft(t *testing.T) {
	t.Parallel()
	pids := filepath.Join(t.TempDir(), "pids")
	script := `trap '' TERM HUP; sh -c 'trap "" TERM; echo $$ >> "$1"; while :; do sleep 1000; done' sh "$1" & echo $$ >> "$1"; while [ "$(wc -l < "$1")" -lt 2 ]; do :; done; printf '* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n'; while :; do sleep 1000; done`
	s, err := Dial(t.Context(), through(script, pids))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Minute); running(pid); {
			if time.Now().After(end) {
				t.Fatalf("process %d runs on", pid)
			}
		}
	}
}

// running tells whether a process is there and no zombie.
func running(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// socks serves one connection as a SOCKS5 proxy (RFC 1928) would that knows where
// every name leads.
func socks(p *peer, to int, asked chan<- string) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(p.r, head); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, p.r, int64(head[1]))
	p.send("\x05\x00")
	request := make([]byte, 5)
	if _, err := io.ReadFull(p.r, request); err != nil {
		return
	}
	rest := make([]byte, int(request[4])+2)
	if _, err := io.ReadFull(p.r, rest); err != nil {
		return
	}
	asked <- fmt.Sprintf("%d %s", request[3], rest[:request[4]])
	if to == 0 {
		p.send("\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00") // host unreachable
		return
	}
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
	if err != nil {
		return
	}
	defer server.Close()
	p.send("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(p, server)
	}()
	_, _ = io.Copy(server, p.r)
	_ = server.Close()
	<-done
}

func TestProxy(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 10)
	server := serve(t, func(p *peer) { p.greet("IMAP4rev1"); p.hang() })
	o := plain(993)
	o.Host = "mail.invalid" // which only the proxy can resolve
	o.Proxy = fmt.Sprintf("127.0.0.1:%d", serve(t, func(p *peer) { socks(p, server, asked) }))
	_ = dialed(t, o)
	if got := <-asked; got != "3 mail.invalid" {
		t.Errorf("the proxy was asked for %q", got)
	}
	o.Proxy = fmt.Sprintf("127.0.0.1:%d", serve(t, func(p *peer) { socks(p, 0, asked) }))
	_, err := Dial(t.Context(), o)
	if f := wantFault(t, err, mail.KindDial); !strings.Contains(f.Error(), "by the proxy 127.0.0.1:") || !strings.Contains(f.Error(), "unreachable") {
		t.Error(f)
	}
}

// compressing serves one session with compression; answer is what follows each
// command after COMPRESS.
func compressing(caps string, answer func(command string) string) func(*peer) {
	return func(p *peer) {
		p.greet(caps)
		for {
			tag, command := p.command()
			switch {
			case tag == "":
				return
			case strings.HasPrefix(command, "EXAMINE"):
				p.send("* 20 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n%s OK done\r\n", tag)
				continue
			case command != "COMPRESS DEFLATE":
				p.send("%s BAD what?\r\n", tag)
				continue
			}
			p.send("%s OK go\r\n", tag)
			in := bufio.NewReader(flate.NewReader(p.r))
			out, _ := flate.NewWriter(p, flate.BestSpeed)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				tag, command, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
				_, _ = io.WriteString(out, strings.ReplaceAll(answer(command), "{tag}", tag))
				if out.Flush() != nil {
					return
				}
			}
		}
	}
}

func ten() imap.UIDSet { return imap.UIDSet{{Start: 1, Stop: 20}} }

func TestCompress(t *testing.T) {
	t.Parallel()
	const caps = "IMAP4rev1 COMPRESS=DEFLATE"
	mails := func(string) string {
		var b strings.Builder
		for i := range 20 {
			fmt.Fprintf(&b, "* %d FETCH (UID %d BODY[] {6}\r\nm%05d)\r\n", i+1, i+1, i+1)
		}
		return b.String() + "{tag} OK done\r\n"
	}
	o := plain(serve(t, compressing(caps, mails)))
	o.Compress = true
	s := dialed(t, o)
	if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var b basket
		if err := s.Fetch(t.Context(), ten(), b.sink()); err != nil || len(b.bodies) != 20 || b.bodies[19] != "m00020" {
			t.Fatalf("%v: %q", err, b.bodies)
		}
	}
	for name, answer := range map[string]string{
		"bomb":           "* 1 FETCH (UID 1 BODY[] {18000000}\r\n" + strings.Repeat("\x00", 18_000_000) + ")\r\n{tag} OK done\r\n",
		"line of a bomb": "* OK " + strings.Repeat(" ", 18_000_000) + "\r\n{tag} OK done\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, compressing(caps, func(string) string { return answer })))
			o.Compress = true
			s := dialed(t, o)
			if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
				t.Fatal(err)
			}
			err := s.Fetch(t.Context(), ten(), mail.Sink{Open: func(int64) (mail.Spool, error) { return nowhere{}, nil }, Done: func(mail.Message, mail.Spool) error { return nil }})
			if f := wantFault(t, err, mail.KindTooLarge); !strings.Contains(f.Error(), "as no mail is") {
				t.Error(f)
			}
		})
	}
}

// TestNoCompression where it is not worth it, switched off, refused, or where what
// comes is not compressed at all.
func TestNoCompression(t *testing.T) {
	t.Parallel()
	const caps = "IMAP4rev1 COMPRESS=DEFLATE"
	five := "* 1 FETCH (UID 1 BODY[] {3}\r\nabc)\r\n{tag} OK done\r\n"
	for name, c := range map[string]struct {
		change   func(*Options)
		uids     imap.UIDSet
		compress string // the answer to it
		asked    bool
		want     mail.Kind
	}{
		"few mails":      {func(*Options) {}, imap.UIDSet{{Start: 1, Stop: 1}}, "", false, 0},
		"switched off":   {func(o *Options) { o.Disable = []string{"COMPRESS=DEFLATE"} }, ten(), "", false, 0},
		"this machine":   {func(o *Options) { o.Compress = false }, ten(), "", false, 0},
		"refused":        {func(*Options) {}, ten(), "{tag} NO [COMPRESSIONACTIVE] no\r\n", true, 0},
		"not compressed": {func(*Options) {}, ten(), "{tag} OK go\r\n* OK hello, this is no deflate\r\n", true, mail.KindMalformed},
		"cut":            {func(*Options) {}, ten(), "{tag} OK go\r\n{hangup}", true, mail.KindCut},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan bool, 10)
			o := plain(serve(t, func(p *peer) {
				p.greet(caps)
				for {
					tag, command := p.command()
					switch {
					case tag == "":
						return
					case strings.HasPrefix(command, "EXAMINE"):
						p.send("* 20 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n%s OK done\r\n", tag)
					case strings.HasPrefix(command, "COMPRESS"):
						asked <- true
						answer, hangUp := strings.CutSuffix(strings.ReplaceAll(c.compress, "{tag}", tag), "{hangup}")
						if p.send("%s", answer); hangUp {
							return
						}
					default:
						p.send("%s", strings.ReplaceAll(five, "{tag}", tag))
					}
				}
			}))
			o.Compress = true
			c.change(&o)
			s := dialed(t, o)
			if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
				t.Fatal(err)
			}
			var b basket
			err := s.Fetch(t.Context(), c.uids, b.sink())
			if c.want != 0 {
				_ = wantFault(t, err, c.want)
			} else if err != nil || len(b.bodies) != 1 {
				t.Errorf("%v: %q", err, b.bodies)
			}
			if (len(asked) > 0) != c.asked {
				t.Errorf("COMPRESS was asked for %d times", len(asked))
			}
		})
	}
}

// TestServerName and old TLS are for servers that cannot be had otherwise.
func TestOddTLS(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.org"}, DNSNames: []string{"mail.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	for _, c := range []struct {
		name    string
		version uint16
		suite   uint16
		change  func(*Options)
		refused bool
	}{
		{"the host's name is not in it", tls.VersionTLS13, 0, func(*Options) {}, true},
		{"tls_server_name is", tls.VersionTLS13, 0, func(o *Options) { o.ServerName = "mail.example.org" }, false},
		{"key exchange by RSA", tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA, func(o *Options) { o.ServerName = "mail.example.org" }, true},
		{"key exchange by RSA, allowed", tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA, func(o *Options) { o.ServerName, o.Legacy = "mail.example.org", true }, false},
		{"TLS 1.0", tls.VersionTLS10, 0, func(o *Options) { o.ServerName = "mail.example.org" }, true},
		{"TLS 1.0, allowed", tls.VersionTLS10, 0, func(o *Options) { o.ServerName, o.Legacy = "mail.example.org", true }, false},
		{"the name counts also then", tls.VersionTLS10, 0, func(o *Options) { o.Legacy = true }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS10, MaxVersion: c.version}
			if c.suite != 0 {
				config.CipherSuites = []uint16{c.suite}
			}
			o := plain(serve(t, func(p *peer) {
				q := secured(p, config)
				q.greet("IMAP4rev1")
				q.hang()
			}))
			o.TLS, o.RootCAs = "implicit", pool
			c.change(&o)
			s, err := Dial(t.Context(), o)
			if err == nil {
				_ = s.Close() // nothing hangs on it
			}
			if c.refused {
				_ = wantFault(t, err, mail.KindTLS)
			} else if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestID goes after the sign-in where it is offered, without a wait: NetEase
// refuses SELECT before it. Its answer is nobody's.
func TestID(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"* ID (\"name\" \"x\")\r\n{tag} OK done\r\n", "{tag} BAD no\r\n", "* ID NIL\r\n* BAD no such command\r\n{tag} NO {3}\r\nabc\r\n"} {
		said := make(chan string, 10)
		var notes []string
		o := plain(serve(t, func(p *peer) {
			p.greet("IMAP4rev1 ID")
			id := false
			for {
				tag, command := p.command()
				if tag == "" {
					return
				}
				said <- command
				switch {
				case strings.HasPrefix(command, "ID "):
					id = true
					p.send("%s", strings.ReplaceAll(answer, "{tag}", tag))
				case !id:
					p.send("%s NO EXAMINE Unsafe Login. Please contact kefu@188.com for help\r\n", tag)
				default:
					p.send("* 3 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n%s OK done\r\n", tag)
				}
			}
		}))
		o.Version, o.Note = `1"2`, func(s string) { notes = append(notes, s) }
		s := dialed(t, o)
		sel, err := s.Examine(t.Context(), "INBOX", nil)
		if err != nil || sel.Messages != 3 {
			t.Errorf("%q: %v, %+v", answer, err, sel)
		}
		if got := <-said; got != `ID ("name" "notmuch-imap" "version" "1\"2")` {
			t.Errorf("the client said %q", got)
		}
		if len(notes) > 0 {
			t.Errorf("notes %q", notes)
		}
	}
}

// TestIMAP4rev2 alone has in it what were extensions, and names in UTF-8.
func TestIMAP4rev2(t *testing.T) {
	t.Parallel()
	for caps, want := range map[string]struct {
		has  bool
		name string // of the mailbox that is Entw&APw-rfe on the wire
	}{
		"IMAP4rev2":           {true, "Entw&APw-rfe"},
		"IMAP4rev1 IMAP4rev2": {false, "Entwürfe"},
	} {
		asked := make(chan string, 10)
		o := plain(serve(t, func(p *peer) {
			p.greet(caps)
			for {
				tag, command := p.command()
				switch word, _, _ := strings.Cut(command, " "); word {
				case "":
					return
				case "LIST":
					p.send("* LIST () \"/\" Entw&APw-rfe\r\n* LIST () \"/\" \"Müll\"\r\n* STATUS Entw&APw-rfe (MESSAGES 1)\r\n* STATUS \"Müll\" (MESSAGES 2)\r\n%s OK done\r\n", tag)
				case "STATUS":
					p.send("%s NO no\r\n", tag)
				default:
					asked <- command
					p.send("* 3 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n%s OK done\r\n", tag)
				}
			}
		}))
		s := dialed(t, o)
		for _, c := range strings.Fields("UIDPLUS MOVE ESEARCH LIST-STATUS SPECIAL-USE LITERAL- ENABLE") {
			if s.Has(c) != want.has {
				t.Errorf("%s: %s %v", caps, c, s.Has(c))
			}
		}
		boxes, err := s.List(t.Context(), mail.Listing{})
		if err != nil || len(boxes) != 2 || boxes[0].Name != want.name || boxes[1].Name != "Müll" {
			t.Errorf("%s: %v, %+v", caps, err, boxes)
		}
		if want.has && (boxes[1].Status == nil || boxes[1].Status.Messages != 2) {
			t.Errorf("%s: %+v", caps, boxes)
		}
		if _, err := s.Examine(t.Context(), "Ätna", nil); err != nil {
			t.Error(err)
		}
		if got, want := <-asked, map[bool]string{true: `EXAMINE "Ätna"`, false: `EXAMINE "&AMQ-tna"`}[want.has]; got != want {
			t.Errorf("%s: the client said %s, want %s", caps, got, want)
		}
	}
}
