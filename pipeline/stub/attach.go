package stub

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"mime"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// attachment is what a stub holds of the mail that it stands for.
type attachment struct {
	head []byte // header, with LF and the empty line
	data []byte // body with LF, as it is encoded
	what string // in words
}

// attachments are what came of the mail: its beginning, else its text or parts.
// As parts of the stub their words are found by notmuch.
func (s *Salvaged) attachments() []attachment {
	if len(s.Start) > 0 {
		return []attachment{beginning(s.Start)}
	}
	var out []attachment
	for _, p := range s.Parts {
		out = append(out, p.attachment())
	}
	if len(out) == 0 && len(s.Text) > 0 {
		p := mail.Part{Path: "TEXT", Type: "text", Subtype: "plain"}
		if len(s.Structure) == 1 && s.Structure[0].Type == "text" {
			p = s.Structure[0]
		}
		out = append(out, Part{p, s.Text, false}.attachment())
	}
	return out
}

// named names attachments.
func named(attached []attachment) string {
	var out []string
	for _, a := range attached {
		out = append(out, a.what)
	}
	return strings.Join(out, ", ")
}

// beginning is a mail that broke off. It is a mail all the same: readers show
// what there is of it.
func beginning(raw []byte) attachment {
	return attachment{
		head: []byte("Content-Type: message/rfc822\nContent-Disposition: inline\n"),
		data: bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")),
		what: fmt.Sprintf("its first %d bytes", len(raw)),
	}
}

// attachment makes a MIME part of what the server said of it and sent. Nothing
// that the server said gets into the header unless it is of the expected form.
func (p Part) attachment() attachment {
	kind := "application/octet-stream"
	if token(p.Type) && token(p.Subtype) && p.Type != "multipart" {
		kind = p.Type + "/" + p.Subtype
	}
	params := make(map[string]string)
	if cs := p.Params["charset"]; token(cs) {
		params["charset"] = cs
	}
	name := p.Filename
	if name == "" {
		name = p.Params["name"]
	}
	if decoded, err := new(mime.WordDecoder).DecodeHeader(name); err == nil {
		name = decoded // many senders encode it so, against RFC 2047 5; a slash may be in there
	}
	if name = mail.OneLine(filepath.Base(name), 200); name == "." || name == "/" {
		name = ""
	}
	disposition := "inline"
	if p.Disposition == "attachment" || (name != "" && p.Type != "text") {
		disposition = "attachment"
	}
	encoding := strings.ToLower(p.Encoding)
	if !slices.Contains([]string{"7bit", "8bit", "binary", "base64", "quoted-printable"}, encoding) {
		encoding = "8bit" // none was told (Exchange 2007, MS KB 975918)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "Content-Type: %s\n", mime.FormatMediaType(kind, params))
	fmt.Fprintf(&head, "Content-Transfer-Encoding: %s\n", encoding)
	disposed := map[string]string{}
	if name != "" {
		disposed["filename"] = name
	}
	fmt.Fprintf(&head, "Content-Disposition: %s\n", mime.FormatMediaType(disposition, disposed))
	what := "part " + p.Path + ", " + kind
	if p.Path == "TEXT" {
		what = "its text without the header"
	}
	if p.Cut {
		what += " (the beginning of it)"
	}
	return attachment{head.Bytes(), bytes.ReplaceAll(p.Data, []byte("\r\n"), []byte("\n")), what}
}

// token tells whether s is one (RFC 2045 5.1), and short.
func token(s string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_-]{0,80}$`).MatchString(s)
}

// boundary is one that no server can have foreseen.
func boundary() string { return "=_" + rand.Text() }
