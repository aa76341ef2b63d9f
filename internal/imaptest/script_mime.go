package imaptest

import (
	"fmt"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"
)

// part is a mail or a part of one, as IMAP numbers them (RFC 9051 6.4.5).
type part struct {
	raw, header, body string
	kind, subkind     string // lower case
	params            map[string]string
	children          []*part // of a multipart; the one mail in a message/rfc822
}

func parsePart(raw string) *part {
	p := &part{raw: raw, header: raw}
	if i := strings.Index("\r\n"+raw, "\r\n\r\n"); i >= 0 { // a mail may have no header
		p.header, p.body = raw[:i+2], raw[i+2:]
	}
	media, params, err := mime.ParseMediaType(p.field("Content-Type"))
	if err != nil || !strings.Contains(media, "/") {
		media, params = "text/plain", map[string]string{"charset": "us-ascii"}
	}
	p.params = params
	p.kind, p.subkind, _ = strings.Cut(media, "/")
	switch {
	case p.kind == "multipart":
		for _, piece := range pieces(p.body, params["boundary"]) {
			p.children = append(p.children, parsePart(piece))
		}
	case media == "message/rfc822":
		p.children = []*part{parsePart(p.body)}
	}
	return p
}

// pieces splits the body of a multipart.
func pieces(body, boundary string) []string {
	var out []string
	at, from := 0, -1
	for line := range strings.Lines(body) {
		if mark := strings.TrimRight(line, " \t\r\n"); mark == "--"+boundary || mark == "--"+boundary+"--" {
			if from >= 0 {
				out = append(out, strings.TrimSuffix(body[from:max(from, at)], "\r\n"))
			}
			if from = at + len(line); mark != "--"+boundary {
				return out
			}
		}
		at += len(line)
	}
	if from >= 0 { // cut short
		out = append(out, body[from:])
	}
	return out
}

// fields picks header fields by their names, upper case, or all but them.
func fields(header string, names []string, but bool) string {
	var out strings.Builder
	keep := false
	for line := range strings.Lines(header) {
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			name, _, ok := strings.Cut(line, ":")
			keep = ok && slices.Contains(names, strings.ToUpper(name)) != but
		}
		if keep {
			out.WriteString(line)
		}
	}
	return out.String()
}

// field gives one field's value, unfolded.
func (p *part) field(name string) string {
	_, value, _ := strings.Cut(fields(p.header, []string{strings.ToUpper(name)}, false), ":")
	return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
}

// section gives what a section's name, upper case, stands for in a mail.
func (p *part) section(name string) (string, bool) {
	switch {
	case name == "":
		return p.raw, true
	case name == "HEADER":
		return p.header, true
	case name == "TEXT":
		return p.body, true
	case strings.HasPrefix(name, "HEADER.FIELDS"):
		_, list, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
		return fields(p.header, strings.Fields(list), strings.Contains(name, ".NOT")) + "\r\n", true
	}
	number, rest, _ := strings.Cut(name, ".")
	n, err := strconv.Atoi(number)
	switch {
	case err == nil && p.kind == "multipart" && n >= 1 && n <= len(p.children):
		p = p.children[n-1]
	case n != 1 || p.kind == "multipart":
		return "", false
	}
	switch {
	case rest == "":
		return p.body, true
	case rest == "MIME":
		return p.header, true
	case p.kind == "multipart" && rest[0] >= '1' && rest[0] <= '9':
		return p.section(rest)
	case p.kind == "message" && len(p.children) == 1:
		return p.children[0].section(rest)
	}
	return "", false
}

// structure is BODY or, extended, BODYSTRUCTURE (RFC 9051 7.5.2).
func (p *part) structure(extended bool) string {
	var b strings.Builder
	b.WriteByte('(')
	if p.kind == "multipart" && len(p.children) > 0 {
		for _, child := range p.children {
			b.WriteString(child.structure(extended))
		}
		b.WriteString(" " + nstring(p.subkind))
		if extended {
			fmt.Fprintf(&b, " %s NIL NIL NIL)", pairs(p.params))
			return b.String()
		}
		return b.String() + ")"
	}
	encoding := p.field("Content-Transfer-Encoding")
	if encoding == "" {
		encoding = "7bit"
	}
	fmt.Fprintf(&b, "%s %s %s %s %s %s %d", nstring(p.kind), nstring(p.subkind), pairs(p.params),
		nstring(p.field("Content-ID")), nstring(p.field("Content-Description")), nstring(encoding), len(p.body))
	lines := strings.Count(p.body, "\n")
	switch {
	case p.kind == "message" && len(p.children) == 1:
		inner := p.children[0]
		fmt.Fprintf(&b, " (%s %s NIL NIL NIL NIL NIL NIL NIL %s) %s %d", nstring(inner.field("Date")), nstring(inner.field("Subject")),
			nstring(inner.field("Message-ID")), inner.structure(extended), lines)
	case p.kind == "text":
		fmt.Fprintf(&b, " %d", lines)
	}
	if extended {
		disposition := "NIL"
		if kind, params, err := mime.ParseMediaType(p.field("Content-Disposition")); err == nil {
			disposition = "(" + nstring(kind) + " " + pairs(params) + ")"
		}
		fmt.Fprintf(&b, " NIL %s NIL NIL", disposition)
	}
	return b.String() + ")"
}

func nstring(s string) string {
	if s == "" {
		return "NIL"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func pairs(params map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(params)) {
		out = append(out, nstring(k)+" "+nstring(params[k]))
	}
	if len(out) == 0 {
		return "NIL"
	}
	return "(" + strings.Join(out, " ") + ")"
}
