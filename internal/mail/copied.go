package mail

import "github.com/emersion/go-imap/v2"

// Copied is what a server told of messages that it copied or moved (RFC 4315 3).
type Copied struct {
	UIDValidity uint64                // of the mailbox that they are in now; 0: not told
	UIDs        map[imap.UID]imap.UID // their UIDs there by those that they had
}
