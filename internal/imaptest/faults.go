package imaptest

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// BadUID is the message of INBOX that a Fault is about.
const BadUID = 30

// Outcome is what a client must make of a Fault.
type Outcome int

// The outcomes.
const (
	Delivered   Outcome = iota + 1 // the mail arrives all the same, byte for byte
	Noted                          // so does it, but notmuch does not take it: a note stands beside it
	Stubbed                        // a stub stands for it
	Vanished                       // it is gone, and that is no failure
	MailboxLeft                    // another mailbox than INBOX is left for now; INBOX is whole
	AccountLeft                    // the account is left for now
)

// Fault is one way in which servers break the rules.
type Fault struct {
	Name    string
	Source  string // who does so, with the thread, or what it stands for
	Outcome Outcome
	// Greeting, Command and Body replace an answer; Prepare changes the
	// server before it starts.
	Prepare  func(*Script)
	Greeting func(*scriptConn) error
	Command  func(c *scriptConn, command, args string) (done bool, err error)
	Body     func(c *scriptConn, a *Asked) (done bool, err error)
}

// Asked is a FETCH of one message.
type Asked struct {
	Seq   int
	Mail  *ScriptMail
	Items string
	Alone bool // no other message was asked for

	list []string // the items, upper case, with the UID if it was asked for so
	item string   // the one whose answer it is
}

// whole tells whether the body as such was asked for.
func (a *Asked) whole() bool {
	return strings.Contains(a.Items, "BODY.PEEK[]") && !strings.Contains(a.Items, "<")
}

// SubstituteMail is what Exchange sends instead of a mail.
func SubstituteMail(sentence string) string {
	return "From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 30\r\n" +
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + sentence +
		"\r\n\r\nSubject: \"Budget\"\r\nFrom: \"Jane Doe\"\r\nSent date: 11/4/2013 10:24:42 AM\r\n\r\nThe message hasn't been deleted.\r\n"
}

// Faults gives all of them.
func Faults() []Fault {
	return slices.Concat(bodyFaults(), talkFaults(), serverFaults(), quirkFaults())
}

// raw answers with exactly these bytes.
func raw(format string) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.send("%s", expand(format, a))
		return true, nil
	}
}

// rawThatLacks answers with exactly these bytes, of which the client waits for more: its next command
// never comes.
func rawThatLacks(format string) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.mute = true
		return raw(format)(c, a)
	}
}

// expand fills in what a literal answer needs.
func expand(format string, a *Asked) string {
	m := a.Mail
	return strings.NewReplacer(
		"{seq}", fmt.Sprint(a.Seq), "{uid}", fmt.Sprint(m.UID), "{size}", fmt.Sprint(len(m.Raw)), "{lit}", fmt.Sprintf("{%d}", len(m.Raw)),
		"{raw}", m.Raw, "{half}", m.Raw[:len(m.Raw)/2],
		"{attr}", m.attributes("FLAGS INTERNALDATE RFC822.SIZE"),
	).Replace(format)
}

// final answers with nothing but a tagged line.
func final(line string) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, _ *Asked) (bool, error) {
		c.final = line
		return true, nil
	}
}

// thenHangUp sends and closes the connection; hard with a reset.
func thenHangUp(format string, hard bool) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.send("%s", expand(format, a))
		_ = c.w.Flush() // the client may be gone
		if tcp, ok := c.Conn.(*net.TCPConn); ok && hard {
			_ = tcp.SetLinger(0) // best effort: else it is an ordinary end
		}
		return true, errHangUp
	}
}

// thenSilence sends and says nothing more.
func thenSilence(format string) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.send("%s", expand(format, a))
		return true, errHang
	}
}

// before sends a line and then answers as it should.
func before(format string) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, a *Asked) (bool, error) {
		c.send("%s", expand(format, a))
		return false, nil
	}
}

// instead answers a whole body with a format, other items with nothing.
func instead(format string) func(*scriptConn, *Asked) (bool, error) {
	return func(c *scriptConn, a *Asked) (bool, error) {
		if a.whole() {
			c.send("%s", expand(format, a))
		}
		return true, nil
	}
}

