// Package stub has the mail that stands in notmuch for a message that would not come,
// or that was left where it is: its key and signature, its text, what of the real mail
// is attached to it, and how it is read back; and the mail that Exchange makes up in the
// place of one that it cannot convert. It is pure: it reads what it is given, and knows
// of no run, file, ledger or connection.
package stub

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"mime"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// salvagedHeader says how many bytes of the mail a stub has.
const salvagedHeader = "X-Notmuch-Imap-Salvaged"

// accountField and mailboxField name what a stub's key is of.
const (
	accountField = "X-Notmuch-Imap-Account"
	mailboxField = "X-Notmuch-Imap-Mailbox"
)

// A stub's X-Label is the tag that it has in notmuch.
const (
	LabelFailed  = "fetch-failed"  // the server does not hand the message over
	LabelSkipped = "fetch-skipped" // a hook left the message on the server
)

// SalvagedSize reads from a stub how much of the mail it has; 0 if it does not say.
func SalvagedSize(r io.Reader) int {
	h, _ := mail.ReadHeader(io.LimitReader(r, MaxHeader), salvagedHeader) // what can be read of it
	n, _ := strconv.Atoi(h.Get(salvagedHeader))
	return n
}

// Origin says where the messages are for which stubs stand, and whose they are.
type Origin struct {
	Account     string // name, as the configuration has it
	Address     string // the user's name at the server, for stubs whose sender is unknown
	Mailbox     string
	UIDValidity uint64
	Secret      string // by which the account's stubs are signed
	Exchange    bool   // the server is Exchange, so far as it shows
}

// Failed writes the mail that stands in the place of one that could not be had.
func Failed(o Origin, s Salvaged, now time.Time) []byte {
	var real mail.Envelope
	if len(s.Header) > 0 {
		real = mail.ParseEnvelope(s.Header)
	}
	subject, from := real.Subject, real.From
	if s.Substitute != nil {
		subject, from = cmp.Or(s.Substitute.Subject, subject), cmp.Or(s.Substitute.From, from)
	}

	var m bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&m, "%s: %s\n", name, value) }
	o.header(&m, s, SubjectPrefix, subject, from, real.MessageID, nil, LabelFailed, now)
	attached := s.attachments()
	boundary := boundary()
	if len(attached) > 0 {
		field("Content-Type", `multipart/mixed; boundary="`+boundary+`"`)
		m.WriteString("\n--" + boundary + "\n")
	}
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "8bit")
	m.WriteByte('\n')

	para := func(format string, args ...any) {
		m.WriteString(wrap(fmt.Sprintf(format, args...), 72) + "\n\n")
	}
	para("This is not the mail itself. It is a note that notmuch-imap wrote because %s.", s.Reason())
	if s.Substitute != nil {
		para("Exchange does so when it cannot turn what it has stored into a mail. The mail is not deleted: you may be able to read it in " +
			"Outlook or Outlook on the web, or ask its sender.")
	} else {
		para("The mail may still be readable in the provider's webmail.")
	}
	para("%s", o.blame(s.UID))
	if s.Substitute != nil || o.Exchange {
		text, command := ExchangeCure(o.Address)
		para("%s", text)
		m.WriteString("  " + strings.ReplaceAll(command, "\n", "\n  ") + "\n\n")
		para("It often helps. Then press ,r.")
	}

	m.WriteString("Keys on this note (they come from `notmuch imap setup mutt`)\n\n")
	m.WriteString("  ,i  look what the server says now     notmuch imap inspect\n")
	m.WriteString("  ,r  ask for it now                    notmuch imap retry\n")
	m.WriteString("  ,d  stop asking, remove this note     notmuch imap drop\n")
	m.WriteString("  ,D  delete the message on the server  notmuch imap drop --remote\n\n")

	sent := real.Fields.Get("Date")
	if s.Substitute != nil {
		sent = s.Substitute.Sent
	}
	o.known(&m, s, subject, from, sent, real.MessageID)
	m.WriteString("What happens next\n\n")
	para("Every sync asks for it again when it is due: after 15 minutes, an hour, a day, then every week. When the mail comes it takes this " +
		"note's place and keeps your tags. When it is deleted on the server, this note goes away.")
	m.WriteString("  list all of these    notmuch search tag:" + LabelFailed + "\n")
	m.WriteString("  with the details     notmuch imap stubs\n")
	m.WriteString("  stop asking for it   delete this note\n\n")
	para("Whatever you do with this note, nothing happens to the message on the server, unless you press ,D and say yes.")

	if len(attached) > 0 {
		para("What could be had of the mail is attached to this note: %s.", named(attached))
	}
	if len(s.Header) > 0 && s.Substitute == nil {
		m.WriteString("What could be had of it\n\n")
		indent(&m, s.Header, 100)
	}
	if len(s.Lines) > 0 {
		m.WriteString("The conversation with the server\n\n")
		for _, l := range s.Lines {
			who := "S"
			if l.Client {
				who = "C"
			}
			fmt.Fprintf(&m, "  %s %s: %s\n", l.At.Format("15:04:05"), who, mail.OneLine(l.Text, 300))
		}
	}
	for _, a := range attached {
		fmt.Fprintf(&m, "\n--%s\n%s\n", boundary, a.head)
		m.Write(a.data)
	}
	if len(attached) > 0 {
		m.WriteString("\n--" + boundary + "--\n")
	}
	return m.Bytes()
}

