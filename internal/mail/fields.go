package mail

import "bytes"

// maxName bounds a field's name with the blanks behind it, in bytes.
const maxName = 78

// fields takes a mail piece by piece, however it is cut, and tells its header
// field by field, as Dovecot 2.3 (message_parse_header_next) and GMime 3.2, which
// libnotmuch reads with, see it in what is no proper header, too:
//
//   - a line ends with LF, and the CRs before that belong to the line end;
//   - the first empty line ends the header, be it the first line of all;
//   - a line that begins with a blank continues the one before, whatever that
//     is, be it of blanks alone;
//   - blanks before the colon do not belong to the name;
//   - a line without a colon (an mbox "From " line, a stamp, a continuation that
//     lost its blank) is no field, and ends nothing.
//
// Line ends come as LF. It keeps no more than a name.
type fields struct {
	// field tells of a line that continues none: how it begins, up to its colon
	// if it is a field, and the name, which is nil if it is none (or has a longer
	// name than maxName). more has the rest of it, its continuation and their line
	// ends; body has what comes from the empty line on, which may be nothing yet.
	field func(start, name []byte)
	more  func(p []byte)
	body  func(p []byte)

	cr    int // CRs that came last
	state fieldState
	start [maxName]byte
	n     int // bytes of start
}

type fieldState int

const (
	atLine fieldState = iota // a line begins
	inName
	inValue
	inBody
)

func (f *fields) write(p []byte) {
	for len(p) > 0 {
		if f.cr > 0 {
			if p[0] == '\r' {
				f.cr++
				p = p[1:]
				continue
			}
			for n := f.cr; p[0] != '\n' && n > 0; n -= len("\r") {
				f.text([]byte("\r"))
			}
			f.cr = 0
		}
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			f.text(p)
			return
		}
		f.text(p[:i])
		f.cr = 1
		p = p[i+1:]
	}
}

// text takes bytes in which CR is no part of a line end.
func (f *fields) text(p []byte) {
	for len(p) > 0 {
		switch f.state {
		case atLine:
			switch p[0] {
			case '\n':
				f.state = inBody
			case ' ', '\t':
				f.state = inValue
			default:
				f.state, f.n = inName, 0
			}
		case inName:
			i := bytes.IndexAny(p[:min(len(p), maxName-f.n)], ":\n")
			if i < 0 {
				took := copy(f.start[f.n:], p)
				f.n += took
				p = p[took:]
				if f.n == maxName {
					f.begin(nil)
				}
				continue
			}
			if p[i] == '\n' {
				f.n += copy(f.start[f.n:], p[:i])
				f.begin(nil)
				p = p[i:]
				continue
			}
			f.n += copy(f.start[f.n:], p[:i+1])
			f.begin(bytes.TrimRight(f.start[:f.n-1], " \t"))
			p = p[i+1:]
		case inValue:
			i := bytes.IndexByte(p, '\n') + 1
			if i == 0 {
				i = len(p)
			} else {
				f.state = atLine
			}
			f.more(p[:i])
			p = p[i:]
		case inBody:
			f.body(p)
			return
		}
	}
}

func (f *fields) begin(name []byte) {
	f.state = inValue
	f.field(f.start[:f.n], name)
}

// end says that the mail ends here.
func (f *fields) end() {
	if f.state == inName {
		f.begin(nil)
	}
}
