package stub

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // header words in any charset that servers send

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// IsExchange tells by its greeting whether a server is Exchange, on the premises
// or at Microsoft ("The Microsoft Exchange IMAP4 service is ready.").
func IsExchange(greeting string) bool { return strings.Contains(greeting, "Microsoft Exchange") }

// ExchangeCure is what the owner of a mailbox on Exchange can do without an
// administrator: user is the mailbox. Command is for PowerShell, in two lines. That
// it helps is no more than what is often told of it.
func ExchangeCure(user string) (text, command string) {
	if user == "" || strings.ContainsFunc(user, func(r rune) bool {
		return r > '~' || r <= ' ' || strings.ContainsRune("\"'`$;|&(){}<>", r)
	}) {
		user = "USER"
	}
	return "Exchange itself can often be told to hand such mail over, and you need no administrator for that, since it is a setting of your own mailbox. " +
			"Calendar items then come as iCalendar. In PowerShell, with the module ExchangeOnlineManagement or in the Exchange Management Shell:",
		"Set-CASMailbox " + user + " -ImapUseProtocolDefaults $false `\n    -ImapForceICalForCalendarRetrievalOption $true"
}

// Substitute is a mail that Exchange makes up when it cannot convert the real
// one (OfflineIMAP#62, freescout#3203, Mailspring#2038), and what it reveals of
// that.
type Substitute struct {
	From, Subject, Sent string
	Date                time.Time // of Sent; zero if it cannot be read
}

// ParseSubstitute recognises the substitute. Two of its marks must be there,
// so that mail about such a mail is not taken for one. Anybody can write these; but
// the server makes it up when it is asked, so that it has none of the lines that every
// mail gets on its way (RFC 5321 4.4).
func ParseSubstitute(head []byte) (Substitute, bool) {
	if !bytes.Contains(head, []byte("the following message")) && !bytes.Contains(head, []byte("Microsoft Exchange")) {
		return Substitute{}, false
	}
	h := mail.ParseEnvelope(head)
	if slices.ContainsFunc([]string{"Received", "Return-Path", "Delivered-To"}, h.Fields.Has) {
		return Substitute{}, false
	}
	_, body := splitHeader(head)
	// quoted-printable may break the sentence and hides the apostrophe.
	text := decodeBody(h.Fields, body)

	from := strings.Contains(h.From, "Microsoft Exchange Server")
	subject := substituteSubject().MatchString(mail.FoldSpace(h.Subject))
	marker := substituteBody().FindStringIndex(text)
	switch {
	case from && subject:
	case subject && marker != nil:
	case from && marker != nil:
	default:
		return Substitute{}, false
	}
	var sub Substitute
	if marker == nil {
		return sub, true
	}
	for line := range strings.Lines(text[marker[1]:]) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(name) {
		case "subject":
			sub.Subject = value
		case "from":
			sub.From = value
		case "sent date", "sent":
			sub.Sent = value
			sub.Date = parseSent(value)
		}
	}
	return sub, true
}

func substituteSubject() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^Retrieval using the (IMAP4?|POP3) protocol failed for the following message`)
}

// substituteBody matches the sentence with a plain or typographic apostrophe,
// or spelled out (mail-archiver#527).
func substituteBody() *regexp.Regexp {
	return regexp.MustCompile(`(?i)The server (could\s*n['’]t|couldn.{0,3}t|could not) retrieve the following message:`)
}

// parseSent reads the date as Exchange writes it in the server's locale: the
// forms seen in the threads; others stay text.
func parseSent(s string) time.Time {
	for _, layout := range []string{"1/2/2006 3:04:05 PM", "1/2/2006 15:04:05", "2006-01-02 15:04:05", "02.01.2006 15:04:05", time.RFC1123Z, time.RFC1123} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// splitHeader cuts a mail at its first empty line.
func splitHeader(raw []byte) (head, body []byte) {
	lf := bytes.Index(raw, []byte("\n\n"))
	crlf := bytes.Index(raw, []byte("\r\n\r\n"))
	switch {
	case crlf >= 0 && (lf < 0 || crlf < lf):
		return raw[:crlf+4], raw[crlf+4:]
	case lf >= 0:
		return raw[:lf+2], raw[lf+2:]
	}
	return raw, nil
}

// decodeBody undoes the transfer encoding and charset of a short plain text, as
// far as it can.
func decodeBody(fields mail.Header, body []byte) string {
	e, _ := message.New(fields.Entity(), bytes.NewReader(body))
	if e == nil {
		return string(body)
	}
	if mr := e.MultipartReader(); mr != nil {
		p, err := mr.NextPart()
		if p == nil || (err != nil && !message.IsUnknownCharset(err)) {
			return string(body)
		}
		e = p
	}
	var b bytes.Buffer
	_, _ = b.ReadFrom(e.Body) // what could be read is enough
	return b.String()
}
