package remote

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of a transcript.
const (
	maxLines       = 500
	maxLineText    = 1000 // bytes of a line that are shown
	maxLineKept    = 64 << 10
	maxLiteralText = 2000 // bytes of a literal that are shown
)

// transcript keeps what was said during one exchange, or tells it line by line
// to who asked for that. What a server echoes of a secret is replaced.
type transcript struct {
	wire  *wire
	keep  bool // in lines, up to maxLines
	lines []mail.Line
	to    func(mail.Line) // nil: nobody looks

	part []byte // the server's line so far, up to maxLineKept
	size int    // all of it
}

// newLog gives the transcript of a whole session, nil if nobody asked for it.
func newLog(o Options, w *wire) *transcript {
	if o.Record == nil {
		return nil
	}
	return &transcript{wire: w, to: o.Record}
}

func (t *transcript) add(client bool, text string) { t.addSized(client, text, len(text)) }

func (t *transcript) addSized(client bool, text string, size int) {
	keep := t.keep && len(t.lines) < maxLines
	if !keep && t.to == nil {
		return
	}
	text = mail.Visible(t.wire.redact(text))
	if len(text) > maxLineText {
		text = fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(text[:maxLineText], ""), size)
	}
	line := mail.Line{At: time.Now(), Client: client, Text: text}
	if keep {
		t.lines = append(t.lines, line)
	}
	if t.to != nil {
		t.to(line)
	}
}

// take adds bytes of the server's line.
func (t *transcript) take(p ...byte) {
	t.size += len(p)
	t.part = append(t.part, p[:min(len(p), maxLineKept-len(t.part))]...)
}

// end ends the server's line; cut says that it has not come to its end.
func (t *transcript) end(cut bool) {
	text := string(bytes.TrimSuffix(t.part, []byte("\r")))
	if cut || t.size > len(t.part) {
		text = t.wire.shorn(text)
	}
	t.addSized(false, text, t.size)
	t.part, t.size = t.part[:0], 0
}

// literal shows the beginning of a literal, line by line, as it stands on the
// wire.
func (t *transcript) literal(head []byte, size int64) {
	if len(t.part) > 0 {
		t.end(false)
	}
	text := string(head)
	if int64(len(head)) < size {
		text = t.wire.shorn(text)
	}
	for line := range strings.Lines(t.wire.redact(text)) {
		t.add(false, strings.TrimRight(line, "\r\n"))
	}
	if int64(len(head)) < size {
		t.add(false, fmt.Sprintf("[... %d bytes in all]", size))
	}
}
