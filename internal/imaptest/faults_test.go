package imaptest

import (
	"fmt"
	"strings"
	"testing"
)

// steps are what every fault's server is asked, in this order.
func steps() [][2]string {
	const items = "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"
	return [][2]string{
		{"greeting", ""},
		{"login", "LOGIN user pass"},
		{"list", `LIST "" "*" RETURN (STATUS (MESSAGES))`},
		{"status", `STATUS "Other" (MESSAGES UIDNEXT UIDVALIDITY)`},
		{"other", `EXAMINE "Other"`},
		{"inbox", `EXAMINE "INBOX"`},
		{"resync", `EXAMINE "INBOX" (QRESYNC (14 1))`},
		{"search", "UID SEARCH UID 1:*"},
		{"batch", "UID FETCH 29:31 " + items},
		{"alone", "UID FETCH 30 " + items},
		{"descending", "UID FETCH 31,29 " + items},
		{"fields", "UID FETCH 30 (BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)])"},
		{"date", "UID FETCH 30 (BODY.PEEK[HEADER.FIELDS (DATE FROM SUBJECT)])"},
		{"header", "UID FETCH 30 (BODY.PEEK[HEADER])"},
		{"text", "UID FETCH 30 (BODY.PEEK[TEXT])"},
		{"piece", "UID FETCH 30 (BODY.PEEK[]<0.7>)"},
		{"body", "UID FETCH 30 (BODY[])"},
		{"structure", "UID FETCH 30 (BODY)"},
		{"again", "UID FETCH 30 " + items},
		{"last", "UID FETCH 30 " + items},
		{"sizes", "UID FETCH 29:31 (UID RFC822.SIZE)"},
	}
}

// seen is what a fault's server says at one step. Without an end it is
// answered; {mail} is the bad message's.
type seen struct {
	step, end string
	has       string // bytes of the answer
	not       string // and these are not in it
}

func attributes() string {
	return fmt.Sprintf(`UID 30 FLAGS () INTERNALDATE " 1-Jan-2020 00:00:30 +0000" RFC822.SIZE %d`, len(scriptMail(BadUID)))
}

