package remote

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Modified UTF-7 (RFC 3501 5.1.3), by which mailbox names travel. imapclient's is
// not to be had from outside.

func base64UTF7() *base64.Encoding {
	return base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)
}

// EncodeName gives the wire form of a mailbox name in UTF-8.
func EncodeName(name string) string {
	var b strings.Builder
	var run []rune
	flush := func() {
		if len(run) == 0 {
			return
		}
		var raw []byte
		for _, u := range utf16.Encode(run) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteString("&" + base64UTF7().EncodeToString(raw) + "-")
		run = run[:0]
	}
	for _, r := range name {
		switch {
		case r < ' ' || r > '~':
			run = append(run, r)
		case r == '&':
			flush()
			b.WriteString("&-")
		default:
			flush()
			b.WriteRune(r)
		}
	}
	flush()
	return b.String()
}

var errUTF7 = errors.New("not modified UTF-7")

// decodeName gives the name in UTF-8 of a wire form.
func decodeName(wire string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(wire); i++ {
		c := wire[i]
		if c < ' ' || c > '~' {
			return "", errUTF7
		}
		if c != '&' {
			b.WriteByte(c)
			continue
		}
		end := strings.IndexByte(wire[i:], '-')
		if end < 0 {
			return "", errUTF7
		}
		word := wire[i+1 : i+end]
		i += end
		if word == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := base64UTF7().DecodeString(word)
		if err != nil || len(raw)%2 != 0 {
			return "", errUTF7
		}
		units := make([]uint16, 0, len(raw)/2)
		for j := 0; j < len(raw); j += 2 {
			units = append(units, uint16(raw[j])<<8|uint16(raw[j+1]))
		}
		for _, r := range utf16.Decode(units) {
			if r == utf8.RuneError {
				return "", errUTF7
			}
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}

// Names keeps the wire form of mailboxes whose name on the wire is not what it
// should be. The zero value is ready; several sessions may use it at once.
type Names struct {
	mu    sync.Mutex
	wires map[string]string
}

// keep takes all of them in place of those before.
func (n *Names) keep(wires map[string]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires = wires
}

func (n *Names) wire(name string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, ok := n.wires[name]
	return w, ok
}

// displayName gives a name for a mailbox whose wire form is not what it should
// be (latin-1 and the like): bytes outside ASCII as %XX, so that it is shown and
// stored safely. The session keeps the wire form for it.
func displayName(wire string) string {
	if utf8.ValidString(wire) && !strings.ContainsFunc(wire, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return wire // plain UTF-8, as UTF8=ACCEPT would allow
	}
	var b strings.Builder
	for _, c := range []byte(wire) {
		if c < ' ' || c > '~' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
