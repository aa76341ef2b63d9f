package journal

import (
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Scan is how a folder was when it was scanned last: the same text says that nothing in
// it has changed. The zero value is no scan.
type Scan string

const (
	doubted = "doubted "
	again   = "again "
)

// ScanOf is a folder of which nothing is left to tell the server: of a mailbox with this
// UIDVALIDITY, changed at these times, and the directory that it is (maildir's Identity).
func ScanOf(uidValidity uint64, changed [4]time.Time, identity string) Scan {
	return Scan(fmt.Sprintf("%d %d %d %d %d %s", uidValidity, changed[0].UnixNano(), changed[1].UnixNano(), changed[2].UnixNano(), changed[3].UnixNano(), identity))
}

// Under is the scan under a policy by which something was left that another one has told; ""
// is none.
func (s Scan) Under(policy string) Scan {
	if policy == "" {
		return s
	}
	id := s.Identity()
	return Scan(strings.TrimSuffix(string(s), id) + policy + " " + id)
}

// ScanAgain is a folder that is the right one, to be scanned again.
func ScanAgain(identity string) Scan { return Scan(again + identity) }

// ScanDoubted is a folder that cannot be believed, and why: the mail that comes into it
// makes it look well again, until a person answers.
func ScanDoubted(why string) Scan { return Scan(doubted + why + " 0") }

// Identity is that of the directory; of one that is doubted, none that a directory has.
func (s Scan) Identity() string { return string(s[strings.LastIndexByte(string(s), ' ')+1:]) }

// Doubt gives why the folder is not believed; ok is false if it is.
func (s Scan) Doubt() (why string, ok bool) {
	why, ok = strings.CutPrefix(string(s), doubted)
	return strings.TrimSuffix(why, " 0"), ok
}

// MarshalText gives the text.
func (s Scan) MarshalText() ([]byte, error) { return []byte(s), nil }

// UnmarshalText takes it.
func (s *Scan) UnmarshalText(text []byte) error { *s = Scan(text); return nil }

// Since is the agreement with the server after which we began to put mail into a mailbox;
// or, with ReadOnly, that the mailbox turned out to be one that can only be read.
type Since struct {
	UIDValidity uint64
	UIDNext     imap.UID
	ReadOnly    bool
}

const readOnly = "read-only"

// MarshalText gives the two numbers.
func (s Since) MarshalText() ([]byte, error) {
	if s.ReadOnly {
		return []byte(readOnly), nil
	}
	return fmt.Appendf(nil, "%d %d", s.UIDValidity, s.UIDNext), nil
}

// UnmarshalText reads them.
func (s *Since) UnmarshalText(text []byte) error {
	if s.ReadOnly = string(text) == readOnly; s.ReadOnly {
		return nil
	}
	_, err := fmt.Sscanf(string(text), "%d %d", &s.UIDValidity, &s.UIDNext)
	return err
}

// Revision is a state of the notmuch database, with the fingerprint of the rules that
// were obeyed by then.
type Revision struct {
	mail.Revision
	Rules string
}

// MarshalText gives these words; without rules there are two.
func (r Revision) MarshalText() ([]byte, error) {
	return []byte(strings.TrimSpace(fmt.Sprintf("%s %d %s", r.UUID, r.N, r.Rules))), nil
}

// UnmarshalText reads them.
func (r *Revision) UnmarshalText(text []byte) error {
	n, err := fmt.Sscanf(string(text), "%s %d %s", &r.UUID, &r.N, &r.Rules)
	if n == 2 {
		return nil
	}
	return err
}

// Unseen are messages that were agreed on with another notmuch database, or an earlier state of
// it, and were not yet seen in this one: its tags of them are not what their owner said.
type Unseen struct {
	UIDValidity uint64      `json:"uidvalidity"` // where the mailbox has another one by now, all are
	UIDs        imap.UIDSet `json:"uids"`
}

// Has tells whether a message is among them.
func (u Unseen) Has(uidValidity uint64, uid imap.UID) bool {
	return u.UIDs != nil && (u.UIDValidity != uidValidity || u.UIDs.Contains(uid))
}
