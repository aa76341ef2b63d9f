package remote

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of a transcript.
const (
	maxLines       = 500
	maxLineText    = 1000 // bytes of a line that are shown
	maxLiteralText = 2000 // bytes of a literal that are shown
)

// transcript keeps what was said during one exchange. Only exchanges after
// sign-in are recorded, so that no secret passes; what a server echoes of one is
// replaced.
type transcript struct {
	lines  []mail.Line
	redact func(string) string
	part   []byte // the server's line so far
}

func (t *transcript) add(client bool, text string) {
	if len(t.lines) >= maxLines {
		return
	}
	text = printable(t.redact(text))
	if len(text) > maxLineText {
		text = fmt.Sprintf("%s... (%d bytes)", text[:maxLineText], len(text))
	}
	t.lines = append(t.lines, mail.Line{At: time.Now(), Client: client, Text: text})
}

// take adds bytes of the server's; end ends the line.
func (t *transcript) take(p []byte) {
	if room := maxData - len(t.part); room > 0 && len(t.lines) < maxLines {
		t.part = append(t.part, p[:min(room, len(p))]...)
	}
}

func (t *transcript) end() {
	t.add(false, string(t.part))
	t.part = t.part[:0]
}

// literal shows the beginning of a literal, line by line, as it stands on the
// wire.
func (t *transcript) literal(head []byte, size int64) {
	if len(t.part) > 0 {
		t.end()
	}
	if len(head) > maxLiteralText {
		head = head[:maxLiteralText]
	}
	for line := range strings.Lines(string(head)) {
		t.add(false, strings.TrimRight(line, "\r\n"))
	}
	if int64(len(head)) < size {
		t.add(false, fmt.Sprintf("[... %d bytes in all]", size))
	}
}

// printable escapes what a terminal could take for an order.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r < ' ' && r != '\t', r == 0x7f, r >= 0x80 && r < 0xa0:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