// header writes what every stub's header has, but for its MIME type. id is
// the real mail's, and refs are what that refers to.
func (o Origin) header(m *bytes.Buffer, s Salvaged, prefix, subject, from, id string, refs []string, label string, now time.Time) {
	key := NewKey(o.Account, o.Mailbox, o.UIDValidity, s.UID)
	field := func(name, value string) { fmt.Fprintf(m, "%s: %s\n", name, value) }
	field("From", o.sender(from))
	field("To", mailAddress("", o.Address))
	field("Subject", mime.QEncoding.Encode("utf-8", prefix+cmp.Or(mail.OneLine(subject, 400), fmt.Sprintf("%s UID %d", mail.OneLine(o.Mailbox, 100), s.UID))))
	field("Date", s.Date(now).Format(time.RFC1123Z))
	field("Message-ID", "<"+key.MessageID()+">")
	if validID(id) {
		field("In-Reply-To", "<"+id+">")
		refs = append(slices.DeleteFunc(slices.Clone(refs), func(r string) bool { return !validID(r) }), id)
		field("References", "<"+strings.Join(refs, ">\n <")+">")
	}
	field("X-Label", label)
	field(Field, "v=1; key="+key.String()+"; sig="+Sign(o.Secret, key))
	field(accountField, mime.QEncoding.Encode("utf-8", mail.OneLine(o.Account, 200)))
	field(mailboxField, mime.QEncoding.Encode("utf-8", mail.OneLine(o.Mailbox, 200)))
	field(salvagedHeader, strconv.Itoa(s.Size()))
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
}

// known writes what is known of the real mail.
func (o Origin) known(m *bytes.Buffer, s Salvaged, subject, from, sent, id string) {
	m.WriteString("What is known of it\n\n")
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(m, "  %-13s %s\n", name, value)
		}
	}
	row("Subject", mail.OneLine(subject, 400))
	row("From", mail.OneLine(from, 400))
	row("Sent", mail.OneLine(sent, 100))
	row("Message-ID", mail.OneLine(id, 400))
	if !s.Told.InternalDate.IsZero() {
		row("Received", s.Told.InternalDate.Format(time.RFC1123Z))
	}
	if s.Told.Size > 0 {
		row("Size", fmt.Sprintf("%d bytes, as the server says", s.Told.Size))
	}
	if s.Told.Flags != nil {
		row("Flags", mail.OneLine(cmp.Or(strings.Join(s.Told.Flags, " "), "none"), 400))
	}
	row("Account", mail.OneLine(o.Account, 200))
	row("Mailbox", mail.OneLine(o.Mailbox, 200))
	row("UID", fmt.Sprintf("%d (UIDVALIDITY %d)", s.UID, o.UIDValidity))
	m.WriteByte('\n')
}

// blame says whose fault it is and how that was found.
func (o Origin) blame(uid imap.UID) string {
	return fmt.Sprintf("The fault is the server's, not yours and not that of the network: it was asked for UID %d "+
		"together with other messages, then alone, then for its parts one by one, and it still lists the message. "+
		"The other messages of %s are not affected.", uid, mail.OneLine(o.Mailbox, 100))
}

func (o Origin) sender(from string) string {
	if a, err := netmail.ParseAddress(from); err == nil {
		return mailAddress(a.Name, a.Address)
	}
	if from = mail.OneLine(from, 200); from != "" {
		return mailAddress(from, "") // a name is known, an address is not
	}
	return mailAddress("notmuch-imap", o.Address)
}

// mailAddress writes an address that is always well-formed.
func mailAddress(name, address string) string {
	address = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`<>()[]\,;:"`, r) {
			return -1
		}
		return r
	}, address)
	if !strings.Contains(address, "@") {
		address = cmp.Or(address, "unknown") + "@imap-stub.invalid"
	}
	return (&netmail.Address{Name: mail.OneLine(name, 200), Address: address}).String()
}

