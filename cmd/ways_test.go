package cmd

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// What the configuration says of the way to the server reaches the connection.
func TestTheConfigurationReachesTheConnection(t *testing.T) {
	t.Parallel()
	s, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing hangs on it
	made, err := s.ClientCertificate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(cert, append(pemOf("CERTIFICATE", made.Certificate[0]), pemOf("PRIVATE KEY", key)...), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[account.far]\nhost = \"mail.example.org\"\nport = 1993\nuser = \"me\"\nauth = \"external\"\ntls_server_name = \"other.example.org\"\ntls_legacy = true\ntls_cert = %q\nproxy = \"socks5://localhost\"\ndisable_extensions = [\"sasl-ir\"]\ntimeout = \"7s\"\n"+
		"[account.near]\nuser = \"me\"\ntunnel = [\"ssh\", \"host\", \"imapd\"]\n", cert)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, err := config.Load(file, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{getenv: func(string) string { return dir }}
	far, err := remoteOptions(&conf.Accounts[0], p.newSecrets(nil))
	if err != nil {
		t.Fatal(err)
	}
	if far.Host != "mail.example.org" || far.Port != 1993 || far.TLS != "implicit" || far.User != "me" || far.Auth != "external" || far.ServerName != "other.example.org" || !far.Legacy ||
		far.Certificate == nil || far.Proxy != "localhost:1080" || !slices.Contains(far.Disable, "SASL-IR") || far.Timeout.Seconds() != 7 || far.Version == "" || far.Password != nil {
		t.Errorf("%+v", far)
	}
	near, err := remoteOptions(&conf.Accounts[1], p.newSecrets(nil))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(near.Tunnel, []string{"ssh", "host", "imapd"}) || near.TLS != "none" {
		t.Errorf("%+v", near)
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
