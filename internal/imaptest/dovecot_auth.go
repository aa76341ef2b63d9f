//go:build linux

package imaptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// oauth2Conf makes Dovecot judge tokens by itself: they are JWTs (RFC 7519) with
// a key that the two of us have.
const oauth2Conf = `introspection_mode = local
local_validation_key_dict = fs:posix:prefix=%s/keys/
username_attribute = sub
`

// writeTokens writes what Dovecot needs for OAUTHBEARER and XOAUTH2.
func (s *DovecotServer) writeTokens() error {
	dir := filepath.Join(s.base, "keys", "default", "HS256")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	key := base64.StdEncoding.EncodeToString([]byte(s.Password))
	if err := os.WriteFile(filepath.Join(dir, "default"), []byte(key), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.base, "oauth2.conf"), fmt.Appendf(nil, oauth2Conf, s.base), 0o644)
}

// Token makes an access token for the server's user that is good until then.
func (s *DovecotServer) Token(until time.Time) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		encode(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"exp":%d}`, s.User, time.Now().Add(-time.Hour).Unix(), until.Unix()))
	m := hmac.New(sha256.New, []byte(s.Password))
	_, _ = m.Write([]byte(text)) // never fails (hash.Hash)
	return text + "." + encode(m.Sum(nil))
}

// ClientCertificate makes one for the server's user, with which EXTERNAL signs in.
func (s *DovecotServer) ClientCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: s.User},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	authority, err := x509.ParseCertificate(s.cert.TLS.Certificate[0])
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, s.cert.TLS.PrivateKey)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Tunnel is a program that serves the server's user by its standard input and
// output, signed in already.
func (s *DovecotServer) Tunnel() []string {
	argv := []string{"env", "USER=" + s.User, "HOME=" + filepath.Join(s.base, "home"), "doveadm", "-c", s.conf(), "exec", "imap"}
	if s.owner.switched {
		argv = append([]string{"setpriv", fmt.Sprintf("--reuid=%d", s.owner.uid), fmt.Sprintf("--regid=%d", s.owner.gid), "--clear-groups"}, argv...)
	}
	return argv
}