// validID tells whether a Message-ID from the server can stand in a header of
// ours.
func validID(id string) bool {
	if id == "" || len(id) > 900 || !strings.Contains(id, "@") {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' })
}

// indent writes the server's text so that it cannot be taken for a header or a
// separator of ours.
func indent(m *bytes.Buffer, text []byte, most int) {
	n := 0
	for line := range strings.Lines(string(text)) {
		if n++; n > most {
			m.WriteString("  ...\n")
			break
		}
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			m.WriteString("  " + mail.OneLine(line, 300) + "\n")
		}
	}
	m.WriteByte('\n')
}

// wrap breaks text into lines of at most width columns.
func wrap(text string, width int) string {
	var b strings.Builder
	col := 0
	for _, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case col == 0:
		case col+1+n > width:
			b.WriteByte('\n')
			col = 0
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	return b.String()
}

// maxReferences bounds how many mails a placeholder says that its mail refers to.
const maxReferences = 20

// Skipped writes the mail that stands in the place of one that was left on
// the server.
func Skipped(o Origin, s Salvaged, reason string, now time.Time) []byte {
	var real mail.Envelope
	if len(s.Header) > 0 {
		real = mail.ParseEnvelope(s.Header)
	}
	refs := strings.Fields(strings.NewReplacer("<", " ", ">", " ").Replace(real.Fields.Get("References")))
	refs = refs[max(0, len(refs)-maxReferences):]

	var m bytes.Buffer
	o.header(&m, s, SubjectPrefix, real.Subject, real.From, real.MessageID, refs, LabelSkipped, now)
	m.WriteString("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n")
	para := func(format string, args ...any) {
		m.WriteString(wrap(fmt.Sprintf(format, args...), 72) + "\n\n")
	}
	para("This is not the mail itself. It is a note that notmuch-imap wrote, since your configuration leaves the mail on the server (%s).", reason)
	para("Nothing is wrong with it. It stays there, and is not asked for until you say so.")

	m.WriteString("Keys on this note (they come from `notmuch imap setup mutt`)\n\n")
	m.WriteString("  ,r  fetch the mail now                notmuch imap retry\n")
	m.WriteString("  ,d  remove this note                  notmuch imap drop\n\n")

	o.known(&m, s, real.Subject, real.From, real.Fields.Get("Date"), real.MessageID)

	m.WriteString("What happens next\n\n")
	para("When you ask for the mail, it takes this note's place and keeps your tags. When it is deleted on the server, this note goes away.")
	m.WriteString("  list all of these    notmuch search tag:" + LabelSkipped + "\n")
	m.WriteString("  with the reasons     notmuch imap stubs --all\n\n")
	para("Whatever you do with this note, nothing happens to the message on the server.")
	return bytes.TrimSuffix(m.Bytes(), []byte("\n"))
}

// NotMail writes the mail that stands for one that is here, at path, and that notmuch does not
// take for a mail, for the reason that is given.
func NotMail(o Origin, s Salvaged, reason, path string, now time.Time) []byte {
	var m bytes.Buffer
	o.header(&m, s, "[not in notmuch] ", "", "", "", nil, LabelFailed, now)
	m.WriteString("Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n")
	para := func(format string, args ...any) {
		m.WriteString(wrap(fmt.Sprintf(format, args...), 72) + "\n\n")
	}
	para("This is not the mail itself. It is a note that notmuch-imap wrote, since of a mail that came, %s.", strings.TrimPrefix(reason, "the mail is here, but "))
	m.WriteString("It is this file, which any mail reader that opens the folder shows:\n\n  " + path + "\n\n")
	para("Nothing of it is lost: it stays as the server has it, and goes when it is deleted there.")

	m.WriteString("Keys on this note (they come from `notmuch imap setup mutt`)\n\n")
	m.WriteString("  ,i  look what the server says of it   notmuch imap inspect\n")
	m.WriteString("  ,r  let notmuch read it again         notmuch imap retry\n")
	m.WriteString("  ,d  remove this note                  notmuch imap drop\n\n")

	o.known(&m, s, "", "", "", "")
	m.WriteString("  list all of these    notmuch search tag:" + LabelFailed + "\n")
	m.WriteString("  with the reasons     notmuch imap stubs --all\n\n")
	para("Whatever you do with this note, nothing happens to the message on the server.")
	return bytes.TrimSuffix(m.Bytes(), []byte("\n"))
}
