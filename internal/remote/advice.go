package remote

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// advise says what the user can do about a connection or a sign-in that failed,
// unless that is said already.
func advise(o Options, f *mail.Fault) {
	if f.Do != "" {
		return
	}
	reached := o.Names != nil && o.Names.reached.Load()
	switch f.Kind {
	case mail.KindDial, mail.KindTLS, mail.KindSilent, mail.KindCut, mail.KindBye, mail.KindMalformed:
		if reached {
			f.Do = adviseReached(f)
			f.Again = f.Do != ""
		}
	}
	if f.Do != "" {
		return
	}
	switch f.Kind {
	case mail.KindDial:
		f.Do = adviseDial(o, f)
	case mail.KindTLS:
		f.Do = adviseTLS(o, f)
	case mail.KindPlaintext:
		f.Do = `use tls = "implicit" or "starttls", or say allow_plaintext = true`
	case mail.KindSecret:
		f.Do = "check password_command, password_file or keyring"
	case mail.KindAuth:
		f.Do = fmt.Sprintf("is user = %q right? many providers want an application password", o.User)
	case mail.KindCrowded:
		f.Do = "other programs (mail clients, phones, another sync or watch) hold the connections that the server allows this account: end one of them"
	case mail.KindSilent, mail.KindCut, mail.KindBye, mail.KindMalformed:
		if f.Op == "greeting" || f.Op == "TLS" || f.Op == "CAPABILITY" {
			f.Do = adviseGreeting(o, f)
		}
	}
}

// adviseReached is about a server that was reached by the same settings before; "" where that
// makes no difference.
func adviseReached(f *mail.Fault) string {
	_, isName := errors.AsType[*net.DNSError](f)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](f)
	switch {
	case isCertificate, errors.Is(f, errPin):
		return ""
	case isName, errors.Is(f, syscall.ENETUNREACH), errors.Is(f, syscall.EHOSTUNREACH):
		return "is the network there?"
	case f.Kind == mail.KindTLS:
		return "it was reached like this before: somebody else may answer in its place"
	}
	return "it was reached like this before"
}

func adviseDial(o Options, f *mail.Fault) string {
	if len(o.Tunnel) > 0 {
		if errors.Is(f, exec.ErrNotFound) || errors.Is(f, os.ErrNotExist) {
			return fmt.Sprintf("tunnel names a program that is not there: %s", o.Tunnel[0])
		}
		return "does the command of tunnel work by hand, and without asking for anything?"
	}
	host, port := o.Host, fmt.Sprintf("port = %d", o.Port)
	if o.Proxy != "" {
		return fmt.Sprintf("does the proxy run at %s, and does it reach host = %q at %s?", o.Proxy, host, port)
	}
	name, isName := errors.AsType[*net.DNSError](f)
	switch {
	case isName && name.IsNotFound:
		return fmt.Sprintf("there is no host %q: is host right, and the network there?", host)
	case isName:
		return fmt.Sprintf("the address of host %q cannot be looked up: is the network there?", host)
	case errors.Is(f, syscall.ECONNREFUSED):
		return fmt.Sprintf(`nobody listens there: is %s right? it is mostly 993 with tls = "implicit", and 143 with "starttls"`, port)
	case errors.Is(f, context.DeadlineExceeded), errors.Is(f, os.ErrDeadlineExceeded), errors.Is(f, syscall.ETIMEDOUT):
		return fmt.Sprintf("nothing comes back: are host = %q and %s right? a firewall may stand between", host, port)
	case errors.Is(f, syscall.ENETUNREACH), errors.Is(f, syscall.EHOSTUNREACH):
		return "is the network there?"
	}
	return fmt.Sprintf("is the network there? are host = %q and %s right?", host, port)
}

