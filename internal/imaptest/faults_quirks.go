package imaptest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// quirkFaults are what named servers do (QUIRKS.md), beside the plain faults of
// the other tables. Not here are quirks of commands that the client never gives
// (ENVELOPE, BODYSTRUCTURE and RFC822 of iCloud and Exchange 2007, ID with an
// empty list), those of uploading, and what cannot be seen on the wire (Proton
// Bridge's body of another mail).
func quirkFaults() []Fault {
	return slices.Concat(exchangeFaults(), sizeFaults(), roadFaults(), onceFaults(), mailboxQuirks(), signInQuirks())
}

// section is the body section that was asked for, upper case, as the answer
// names it: "BODY[HEADER]", "BODY[]<0>".
func (a *Asked) section() string {
	i := strings.Index(a.Items, "BODY")
	section := strings.ToUpper(strings.Replace(a.Items[i:], ".PEEK", "", 1))
	if from, _, ok := strings.Cut(section, "."); ok && strings.Contains(from, "]<") {
		section = from + ">"
	}
	return section
}

// answer sends one body section with what was asked for of the rest.
func (c *scriptConn) answerSection(a *Asked, announced int, body string) {
	c.send("* %d FETCH (%s %s {%d}\r\n%s)\r\n", a.Seq, a.Mail.attributes(a.Items), a.section(), announced, body)
}

// sizeFaults are of servers that break off on the size of a message, asked for by itself or
// also beside the body.
func sizeFaults() (out []Fault) {
	for _, f := range []struct {
		how    string
		breaks func(*scriptConn) error
	}{
		{"NO", func(c *scriptConn) error { c.final = "NO Error computing message size"; return nil }},
		{"BAD", func(c *scriptConn) error { c.final = "BAD Command Argument Error. 11"; return nil }},
		{"hanging up", func(*scriptConn) error { return errHangUp }},
		{"silence", func(*scriptConn) error { return errHang }},
		{"half of them", func(c *scriptConn) error { c.send("* 60 FETCH (UID 60 RFC822.SIZE 100)\r\n"); return nil }},
	} {
		for _, also := range []bool{false, true} {
			if also && f.how == "half of them" {
				continue
			}
			out = append(out, Fault{
				Name:   fmt.Sprintf("%s on RFC822.SIZE, also beside a body: %v", f.how, also),
				Source: "Dovecot: modoboa#3258; OfflineIMAP#682", Outcome: Delivered,
				Command: func(c *scriptConn, command, args string) (bool, error) {
					set, items, _ := strings.Cut(args, " ")
					if command != "UID FETCH" || c.box == nil || c.box.Name != "INBOX" || !strings.Contains(items, "RFC822.SIZE") ||
						strings.Contains(items, "BODY") && !also || !c.box.in(set, BadUID) {
						return false, nil
					}
					return true, f.breaks(c)
				},
			})
		}
	}
	return out
}

// exchangeFaults are Exchange's ways of not having a message.
func exchangeFaults() []Fault {
	refusals := make(map[*scriptConn]int)
	return []Fault{
		{Name: "the seed's Exchange", Source: "the seed, a02 to a04; OfflineIMAP#62", Outcome: Stubbed,
			Body: func(c *scriptConn, a *Asked) (bool, error) {
				sub := SubstituteMail("The server couldn't retrieve the following message:")
				header, _, _ := strings.Cut(sub, "MIME-Version")
				switch strings.ToUpper(a.Items) {
				case "BODY":
					c.send("* %d FETCH (BODY (\"text\" \"plain\" (\"charset\" \"iso-8859-1\") NIL NIL \"quoted-printable\" 1 1) UID %d FLAGS ())\r\n", a.Seq, a.Mail.UID)
				case "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]":
					c.answerSection(a, len(header)+2, header+"\r\n")
				case "BODY[]":
					c.answerSection(a, len(sub), sub)
				}
				return true, nil
			}},
		{Name: "substitute with its subject in one line", Source: "the seed, a04", Outcome: Stubbed,
			Body: func(c *scriptConn, a *Asked) (bool, error) {
				if a.whole() {
					sub := strings.Replace(SubstituteMail("The server couldn't retrieve the following message:"), "\r\n message", " message", 1)
					c.answerSection(a, len(sub), sub)
				}
				return true, nil
			}},
		{Name: "BAD for the whole batch", Source: "Exchange: imapsync FAQ.Exchange", Outcome: Stubbed,
			Command: func(c *scriptConn, command, args string) (bool, error) {
				set, items, _ := strings.Cut(args, " ")
				if command != "UID FETCH" || c.box == nil || c.box.Name != "INBOX" || !strings.Contains(items, "BODY") || !c.box.in(set, BadUID) {
					return false, nil
				}
				c.final = "BAD Command Argument Error. 11"
				return true, nil
			}},
		{Name: "BAD, and BYE after the tenth", Source: "Office 365: imapsync FAQ.Office365", Outcome: Stubbed,
			Body: func(c *scriptConn, _ *Asked) (bool, error) {
				if refusals[c]++; refusals[c] > 10 {
					c.send("* BYE Connection closed. 14\r\n")
					return true, errHangUp
				}
				c.final = "BAD Command Argument Error. 12"
				return true, nil
			}},
		{Name: "literal announced ten bytes too small", Source: "GOIMAP.md", Outcome: Stubbed,
			Body: func(c *scriptConn, a *Asked) (bool, error) {
				body, _ := a.Mail.section(a.section())
				c.answerSection(a, max(0, len(body)-10), body)
				return true, nil
			}},
		{Name: "literal announced ten bytes too large", Source: "GOIMAP.md: it swallows the next answer's beginning", Outcome: Stubbed,
			Body: func(c *scriptConn, a *Asked) (bool, error) {
				body, _ := a.Mail.section(a.section())
				c.answerSection(a, len(body)+10, body)
				return true, nil
			}},
	}
}

