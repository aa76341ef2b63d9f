package plan

import (
	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// Pushed is what this run has done in a mailbox on the server, or has found to do: what
// whoever looks into the mailbox then is to know.
type Pushed struct {
	// Contradicted: a UID is of another message than was agreed on.
	Contradicted bool
	// Expected are files by the UID that their message has got on the server;
	// Uploaded are files whose UID was not told.
	Expected  map[imap.UID]string
	Uploaded  []Untracked
	Withheld  map[string]Delta            // by file: what its owner made of its flags, which the server may lack
	MovedFrom map[imap.UID]ledger.Message // where a new message was moved from
	Taken     map[imap.UID]bool           // messages that we took out of it on the server
}
