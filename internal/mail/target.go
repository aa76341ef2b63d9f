package mail

import "github.com/emersion/go-imap/v2"

// Target names one message of an account, a file that is to become one, or a mailbox.
type Target struct {
	Mailbox     string
	UIDValidity uint64 // 0: whatever it is now
	UID         imap.UID
	File        string // key of a file in the mailbox's folder, in place of a UID
}

// Whole tells whether the mailbox is meant, with all of it that failed.
func (t Target) Whole() bool { return t.UID == 0 && t.File == "" }
