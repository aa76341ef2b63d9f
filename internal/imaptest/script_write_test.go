package imaptest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// exchange is a command and all that is answered, but for the lines of SELECT
// up to UIDVALIDITY.
type exchange struct{ command, want string }

// converse signs in and goes through the exchanges.
func converse(t *testing.T, s *Script, exchanges []exchange) {
	t.Helper()
	d := speak(t, s.Addr(), true)
	d.say("", "")
	for _, e := range exchanges {
		got, end := d.say("x", e.command)
		if _, tail, ok := strings.Cut(got, "] next\r\n"); ok { // SELECT: what differs
			_, got, _ = strings.Cut(tail, "\r\n")
		}
		if got != e.want || end != answered {
			t.Errorf("%s\n got %q (%s)\nwant %q", e.command, got, end, e.want)
		}
	}
}

func writeBoxes() (inbox, archive *ScriptBox) {
	inbox = Box("INBOX", scriptMail(1), scriptMail(2), scriptMail(3), scriptMail(4), scriptMail(5))
	inbox.Mails[2].Flags = `\Seen`
	return inbox, Box("Archive", scriptMail(9))
}

func TestScriptExpunges(t *testing.T) {
	t.Parallel()
	inbox, archive := writeBoxes()
	s := startScript(t, "IMAP4rev1", nil, inbox, archive)
	converse(t, s, []exchange{
		{`UID STORE 1 +FLAGS (\Deleted)`, "x BAD unknown command, or nothing is selected\r\n"},
		{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
		{`UID STORE 3 +FLAGS (\deleted todo)`, "* 3 FETCH (UID 3 FLAGS (\\Seen \\deleted todo))\r\nx OK done\r\n"},
		{`UID STORE 1,4 +FLAGS.SILENT (\Deleted)`, "x OK done\r\n"},
		{`UID STORE 3 -FLAGS (\SEEN)`, "* 3 FETCH (UID 3 FLAGS (\\deleted todo))\r\nx OK done\r\n"},
		{`UID STORE 4 FLAGS (\Flagged)`, "* 4 FETCH (UID 4 FLAGS (\\Flagged))\r\nx OK done\r\n"},
		{`UID STORE 77 +FLAGS (\Deleted)`, "x OK done\r\n"},
		{`UID STORE 3 FLOGS (\Deleted)`, "x BAD no such flags\r\n"},
		{"UID SEARCH DELETED", "* SEARCH 1 3\r\nx OK done\r\n"},
		{"SEARCH DELETED", "* SEARCH 1 3\r\nx OK done\r\n"},
		{"UID SEARCH UID 3 DELETED", "* SEARCH 3\r\nx OK done\r\n"},
		{"UID SEARCH DELETED NOT UID 3", "* SEARCH 1\r\nx OK done\r\n"},
		{"UID SEARCH UNDELETED 1:4", "* SEARCH 2 4\r\nx OK done\r\n"},
		{"UID SEARCH UID 77", "* SEARCH\r\nx OK done\r\n"},
		{"UID SEARCH RETURN (ALL) DELETED", "* ESEARCH (TAG \"x\") UID ALL 1,3\r\nx OK done\r\n"},
		{"SEARCH SUBJECT x", "x BAD unknown search\r\n"},
		{"UID EXPUNGE 3", "x BAD unknown command\r\n"},
		{"UID MOVE 3 Archive", "x BAD unknown command\r\n"},
		{"EXPUNGE", "* 1 EXPUNGE\r\n* 2 EXPUNGE\r\nx OK done\r\n"},
		{"SEARCH ALL", "* SEARCH 1 2 3\r\nx OK done\r\n"},
		{"UID SEARCH ALL", "* SEARCH 2 4 5\r\nx OK done\r\n"},
		{`UID STORE 5 +FLAGS.SILENT (\Deleted)`, "x OK done\r\n"},
		{"CLOSE", "x OK done\r\n"}, // takes it along
		{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
		{"UID SEARCH ALL", "* SEARCH 2 4\r\nx OK done\r\n"},
	})
}

func TestScriptExpungesByUID(t *testing.T) {
	t.Parallel()
	inbox, archive := writeBoxes()
	s := startScript(t, "IMAP4rev1 ENABLE CONDSTORE QRESYNC UIDPLUS UNSELECT", nil, inbox, archive)
	opened := "* OK [HIGHESTMODSEQ 7] highest\r\nx OK [READ-WRITE] selected\r\n"
	converse(t, s, []exchange{
		{"SELECT INBOX", strings.Replace(opened, "7", "6", 1)},
		{`UID STORE 3,5 +FLAGS.SILENT (\Deleted)`, "x OK done\r\n"},
		{"UID EXPUNGE 2:3", "* 3 EXPUNGE\r\nx OK done\r\n"},
		{"ENABLE QRESYNC", "x OK done\r\n"},
		{`UID STORE 4 +FLAGS (\Deleted)`, "* 3 FETCH (UID 4 FLAGS (\\Deleted) MODSEQ (10))\r\nx OK done\r\n"},
		{"UID EXPUNGE 4", "* VANISHED 4\r\nx OK done\r\n"},
		{"UID SEARCH DELETED", "* SEARCH 5\r\nx OK done\r\n"},
		{"UNSELECT", "x OK done\r\n"},
		{"UID SEARCH ALL", "x BAD unknown command, or nothing is selected\r\n"},
		{"SELECT INBOX (QRESYNC (14 8))", "* OK [HIGHESTMODSEQ 11] highest\r\n* VANISHED (EARLIER) 3,4\r\nx OK [READ-WRITE] selected\r\n"},
	})
}

func TestScriptCopiesAndMoves(t *testing.T) {
	t.Parallel()
	for caps, lines := range map[string][2]string{
		"IMAP4rev1 MOVE":         {"x OK done\r\n", ""},
		"IMAP4rev1 MOVE UIDPLUS": {"x OK [COPYUID 14 2,3 2,3] done\r\n", "* OK [COPYUID 14 3,4 4,5] done\r\n"},
	} {
		inbox, archive := writeBoxes()
		locked := Box("Locked", scriptMail(8))
		locked.ReadOnly = true
		s := startScript(t, caps, nil, inbox, archive, locked)
		converse(t, s, []exchange{
			{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
			{`UID COPY 2:3 "Archive"`, lines[0]},
			{`UID MOVE 3,4 "Archive"`, lines[1] + "* 3 EXPUNGE\r\n* 3 EXPUNGE\r\nx OK done\r\n"},
			{`UID MOVE 3 "Archive"`, "x OK done\r\n"},
			{`UID MOVE 2 "Deleted Items"`, "x NO [TRYCREATE] no such mailbox\r\n"},
			{`UID COPY 2 "Deleted Items"`, "x NO [TRYCREATE] no such mailbox\r\n"},
			{`CREATE "Deleted Items"`, "x OK done\r\n"},
			{`CREATE "Deleted Items"`, "x NO [ALREADYEXISTS] the mailbox exists\r\n"},
			{`UID MOVE 1 "Locked"`, "x NO the mailbox is read-only\r\n"},
			{"SELECT Archive", "x OK [READ-WRITE] selected\r\n"},
			{"FETCH 1:4 (UID FLAGS INTERNALDATE)", "* 1 FETCH (UID 1 FLAGS () INTERNALDATE \" 1-Jan-2020 00:00:01 +0000\")\r\n" +
				"* 2 FETCH (UID 2 FLAGS () INTERNALDATE \" 1-Jan-2020 00:00:02 +0000\")\r\n" +
				"* 3 FETCH (UID 3 FLAGS (\\Seen) INTERNALDATE \" 1-Jan-2020 00:00:03 +0000\")\r\n" +
				"* 4 FETCH (UID 4 FLAGS (\\Seen) INTERNALDATE \" 1-Jan-2020 00:00:03 +0000\")\r\nx OK done\r\n"},
			{`STATUS "Deleted Items" (MESSAGES)`, "* STATUS \"Deleted Items\" (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 14)\r\nx OK done\r\n"},
		})
	}
}

func TestScriptChangesNothingThatIsReadOnly(t *testing.T) {
	t.Parallel()
	inbox, archive := writeBoxes()
	archive.ReadOnly = true
	s := startScript(t, "IMAP4rev1 UIDPLUS MOVE", nil, inbox, archive)
	const no = "x NO the mailbox is read-only\r\n"
	for _, open := range []string{"EXAMINE INBOX", "SELECT Archive"} {
		converse(t, s, []exchange{
			{open, "x OK [READ-ONLY] examined\r\n"},
			{`UID STORE 1 +FLAGS (\Deleted)`, no}, {"EXPUNGE", no}, {"UID EXPUNGE 1", no}, {"UID MOVE 1 INBOX", no},
			{"UID FETCH 1 (UID BODY[]<0.4>)", "* 1 FETCH (UID 1 BODY[]<0> {4}\r\nFrom)\r\nx OK done\r\n"},
			{"UID FETCH 1 (FLAGS)", "* 1 FETCH (UID 1 FLAGS ())\r\nx OK done\r\n"},
			{"CLOSE", "x OK done\r\n"},
		})
	}
	s.With(func(boxes []*ScriptBox) { boxes[0].SeenOnExamine = true })
	converse(t, s, []exchange{
		{"EXAMINE INBOX", "x OK [READ-ONLY] examined\r\n"},
		{"UID FETCH 1 (BODY.PEEK[]<0.4>)", "* 1 FETCH (UID 1 BODY[]<0> {4}\r\nFrom)\r\nx OK done\r\n"},
		{"UID FETCH 1 (BODY[]<0.4>)", "* 1 FETCH (UID 1 BODY[]<0> {4}\r\nFrom FLAGS (\\Seen))\r\nx OK done\r\n"},
		{"UID FETCH 1 (FLAGS)", "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\nx OK done\r\n"},
	})
}

// manyParts is a mail with parts in parts.
const manyParts = "Subject: two\r\n lines\r\nTo: b@example.org\r\nX-To: c@example.org\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n" +
	"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nfirst\r\n\r\n" +
	"--b\r\nContent-Type: multipart/alternative; boundary=\"bb\"\r\n\r\n" +
	"--bb\r\n\r\nplain\r\n--bb\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>\r\n--bb--\r\n\r\n" +
	"--b\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"a \\\"b\\\".eml\"\r\n\r\nSubject: inner\r\nMessage-ID: <i@example.org>\r\n\r\ninside\r\n--b--\r\nepilogue\r\n"

func TestScriptHandsOutParts(t *testing.T) {
	t.Parallel()
	b := Box("INBOX", manyParts, scriptMail(2), scriptMail(3))
	b.Mails[1].Structure = `("a" "b")`
	b.Mails[1].Parts = map[string]string{"1": "given", "2.1": "", "TEXT": "other"}
	s := startScript(t, "IMAP4rev1", nil, b)
	exchanges := []exchange{
		{"EXAMINE INBOX", "x OK [READ-ONLY] examined\r\n"},
		{"FETCH 2:3 (UID)", "* 2 FETCH (UID 2)\r\n* 3 FETCH (UID 3)\r\nx OK done\r\n"},
		{"fetch 2 body.peek[text]", "* 2 FETCH (BODY[TEXT] {5}\r\nother)\r\nx OK done\r\n"},
		{"FETCH 2:4 (UID)", "x BAD no such messages, or nothing asked of them\r\n"},
		{"FETCH 1 (ENVELOPE)", "x BAD unknown item ENVELOPE\r\n"},
		{"UID FETCH 2 (BODY)", "* 2 FETCH (UID 2 BODY (\"a\" \"b\"))\r\nx OK done\r\n"},
		{"UID FETCH 3 (BODY)", "* 3 FETCH (UID 3 BODY (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 11 1))\r\nx OK done\r\n"},
		{"UID FETCH 1 (BODYSTRUCTURE)", `* 1 FETCH (UID 1 BODYSTRUCTURE (("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 7 1 NIL NIL NIL NIL)` +
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0 NIL NIL NIL NIL)("text" "html" NIL NIL NIL "quoted-printable" 3 0 NIL NIL NIL NIL) "alternative" ("boundary" "bb") NIL NIL NIL)` +
			`("message" "rfc822" NIL NIL NIL "7bit" 53 (NIL "inner" NIL NIL NIL NIL NIL NIL NIL "<i@example.org>") ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 0 NIL NIL NIL NIL) 3` +
			` NIL ("attachment" ("filename" "a \"b\".eml")) NIL NIL) "mixed" ("boundary" "b") NIL NIL NIL))` + "\r\nx OK done\r\n"},
	}
	for _, tt := range []struct{ uid, section, want string }{
		{"1", "BODY[1]", "first\r\n"}, {"1", "BODY[1]<2.3>", "rst"}, {"1", "BODY[2.1]", "plain"}, {"1", "BODY[2.2]", "<p>"}, {"1", "BODY[3.1]", "inside"},
		{"1", "BODY[3.HEADER]", "Subject: inner\r\nMessage-ID: <i@example.org>\r\n\r\n"}, {"1", "BODY[3.TEXT]", "inside"},
		{"1", "BODY[1.MIME]", "Content-Type: text/plain; charset=utf-8\r\n\r\n"}, {"1", "BODY[2.1.MIME]", "\r\n"},
		{"1", "BODY[HEADER.FIELDS (TO SUBJECT)]", "Subject: two\r\n lines\r\nTo: b@example.org\r\n\r\n"},
		{"1", "BODY[HEADER.FIELDS.NOT (TO SUBJECT CONTENT-TYPE)]", "X-To: c@example.org\r\n\r\n"},
		{"1", "BODY[]", manyParts}, {"1", "BODY[4]", ""}, {"1", "BODY[1.1]", ""}, {"1", "BODY[1.TEXT]", ""}, {"1", "BODY[0]", ""},
		{"2", "BODY[1]", "given"}, {"2", "BODY[HEADER.FIELDS (SUBJECT)]", "Subject: mail 2\r\n\r\n"},
		{"3", "BODY[1]", "body of 3\r\n"}, {"3", "BODY[2]", ""},
	} {
		want := fmt.Sprintf("{%d}\r\n%s", len(tt.want), tt.want)
		if tt.want == "" {
			want = "NIL"
		}
		name := strings.Replace(tt.section, "<2.3>", "<2>", 1)
		exchanges = append(exchanges, exchange{"UID FETCH " + tt.uid + " (" + strings.Replace(tt.section, "[", ".PEEK[", 1) + ")",
			"* " + tt.uid + " FETCH (UID " + tt.uid + " " + name + " " + want + ")\r\nx OK done\r\n"})
	}
	exchanges = append(exchanges, exchange{"UID FETCH 2 (BODY[2.1] RFC822.SIZE BODY[1])", "* 2 FETCH (UID 2 BODY[2.1] {0}\r\n RFC822.SIZE 80 BODY[1] {5}\r\ngiven)\r\nx OK done\r\n"})
	converse(t, s, exchanges)
}

func TestScriptTakesMail(t *testing.T) {
	t.Parallel()
	mail := scriptMail(7)
	lit, plus := fmt.Sprintf("{%d}\r\n%s", len(mail), mail), fmt.Sprintf("{%d+}\r\n%s", len(mail), mail)
	const leave = "+ go on\r\n"
	for caps, tt := range map[string]struct{ add, answer, wait string }{
		"IMAP4rev1":                  {lit, "x OK done\r\n", leave},
		"IMAP4rev1 LITERAL+ UIDPLUS": {plus, "x OK [APPENDUID 14 %d] done\r\n", ""},
		"IMAP4rev1 LITERAL- UIDPLUS": {plus, "x OK [APPENDUID 14 %d] done\r\n", ""},
	} {
		inbox, archive := writeBoxes()
		locked := Box("Locked")
		locked.ReadOnly = true
		archive.Refuse = func(size int) string {
			if size > 70 {
				return "NO [TOOBIG] too large"
			}
			return ""
		}
		s := startScript(t, caps, nil, inbox, archive, locked)
		answer := func(uid int) string { return strings.Replace(tt.answer, "%d", fmt.Sprint(uid), 1) }
		refused := []exchange{ // by who asks for leave, before the mail is sent
			{`APPEND "Nowhere" {5}`, "x NO [TRYCREATE] no such mailbox\r\n"},
			{`APPEND Locked {5}`, "x NO the mailbox is read-only\r\n"},
			{`APPEND Archive {71}`, "x NO [TOOBIG] too large\r\n"},
		}
		if tt.wait == "" {
			refused = append(refused, exchange{"APPEND Archive " + fmt.Sprintf("{71+}\r\n%71s", ""), "x NO [TOOBIG] too large\r\n"})
		}
		converse(t, s, append(refused, []exchange{
			{`APPEND "INBOX" (\Seen todo) "17-Jul-1996 02:44:25 -0700" ` + tt.add, tt.wait + answer(6)},
			{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
			{`APPEND INBOX ` + tt.add, tt.wait + "* 7 EXISTS\r\n" + answer(7)},
			{`APPEND INBOX "yesterday" ` + tt.add, tt.wait + "x BAD not a date\r\n"},
			{`APPEND INBOX`, "x BAD one mail, as a literal\r\n"},
			{"UID FETCH 6 (FLAGS INTERNALDATE BODY.PEEK[])", fmt.Sprintf("* 6 FETCH (UID 6 FLAGS (\\Seen todo) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" BODY[] %s)\r\nx OK done\r\n", lit)},
		}...))
		for _, line := range s.Log() {
			if strings.Contains(line, "body of 7") {
				t.Errorf("the mail is in the log: %q", line)
			}
		}
	}
}

func TestScriptHangsUpOnMailItHasStored(t *testing.T) {
	t.Parallel()
	inbox, _ := writeBoxes()
	inbox.HangUpAt = 2
	s := startScript(t, "IMAP4rev1 LITERAL+", nil, inbox)
	d := speak(t, s.Addr(), true)
	d.say("", "")
	const add = "APPEND INBOX {2+}\r\nab"
	if got, end := d.say("x", add); got != "x OK done\r\n" || end != answered {
		t.Errorf("%q (%s)", got, end)
	}
	if got, end := d.say("x", add); got != "" || end != closed {
		t.Errorf("%q (%s)", got, end)
	}
	s.With(func(boxes []*ScriptBox) {
		if n := len(boxes[0].Mails); n != 7 {
			t.Errorf("%d mails, want 7", n)
		}
	})
	// A literal that nobody gave leave for is read as commands by such a server.
	s = startScript(t, "IMAP4rev1 LITERAL-", nil, Box("INBOX"))
	d = speak(t, s.Addr(), true)
	d.say("", "")
	if got, _ := d.say("x", fmt.Sprintf("APPEND INBOX {4097+}\r\n%4097s", "")); !strings.HasPrefix(got, "x BAD") {
		t.Errorf("%q", got)
	}
	if got, end := d.say("x", "NOOP"); end == answered {
		t.Errorf("%q", got)
	}
}

func TestScriptTakesSeveralMailsAtOnceOrNone(t *testing.T) {
	t.Parallel()
	const caps = "IMAP4rev1 LITERAL+ UIDPLUS MULTIAPPEND"
	three := "APPEND INBOX (\\Seen) {2+}\r\nab {3+}\r\ncde (todo) \"17-Jul-1996 02:44:25 -0700\" {1+}\r\nf"
	inbox := Box("INBOX")
	inbox.Refuse = func(size int) string {
		if size > 3 {
			return "NO [TOOBIG] too large"
		}
		return ""
	}
	s := startScript(t, caps, nil, inbox)
	converse(t, s, []exchange{
		{three, "x OK [APPENDUID 14 1:2,3] done\r\n"},
		{"APPEND INBOX {2+}\r\nab {4+}\r\ncdef {1+}\r\ng", "x NO [TOOBIG] too large\r\n"},
	})
	stored := func() (out []string) {
		s.With(func(boxes []*ScriptBox) {
			for _, m := range boxes[0].Mails {
				out = append(out, m.Flags+":"+m.Raw)
			}
		})
		return out
	}
	if got := stored(); !slices.Equal(got, []string{`\Seen:ab`, ":cde", "todo:f"}) {
		t.Errorf("stored: %q", got)
	}
	s.With(func(boxes []*ScriptBox) { boxes[0].Partly = true })
	converse(t, s, []exchange{{"APPEND INBOX {2+}\r\nab {4+}\r\ncdef {1+}\r\ng", "x NO [TOOBIG] too large\r\n"}})
	if got := stored(); len(got) != 4 || got[3] != ":ab" {
		t.Errorf("stored: %q", got)
	}
	converse(t, startScript(t, "IMAP4rev1 LITERAL+ UIDPLUS", nil, Box("INBOX")), []exchange{{three, "x BAD one mail, as a literal\r\n"}})
}
