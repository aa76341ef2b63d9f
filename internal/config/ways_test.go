package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const wayGood = "[account.a]\nhost = \"h\"\nuser = \"u\"\nkeyring = true\n"

func TestWays(t *testing.T) {
	t.Parallel()
	c, err := parse("/etc/c.toml", []byte(`
[account.a]
tunnel = ["ssh", "mail.example.org", "imapd", "--preauth"]
user = "me"
[account.b]
host = "h"
user = "me"
tls_cert = "me.pem"
proxy = "socks5://localhost"
tls_server_name = "mail.example.org"
tls_legacy = true
[account.c]
host = "h"
user = "me"
auth = "external"
tls_cert = "me.pem"
tls_key = "/k.pem"
proxy = "socks5h://[::1]:9050/"
`), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	a, b, d := c.Accounts[0], c.Accounts[1], c.Accounts[2]
	if a.Host != "localhost" || a.TLS != TLSNone || a.HasPassword() || len(a.Tunnel) != 4 || a.Where() != "the end of the tunnel ssh" {
		t.Errorf("%+v", a)
	}
	if b.TLSCert != "/etc/me.pem" || b.TLSKey != b.TLSCert || b.Proxy != "localhost:1080" || b.TLSServerName != "mail.example.org" || !b.TLSLegacy || b.Where() != "h:993" {
		t.Errorf("%+v", b)
	}
	if d.TLSKey != "/k.pem" || d.Proxy != "[::1]:9050" {
		t.Errorf("%+v", d)
	}
}

func TestWaysThatAreNone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"tunnel as string", wayGood + "tunnel = \"ssh h imapd\"\n", `c.toml:5: account.a.tunnel: must be a list of strings, the program and its arguments: ["ssh", "mail.example.org", "imapd", "--preauth"], not a string`},
		{"tunnel empty", wayGood + "tunnel = []\n", `c.toml:5: account.a.tunnel: names no program; write ["ssh", "mail.example.org", "imapd", "--preauth"]`},
		{"proxy beside it", wayGood + "tunnel = [\"x\"]\nproxy = \"socks5://p:1\"\n", `c.toml:6: account.a.proxy: has no meaning beside tunnel`},
		{"proxy of another kind", wayGood + "proxy = \"http://p:1\"\n", `c.toml:5: account.a.proxy: is no address of a proxy: "socks5://localhost:1080"`},
		{"proxy without a host", wayGood + "proxy = \"socks5://:1080\"\n", `c.toml:5: account.a.proxy: is no address of a proxy: "socks5://localhost:1080"`},
		{"proxy with a password", wayGood + "proxy = \"socks5://me:hunter2@p:1\"\n", `c.toml:5: account.a.proxy: a name and password do not belong in this file; use a proxy on this machine that asks for none`},
		{"proxy with a path", wayGood + "proxy = \"socks5://p:1/hunter2\"\n", `c.toml:5: account.a.proxy: is no address of a proxy: "socks5://localhost:1080"`},
		{"key alone", wayGood + "tls_key = \"k.pem\"\n", `c.toml:5: account.a.tls_key: there is no tls_cert that it is the key of`},
		{"external without a certificate", wayGood + "auth = \"external\"\n", `c.toml:5: account.a.auth: "external" signs in by a certificate of yours: tls_cert`},
		{"certificate without TLS", wayGood + "tls = \"none\"\nallow_plaintext = true\ntls_cert = \"c.pem\"\n", `c.toml:7: account.a.tls_cert: has no meaning with tls = "none"`},
		{"legacy without TLS", wayGood + "tls = \"none\"\nallow_plaintext = true\ntls_legacy = true\n", `c.toml:7: account.a.tls_legacy: has no meaning with tls = "none"`},
		{"legacy as string", wayGood + "tls_legacy = \"yes\"\n", `c.toml:5: account.a.tls_legacy: must be true or false, not a string`},
		{"server name", wayGood + "tls_server_name = \"a b\"\n", `c.toml:5: account.a.tls_server_name: "a b" is not a host name`},
		{"server name beside a pin", wayGood + "tls_pin = \"sha256:" + strings.Repeat("0", 64) + "\"\ntls_server_name = \"h\"\n", `c.toml:6: account.a.tls_server_name: has no meaning beside tls_pin, which names the certificate itself`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := parse("c.toml", []byte(c.text), func(string) string { return "" })
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
	if !slices.Contains(keys(), "tunnel") {
		t.Error("tunnel is no key")
	}
}

func TestCertificateOfTheClient(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, text []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	both := write("both.pem", 0o600, slices.Concat(keyPEM, certPEM))
	cert, open := write("cert.pem", 0o644, certPEM), write("open.pem", 0o644, keyPEM)
	private := write("key.pem", 0o600, keyPEM)
	for _, c := range []struct{ cert, key, want string }{
		{both, both, ""},
		{cert, private, ""},
		{cert, open, "account.a.tls_key: " + open + ": others can read the key (mode 0644); run: chmod 600 " + open},
		{filepath.Join(dir, "none.pem"), private, "account.a.tls_cert: open " + filepath.Join(dir, "none.pem") + ": no such file or directory"},
		{private, private, "are no certificate and its key in PEM form"},
	} {
		a := Account{Name: "a", TLSCert: c.cert, TLSKey: c.key}
		got, err := a.Certificate()
		switch {
		case c.want == "" && (err != nil || len(got.Certificate) != 1):
			t.Errorf("%+v: %v", c, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %v", c, err)
		}
	}
}
