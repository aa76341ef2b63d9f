package imaptest

import (
	"fmt"
	"strings"
	"testing"
)

// rungs are asked of a mail, each on its own connection.
func rungs() []string {
	return []string{"FLAGS", "RFC822.SIZE", "BODY", "BODY.PEEK[HEADER.FIELDS (FROM)]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[1]",
		"BODY.PEEK[]<0.5>", "BODY.PEEK[]<5.5>", "BODY.PEEK[]<75.50>", "BODY[]"}
}

// TestRungs tells of each rung how it is answered: by its usual data if nothing
// else is said.
func TestRungs(t *testing.T) {
	t.Parallel()
	const ok = "x OK done\r\n"
	sub := Substitute{Subject: "Budget", From: "Jane Doe", Sent: "11/4/2013 10:24:42 AM"}
	usual := "+" // a rung that the table does not name
	for _, tt := range []struct {
		name  string
		rungs Rungs
		other string            // what comes for rungs that are not in want
		want  map[string]string // with the end if that is not a tagged line
	}{
		{"none", nil, usual, nil},
		{"nothing answers", OnlyRungs(NoData()), ok, nil},
		{"only one answers", OnlyRungs(NoData(), "BODY.PEEK[1]"), ok, map[string]string{"BODY.PEEK[1]": usual}},
		{"HEADER and TEXT", OnlyRungs(Refuse("NO [UNAVAILABLE] sorry"), "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]"), "x NO [UNAVAILABLE] sorry\r\n",
			map[string]string{"BODY.PEEK[HEADER]": usual, "BODY.PEEK[TEXT]": usual}},
		{"pieces up to a byte", PiecesBefore(7, Refuse("BAD 12")), "x BAD 12\r\n", map[string]string{"BODY.PEEK[]<0.5>": usual}},
		{"all pieces", PiecesBefore(80, NoData()), ok, map[string]string{"BODY.PEEK[]<0.5>": usual, "BODY.PEEK[]<5.5>": usual, "BODY.PEEK[]<75.50>": usual}},
		{"values", RungTable(nil, map[string]Answer{"RFC822.SIZE": Value("NIL"), "BODY.PEEK[HEADER]": Value(`""`), "BODY.PEEK[TEXT]": Value("{0}\r\n"), "BODY.PEEK[]<*": Value("{5}\r\nhe"),
			"BODY.PEEK[]<5*": nil}), usual, map[string]string{
			"RFC822.SIZE": "* 2 FETCH (UID 2 RFC822.SIZE NIL)\r\n" + ok, "BODY.PEEK[HEADER]": "* 2 FETCH (UID 2 BODY[HEADER] \"\")\r\n" + ok,
			"BODY.PEEK[TEXT]": "* 2 FETCH (UID 2 BODY[TEXT] {0}\r\n)\r\n" + ok, "BODY.PEEK[]<0.5>": "* 2 FETCH (UID 2 BODY[]<0> {5}\r\nhe)\r\n" + ok,
			"BODY.PEEK[]<75.50>": "* 2 FETCH (UID 2 BODY[]<75> {5}\r\nhe)\r\n" + ok}},
		{"ends", RungTable(HangUp(""), map[string]Answer{"BODY": HangUp("Too much"), "FLAGS": Silence(), "BODY.PEEK[TEXT]": CutShort(), "RFC822.SIZE": CutShort(),
			"BODY[]": ThenHangUp(NoData())}), closed, map[string]string{"BODY": "* BYE Too much\r\n" + closed, "FLAGS": silent,
			"BODY.PEEK[TEXT]": "* 2 FETCH (UID 2 BODY[TEXT] {11}\r\nbody " + closed, "RFC822.SIZE": "* 2 FETCH (UID 2 RFC822.SIZE 8" + closed, "BODY[]": ok + "then " + closed}},
		{"hangs up after each", OnlyRungs(ThenHangUp(nil)), usual + "then " + closed, nil},
		{"substitute", RungTable(NoData(), map[string]Answer{"BODY[]": sub.Answer(), "BODY.PEEK[HEADER.FIELDS (FROM)]": sub.Answer()}), ok, map[string]string{
			"BODY[]":                          fmt.Sprintf("* 2 FETCH (UID 2 BODY[] {%d}\r\n%s)\r\n%s", len(sub.mail(2)), sub.mail(2), ok),
			"BODY.PEEK[HEADER.FIELDS (FROM)]": "* 2 FETCH (UID 2 BODY[HEADER.FIELDS (FROM)] {40}\r\nFrom: Microsoft Exchange Server 2010\r\n\r\n)\r\n" + ok}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := Box("INBOX", scriptMail(1), scriptMail(2), scriptMail(3))
			b.Mails[1].Rungs = tt.rungs
			s := startScript(t, "IMAP4rev1", nil, b)
			for _, rung := range rungs() {
				want, named := tt.want[rung]
				if !named {
					want = tt.other
				}
				m := &ScriptMail{UID: 2, Raw: scriptMail(2)}
				want = strings.Replace(want, usual, "* 2 FETCH (UID 2 "+answerName(rung)+" "+m.value(rung)+")\r\n"+ok, 1)
				d := speak(t, s.Addr(), !strings.HasSuffix(want, silent))
				d.say("", "")
				d.say("x", "EXAMINE INBOX")
				got, end := d.say("x", "UID FETCH 2 ("+rung+")")
				if strings.Contains(want, "then ") {
					_, after := d.say("", "")
					end = "then " + after
				}
				if end != answered {
					got += end
				}
				if got != want {
					t.Errorf("%s\n got %q\nwant %q", rung, got, want)
				}
				_ = d.Close() // the server may have closed it
			}
		})
	}
}

