package stub

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Field is the header field by which a stub says that it is one. Its value is
// `v=1; key=HASH.UIDVALIDITY.UID; sig=SIGNATURE`; stubs of before had no signature.
const Field = "X-Notmuch-Imap-Stub"

// SubjectPrefix is what a stub's subject begins with.
const SubjectPrefix = "[not fetched] "

// Key names the message that a stub stands for. Hash is of account and
// mailbox, so that the key holds nothing that a header could break.
type Key struct {
	Hash        string // 16 hexadecimal digits
	UIDValidity uint64
	UID         imap.UID
}

// NewKey gives the key of a message.
func NewKey(account, mailbox string, uidValidity uint64, uid imap.UID) Key {
	sum := sha256.Sum256([]byte(account + "\x00" + mailbox))
	return Key{hex.EncodeToString(sum[:8]), uidValidity, uid}
}

// String gives HASH.UIDVALIDITY.UID.
func (k Key) String() string {
	return fmt.Sprintf("%s.%d.%d", k.Hash, k.UIDValidity, k.UID)
}

// MessageID is the stub's own, without angle brackets: it threads with the real
// mail by References, and never merges with a copy of it.
func (k Key) MessageID() string {
	return fmt.Sprintf("%d.%d.%s%s", k.UID, k.UIDValidity, k.Hash, stubDomain)
}

const stubDomain = "@imap-stub.invalid"

// ParseMessageID reads the key out of a stub's own Message-ID, without angle
// brackets.
func ParseMessageID(id string) (Key, bool) {
	id, ok := strings.CutSuffix(id, stubDomain)
	parts := strings.Split(id, ".")
	if !ok || len(parts) != 3 {
		return Key{}, false
	}
	return parseKey(parts[2], parts[1], parts[0])
}

func parseKey(hash, uidValidity, uid string) (Key, bool) {
	if _, err := hex.DecodeString(hash); err != nil || len(hash) != 16 {
		return Key{}, false
	}
	validity, err := strconv.ParseUint(uidValidity, 10, 64)
	if err != nil {
		return Key{}, false
	}
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil || n == 0 {
		return Key{}, false
	}
	return Key{strings.ToLower(hash), validity, imap.UID(n)}, true
}
