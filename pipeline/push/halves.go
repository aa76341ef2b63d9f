package push

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// storeAtOnce bounds how many messages one command names.
const storeAtOnce = 500

// MostRefusals bounds the refused commands of a run after which nothing is taken apart
// any more: a server that refuses all of it is not asked for each.
const MostRefusals = 100

// errHalfWay says of a refused command that it had an effect: it is not asked again in
// parts.
var errHalfWay = errors.New("the next sync ends what was begun of it")

// errBegun says of a refusal that the note of a mailbox's move stays for the next run, and that
// another mailbox may be open: until then nothing else is asked of its messages.
var errBegun = errors.New("the next sync finds out what became of it")

// inParts does something with messages in as few commands as their number allows, and
// with each half of them where the server refuses that: one that it will not have keeps
// no other from it. The error is someRefused if that is all there was.
func inParts[T any](p *Pusher, list []T, uid func(T) imap.UID, do func([]T) error) error {
	left := &someRefused{of: len(list)}
	var try func([]T) error
	try = func(part []T) error {
		err := do(part)
		if !p.isRefusal(err) || errors.Is(err, errHalfWay) || errors.Is(err, errBegun) {
			return err
		}
		if p.refusals++; len(part) > 1 && p.refusals < MostRefusals && !ofWhole(err) {
			if err := try(part[:len(part)/2]); err != nil {
				return err
			}
			return try(part[len(part)/2:])
		}
		for _, x := range part {
			left.uids = append(left.uids, uid(x))
		}
		left.err = cmp.Or(left.err, err)
		return nil
	}
	for part := range slices.Chunk(list, storeAtOnce) {
		if err := try(part); err != nil {
			return err
		}
	}
	if left.err != nil {
		return left
	}
	return nil
}

// ofWhole tells whether a refusal says of itself that it is not about single messages
// (RFC 5530).
func ofWhole(err error) bool {
	f, ok := errors.AsType[*mail.Fault](err)
	if !ok {
		return false
	}
	code, _, _ := strings.Cut(f.Code, " ")
	return slices.Contains([]string{"NOPERM", "READ-ONLY", "OVERQUOTA", "TRYCREATE", "NONEXISTENT", "UNAVAILABLE", "INUSE"}, code)
}

// someRefused is the server's refusal of some messages, or of all.
type someRefused struct {
	uids []imap.UID
	of   int   // so many
	err  error // the first
}

func (e *someRefused) Unwrap() error { return e.err }

func (e *someRefused) Error() string {
	switch {
	case len(e.uids) == e.of:
		return e.err.Error()
	case len(e.uids) == 1:
		return fmt.Sprintf("UID %d: %v", e.uids[0], e.err)
	}
	return fmt.Sprintf("%d of %d messages, UID %d first: %v", len(e.uids), e.of, e.uids[0], e.err)
}

// done is how many of n messages something was done with, by its error.
func done(err error, n int) int {
	some, ok := errors.AsType[*someRefused](err)
	switch {
	case err == nil:
		return n
	case ok:
		return n - len(some.uids)
	}
	return 0
}

// isRefusal tells whether the server refused a command, on a connection that lives.
func (p *Pusher) isRefusal(err error) bool {
	f, ok := errors.AsType[*mail.Fault](err)
	return ok && (f.Kind == mail.KindNo || f.Kind == mail.KindBad) && p.conn.Alive()
}
