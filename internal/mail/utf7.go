package mail

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

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

// DecodeName gives the name in UTF-8 of a wire form.
func DecodeName(wire string) (string, error) {
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

// LocalName gives the name of a mailbox as a program on this machine may spell it, in modified
// UTF-7 or as it is.
func LocalName(spelled string) string {
	name, err := DecodeName(spelled)
	if err != nil || EncodeName(name) != spelled || strings.ContainsFunc(name, unicode.IsControl) {
		return spelled
	}
	return name
}
