package stub

import (
	"strings"
	"testing"
	"time"
)

const exchangeSubstitute = "From: Microsoft Exchange Server 2010\r\n" +
	"To: user@example.org\r\n" +
	"Subject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 20004\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
	"The server couldn't retrieve the following message:\r\n\r\n" +
	"Subject: \"Meeting on Tuesday\"\r\nFrom: \"Jane Doe\" (jane@example.org)\r\nSent date: 11/4/2013 10:24:42 AM\r\n\r\n" +
	"The message hasn't been deleted. You might be able to view it using either Outlook or Outlook Web App. " +
	"You can also contact the sender to find out what the message says.\r\n"

func TestSubstituteIsRecognisedInAllItsForms(t *testing.T) {
	forms := map[string]string{
		"as in the thread":       exchangeSubstitute,
		"typographic apostrophe": strings.Replace(strings.Replace(exchangeSubstitute, "couldn't", "couldn’t", 1), "iso-8859-1", "utf-8", 1),
		"apostrophe of cp1252":   strings.Replace(strings.Replace(exchangeSubstitute, "couldn't", "couldn=92t", 1), "iso-8859-1", "windows-1252", 1),
		"could not":              strings.Replace(exchangeSubstitute, "couldn't", "could not", 1),
		"POP3":                   strings.Replace(exchangeSubstitute, "IMAP4", "POP3", 1),
		"LF line ends":           strings.ReplaceAll(exchangeSubstitute, "\r\n", "\n"),
		"soft line break":        strings.Replace(exchangeSubstitute, "following message:\r\n", "following =\r\nmessage:\r\n", 1),
	}
	for name, raw := range forms {
		t.Run(name, func(t *testing.T) {
			sub, ok := ParseSubstitute([]byte(raw))
			if !ok {
				t.Fatal("not recognised")
			}
			want := time.Date(2013, 11, 4, 10, 24, 42, 0, time.UTC)
			if sub.Subject != "Meeting on Tuesday" || !strings.Contains(sub.From, "Jane Doe") || !sub.Date.Equal(want) {
				t.Errorf("revealed %+v", sub)
			}
		})
	}
}

func TestSubstituteOfHeaderFieldsOnly(t *testing.T) {
	head := "From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 15541\r\n\r\n"
	if _, ok := ParseSubstitute([]byte(head)); !ok {
		t.Error("the seed's 127 bytes are not recognised")
	}
}

func TestMailAboutASubstituteIsMail(t *testing.T) {
	for name, raw := range map[string]string{
		"reply":          "From: Bob <bob@example.org>\r\nReceived: from x\r\nSubject: Re: Retrieval using the IMAP4 protocol failed for the following message: 15541\r\n\r\nHelp!\r\n",
		"forwarded body": "From: Bob <bob@example.org>\r\nReceived: from x\r\nSubject: what is this\r\n\r\nThe server couldn't retrieve the following message:\r\n",
		"same subject by somebody else": "From: Bob <bob@example.org>\r\nReceived: from x\r\nSubject: Retrieval using the IMAP4 protocol failed for the following message: 1\r\n\r\n" +
			"The server couldn't retrieve the following message:\r\n",
		"sent by somebody":          "Received: from x by y\r\n" + exchangeSubstitute,
		"sent, of its header alone": "Received: from x by y\r\nFrom: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following message: 1\r\n\r\n",
		"delivered without a hop":   "Return-Path: <a@example.org>\r\n" + exchangeSubstitute,
		"delivered to a name":       "Delivered-To: me@example.org\r\n" + exchangeSubstitute,
		"Exchange's other mail":     "From: Microsoft Exchange Server 2010\r\nSubject: Your mailbox is almost full\r\n\r\nPlease delete some mail.\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, ok := ParseSubstitute([]byte(raw)); ok {
				t.Error("a real mail was taken for a substitute")
			}
		})
	}
}
