package mail

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Kind says what went wrong. It never says what that costs: the table in
// pipeline/report/fault.go alone does.
type Kind int

// The kinds, by what the client saw.
const (
	KindDial         Kind = iota + 1 // no connection: DNS, refused, unreachable
	KindTLS                          // certificate, pin, handshake, STARTTLS trouble
	KindPlaintext                    // sign-in without TLS was about to happen and is not allowed
	KindSecret                       // the password or token could not be had (command, file, keyring, OAuth)
	KindAuth                         // the server refused the sign-in
	KindNotConnected                 // "User is authenticated but not connected." (imapsync#411)
	KindThrottled                    // asked to wait or over a limit; RetryAfter if the server named a time
	KindCrowded                      // as many connections as the server allows are open already
	KindBye                          // BYE: the server closed the connection in words
	KindCut                          // the connection ended without a word, or inside a literal
	KindSilent                       // no byte for the whole timeout
	KindNo                           // tagged NO
	KindBad                          // tagged BAD
	KindNoData                       // tagged OK, but what was asked for did not come
	KindShort                        // a literal was shorter than announced, or not what it should be
	KindMalformed                    // a response that cannot be read
	KindTooLarge                     // a line, literal or nesting beyond the bounds
)

// String gives a few plain words for a person.
func (k Kind) String() string {
	switch k {
	case KindDial:
		return "cannot connect"
	case KindTLS:
		return "no secure connection"
	case KindPlaintext:
		return "sign-in over plain text is not allowed"
	case KindSecret:
		return "cannot get the password or token"
	case KindAuth:
		return "sign-in refused"
	case KindNotConnected:
		return "signed in, but the server gives no mailbox"
	case KindThrottled:
		return "the server asks to wait"
	case KindCrowded:
		return "too many connections"
	case KindBye:
		return "the server ended the session"
	case KindCut:
		return "the connection was cut"
	case KindSilent:
		return "no answer"
	case KindNo:
		return "refused (NO)"
	case KindBad:
		return "refused (BAD)"
	case KindNoData:
		return "the server says OK but sends no data"
	case KindShort:
		return "fewer bytes came than were announced"
	case KindMalformed:
		return "an answer that cannot be read"
	case KindTooLarge:
		return "an answer beyond all bounds"
	default:
		return "unknown fault"
	}
}

// Fault is an error of the server or of the way to it. Text holds the server's
// own words in one line, without secrets.
type Fault struct {
	Kind       Kind
	Op         string // the command in words: "UID FETCH", "EXAMINE", "LOGIN", "dial"
	Mailbox    string
	UID        imap.UID
	Code       string // response code, upper case, without brackets: "UNAVAILABLE"
	Text       string
	RetryAfter time.Duration // KindThrottled: 0 if the server named no time
	Err        error
	Do         string // what the user can do about it, in words; "" for nothing in particular
	Again      bool   // the next run may well not meet it, though faults of this kind last
}

// Error gives one line in lower case: what happened, and the server's words.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.Op != "" && f.Kind != KindDial { // whose words say it
		fmt.Fprintf(&b, "%s: ", f.Op)
	}
	b.WriteString(f.Kind.String())
	switch {
	case f.Text != "":
		b.WriteString(": " + Quoted(f.Text))
		if f.Err != nil {
			fmt.Fprintf(&b, " (%v)", f.Err)
		}
	case f.Err != nil && (f.Kind != KindSilent || !ranOut(f.Err)):
		b.WriteString(dialled(f.Err))
	}
	return b.String()
}

// dialled gives an error as the end of a line that says what failed. What the system says of a
// connection that could not be made has its own words twice.
func dialled(err error) string {
	op, ok := err.(*net.OpError) //nolint:errorlint // what is around it has words of its own
	if !ok || op.Op != "dial" {
		return fmt.Sprintf(": %v", err)
	}
	if name, is := errors.AsType[*net.DNSError](err); is {
		return fmt.Sprintf(": %s: %s", name.Name, name.Err)
	}
	to := ""
	if op.Addr != nil {
		to = fmt.Sprintf(" to %v", op.Addr)
	}
	if errno, is := errors.AsType[syscall.Errno](err); is {
		return fmt.Sprintf("%s: %v", to, errno)
	}
	return fmt.Sprintf("%s: %v", to, op.Err)
}

// ranOut tells whether an error says only that the time for an answer was over.
func ranOut(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && e.Timeout()
}

func (f *Fault) Unwrap() error { return f.Err }

// Refused tells whether the server answered a command with NO or BAD, which says nothing
// about the connection.
func Refused(err error) (f *Fault, ok bool) {
	f, ok = errors.AsType[*Fault](err)
	return f, ok && (f.Kind == KindNo || f.Kind == KindBad)
}