// wireTable says of every fault by name what it does on the wire.
func wireTable() map[string][]seen {
	const bye = "* BYE [ALERT] Too many simultaneous connections. (Failure)\r\n"
	attr := "* 30 FETCH (" + attributes()
	mail := scriptMail(BadUID)
	half := mail[:len(mail)/2]
	literal := fmt.Sprintf("{%d}\r\n", len(mail))
	before := func(line string) []seen { return []seen{{"batch", "", line + attr + " BODY[] " + literal, ""}} }
	table := map[string][]seen{
		"OK without data":                          {{"batch", "", "UID 31", "UID 30"}, {"alone", "", "alone OK done\r\n", "FETCH"}, {"body", "", "body OK done\r\n", "FETCH"}},
		"attributes without the body":              {{"batch", "", attr + ")\r\n* 31", ""}, {"alone", "", attr + ")\r\nalone OK", ""}},
		"tagged NO":                                {{"alone", "", "alone NO [UNAVAILABLE] UID FETCH Server error while fetching messages\r\n", "FETCH ("}},
		"tagged NO, Gmail":                         {{"alone", "", "alone NO System Error (Failure)\r\n", "FETCH ("}},
		"tagged BAD":                               {{"alone", "", "alone BAD Command Argument Error. 11\r\n", "FETCH ("}},
		"BYE":                                      {{"batch", closed, "* BYE Cached message size larger than expected\r\n", "UID 31"}},
		"end before any byte":                      {{"batch", closed, "UID 29", "UID 30"}},
		"reset before any byte":                    {{"batch", reset, "", "UID 30"}},
		"end inside a literal":                     {{"batch", closed, attr + " BODY[] " + literal + half, mail}},
		"reset inside a literal":                   {{"batch", reset, "", mail}},
		"literal announced too small":              {{"batch", "", " BODY[] {10}\r\n" + mail + ")\r\n* 31", ""}},
		"literal announced too large":              {{"batch", "", " BODY[] {100000}\r\n" + mail + ")\r\n* 31", ""}, {"alone", silent, "", "FETCH ("}},
		"silence before any byte":                  {{"batch", silent, "UID 29", "UID 30"}},
		"half a line, then silence":                {{"batch", silent, "* 30 FETCH (UID {ui", "\n* 30 FETCH (UID 30"}},
		"silence inside a literal":                 {{"batch", silent, attr + " BODY[] " + literal + half, mail}},
		"literal of 4 GB":                          {{"batch", "", attr + " BODY[] {4294967295}\r\n", ""}},
		"NIL body":                                 {{"alone", "", attr + " BODY[] NIL)\r\n", ""}},
		"empty string as body":                     {{"alone", "", attr + " BODY[] \"\")\r\n", ""}},
		"empty literal as body":                    {{"alone", "", attr + " BODY[] {0}\r\n)\r\n", ""}},
		"UID 0":                                    {{"alone", "", "FETCH (UID 0 FLAGS () BODY[] " + literal + mail, "UID 30"}},
		"another UID than asked for":               {{"alone", "", "FETCH (UID 9930 FLAGS () BODY[] " + literal + mail, "UID 30"}},
		"item list without an end":                 {{"alone", "", mail + "\r\nalone OK", ""}},
		"four million brackets":                    {{"batch", endless, "(BODYSTRUCTURE ((((((", ""}},
		"a line of 200 MB":                         {{"batch", endless, "ENVELOPE (\"xxxxxx", ""}},
		"substitute on PEEK":                       {{"alone", "", "failed for the following\r\n message: 30\r\n", "body of 30"}, {"alone", "", "The server couldn't retrieve", ""}},
		"substitute with a typographic apostrophe": {{"alone", "", "The server couldn’t retrieve", "body of 30"}},
		"substitute with could not":                {{"alone", "", "The server could not retrieve", "body of 30"}},
		"gone meanwhile":                           {{"batch", "", "batch NO Some of the requested messages no longer exist.", "UID 30"}, {"alone", "", "alone OK", "FETCH ("}},
		"size other than RFC822.SIZE":              {{"alone", "", "RFC822.SIZE 1 BODY[] " + literal + mail, ""}},
		"odd bytes":                                {{"alone", "", "gr\xfc\xdfe", ""}, {"alone", "", "NUL \x00, bare\nLF, bare\rCR, \xff\xfe\r\n) A1 OK\r\n* BYE {7}\r\n)\r\n", ""}},
		"no header":                                {{"alone", "", "}\r\n\r\nThis is no mail at all", ""}},
		"no UID in the answer":                     {{"alone", "", "* 30 FETCH (FLAGS () BODY[] " + literal + mail, "UID"}},
		"UID behind the literal":                   {{"alone", "", "* 30 FETCH (BODY[] " + literal + mail + " FLAGS () UID 30)\r\n", ""}},
		"one answer twice":                         {{"alone", "", mail + ")\r\n" + attr + " BODY[] " + literal + mail, ""}},
		"flags before the body":                    before("* 30 FETCH (UID 30 FLAGS (\\Seen))\r\n"),
		"body before its flags":                    {{"alone", "", "* 30 FETCH (UID 30 BODY[] " + literal + mail + ")\r\n* 30 FETCH (UID 30 FLAGS ())\r\n", ""}},
		"unquoted quotes and unknown items":        {{"alone", "", "X-GM-LABELS (\"\\\\Inbox\" \"a b\") ENVELOPE (\"say \"hi\", now\" NIL) UID 30", ""}},
		"bad date and size":                        {{"alone", "", "INTERNALDATE \"yesterday\" RFC822.SIZE -1 BODY[] " + literal + mail, ""}},
		"odd flags":                                {{"alone", "", "FLAGS (a]b \"c d\" e\x85f) BODY[]", ""}},
		"body as a quoted string":                  {{"alone", "", "BODY[] \"Subject: short\")\r\n", ""}},
		"throttled for a moment":                   {{"batch", "", "batch BAD Request is throttled. Suggested Backoff Time: 50 milliseconds", ""}, {"alone", "", mail, "throttled"}},
		"throttled for long":                       {{"batch", "", "batch BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds", ""}, {"again", "", "again BAD", ""}},
		"over quota":                               {{"batch", "", "batch NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)", ""}},
		"LIST-STATUS refused":                      {{"list", "", "list BAD Command Argument Error. 12", "* LIST"}, {"status", "", "* STATUS", ""}},
		"STATUS of one mailbox refused":            {{"status", "", "status NO mailbox is locked", ""}, {"other", "", "other OK", ""}},
		"EXAMINE of one mailbox refused":           {{"other", "", "other NO mailbox is locked", ""}, {"inbox", "", "inbox OK", ""}},
		"EXAMINE of one mailbox hangs up":          {{"other", closed, "* BYE Shared folder is locked", ""}},
		"mailbox name in latin-1":                  {{"list", "", "\"Entw\xfcrfe\"\r\n", "\"Other\""}},
		"mailbox name in bad UTF-7":                {{"list", "", "\"A&b\"\r\n", "\"Other\""}},
		"LIST lines that cannot be read":           {{"list", "", "* LIST (\\HasNoChildren) \"/\r\n* LIST\r\n* LIST () NIL {3}\r\n\x00a\x01\r\n* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n", ""}},
		"UIDVALIDITY beyond 32 bits":               {{"status", "", "UIDVALIDITY 1234567890123456", ""}, {"inbox", "", "[UIDVALIDITY 1234567890123456]", ""}},
		"UIDVALIDITY 0":                            {{"status", "", "UIDVALIDITY 0)", ""}, {"inbox", "", "[UIDVALIDITY 0]", ""}},
		"UIDVALIDITY not told":                     {{"status", "", "STATUS", "UIDVALIDITY"}, {"inbox", "", "UIDNEXT", "UIDVALIDITY"}},
		"empty STATUS":                             {{"status", "", "* STATUS \"Other\" ()\r\n", ""}},
		"signed in but not connected":              {{"login", "", "login OK", ""}, {"list", "", "list BAD User is authenticated but not connected.\r\n", ""}},
		"sign-in refused":                          {{"login", "", "login NO [AUTHENTICATIONFAILED] Invalid credentials\r\n", ""}},
		"BYE as greeting":                          {{"greeting", "", "* BYE Too busy\r\n", ""}, {"login", closed, "", "login"}},
		"only one connection":                      {{"greeting", "", bye, ""}, {"login", closed, "", "login"}},
		"line behind the tagged answer":            {{"batch", "", "batch OK done\r\n", ""}, {"alone", "", "\r\n* 30 FETCH", ""}},
		"SEARCH on several lines":                  {{"search", "", "* SEARCH 1\r\n* SEARCH 2\r\n* SEARCH 3\r\n", ""}},

		"the seed's Exchange": {{"batch", "", "UID 31", "UID 30"}, {"alone", "", "alone OK", "FETCH ("}, {"date", "", "date OK", "FETCH ("},
			{"fields", "", "BODY[HEADER.FIELDS (FROM SUBJECT)] {124}\r\nFrom: Microsoft Exchange Server 2010\r\n", ""}, {"header", "", "header OK", "FETCH ("}, {"piece", "", "piece OK", "FETCH ("},
			{"body", "", "message: 30\r\n", "body of 30"}, {"structure", "", `BODY ("text" "plain" ("charset" "iso-8859-1") NIL NIL "quoted-printable" 1 1)`, ""}},
		"substitute with its subject in one line": {{"alone", "", "Subject: Retrieval using the IMAP4 protocol failed for the following message: 30\r\n", "body of 30"}},
		"BAD for the whole batch":                 {{"batch", "", "batch BAD Command Argument Error. 11", "FETCH ("}, {"descending", "", "UID 29", "BAD"}},
		"BAD, and BYE after the tenth":            {{"batch", "", "BAD Command Argument Error. 12", ""}, {"again", "", "again BAD Command Argument Error. 12", ""}, {"last", closed, "* BYE Connection closed. 14", ""}},
		"literal announced ten bytes too small":   {{"alone", "", fmt.Sprintf("{%d}\r\n%s)\r\n", len(mail)-10, mail), ""}, {"text", "", "{2}\r\nbody of 30", ""}},
		"literal announced ten bytes too large":   {{"alone", "", fmt.Sprintf("{%d}\r\n%s)\r\n", len(mail)+10, mail), ""}},
		"only HEADER and TEXT come":               {{"alone", "", "alone OK", "FETCH ("}, {"header", "", "Subject: mail 30", ""}, {"text", "", "body of 30", ""}, {"body", "", "body OK", "FETCH ("}, {"piece", "", "piece OK", "FETCH ("}},
		"only pieces come":                        {{"alone", "", "alone OK", "FETCH ("}, {"header", "", "header OK", "FETCH ("}, {"body", "", "body OK", "FETCH ("}, {"piece", "", "BODY[]<0> {7}\r\nFrom: a)", ""}},
		"only BODY[] without PEEK comes":          {{"alone", "", "alone OK", "FETCH ("}, {"piece", "", "piece OK", "FETCH ("}, {"body", "", mail, ""}},
		"answer in three parts":                   {{"alone", "", "* 30 FETCH (UID 30 FLAGS ())\r\n* 30 FETCH (UID 30 RFC822.SIZE ", ""}, {"alone", "", ")\r\n* 30 FETCH (UID 30 BODY[] " + literal + mail, ""}},
		"unknown item with a literal":             {{"alone", "", "* 30 FETCH (X-NOTE {8}\r\n) {3}\r\nx UID 30 FLAGS () BODY[] " + literal + mail, ""}},
		"an older message unasked":                {{"alone", "", "* 1 FETCH (UID 1 FLAGS ()", ""}, {"alone", "", mail, ""}},
		"session expired once":                    {{"batch", closed, "* BYE Session expired, please login again.\r\n", "UID 30"}},
		"EXAMINE of one mailbox falls silent":     {{"other", silent, "", "OK"}},
		"LIST falls silent":                       {{"list", silent, "", "OK"}},
		"LIST refused":                            {{"list", "", "list NO [SERVERBUG] Internal error occurred", "* LIST"}},
		"UIDNEXT not told":                        {{"status", "", "(MESSAGES 2 UIDVALIDITY 14)", ""}, {"inbox", "", "UIDVALIDITY 14", "UIDNEXT"}},
		"UIDVALIDITY with SELECT alone":           {{"status", "", "UIDVALIDITY 14", ""}, {"inbox", "", "UIDNEXT", "UIDVALIDITY"}},
		"HIGHESTMODSEQ without text":              {{"inbox", "", "* OK [HIGHESTMODSEQ 33]\r\n", ""}},
		"QRESYNC refused":                         {{"inbox", "", "[HIGHESTMODSEQ 33]", ""}, {"resync", "", "resync BAD Unexpected extra arguments", ""}},
		"descending sets refused":                 {{"alone", "", mail, ""}, {"descending", "", "descending BAD Invalid message set", "FETCH ("}},
		"empty mailbox takes no set":              {{"list", "", "\"Empty\"", ""}, {"alone", "", mail, ""}},
		"silence instead of a greeting":           {{"greeting", silent, "", "OK"}},
		"sign-in not possible for now":            {{"login", "", "login NO [UNAVAILABLE] Temporary authentication failure", ""}},
		"second sign-in refused":                  {{"greeting", "", "OK", ""}, {"login", "", "login NO [ALERT] Too many simultaneous connections. (Failure)\r\n", ""}},
	}
	for name, line := range map[string]string{
		"unknown response code":          "* OK [XYZZY a]b\"c] plugh\r\n",
		"unknown untagged line":          "* XYZZY (a b) {3}\r\nabc \"d\"\r\n",
		"garbage line":                   "\x00\x01\xff garbage ) ( \" {\r\n",
		"empty line":                     ")\r\n\r\n",
		"unknown tag":                    "A999 OK whatever\r\n",
		"continuation nobody waits for":  "+ go on\r\n",
		"VANISHED nobody asked for":      "* VANISHED 1:5\r\n",
		"several EXISTS":                 "* 500 EXISTS\r\n* 1000 EXISTS\r\n",
		"COPYUID without OK":             "* [COPYUID 124 10 233]\r\n",
		"COPYUID with a star":            "* OK [COPYUID 14 1 *] moved\r\n",
		"bad ENVELOPE and BODYSTRUCTURE": "* 1 FETCH (ENVELOPE (NIL NIL BODYSTRUCTURE ((((\r\n",
		"many brackets":                  "((((((((",
		"FETCH of another message":       "* 1 FETCH (FLAGS (\\Seen))\r\n",
		"untagged NO":                    "* NO [ALERT] Mailbox is at 99% of its quota\r\n",
		"line feed alone":                "* OK still here\n",
	} {
		table[name] = []seen{{"batch", "", line, ""}, {"batch", "", attr + " BODY[] " + literal + mail + ")\r\n* 31", ""}}
	}
	for how, s := range map[string]seen{
		"NO":           {"", "", " NO Error computing message size\r\n", "FETCH ("},
		"BAD":          {"", "", " BAD Command Argument Error. 11\r\n", "FETCH ("},
		"hanging up":   {"", closed, "", "FETCH ("},
		"silence":      {"", silent, "", "FETCH ("},
		"half of them": {"", "", "* 60 FETCH (UID 60 RFC822.SIZE 100)\r\n", "UID 30"},
	} {
		for step, also := range map[string]bool{"sizes": false, "batch": true} {
			s.step = step
			table[fmt.Sprintf("%s on RFC822.SIZE, also beside a body: %v", how, also)] = []seen{s}
		}
	}
	delete(table, "half of them on RFC822.SIZE, also beside a body: true") // there is none
	return table
}

