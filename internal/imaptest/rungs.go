package imaptest

import (
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Rungs says how a mail's FETCH items are answered, each by its name as the
// client wrote it, upper case: "RFC822.SIZE", "BODY.PEEK[]<0.262144>". If a
// command has several items, the first that is not answered as usual decides for
// all. UID and MODSEQ are always told, and so is FLAGS beside other messages:
// else no client would know of the message at all.
type Rungs func(item string) Answer

// Answer is what comes for an item; nil is the usual.
type Answer func(c *scriptConn, a *Asked) (done bool, err error)

func (r Rungs) answer(c *scriptConn, a *Asked) (done bool, err error) {
	if r == nil {
		return false, nil
	}
	for _, item := range a.list {
		if item == "UID" || item == "MODSEQ" || item == "FLAGS" && !a.Alone {
			continue
		}
		if answer := r(item); answer != nil {
			a.item = item
			return answer(c, a)
		}
	}
	return false, nil
}

// RungTable answers the named items as the table says, and others otherwise. A
// name that ends in a star stands for all that begin so ("BODY.PEEK[]<*"); the
// longest decides.
func RungTable(otherwise Answer, named map[string]Answer) Rungs {
	return func(item string) Answer {
		if answer, ok := named[item]; ok {
			return answer
		}
		answer, longest := otherwise, 0
		for name, a := range named {
			if prefix, star := strings.CutSuffix(name, "*"); star && len(name) > longest && strings.HasPrefix(item, prefix) {
				answer, longest = a, len(name)
			}
		}
		return answer
	}
}

// OnlyRungs answers the named items as usual, and others otherwise.
func OnlyRungs(otherwise Answer, names ...string) Rungs {
	named := make(map[string]Answer)
	for _, name := range names {
		named[name] = nil
	}
	return RungTable(otherwise, named)
}

// NoData answers OK, and nothing else.
func NoData() Answer { return raw("") }

// Refuse answers with a tagged line: "NO [UNAVAILABLE] sorry", "BAD 12".
func Refuse(line string) Answer { return final(line) }

// Silence says nothing more until the client hangs up.
func Silence() Answer { return thenSilence("") }

// HangUp ends the connection instead of an answer, after a BYE if it has a text.
func HangUp(bye string) Answer {
	if bye != "" {
		bye = "* BYE " + bye + "\r\n"
	}
	return thenHangUp(bye, false)
}

// ThenHangUp ends the connection after the answer and its tagged line.
func ThenHangUp(answer Answer) Answer {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.last = true
		if answer == nil {
			return false, nil
		}
		return answer(c, a)
	}
}

// Value answers with this instead of the item's value, as it goes over the wire:
// `NIL`, `""`, "{0}\r\n", "{100}\r\ntoo short".
func Value(value string) Answer {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.send("%s", c.response(a.Seq, a.Mail, a.list, func(item string) string {
			if item == a.item {
				return value
			}
			return a.Mail.value(item)
		}))
		return true, nil
	}
}

// CutShort hangs up in the middle of the item's value.
func CutShort() Answer {
	return func(c *scriptConn, a *Asked) (bool, error) {
		value := a.Mail.value(a.item)
		before, _, _ := strings.Cut(c.response(a.Seq, a.Mail, a.list, a.Mail.value), answerName(a.item)+" "+value)
		literal := 0
		if i := strings.Index(value, "}\r\n"); value[0] == '{' && i >= 0 {
			literal = i + 3
		}
		c.send("%s%s %s", before, answerName(a.item), value[:literal+(len(value)-literal)/2])
		return true, errHangUp
	}
}

// Answer hands the substitute out in the mail's place.
func (s Substitute) Answer() Answer {
	return func(c *scriptConn, a *Asked) (bool, error) {
		m := *a.Mail
		m.Raw, m.Structure, m.Parts = s.mail(imap.UID(m.UID)), "", nil
		c.message(a.Seq, &m, a.list)
		a.Mail.Flags, a.Mail.ModSeq = m.Flags, m.ModSeq // \Seen
		return true, nil
	}
}

// PiecesBefore answers those pieces of the whole mail (BODY.PEEK[]<0.1024>) as
// usual that have nothing of it from byte n on, and everything else otherwise.
func PiecesBefore(n int, otherwise Answer) Rungs {
	return func(item string) Answer {
		var offset, size int
		if _, err := fmt.Sscanf(item, "BODY.PEEK[]<%d.%d>", &offset, &size); err != nil || otherwise == nil {
			return otherwise
		}
		return func(c *scriptConn, a *Asked) (bool, error) {
			if min(offset+size, len(a.Mail.Raw)) <= n {
				return false, nil
			}
			return otherwise(c, a)
		}
	}
}
