package mail

import (
	"bytes"
	"io"
	"slices"
	"strings"
)

// Bounds of a Header, in bytes. What is beyond them is read and not kept.
const (
	maxValue  = 64 << 10  // one field's value
	maxHeader = 256 << 10 // all of them, with fieldCost for each
	fieldCost = 64
)

// Field is one field of a header: its name as it stands there, and its value
// unfolded (without line ends, RFC 5322 2.2.3) and without the blanks around it.
// Nothing is decoded; a value may have any byte but LF, cut at 64 KiB.
type Field struct{ Name, Value string }

// Header is fields of a mail in the order they stand in it.
type Header []Field

// Get gives the value of the first field of a name, in whatever case; "" if
// there is none.
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Has tells whether there is a field of a name, in whatever case.
func (h Header) Has(name string) bool {
	return slices.ContainsFunc(h, func(f Field) bool { return strings.EqualFold(f.Name, name) })
}

// MessageID is the mail's id in the one form in which ids are compared; see
// MessageID.
func (h Header) MessageID() string { return MessageID(h.Get("Message-ID")) }

// IsPlaceholder tells whether a mail stands for one that was too large for mbsync (isync's
// sync.c, copy_msg_convert), by its Subject and X-TUID.
func (h Header) IsPlaceholder() bool {
	return h.Has("X-TUID") && strings.HasPrefix(h.Get("Subject"), "[placeholder] ")
}

// HeaderReader takes a mail, or the beginning of it, piece by piece, and keeps
// fields of its header. It reads what Dovecot and libnotmuch read, whatever
// stands in the header beside fields, however long the header is; and it keeps at
// most 256 KiB. It takes all writes, those of the body too, and never fails.
type HeaderReader struct {
	fields fields
	names  []string // wanted; none: all
	header Header
	value  []byte
	name   string // of the field that is being read; "" if it is not wanted
	kept   int
	done   bool
}

// NewHeaderReader makes a reader that keeps the fields of these names, in
// whatever case; without names, all.
func NewHeaderReader(names ...string) *HeaderReader {
	r := &HeaderReader{names: names}
	r.fields.field = func(_, name []byte) {
		r.keep()
		r.name = r.wanted(name)
	}
	r.fields.more = func(p []byte) {
		if r.name == "" {
			return
		}
		p = bytes.TrimSuffix(p, []byte("\n"))
		r.value = append(r.value, p[:min(len(p), maxValue-len(r.value), max(0, maxHeader-r.kept-len(r.value)))]...)
	}
	r.fields.body = func([]byte) { r.done = true }
	return r
}

func (r *HeaderReader) wanted(name []byte) string {
	if len(name) == 0 || r.kept+len(name)+fieldCost > maxHeader {
		return ""
	}
	if len(r.names) == 0 {
		return string(name)
	}
	for _, n := range r.names {
		if len(n) == len(name) && strings.EqualFold(n, string(name)) {
			return string(name)
		}
	}
	return ""
}

// keep takes the field that was read.
func (r *HeaderReader) keep() {
	if r.name == "" {
		return
	}
	r.header = append(r.header, Field{r.name, string(bytes.Trim(r.value, " \t"))})
	r.kept += len(r.name) + len(r.value) + fieldCost
	r.value, r.name = r.value[:0], ""
}

// Write takes the next piece.
func (r *HeaderReader) Write(p []byte) (int, error) {
	if !r.done {
		r.fields.write(p)
	}
	return len(p), nil
}

// Done tells whether the header has ended, so that what follows needs not be
// written.
func (r *HeaderReader) Done() bool { return r.done }

// Header gives what was kept. Nothing can be written afterwards.
func (r *HeaderReader) Header() Header {
	r.fields.end()
	r.keep()
	r.done = true
	return r.header
}

// ReadHeader reads a mail up to the end of its header, and little more, and
// gives the fields of these names; without names, all. Beside an error of r there
// is what came before it.
func ReadHeader(r io.Reader, names ...string) (Header, error) {
	h := NewHeaderReader(names...)
	buf := make([]byte, 4<<10)
	for !h.Done() {
		n, err := r.Read(buf)
		_, _ = h.Write(buf[:n]) // never fails
		if err == io.EOF {
			break
		}
		if err != nil {
			return h.Header(), err
		}
	}
	return h.Header(), nil
}

// ParseHeader gives the fields of these names of a header, or of a mail that
// begins with it; without names, all.
func ParseHeader(raw []byte, names ...string) Header {
	h := NewHeaderReader(names...)
	_, _ = h.Write(raw) // never fails
	return h.Header()
}