// TestRungsOfOneCommand has the first item decide, and leaves the others of a
// batch alone.
func TestRungsOfOneCommand(t *testing.T) {
	t.Parallel()
	b := Box("INBOX", scriptMail(1), scriptMail(2), scriptMail(3))
	b.Mails[1].Rungs = RungTable(NoData(), map[string]Answer{"INTERNALDATE": nil, "BODY.PEEK[1]": Value("NIL"), "BODY.PEEK[2]": Refuse("BAD 12"), "BODY[]": nil})
	s := startScript(t, "IMAP4rev1", nil, b)
	converse(t, s, []exchange{
		{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
		{"UID FETCH 1:3 (UID FLAGS)", "* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH (UID 2 FLAGS ())\r\n* 3 FETCH (UID 3 FLAGS ())\r\nx OK done\r\n"},
		{"FETCH 2 (FLAGS)", "x OK done\r\n"},
		{"FETCH 2 (UID)", "* 2 FETCH (UID 2)\r\nx OK done\r\n"},
		{"UID FETCH 1:3 (FLAGS RFC822.SIZE)", "* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 80)\r\n* 3 FETCH (UID 3 FLAGS () RFC822.SIZE 80)\r\nx OK done\r\n"},
		{"FETCH 2 (INTERNALDATE BODY.PEEK[1] BODY.PEEK[2])", "* 2 FETCH (INTERNALDATE \" 1-Jan-2020 00:00:02 +0000\" BODY[1] NIL BODY[2] NIL)\r\nx OK done\r\n"},
		{"FETCH 2 (INTERNALDATE BODY.PEEK[2] BODY.PEEK[1])", "x BAD 12\r\n"},
		{"UID FETCH 2 (BODY[])", fmt.Sprintf("* 2 FETCH (UID 2 BODY[] {80}\r\n%s FLAGS (\\Seen))\r\nx OK done\r\n", scriptMail(2))},
	})
	s.With(func(boxes []*ScriptBox) {
		boxes[0].Mails[1].Flags = ""
		boxes[0].Mails[1].Rungs = OnlyRungs(Substitute{}.Answer())
	})
	converse(t, s, []exchange{
		{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
		{"FETCH 2 (BODY[]<0.4>)", "* 2 FETCH (BODY[]<0> {4}\r\nFrom FLAGS (\\Seen))\r\nx OK done\r\n"},
		{"UID SEARCH SEEN", "* SEARCH 2\r\nx OK done\r\n"},
	})
}

// TestSeedScriptAnswersAsThatEvening goes through the seed's transcripts.
func TestSeedScriptAnswersAsThatEvening(t *testing.T) {
	t.Parallel()
	s := startScript(t, "IMAP4rev1", nil, SeedScript(15500, 15562))
	const completed = "x OK FETCH completed.\r\n"
	sub := Substitute{Subject: "Minutes of the meeting on Tuesday", From: "Jane Doe", Sent: "11/1/2013 8:00:00 PM"}.mail(SeedBadUID)
	listed := ""
	for i, uid := range []int{15500, 15507, 15514, 15516, 15523, 15541, 15544, 15545, 15553, 15561, 15562} {
		listed += fmt.Sprintf("* %d FETCH (UID %d)\r\n", 1040+i, uid)
	}
	converse(t, s, []exchange{
		{"STATUS INBOX (MESSAGES)", "* STATUS \"INBOX\" (MESSAGES 1233 UIDNEXT 16124 UIDVALIDITY 14)\r\nx OK done\r\n"},
		{"EXAMINE INBOX", "x OK [READ-ONLY] examined\r\n"},
		{"FETCH 1040:1050 (UID)", listed + "x OK done\r\n"},
		{"UID FETCH 15541 (BODY.PEEK[])", completed},
		{"FETCH 1045 (uid rfc822.size flags body.peek[header.fields (date to cc from subject)])", completed},
		{"FETCH 1045 (body)", "* 1045 FETCH (BODY (\"text\" \"plain\" (\"charset\" \"iso-8859-1\") NIL NIL \"quoted-printable\" 1 1) FLAGS ())\r\n" + completed},
		{"FETCH 1045 (body.peek[header.fields (from subject)])", "* 1045 FETCH (BODY[HEADER.FIELDS (FROM SUBJECT)] {127}\r\n" +
			"From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 15541\r\n\r\n)\r\n" + completed},
		{"UID FETCH 15541 (BODY[])", fmt.Sprintf("* 1045 FETCH (UID 15541 BODY[] {%d}\r\n%s)\r\n", len(sub), sub) + completed},
		{"UID FETCH 15541 (BODY.PEEK[HEADER])", completed}, {"UID FETCH 15541 (BODY.PEEK[]<0.1024>)", completed}, {"UID FETCH 15541 (RFC822.SIZE)", completed},
		{"UID FETCH 15541 (FLAGS INTERNALDATE)", "* 1045 FETCH (UID 15541 FLAGS () INTERNALDATE \" 1-Nov-2013 20:00:00 +0000\")\r\nx OK done\r\n"},
		{"UID SEARCH DELETED", "* SEARCH 15500 15562\r\nx OK done\r\n"},
		{"SELECT INBOX", "x OK [READ-WRITE] selected\r\n"},
		{`UID STORE 15541 +FLAGS (\Deleted)`, "* 1045 FETCH (UID 15541 FLAGS (\\Deleted))\r\nx OK done\r\n"},
		{"EXPUNGE", "* 1040 EXPUNGE\r\n* 1044 EXPUNGE\r\n* 1048 EXPUNGE\r\nx OK done\r\n"},
		{"UID SEARCH UID 15541:15544", "* SEARCH 15544\r\nx OK done\r\n"},
	})
}