// TestEveryFaultDoesOnTheWireWhatItSays asks each server the same questions.
// Up to the first row's step all answers are whole.
func TestEveryFaultDoesOnTheWireWhatItSays(t *testing.T) {
	t.Parallel()
	table := wireTable()
	names := make(map[string]bool)
	for _, f := range Faults() {
		if names[f.Name] {
			t.Errorf("two faults are called %q", f.Name)
		}
		names[f.Name] = true
		if f.Source == "" || f.Outcome < Delivered || f.Outcome > AccountLeft {
			t.Errorf("%s: no source, or no outcome", f.Name)
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			rows, ok := table[f.Name]
			if !ok {
				t.Fatal("no row says what it does on the wire")
			}
			showFault(t, f, rows)
		})
	}
	for name := range table {
		if !names[name] {
			t.Errorf("there is no fault called %q", name)
		}
	}
}

func showFault(t *testing.T, f Fault, rows []seen) {
	s := startScript(t, "IMAP4rev1", &f, scriptBoxes()...)
	if strings.Contains(f.Name, "one connection") || strings.HasPrefix(f.Name, "second") {
		first := speak(t, s.Addr(), true)
		if got, _ := first.say("", ""); !strings.HasPrefix(got, "* OK") {
			t.Errorf("greeting of the first connection: %q", got)
		}
		if got, _ := first.say("x", "LOGIN user pass"); !strings.HasPrefix(got, "x OK") {
			t.Errorf("sign-in of the first connection: %q", got)
		}
	}
	d := speak(t, s.Addr(), true)
	answers, ends := make(map[string]string), make(map[string]string)
	for _, step := range steps() {
		d.patient = true
		for _, r := range rows {
			d.patient = d.patient && (r.step != step[0] || r.end != silent)
		}
		answers[step[0]], ends[step[0]] = d.say(step[0], step[1])
		if ends[step[0]] != answered {
			break
		}
	}
	for _, r := range rows {
		got := answers[r.step]
		if r.end == "" {
			r.end = answered
		}
		if ends[r.step] != r.end {
			t.Errorf("%s ends as %q, want %q: %.400q", r.step, ends[r.step], r.end, got)
		}
		if !strings.Contains(got, r.has) {
			t.Errorf("%s\n got %.900q\nwant %.400q in it", r.step, got, r.has)
		}
		if r.not != "" && strings.Contains(got, r.not) {
			t.Errorf("%s: %q is in %.900q", r.step, r.not, got)
		}
	}

	_ = d.Close() // an answer that nobody reads would hold the server up
	s.Heal()
	d = speak(t, s.Addr(), true)
	for _, step := range [][2]string{{"", ""}, {"x", "LOGIN user pass"}, {"x", `EXAMINE "INBOX"`}} {
		if got, end := d.say(step[0], step[1]); end != answered {
			t.Fatalf("healed: %s: %q (%s)", step[1], got, end)
		}
	}
	var want string
	s.With(func(boxes []*ScriptBox) {
		for _, m := range boxes[0].Mails {
			if m.UID == BadUID {
				want = fmt.Sprintf("BODY[] {%d}\r\n%s)\r\nx OK done\r\n", len(m.Raw), m.Raw)
			}
		}
	})
	if got, _ := d.say("x", "UID FETCH 30 (BODY.PEEK[])"); !strings.HasSuffix(got, want) || (want == "") != (f.Outcome == Vanished) {
		t.Errorf("healed: %q, want %q", got, want)
	}
}