// bodyFaults are those after which the message cannot be had.
func bodyFaults() []Fault {
	fault := func(name, source string, body func(*scriptConn, *Asked) (bool, error)) Fault {
		return Fault{Name: name, Source: source, Outcome: Stubbed, Body: body}
	}
	good := "* {seq} FETCH ({attr} BODY[] {lit}\r\n{raw})\r\n"
	substitute := func(sentence string) func(*scriptConn, *Asked) (bool, error) {
		sub := SubstituteMail(sentence)
		return instead(fmt.Sprintf("* {seq} FETCH ({attr} BODY[] {%d}\r\n%s)\r\n", len(sub), sub))
	}
	return []Fault{
		fault("OK without data", "Exchange: the seed; OfflineIMAP#62", raw("")),
		fault("attributes without the body", "emailengine#53", raw("* {seq} FETCH ({attr})\r\n")),
		fault("tagged NO", "Yahoo: imapsync#119", final("NO [UNAVAILABLE] UID FETCH Server error while fetching messages")),
		fault("tagged NO, Gmail", "OfflineIMAP#682", final("NO System Error (Failure)")),
		fault("tagged BAD", "Exchange: imapsync FAQ", final("BAD Command Argument Error. 11")),
		fault("BYE", "Dovecot: modoboa#3258", thenHangUp("* BYE Cached message size larger than expected\r\n", false)),
		fault("end before any byte", "GOIMAP.md", thenHangUp("", false)),
		fault("reset before any byte", "GOIMAP.md", thenHangUp("", true)),
		fault("end inside a literal", "GOIMAP.md", thenHangUp("* {seq} FETCH ({attr} BODY[] {lit}\r\n{half}", false)),
		fault("reset inside a literal", "GOIMAP.md", thenHangUp("* {seq} FETCH ({attr} BODY[] {lit}\r\n{half}", true)),
		fault("literal announced too small", "GOIMAP.md", raw("* {seq} FETCH ({attr} BODY[] {10}\r\n{raw})\r\n")),
		fault("literal announced too large", "GOIMAP.md", rawThatLacks("* {seq} FETCH ({attr} BODY[] {100000}\r\n{raw})\r\n")),
		fault("silence before any byte", "GOIMAP.md", thenSilence("")),
		fault("half a line, then silence", "GOIMAP.md", thenSilence("* {seq} FETCH (UID {ui")),
		fault("silence inside a literal", "GOIMAP.md", thenSilence("* {seq} FETCH ({attr} BODY[] {lit}\r\n{half}")),
		fault("literal of 4 GB", "GOIMAP.md", raw("* {seq} FETCH ({attr} BODY[] {4294967295}\r\n{raw})\r\n")),
		fault("NIL body", "GOIMAP.md", raw("* {seq} FETCH ({attr} BODY[] NIL)\r\n")),
		fault("empty string as body", "GOIMAP.md", raw("* {seq} FETCH ({attr} BODY[] \"\")\r\n")),
		fault("empty literal as body", "GOIMAP.md", raw("* {seq} FETCH ({attr} BODY[] {0}\r\n)\r\n")),
		fault("UID 0", "OfflineIMAP#336", raw("* {seq} FETCH (UID 0 FLAGS () BODY[] {lit}\r\n{raw})\r\n")),
		fault("another UID than asked for", "GOIMAP.md", raw("* {seq} FETCH (UID 99{uid} FLAGS () BODY[] {lit}\r\n{raw})\r\n")),
		fault("item list without an end", "GOIMAP.md", raw("* {seq} FETCH ({attr} BODY[] {lit}\r\n{raw}\r\n")),
		fault("four million brackets", "GOIMAP.md", raw("* {seq} FETCH (BODYSTRUCTURE "+strings.Repeat("(", 4<<20)+"\r\n")),
		fault("a line of 200 MB", "GOIMAP.md", func(c *scriptConn, a *Asked) (bool, error) {
			c.after = func() error {
				c.send("* %d FETCH (UID %d ENVELOPE (\"", a.Seq, a.Mail.UID)
				chunk := strings.Repeat("x", 1<<20)
				for range 200 {
					if _, err := c.w.WriteString(chunk); err != nil {
						return errHangUp
					}
				}
				c.send("\"))\r\n")
				return nil
			}
			return true, nil
		}),
		fault("substitute on PEEK", "Office 365: Mailspring#2038", substitute("The server couldn't retrieve the following message:")),
		fault("substitute with a typographic apostrophe", "mail-archiver#527", substitute("The server couldn’t retrieve the following message:")),
		fault("substitute with could not", "mail-archiver#527", substitute("The server could not retrieve the following message:")),
		{Name: "gone meanwhile", Source: "RFC 2180 4.1.2; emailjs#60", Outcome: Vanished, Body: func(c *scriptConn, a *Asked) (bool, error) {
			c.box.Expunge(a.Mail.UID)
			c.final = "NO Some of the requested messages no longer exist."
			return true, nil
		}},
		{Name: "size other than RFC822.SIZE", Source: "Exchange: MS KB Q191504", Outcome: Delivered,
			Body: raw("* {seq} FETCH (UID {uid} FLAGS () RFC822.SIZE 1 BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "odd bytes", Source: "GOIMAP.md", Outcome: Delivered, Prepare: func(s *Script) {
			for _, m := range s.boxes[0].Mails {
				if m.UID == BadUID {
					m.Raw = "Subject: gr\xfc\xdfe\r\nMessage-ID: <odd@example.org>\r\n\r\nNUL \x00, bare\nLF, bare\rCR, \xff\xfe\r\n) A1 OK\r\n* BYE {7}\r\n"
				}
			}
		}},
		{Name: "no header", Source: "S5", Outcome: Noted, Prepare: func(s *Script) {
			for _, m := range s.boxes[0].Mails {
				if m.UID == BadUID {
					m.Raw = "\r\nThis is no mail at all, but it was sent.\r\n\r\n"
				}
			}
		}},
		{Name: "no UID in the answer", Source: "GOIMAP.md", Outcome: Delivered, Body: instead("* {seq} FETCH (FLAGS () BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "UID behind the literal", Source: "DavMail: OfflineIMAP#479", Outcome: Delivered,
			Body: instead("* {seq} FETCH (BODY[] {lit}\r\n{raw} FLAGS () UID {uid})\r\n")},
		{Name: "one answer twice", Source: "GOIMAP.md", Outcome: Delivered, Body: instead(good + good)},
		{Name: "flags before the body", Source: "MailKit#1926", Outcome: Delivered, Body: before("* {seq} FETCH (UID {uid} FLAGS (\\Seen))\r\n")},
		{Name: "body before its flags", Source: "GOIMAP.md", Outcome: Delivered,
			Body: instead("* {seq} FETCH (UID {uid} BODY[] {lit}\r\n{raw})\r\n* {seq} FETCH (UID {uid} FLAGS ())\r\n")},
		{Name: "unquoted quotes and unknown items", Source: "Gmail; iCloud: mailcore2#1967", Outcome: Delivered,
			Body: instead("* {seq} FETCH (X-GM-MSGID 1278455344230334865 X-GM-LABELS (\"\\\\Inbox\" \"a b\") ENVELOPE (\"say \"hi\", now\" NIL) UID {uid} FLAGS () BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "bad date and size", Source: "GOIMAP.md", Outcome: Delivered,
			Body: instead("* {seq} FETCH (UID {uid} FLAGS () INTERNALDATE \"yesterday\" RFC822.SIZE -1 BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "odd flags", Source: "GOIMAP.md", Outcome: Delivered,
			Body: instead("* {seq} FETCH (UID {uid} FLAGS (a]b \"c d\" e\x85f) BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "body as a quoted string", Source: "RFC 9051 nstring", Outcome: Delivered, Prepare: func(s *Script) {
			for _, m := range s.boxes[0].Mails {
				if m.UID == BadUID {
					m.Raw = "Subject: short"
				}
			}
		}, Body: instead("* {seq} FETCH (UID {uid} FLAGS () BODY[] \"{raw}\")\r\n")},
		{Name: "throttled for a moment", Source: "Office 365: imapsync#272", Outcome: Delivered, Body: func() func(*scriptConn, *Asked) (bool, error) {
			times := 0
			return func(c *scriptConn, _ *Asked) (bool, error) {
				if times++; times > 1 {
					return false, nil
				}
				c.final = "BAD Request is throttled. Suggested Backoff Time: 50 milliseconds"
				return true, nil
			}
		}()},
		{Name: "throttled for long", Source: "Office 365: imapsync#272", Outcome: AccountLeft,
			Body: final("BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds")},
		{Name: "over quota", Source: "imapsync FAQ.Gmail", Outcome: AccountLeft,
			Body: final("NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)")},
	}
}

// talkFaults are lines between others; they cost nothing.
func talkFaults() []Fault {
	var out []Fault
	for name, line := range map[string]string{
		"unknown response code":          "* OK [XYZZY a]b\"c] plugh\r\n",
		"unknown untagged line":          "* XYZZY (a b) {3}\r\nabc \"d\"\r\n",
		"garbage line":                   "\x00\x01\xff garbage ) ( \" {\r\n",
		"empty line":                     "\r\n",
		"unknown tag":                    "A999 OK whatever\r\n",
		"continuation nobody waits for":  "+ go on\r\n",
		"VANISHED nobody asked for":      "* VANISHED 1:5\r\n",
		"several EXISTS":                 "* 500 EXISTS\r\n* 1000 EXISTS\r\n* 60 EXISTS\r\n",
		"COPYUID without OK":             "* [COPYUID 124 10 233]\r\n",
		"COPYUID with a star":            "* OK [COPYUID 14 1 *] moved\r\n",
		"bad ENVELOPE and BODYSTRUCTURE": "* 1 FETCH (ENVELOPE (NIL NIL BODYSTRUCTURE ((((\r\n",
		"many brackets":                  "* 1 FETCH (BODYSTRUCTURE " + strings.Repeat("(", 100_000) + ")\r\n",
		"FETCH of another message":       "* 1 FETCH (FLAGS (\\Seen))\r\n",
		"untagged NO":                    "* NO [ALERT] Mailbox is at 99% of its quota\r\n",
		"line feed alone":                "* OK still here\n",
	} {
		out = append(out, Fault{Name: name, Source: "GOIMAP.md, QUIRKS.md", Outcome: Delivered, Body: before(line)})
	}
	return out
}

// serverFaults are of sign-in, lists and mailboxes.
func serverFaults() []Fault {
	onCommand := func(want string, answer func(c *scriptConn, args string) (bool, error)) func(*scriptConn, string, string) (bool, error) {
		return func(c *scriptConn, command, args string) (bool, error) {
			if command != want {
				return false, nil
			}
			return answer(c, args)
		}
	}
	refuse := func(mailbox, line string) func(*scriptConn, string) (bool, error) {
		return func(c *scriptConn, args string) (bool, error) {
			if !strings.HasPrefix(args, quoteName(mailbox)) {
				return false, nil
			}
			c.box, c.final = nil, line
			return true, nil
		}
	}
	list := func(lines string) func(*scriptConn, string) (bool, error) {
		return func(c *scriptConn, _ string) (bool, error) {
			c.send("%s", lines)
			return false, nil
		}
	}
	validity := func(v string) func(*Script) {
		return func(s *Script) {
			for _, b := range s.boxes {
				b.UIDValidity = v
			}
		}
	}
	return []Fault{
		{Name: "LIST-STATUS refused", Source: "Office 365, Proton: matcha#1426", Outcome: Delivered, Prepare: func(s *Script) { s.Caps += " LIST-STATUS" },
			Command: onCommand("LIST", func(c *scriptConn, args string) (bool, error) {
				if strings.Contains(args, "RETURN") {
					c.final = "BAD Command Argument Error. 12"
					return true, nil
				}
				return false, nil
			})},
		{Name: "STATUS of one mailbox refused", Source: "QUIRKS.md", Outcome: MailboxLeft, Command: onCommand("STATUS", refuse("Other", "NO mailbox is locked"))},
		{Name: "EXAMINE of one mailbox refused", Source: "Zimbra: imapsync FAQ", Outcome: MailboxLeft, Command: onCommand("EXAMINE", refuse("Other", "NO mailbox is locked"))},
		{Name: "EXAMINE of one mailbox hangs up", Source: "Zimbra: imapsync FAQ", Outcome: MailboxLeft,
			Command: onCommand("EXAMINE", func(c *scriptConn, args string) (bool, error) {
				if strings.HasPrefix(args, quoteName("Other")) {
					c.send("* BYE Shared folder is locked\r\n")
					return true, errHangUp
				}
				return false, nil
			})},
		{Name: "mailbox name in latin-1", Source: "GOIMAP.md", Outcome: Delivered, Prepare: func(s *Script) { s.boxes[1].Name = "Entw\xfcrfe" }},
		{Name: "mailbox name in bad UTF-7", Source: "GOIMAP.md", Outcome: Delivered, Prepare: func(s *Script) { s.boxes[1].Name = "A&b" }},
		{Name: "LIST lines that cannot be read", Source: "GOIMAP.md", Outcome: Delivered,
			Command: onCommand("LIST", list("* LIST (\\HasNoChildren) \"/\r\n* LIST\r\n* LIST () NIL {3}\r\n\x00a\x01\r\n"))},
		{Name: "UIDVALIDITY beyond 32 bits", Source: "neomutt#3830; MailKit#723", Outcome: Delivered, Prepare: validity("1234567890123456")},
		{Name: "UIDVALIDITY 0", Source: "modern-email/defects#52", Outcome: Delivered, Prepare: validity("0")},
		{Name: "UIDVALIDITY not told", Source: "chatmail#1577", Outcome: Delivered, Prepare: validity("")},
		{Name: "empty STATUS", Source: "163.com: modern-email/defects#15", Outcome: Delivered,
			Command: onCommand("STATUS", func(c *scriptConn, args string) (bool, error) {
				name, _, _ := strings.Cut(args, " (")
				c.send("* STATUS %s ()\r\n", name)
				return true, nil
			})},
		{Name: "signed in but not connected", Source: "Office 365: imapsync#411", Outcome: AccountLeft,
			Command: func(c *scriptConn, command, _ string) (bool, error) {
				if command == "LOGIN" || command == "AUTHENTICATE" || command == "CAPABILITY" || command == "LOGOUT" {
					return false, nil
				}
				c.final = "BAD User is authenticated but not connected."
				return true, nil
			}},
		{Name: "sign-in refused", Source: "RFC 5530", Outcome: AccountLeft,
			Command: func(c *scriptConn, command, _ string) (bool, error) {
				if command != "LOGIN" && command != "AUTHENTICATE" {
					return false, nil
				}
				c.final = "NO [AUTHENTICATIONFAILED] Invalid credentials"
				return true, nil
			}},
		{Name: "BYE as greeting", Source: "RFC 9051 7.1.5", Outcome: AccountLeft, Greeting: func(c *scriptConn) error {
			c.send("* BYE Too busy\r\n")
			return errHangUp
		}},
		{Name: "only one connection", Source: "Gmail: wildduck#35", Outcome: Delivered, Greeting: func(c *scriptConn) error {
			if c.s.live() > 1 {
				c.send("* BYE [ALERT] Too many simultaneous connections. (Failure)\r\n")
				return errHangUp
			}
			c.send("* OK ready\r\n")
			return nil
		}},
		{Name: "line behind the tagged answer", Source: "Exchange 2003: libetpan#45", Outcome: Delivered,
			Command: onCommand("UID FETCH", func(c *scriptConn, _ string) (bool, error) {
				c.final = "OK done\r\n"
				return false, nil
			})},
		{Name: "SEARCH on several lines", Source: "DavMail: OfflineIMAP#633", Outcome: Delivered,
			Command: onCommand("UID SEARCH", func(c *scriptConn, _ string) (bool, error) {
				for _, m := range c.box.Mails {
					c.send("* SEARCH %d\r\n", m.UID)
				}
				return true, nil
			})},
	}
}
