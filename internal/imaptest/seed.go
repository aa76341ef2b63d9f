package imaptest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// The seed's mailbox: what the administrator's server held on that evening.
const (
	SeedMessages    = 1233
	SeedUIDValidity = 14
	SeedUIDNext     = 16124
	SeedBadUID      = 15541
)

// Substitute is what Exchange makes up for a message that it cannot convert.
type Substitute struct {
	Subject, From, Sent string
}

func (s Substitute) header(uid imap.UID) string {
	return fmt.Sprintf("From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following\r\n message: %d\r\n", uid)
}

// mail is the substitute as Exchange words it (OfflineIMAP#62).
func (s Substitute) mail(uid imap.UID) string {
	return s.header(uid) + "To: " + User + "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n" +
		"The server couldn't retrieve the following message:\r\n\r\n" +
		fmt.Sprintf("Subject: \"%s\"\r\nFrom: \"%s\"\r\nSent date: %s\r\n\r\n", s.Subject, s.From, s.Sent) +
		"The message hasn't been deleted. You might be able to view it using either =\r\nOutlook or Outlook Web App. " +
		"You can also contact the sender to find out what=\r\n the message says.\r\n"
}

// seedSubstitute is of the message that the seed's Exchange does not hand over.
func seedSubstitute() Substitute {
	return Substitute{Subject: "Minutes of the meeting on Tuesday", From: "Jane Doe", Sent: "11/1/2013 8:00:00 PM"}
}

// seedUIDs gives the 1233 UIDs, ascending: those that the seed names stand at
// the sequence numbers that it names.
func seedUIDs() []imap.UID {
	named := []imap.UID{15500, 15507, 15514, 15516, 15523, SeedBadUID, 15544, 15545, 15553, 15561, 15562} // sequence numbers 1040..1050
	var out []imap.UID
	for seq := range 1039 {
		out = append(out, imap.UID(1+seq*14)) // up to 14533
	}
	out = append(out, named...)
	for seq := len(out); seq < SeedMessages; seq++ {
		out = append(out, imap.UID(15563+(seq-1050)*3)) // up to 16109
	}
	return out
}

// seedMail makes the mail at place i: threads, lists, charsets, some read.
func seedMail(i int, uid imap.UID) ([]byte, []imap.Flag, time.Time) {
	date := time.Date(2013, 1, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(i) * 7 * time.Hour)
	people := []string{"Anna Berg <anna@example.org>", "=?utf-8?q?J=C3=BCrgen_Gro=C3=9F?= <juergen@example.net>", "Build <build@ci.example.com>", "Zoë <zoe@example.org>"}
	topics := []string{"Minutes", "=?utf-8?b?w4RuZGVydW5nZW4=?= am Vertrag", "Lunch on Friday", "nightly build failed", "Re: offer"}
	topic := topics[i/5%len(topics)]
	var b strings.Builder
	from, subject := people[i%len(people)], fmt.Sprintf("%s (%d)", topic, i/5)
	if uid == SeedBadUID {
		from, subject = "Jane Doe <jane@example.org>", "Minutes of the meeting on Tuesday"
	}
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <seed-%d@example.org>\r\n",
		from, User, subject, date.Format(time.RFC1123Z), uid)
	if i%5 != 0 {
		fmt.Fprintf(&b, "In-Reply-To: <seed-thread-%d@example.org>\r\nReferences: <seed-thread-%d@example.org>\r\n", i/5, i/5)
	}
	fmt.Fprintf(&b, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nMail number %d.\r\n%s",
		i+1, strings.Repeat("A line of text, as people write them — now and then with an ü.\r\n", 3+i%40))
	flags := []imap.Flag{imap.FlagSeen}
	switch {
	case i > SeedMessages-20, uid == SeedBadUID:
		flags = nil
	case i%50 == 0:
		flags = append(flags, imap.FlagFlagged)
	case i%9 == 0:
		flags = append(flags, imap.FlagAnswered)
	}
	return []byte(b.String()), flags, date
}

// SeedScript is the seed's mailbox for a Script: UID 15541 is answered as in the
// seed's transcripts. The messages with the UIDs of deleted are marked \Deleted.
func SeedScript(deleted ...uint32) *ScriptBox {
	b := Box("INBOX")
	for i, uid := range seedUIDs() {
		raw, flags, date := seedMail(i, uid)
		if slices.Contains(deleted, uint32(uid)) {
			flags = append(flags, imap.FlagDeleted)
		}
		var words []string
		for _, f := range flags {
			words = append(words, string(f))
		}
		b.UIDNext = uint32(uid)
		m := b.Add(string(raw), strings.Join(words, " "))
		m.Date = date
		if uid == SeedBadUID {
			m.Structure = `("text" "plain" ("charset" "iso-8859-1") NIL NIL "quoted-printable" 1 1)`
			m.Rungs = seedRungs
		}
	}
	b.UIDNext = SeedUIDNext
	return b
}

// seedRungs answers as the seed's Exchange did in its transcripts a02 to a04.
func seedRungs(item string) Answer {
	var answer Answer
	switch item {
	case "FLAGS", "INTERNALDATE", "BODYSTRUCTURE":
		return nil
	case "BODY": // it told the flags unasked
		answer = func(c *scriptConn, a *Asked) (bool, error) {
			c.message(a.Seq, a.Mail, append(slices.Clone(a.list), "FLAGS"))
			return true, nil
		}
	case "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]", "BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)]", "BODY[]":
		answer = seedSubstitute().Answer()
	default:
		answer = NoData()
	}
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.final = "OK FETCH completed."
		return answer(c, a)
	}
}
