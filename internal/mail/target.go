package mail

import "github.com/emersion/go-imap/v2"

// Target names one message of an account.
type Target struct {
	Mailbox     string
	UIDValidity uint64 // 0: whatever it is now
	UID         imap.UID
}