func adviseTLS(o Options, f *mail.Fault) string {
	if wrong, ok := errors.AsType[*tls.CertificateVerificationError](f); ok && len(wrong.UnverifiedCertificates) > 0 {
		return adviseCertificate(o, wrong)
	}
	text := f.Error()
	contains := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	_, isHeader := errors.AsType[tls.RecordHeaderError](f)
	switch {
	case errors.Is(f, errPin):
		return "if the server has a new certificate, compare that fingerprint with it and set tls_pin; if not, somebody stands between"
	case f.Op == "STARTTLS":
		return `tls = "implicit" at port 993 may be what it wants`
	case f.Op == "greeting" && f.Err == nil: // PREAUTH
		return `tls = "implicit" leaves no room for that`
	case isHeader:
		return fmt.Sprintf(`the server does not begin with TLS at port = %d: is the port right, or does tls = "starttls" help?`, o.Port)
	case contains("certificate required", "bad certificate", "unknown certificate", "remote error: tls: unknown certificate authority"):
		if o.Certificate == nil {
			return "the server wants a certificate of yours: tls_cert and tls_key"
		}
		return "the server does not take the certificate of tls_cert"
	case contains("protocol version", "unsupported protocol", "handshake failure", "insufficient security", "no cipher suite", "unconfigured cipher suite"):
		if !o.Legacy {
			return "the server's TLS is too old to be safe; ask its operator for TLS 1.2, or allow it with tls_legacy = true"
		}
		return "the server's TLS is older than this program knows; a tunnel by ssh may help"
	}
	return fmt.Sprintf("does the server speak tls = %q at port = %d?", o.TLS, o.Port)
}

// adviseCertificate is about a certificate that is not to be trusted.
func adviseCertificate(o Options, wrong *tls.CertificateVerificationError) string {
	cert := wrong.UnverifiedCertificates[0]
	pin := fmt.Sprintf(`tls_pin = "sha256:%x"`, sha256.Sum256(cert.Raw))
	_, isName := errors.AsType[x509.HostnameError](wrong.Err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](wrong.Err)
	switch {
	case isName && len(cert.DNSNames) == 0 && len(cert.IPAddresses) == 0:
		return fmt.Sprintf("the certificate names its host (%s) only in the old place, which counts no more; ask the server's operator for a new one; %s takes this one",
			clip(cert.Subject.CommonName, 100), pin)
	case isName:
		names := cert.DNSNames
		for _, ip := range cert.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("the certificate is for %s: set host to one of them, or tls_server_name if it is the same server", clip(strings.Join(names, ", "), 200))
	case isInvalid && invalid.Reason == x509.Expired && time.Now().Before(cert.NotBefore):
		return fmt.Sprintf("the certificate begins to be valid at %s: is this machine's clock right?", moment(cert.NotBefore))
	case isInvalid && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate, or one that it hangs on, has expired (this one: %s); ask the server's operator for a new one, unless this machine's clock is wrong; %s takes it all the same", moment(cert.NotAfter), pin)
	}
	return "nobody whom this machine trusts vouches for that server; if it is one of your own, compare the fingerprint with its certificate and set " + pin + ", or tls_ca_file"
}

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func adviseGreeting(o Options, f *mail.Fault) string {
	switch {
	case len(o.Tunnel) > 0 && f.Kind != mail.KindBye:
		return fmt.Sprintf("does the command of tunnel, %s, start an IMAP server, and without asking for anything?", o.Tunnel[0])
	case strings.HasPrefix(f.Text, "+OK"):
		return "that is a POP3 server: IMAP is mostly at port 993, or 143"
	case strings.HasPrefix(f.Text, "220"):
		return "that is a server of SMTP or FTP: IMAP is mostly at port 993, or 143"
	case strings.HasPrefix(f.Text, "HTTP/"), strings.HasPrefix(f.Text, "<"):
		return "that is a web server: IMAP is mostly at port 993, or 143"
	case strings.HasPrefix(f.Text, "SSH-"):
		return "that is an SSH server: IMAP is mostly at port 993, or 143; tunnel goes by ssh"
	case f.Kind == mail.KindBye:
		return "the server wants no guests now"
	case f.Kind == mail.KindCut && f.Op == "TLS":
		return fmt.Sprintf(`the server hung up before TLS was agreed: if that worked before, it is down; if not, is tls = %q right at %s, port = %d? it is mostly tls = "implicit" at 993, and "starttls" at 143`,
			o.TLS, o.Host, o.Port)
	case f.Kind == mail.KindCut && f.Op == "greeting" && o.TLS != "implicit":
		return fmt.Sprintf(`the server hung up at once: if that worked before, it is down; if not, does tls = "implicit" help at port = %d?`, o.Port)
	case f.Op == "TLS", f.Op == "CAPABILITY", o.TLS == "implicit":
		return fmt.Sprintf(`is it an IMAP server that answers at %s, port = %d, and does it speak tls = %q there?`, o.Host, o.Port, o.TLS)
	}
	return fmt.Sprintf(`a server that waits for TLS says nothing: does tls = "implicit" help at port = %d?`, o.Port)
}

