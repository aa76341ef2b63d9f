package stub

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// ErrNotStub says that a mail is not one of our stubs.
var ErrNotStub = errors.New("this mail is not a stub of notmuch-imap")

// Claim is what a mail says of itself that looks like a stub. Anybody can send one.
type Claim struct {
	Key       Key
	Signature string
	// Mailed: it came by the way of mail, or does not have the Message-ID that a stub
	// of this key has.
	Mailed bool
	// Named: the account and the mailbox that it names are those of its key, as in each stub
	// whose mailbox's name fits into a line.
	Named bool
}

// Whole tells whether a claim agrees with itself in all that a stub has, also one of an account
// whose ledger and secret are not to be had, as after it got another name. It proves nothing:
// who knows how can write such a mail.
func (c Claim) Whole() bool { return c.Named && !c.Mailed }

// ClaimFields are the fields that a claim is read from.
func ClaimFields() []string {
	return []string{Field, "Message-ID", "Received", accountField, mailboxField}
}

// ClaimOf reads a claim out of the fields that ClaimFields names. The error is
// ErrNotStub: there is none.
func ClaimOf(h mail.Header) (Claim, error) {
	_, params, err := mime.ParseMediaType("stub/x; " + h.Get(Field))
	if err != nil || params["v"] != "1" {
		return Claim{}, ErrNotStub
	}
	parts := strings.Split(params["key"], ".")
	if len(parts) != 3 {
		return Claim{}, ErrNotStub
	}
	key, ok := parseKey(parts[0], parts[1], parts[2])
	if !ok {
		return Claim{}, ErrNotStub
	}
	named := NewKey(decoded(h.Get(accountField)), decoded(h.Get(mailboxField)), 0, 0).Hash == key.Hash
	return Claim{key, params["sig"], h.Has("Received") || h.MessageID() != key.MessageID(), named}, nil
}

// decoded gives a field's value as it was before it was encoded (RFC 2047).
func decoded(value string) string {
	if s, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
		return s
	}
	return value
}

// Sign gives what only who has the account's secret can say of a stub.
func Sign(secret string, key Key) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(key.String()))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// SignedBy tells whether who has the secret wrote the claim.
func (c Claim) SignedBy(secret string) bool {
	return secret != "" && hmac.Equal([]byte(c.Signature), []byte(Sign(secret, c.Key)))
}

// MaxHeader bounds what is read of a stub, in bytes.
const MaxHeader = 64 << 10

// ReadKey reads the key out of a stub's header. Whether the key is true, the
// ledger knows: anybody can send a mail with such a header.
func ReadKey(r io.Reader) (Key, error) {
	c, err := ReadClaim(r)
	return c.Key, err
}

// ReadClaim reads a claim out of a mail from its beginning. The error is ErrNotStub.
func ReadClaim(r io.Reader) (Claim, error) {
	h, err := mail.ReadHeader(io.LimitReader(r, MaxHeader), ClaimFields()...)
	if err != nil && len(h) == 0 {
		return Claim{}, fmt.Errorf("%w: its header cannot be read", ErrNotStub)
	}
	return ClaimOf(h)
}