// roadFaults close all roads to a message but one, or make it winding.
func roadFaults() []Fault {
	// only lets those items through that open tells.
	only := func(open func(items string) bool) func(*scriptConn, *Asked) (bool, error) {
		return func(_ *scriptConn, a *Asked) (bool, error) { return !open(strings.ToUpper(a.Items)), nil }
	}
	return []Fault{
		{Name: "only HEADER and TEXT come", Source: "Exchange: mail-archiver#527", Outcome: Delivered,
			Body: only(func(items string) bool {
				return strings.Contains(items, "[HEADER") || strings.Contains(items, "[TEXT]")
			})},
		{Name: "only pieces come", Source: "S16", Outcome: Delivered,
			Body: only(func(items string) bool { return strings.Contains(items, "]<") })},
		{Name: "only BODY[] without PEEK comes", Source: "Exchange: mail-archiver#527", Outcome: Delivered,
			Body: only(func(items string) bool { return strings.Contains(items, "BODY[]") })},
		{Name: "answer in three parts", Source: "GOIMAP.md: split FETCH", Outcome: Delivered,
			Body: instead("* {seq} FETCH (UID {uid} FLAGS ())\r\n* {seq} FETCH (UID {uid} RFC822.SIZE {size})\r\n* {seq} FETCH (UID {uid} BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "unknown item with a literal", Source: "GOIMAP.md: X-*", Outcome: Delivered,
			Body: instead("* {seq} FETCH (X-NOTE {8}\r\n) {3}\r\nx UID {uid} FLAGS () BODY[] {lit}\r\n{raw})\r\n")},
		{Name: "an older message unasked", Source: "Office 365: imapclient#441", Outcome: Delivered,
			Body: func(c *scriptConn, a *Asked) (bool, error) {
				c.message(1, c.box.Mails[0], a.list)
				return false, nil
			}},
	}
}

// onceFaults pass by themselves.
func onceFaults() []Fault {
	expired := false
	return []Fault{
		{Name: "session expired once", Source: "Gmail: imapsync FAQ.Gmail", Outcome: Delivered,
			Body: func(c *scriptConn, _ *Asked) (bool, error) {
				if expired {
					return false, nil
				}
				expired = true
				c.send("* BYE Session expired, please login again.\r\n")
				return true, errHangUp
			}},
	}
}

// select answers EXAMINE without what a test says itself in lines.
func (c *scriptConn) selectBare(args, lines string) (bool, error) {
	name, _, _ := strings.Cut(args, " (")
	if c.box = c.s.named(name); c.box == nil {
		c.final = "NO no such mailbox"
		return true, nil
	}
	c.send("* FLAGS (\\Seen \\Deleted)\r\n* %d EXISTS\r\n* OK [PERMANENTFLAGS (\\Seen \\Deleted)] flags\r\n%s", len(c.box.Mails),
		strings.NewReplacer("{validity}", c.box.UIDValidity, "{next}", fmt.Sprint(c.box.UIDNext), "{modseq}", fmt.Sprint(c.box.ModSeq)).Replace(lines))
	c.final = "OK [READ-ONLY] examined"
	return true, nil
}

// ascending tells whether a set is written in ascending order.
func ascending(set string) bool {
	last := uint64(0)
	for part := range strings.SplitSeq(set, ",") {
		for number := range strings.SplitSeq(part, ":") {
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil { // *
				continue
			}
			if n < last {
				return false
			}
			last = n
		}
	}
	return true
}

// mailboxQuirks are of LIST, STATUS and EXAMINE.
func mailboxQuirks() []Fault {
	quiet := func(want string) func(*scriptConn, string, string) (bool, error) {
		return func(_ *scriptConn, command, args string) (bool, error) {
			if command+" "+args == want || strings.HasPrefix(command+" "+args, want+" ") {
				return true, errHang
			}
			return false, nil
		}
	}
	return []Fault{
		{Name: "EXAMINE of one mailbox falls silent", Source: "DavMail: OfflineIMAP#633", Outcome: MailboxLeft, Command: quiet("EXAMINE " + quoteName("Other"))},
		{Name: "LIST falls silent", Source: "GOIMAP.md", Outcome: AccountLeft, Command: quiet("LIST")},
		{Name: "LIST refused", Source: "RFC 9051 7.1.2", Outcome: AccountLeft,
			Command: func(c *scriptConn, command, _ string) (bool, error) {
				if command != "LIST" {
					return false, nil
				}
				c.final = "NO [SERVERBUG] Internal error occurred"
				return true, nil
			}},
		{Name: "UIDNEXT not told", Source: "isync's open_box_p2", Outcome: Delivered,
			Command: func(c *scriptConn, command, args string) (bool, error) {
				switch command {
				case "STATUS":
					name, _, _ := strings.Cut(args, " (")
					b := c.s.named(name)
					if b == nil {
						return false, nil
					}
					c.send("* STATUS %s (MESSAGES %d UIDVALIDITY %s)\r\n", name, len(b.Mails), b.UIDValidity)
					return true, nil
				case "EXAMINE", "SELECT":
					return c.selectBare(args, "* OK [UIDVALIDITY {validity}] ids\r\n")
				}
				return false, nil
			}},
		{Name: "UIDVALIDITY with SELECT alone", Source: "Xeams: nextcloud/mail#10199", Outcome: Delivered,
			Command: func(c *scriptConn, command, args string) (bool, error) {
				if command != "EXAMINE" {
					return false, nil
				}
				return c.selectBare(args, "* OK [UIDNEXT {next}] next\r\n")
			}},
		{Name: "HIGHESTMODSEQ without text", Source: "Gmail: modern-email/defects#28", Outcome: Delivered,
			Prepare: func(s *Script) { s.Caps += " CONDSTORE" },
			Command: func(c *scriptConn, command, args string) (bool, error) {
				if command != "EXAMINE" {
					return false, nil
				}
				return c.selectBare(args, "* OK [UIDVALIDITY {validity}]\r\n* OK [UIDNEXT {next}]\r\n* OK [HIGHESTMODSEQ {modseq}]\r\n")
			}},
		{Name: "QRESYNC refused", Source: "Cyrus behind a proxy: cyrus-imapd#4787", Outcome: Delivered,
			Prepare: func(s *Script) { s.Caps += " CONDSTORE QRESYNC" },
			Command: func(c *scriptConn, command, args string) (bool, error) {
				if command != "EXAMINE" && command != "SELECT" || !strings.Contains(args, "QRESYNC") {
					return false, nil
				}
				c.final = "BAD Unexpected extra arguments"
				return true, nil
			}},
		{Name: "descending sets refused", Source: "exmail.qq.com: modern-email/defects#40", Outcome: Delivered,
			Command: func(c *scriptConn, command, args string) (bool, error) {
				if set, _, _ := strings.Cut(args, " "); command == "UID FETCH" && !ascending(set) {
					c.final = "BAD Invalid message set"
					return true, nil
				}
				return false, nil
			}},
		{Name: "empty mailbox takes no set", Source: "Dovecot: mattermost-plugin#29", Outcome: Delivered,
			Prepare: func(s *Script) { s.boxes = append(s.boxes, Box("Empty")) },
			Command: func(c *scriptConn, command, _ string) (bool, error) {
				if command == "UID FETCH" && c.box != nil && len(c.box.Mails) == 0 {
					c.final = "BAD Error in IMAP command UID FETCH: Invalid messageset"
					return true, nil
				}
				return false, nil
			}},
	}
}

// signInQuirks are of greeting and sign-in.
func signInQuirks() []Fault {
	signIn := func(command string) bool { return command == "LOGIN" || command == "AUTHENTICATE" }
	return []Fault{
		{Name: "silence instead of a greeting", Source: "GOIMAP.md", Outcome: AccountLeft, Greeting: func(c *scriptConn) error { return c.hang() }},
		{Name: "sign-in not possible for now", Source: "RFC 5530", Outcome: AccountLeft,
			Command: func(c *scriptConn, command, _ string) (bool, error) {
				if signIn(command) {
					c.final = "NO [UNAVAILABLE] Temporary authentication failure"
				}
				return signIn(command), nil
			}},
		{Name: "second sign-in refused", Source: "Gmail: wildduck#35; imapsync#61", Outcome: Delivered,
			Command: func(c *scriptConn, command, _ string) (bool, error) {
				if !signIn(command) || c.s.live() == 1 {
					return false, nil
				}
				c.final = "NO [ALERT] Too many simultaneous connections. (Failure)"
				return true, nil
			}},
	}
}