// adviseNoWay is about a server that offers nothing that can be used.
func (s *Session) adviseNoWay(o Options) string {
	offered := s.offered()
	only := func(names ...string) bool {
		for _, have := range offered {
			found := false
			for _, name := range names {
				found = found || have == name
			}
			if !found {
				return false
			}
		}
		return len(offered) > 0
	}
	switch {
	case o.TLS == "none" && s.caps["LOGINDISABLED"]:
		return `the server wants TLS before a password: tls = "starttls"`
	case o.Token != nil:
		return "the server takes no tokens: it wants a password"
	case only("GSSAPI", "NTLM", "GSS-SPNEGO"):
		return "this program speaks neither Kerberos (GSSAPI) nor NTLM; ask the server's operator for PLAIN over TLS, which Exchange calls basic authentication, or go by a tunnel"
	case only("OAUTHBEARER", "XOAUTH2"):
		return `the server takes OAuth tokens alone: auth = "xoauth2" with one in place of the password`
	case only("EXTERNAL"):
		return "the server wants a certificate of yours: tls_cert and tls_key"
	}
	return "ask the server's operator how to sign in"
}

// adviseRefused is about a secret that the server does not take.
func (s *Session) adviseRefused(o Options, name, secret string) string {
	// Some servers take what they do not offer, so that it was tried.
	if list := s.offered(); o.Auth != "" && name != commandLogin && len(list) > 0 && !s.caps["AUTH="+name] {
		return fmt.Sprintf("the server does not offer %s, which auth names; it offers %s: change auth, or leave it out", name, strings.Join(list, ", "))
	}
	text := fmt.Sprintf("is user = %q right? many providers want an application password", o.User)
	switch {
	case isBearer(name):
		text = "a new token is needed, made for IMAP and for this user"
		if why := aboutToken(secret, time.Now()); why != "" {
			text = why
		}
	case name == "EXTERNAL":
		text = fmt.Sprintf("is the certificate of tls_cert one that the server knows, of user = %q?", o.User)
	}
	text += "; it was " + name
	if list := s.offered(); len(list) > 0 {
		text += ", and the server offers " + strings.Join(list, ", ")
	}
	return text
}

// aboutToken says what a token that is a JWT (RFC 7519) tells of why it may have
// been refused; "" if it tells nothing. Nothing else of the token is in it.
func aboutToken(token string, now time.Time) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Expires  float64 `json:"exp"`
		Audience any     `json:"aud"` // a string, or several
		Scope    string  `json:"scp"`
	}
	if json.Unmarshal(raw, &claims) != nil {
		return ""
	}
	if at := time.Unix(int64(claims.Expires), 0); claims.Expires > 0 && now.After(at) {
		return "the token expired at " + moment(at) + ": a new one is needed"
	}
	audience := ""
	switch aud := claims.Audience.(type) {
	case string:
		audience = clip(aud, 100)
	case []any:
		audience = clip(fmt.Sprint(aud...), 100)
	}
	switch {
	case strings.Contains(audience, "graph.microsoft.com"), audience == "00000003-0000-0000-c000-000000000000":
		return "the token is for Microsoft Graph and not for IMAP: its scope is to be https://outlook.office.com/IMAP.AccessAsUser.All"
	case claims.Scope != "" && !strings.Contains(claims.Scope, "IMAP"):
		return "the token is for " + clip(claims.Scope, 100) + ", and not for IMAP"
	case audience != "":
		return "the token is for " + audience + "; is it for this server and this user?"
	}
	return ""
}
