package mail

import (
	"time"

	"github.com/emersion/go-imap/v2"
)

// Upload is one mail for APPEND.
type Upload struct {
	Path         string
	Size         int64     // bytes on the wire: with CRLF where the file has LF
	Flags        []string  // as they are sent; \Recent is left out
	InternalDate time.Time // zero: the server's clock
	// Alone has it sent in a command of its own, not with others that the server
	// then takes all or none of (RFC 3502).
	Alone bool
}

// Appended is what became of the Upload at the same place.
type Appended struct {
	UIDValidity uint64
	UID         imap.UID // 0: not told (no UIDPLUS)
	// Err is a *Fault if the server refused this mail alone (Fault.Code may be
	// TOOBIG, OVERQUOTA, LIMIT or TRYCREATE), the error of the whole if it was
	// not answered, and any other error if the file could not be sent.
	Err error
	// Together says that a command with several mails was refused: which of them
	// the server does not want is not known.
	Together bool
}
