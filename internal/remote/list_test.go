package remote

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestListForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		want *mail.Mailbox // nil: dropped
	}{
		{`* LIST (\HasNoChildren) "/" "a"`, &mail.Mailbox{Name: "a", Delim: '/', Attrs: []string{`\HasNoChildren`}}},
		{`* LIST () "." inbox`, &mail.Mailbox{Name: "INBOX", Delim: '.', Attrs: []string{}}},
		{`* LIST () NIL "NIL"`, &mail.Mailbox{Name: "NIL", Attrs: []string{}}},
		{`* LIST () "\\" "a \"b\" \\ c"`, &mail.Mailbox{Name: `a "b" \ c`, Delim: '\\', Attrs: []string{}}},
		{"* LIST () \"/\" {5}\r\na (b)", &mail.Mailbox{Name: "a (b)", Delim: '/', Attrs: []string{}}},
		{`* LIST () "/" ~jane`, &mail.Mailbox{Name: "~jane", Delim: '/', Attrs: []string{}}},
		{`* LIST () "/" "Entw&APw-rfe"`, &mail.Mailbox{Name: "Entwürfe", Delim: '/', Attrs: []string{}}},
		{"* LIST () \"/\" \"Entw\xfcrfe\"", &mail.Mailbox{Name: "Entw%FCrfe", Delim: '/', Attrs: []string{}}},
		{`* LIST () "/" "A&b"`, &mail.Mailbox{Name: "A&b", Delim: '/', Attrs: []string{}}},
		{`* LIST () "/" "Entwürfe"`, &mail.Mailbox{Name: "Entwürfe", Delim: '/', Attrs: []string{}}},
		{`* list (\noselect \Foo) "/" "[Gmail]" ("CHILDINFO" ("SUBSCRIBED"))`, &mail.Mailbox{Name: "[Gmail]", Delim: '/', Attrs: []string{`\noselect`, `\Foo`}}},
		{`* LIST () "/" ""`, nil},
		{`* LIST (\HasNoChildren) "/`, nil},
		{`* LIST`, nil},
		{`* LIST "/" () x`, nil},
		{"* LIST () NIL {3}\r\n\x00a\x01", &mail.Mailbox{Name: `"\x00a\x01"`, Attrs: []string{`\Noselect`}, Odd: true}},
		{"* LIST (\\Trash) \"/\" {6}\r\nla\r\nst", &mail.Mailbox{Name: `"la\r\nst"`, Delim: '/', Attrs: []string{`\Trash`, `\Noselect`}, Odd: true}},
		{`* LIST () "/" "` + strings.Repeat("x", maxMailboxName+1) + `"`, &mail.Mailbox{Name: `"` + strings.Repeat("x", maxShownName) + `"`, Delim: '/', Attrs: []string{`\Noselect`}, Odd: true}},
	} {
		s := answering(t, "IMAP4rev1", [2]string{"LIST", c.line + "\r\n* LIST () \"/\" last\r\n"},
			[2]string{"STATUS", "* STATUS last (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3)\r\n"})
		boxes, err := s.List(t.Context(), mail.Listing{})
		if err != nil {
			t.Errorf("%.80q: %v", c.line, err)
			continue
		}
		last := boxes[len(boxes)-1]
		if last.Name != "last" || last.Status == nil || *last.Status != (mail.Status{Messages: 1, UIDNext: 2, UIDValidity: 3}) {
			t.Errorf("%.80q: the one behind is %+v", c.line, last)
		}
		if c.want == nil {
			if len(boxes) != 1 {
				t.Errorf("%.80q: %+v", c.line, boxes)
			}
			continue
		}
		if len(boxes) != 2 {
			t.Errorf("%.80q: %+v", c.line, boxes)
			continue
		}
		got := boxes[0]
		got.Status, got.Err = nil, nil
		if !reflect.DeepEqual(got, *c.want) {
			t.Errorf("%.80q:\ngot  %+v\nwant %+v", c.line, got, *c.want)
		}
	}
}

func TestStatusForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		items string
		want  mail.Status
	}{
		{"(MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3 HIGHESTMODSEQ 4)", mail.Status{Messages: 1, UIDNext: 2, UIDValidity: 3, HighestModSeq: 4}},
		{"(uidvalidity 3 X-GM 7 messages 1)", mail.Status{Messages: 1, UIDValidity: 3}},
		{"(MESSAGES 1 HIGHESTMODSEQ UIDNEXT 2)", mail.Status{Messages: 1, UIDNext: 2}},
		{"(UIDVALIDITY 1234567890123456)", mail.Status{UIDValidity: 1234567890123456}},
		{"(MESSAGES 99999999999 UIDNEXT 99999999999)", mail.Status{Messages: 1<<32 - 1, UIDNext: 1<<32 - 1}},
		{"(MESSAGES -1 UIDNEXT NIL UIDVALIDITY 3)", mail.Status{UIDValidity: 3}},
		{"()", mail.Status{}},
	} {
		s := answering(t, "IMAP4rev1 LIST-STATUS CONDSTORE", [2]string{"LIST", "* STATUS a " + c.items + "\r\n* LIST () \"/\" a\r\n"})
		boxes, err := s.List(t.Context(), mail.Listing{})
		if err != nil || len(boxes) != 1 || boxes[0].Status == nil {
			t.Errorf("%s: %v %+v", c.items, err, boxes)
			continue
		}
		if *boxes[0].Status != c.want {
			t.Errorf("%s: %+v, want %+v", c.items, *boxes[0].Status, c.want)
		}
	}
}

// TestListStatusRefused falls back to STATUS for each mailbox that can have one,
// and a refusal is of that mailbox alone.
func TestListStatusRefused(t *testing.T) {
	t.Parallel()
	s := answering(t, "IMAP4rev1 LIST-STATUS SPECIAL-USE", [2]string{`LIST "" "*" RETURN`, "* LIST () \"/\" half\r\n{tag} BAD Command Argument Error. 12\r\n"},
		[2]string{"LIST", "* LIST () \"/\" a\r\n* LIST (\\Noselect) \"/\" b\r\n* LIST () \"/\" c\r\n* LIST () \"/\" d\r\n* LIST () \"/\" a\r\n"},
		[2]string{`STATUS "a"`, "* STATUS a (MESSAGES 1)\r\n"}, [2]string{`STATUS "c"`, "{tag} NO mailbox is locked\r\n"}, [2]string{`STATUS "d"`, "* OK nothing\r\n"})
	boxes, err := s.List(t.Context(), mail.Listing{})
	if err != nil || len(boxes) != 4 {
		t.Fatalf("%v: %+v", err, boxes)
	}
	if boxes[0].Status == nil || boxes[0].Status.Messages != 1 || boxes[1].Status != nil || boxes[1].Err != nil {
		t.Errorf("%+v", boxes)
	}
	_ = wantFault(t, boxes[2].Err, mail.KindNo)
	_ = wantFault(t, boxes[3].Err, mail.KindNoData)
}

// TestAMailboxThatIsNoMoreHoldsOthers: one that the server lists, and does not have, is a name
// above others, as with \Noselect. It holds none: then it may be the next LIST that is right.
func TestAMailboxThatIsNoMoreHoldsOthers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		other, answer string
		want          bool
	}{
		{"a/b", "{tag} NO Mailbox doesn't exist: a (0.001 + 0.000 secs).\r\n", true},
		{"a/b", "{tag} NO [NONEXISTENT] no mailbox\r\n", true},
		{"a/b", "{tag} NO [NOPERM] not yours\r\n", false},
		{"a/b", "{tag} NO mailbox is locked\r\n", false},
		{"ab", "{tag} NO [NONEXISTENT] no mailbox\r\n", false},
		{"b/a", "{tag} NO [NONEXISTENT] no mailbox\r\n", false},
	} {
		s := answering(t, "IMAP4rev1", [2]string{"LIST", "* LIST (\\HasChildren) \"/\" a\r\n* LIST () \"/\" " + c.other + "\r\n"},
			[2]string{`STATUS "a"`, c.answer}, [2]string{"STATUS", "* STATUS " + c.other + " (MESSAGES 1)\r\n"})
		boxes, err := s.List(t.Context(), mail.Listing{})
		if err != nil || len(boxes) != 2 || boxes[1].Status == nil {
			t.Fatalf("%v: %+v", err, boxes)
		}
		if got := !boxes[0].Selectable(); got != c.want || (boxes[0].Err == nil) != c.want {
			t.Errorf("%s beside %s: %+v", c.answer, c.other, boxes[0])
		}
	}
}

// TestNamesGoBackAsTheyCame gives a name that breaks the rules back as it came.
func TestNamesGoBackAsTheyCame(t *testing.T) {
	t.Parallel()
	for _, wire := range []string{"Entw\xfcrfe", "A&b", "Entw&APw-rfe", "&AOQ-&APY-", `a"b\c`, "&-", "Grüße"} {
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(wire) + `"`
		s := answering(t, "IMAP4rev1", [2]string{"LIST", "* LIST () \"/\" " + quoted + "\r\n"},
			[2]string{"STATUS " + quoted, "* STATUS " + quoted + " (MESSAGES 7)\r\n"},
			[2]string{"EXAMINE " + quoted, "* 7 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n"})
		boxes, err := s.List(t.Context(), mail.Listing{})
		if err != nil || len(boxes) != 1 || boxes[0].Status == nil || boxes[0].Status.Messages != 7 {
			t.Errorf("%q: %v: %+v", wire, err, boxes)
			continue
		}
		if sel, err := s.Examine(t.Context(), boxes[0].Name, nil); err != nil || sel.Messages != 7 || s.Mailbox() != boxes[0].Name {
			t.Errorf("%q: %v: %+v", wire, err, sel)
		}
	}
}

func TestExamine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, lines string
		want        mail.Selected
	}{
		{"as it should be", "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [UIDNEXT 9] x\r\n* OK [HIGHESTMODSEQ 4] x\r\n* OK [PERMANENTFLAGS (\\Seen \\*)] x\r\n",
			mail.Selected{Status: mail.Status{Messages: 5, UIDValidity: 3, UIDNext: 9, HighestModSeq: 4}, PermanentFlags: []string{`\Seen`, `\*`}}},
		{"several EXISTS", "* 500 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* 60 EXISTS\r\n", mail.Selected{Status: mail.Status{Messages: 60, UIDValidity: 3}}},
		{"codes without text", "* 5 EXISTS\r\n* ok [uidvalidity 3]\r\n* OK [HIGHESTMODSEQ 4]\r\n* OK [NOMODSEQ]\r\n", mail.Selected{Status: mail.Status{Messages: 5, UIDValidity: 3}}},
		{"UIDVALIDITY beyond 32 bits", "* 5 EXISTS\r\n* OK [UIDVALIDITY 1234567890123456] x\r\n", mail.Selected{Status: mail.Status{Messages: 5, UIDValidity: 1234567890123456}}},
	} {
		s := answering(t, "IMAP4rev1 CONDSTORE", [2]string{`EXAMINE "INBOX" (CONDSTORE)`, c.lines})
		sel, err := s.Examine(t.Context(), "INBOX", nil)
		if err != nil || !reflect.DeepEqual(*sel, c.want) {
			t.Errorf("%s: %v:\ngot  %+v\nwant %+v", c.name, err, sel, c.want)
		}
	}
	s := answering(t, "IMAP4rev1", [2]string{"EXAMINE", "{tag} NO [NONEXISTENT] gone\r\n"})
	_, err := s.Examine(t.Context(), "a", nil)
	if f := wantFault(t, err, mail.KindNo); f.Mailbox != "a" || f.Code != "NONEXISTENT" || s.Mailbox() != "" || !s.Alive() {
		t.Errorf("%+v", f)
	}
}

// TestAMailboxWithoutEXISTSIsNotEmpty: all of its mail would be taken for deleted.
func TestAMailboxWithoutEXISTSIsNotEmpty(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "* 5EXISTS\r\n", "* 5 EXISTS\r\n* OK [CLOSED] the old one\r\n"} {
		s := answering(t, "IMAP4rev1 QRESYNC", [2]string{"ENABLE", "* ENABLED QRESYNC\r\n"},
			[2]string{"", line + "* OK [UIDVALIDITY 3] x\r\n* OK [UIDNEXT 9] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n"})
		for _, known := range []*mail.Known{nil, {UIDValidity: 3, HighestModSeq: 4}} {
			_, err := s.Examine(t.Context(), "a", known)
			if f := wantFault(t, err, mail.KindNoData); f.Mailbox != "a" || f.Op != "EXAMINE" || s.Mailbox() != "" || !s.Alive() {
				t.Errorf("%q: %+v", line, f)
			}
		}
		_, err := s.Select(t.Context(), "a")
		if f := wantFault(t, err, mail.KindNoData); f.Op != "SELECT" {
			t.Errorf("%q: %+v", line, f)
		}
	}
}

// TestQRESYNC tells in one answer what changed and what is gone.
func TestQRESYNC(t *testing.T) {
	t.Parallel()
	box := imaptest.Box("INBOX", "a", "b", "c", "d", "e")
	srv, err := imaptest.NewScript("IMAP4rev1 ENABLE CONDSTORE QRESYNC", nil, box)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	s := dialed(t, plain(srv.Port()))
	first, err := s.Examine(t.Context(), "INBOX", nil)
	if err != nil || first.Resynced || first.HighestModSeq == 0 {
		t.Fatalf("%v: %+v", err, first)
	}
	srv.With(func(boxes []*imaptest.ScriptBox) {
		boxes[0].Expunge(2)
		boxes[0].Expunge(3)
		boxes[0].Add("f", `\Seen`)
	})
	known := &mail.Known{UIDValidity: first.UIDValidity, HighestModSeq: first.HighestModSeq, UIDs: imap.UIDSet{{Start: 1, Stop: 5}}}
	srv.Log()
	sel, err := s.Examine(t.Context(), "INBOX", known)
	if err != nil || !sel.Resynced || sel.Messages != 4 {
		t.Fatalf("%v: %+v", err, sel)
	}
	if want := (imap.UIDSet{{Start: 2, Stop: 3}}); !reflect.DeepEqual(sel.Vanished, want) {
		t.Errorf("vanished %v", sel.Vanished)
	}
	if len(sel.Changed) != 1 || sel.Changed[0].UID != 6 || !slices.Equal(sel.Changed[0].Flags, []string{`\Seen`}) || sel.Changed[0].ModSeq == 0 {
		t.Errorf("changed %+v", sel.Changed)
	}
	if log, want := srv.Log(), []string{"ENABLE QRESYNC", fmt.Sprintf(`EXAMINE "INBOX" (QRESYNC (%d %d 1:5))`, known.UIDValidity, known.HighestModSeq)}; !slices.Equal(log, want) {
		t.Errorf("the client said %q", log)
	}
	known.UIDValidity++
	if sel, err = s.Examine(t.Context(), "INBOX", known); err != nil || sel.Resynced {
		t.Errorf("another UIDVALIDITY: %v: %+v", err, sel)
	}
}

// TestQRESYNCIsCompleteOrNot: marks move on after it, so an answer with a hole
// must not be taken for all that changed.
func TestQRESYNCIsCompleteOrNot(t *testing.T) {
	t.Parallel()
	const told = "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n"
	for _, c := range []struct {
		name, enable, lines string
		want                bool
	}{
		{"whole", "* ENABLED QRESYNC\r\n", told + "* VANISHED (EARLIER) 4\r\n* 1 FETCH (UID 1 FLAGS () MODSEQ (7))\r\n", true},
		{"nothing changed", "* ENABLED CONDSTORE QRESYNC\r\n", told, true},
		{"no word of ENABLED", "", told, true},
		{"ENABLED without QRESYNC", "* ENABLED\r\n", told, false},
		{"ENABLE refused", "{tag} BAD what\r\n", told, false},
		{"a UID that is none", "* ENABLED QRESYNC\r\n", told + "* VANISHED (EARLIER) 4,x\r\n", false},
		{"a line that cannot be read", "* ENABLED QRESYNC\r\n", told + "* 1 FETCH (UID 1 FLAGS (\r\n", false},
		{"a change without a UID", "* ENABLED QRESYNC\r\n", told + "* 1 FETCH (FLAGS ())\r\n", false},
		{"VANISHED that is of no difference", "* ENABLED QRESYNC\r\n", told + "* VANISHED 4\r\n", false},
		{"VANISHED of the mailbox before", "* ENABLED QRESYNC\r\n", "* VANISHED 4\r\n" + told, false},
		{"and that it is closed", "* ENABLED QRESYNC\r\n", "* VANISHED 4\r\n* OK [CLOSED] x\r\n" + told, true},
		{"another UIDVALIDITY", "* ENABLED QRESYNC\r\n", strings.Replace(told, " 3]", " 4]", 1), false},
		{"NOMODSEQ", "* ENABLED QRESYNC\r\n", "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [NOMODSEQ] x\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := answering(t, "IMAP4rev1 QRESYNC", [2]string{"ENABLE", c.enable + "* OK on\r\n"}, [2]string{"EXAMINE", c.lines})
			sel, err := s.Examine(t.Context(), "INBOX", &mail.Known{UIDValidity: 3, HighestModSeq: 4})
			if err != nil || sel.Resynced != c.want {
				t.Errorf("%v: %+v, want %v", err, sel, c.want)
			}
		})
	}
}

// TestClosedEndsTheOldMailbox: with QRESYNC, what comes before CLOSED is of the
// mailbox that was selected before.
func TestClosedEndsTheOldMailbox(t *testing.T) {
	t.Parallel()
	s := answering(t, "IMAP4rev1 QRESYNC", [2]string{"ENABLE", "* ENABLED QRESYNC\r\n"},
		[2]string{"EXAMINE", "* 77 EXISTS\r\n* VANISHED 1:3\r\n* 9 FETCH (UID 9 FLAGS ())\r\n* OK [CLOSED] old\r\n" +
			"* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n* VANISHED (EARLIER) 4\r\n"})
	sel, err := s.Examine(t.Context(), "INBOX", &mail.Known{UIDValidity: 3, HighestModSeq: 4})
	if err != nil || !sel.Resynced || sel.Messages != 5 || len(sel.Changed) != 0 || sel.Vanished.String() != "4" {
		t.Errorf("%v: %+v", err, sel)
	}
}

func TestQRESYNCRefused(t *testing.T) {
	t.Parallel()
	s := answering(t, "IMAP4rev1 ENABLE QRESYNC", [2]string{"ENABLE", "* ENABLED QRESYNC\r\n"}, [2]string{`EXAMINE "INBOX" (QRESYNC`, "{tag} BAD Unexpected extra arguments\r\n"},
		[2]string{"EXAMINE", "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n"})
	sel, err := s.Examine(t.Context(), "INBOX", &mail.Known{UIDValidity: 3, HighestModSeq: 4})
	if err != nil || sel.Resynced || sel.Messages != 5 || s.Has("QRESYNC") {
		t.Errorf("%v: %+v", err, sel)
	}
}

// TestIdentifiedWithTheLook: what changed and what the new messages are comes in
// one round trip, and neither is taken for the other.
func TestIdentifiedWithTheLook(t *testing.T) {
	t.Parallel()
	const (
		told     = "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n* 4 FETCH (UID 4 FLAGS (\\Seen) MODSEQ (7))\r\n* 5 FETCH (UID 8 FLAGS () MODSEQ (8))\r\n"
		message  = "* 5 FETCH (UID 8 FLAGS () RFC822.SIZE 10 BODY[HEADER.FIELDS (MESSAGE-ID)] {27}\r\nMessage-Id: <a@x.example>\r\n)\r\n"
		somebody = "* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n* 6 EXISTS\r\n"
	)
	for _, c := range []struct {
		name, examine, fetch string
		identified           bool
		resynced             bool
	}{
		{"as it should be", told, message + somebody, true, true},
		{"refused", told, message + "{tag} NO [SERVERBUG] sorry\r\n", false, true},
		{"of another UIDVALIDITY", strings.Replace(told, " 3]", " 4]", 1), message, false, false},
		{"of the mailbox before", "{tag} BAD what\r\n", message, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := answering(t, "IMAP4rev1 QRESYNC", [2]string{"ENABLE", "* ENABLED QRESYNC\r\n"}, [2]string{`EXAMINE "INBOX" (QRESYNC (3 4))`, c.examine},
				[2]string{"UID FETCH 8 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])", c.fetch},
				[2]string{"EXAMINE", told})
			sel, err := s.Examine(t.Context(), "INBOX", &mail.Known{UIDValidity: 3, HighestModSeq: 4, Identify: imap.UIDSet{{Start: 8, Stop: 8}}})
			if err != nil || sel.Messages != 5 || sel.Resynced != c.resynced || len(sel.Changed) != 2 && c.resynced {
				t.Fatalf("%v: %+v", err, sel)
			}
			if !c.identified && sel.Identified != nil || c.identified && (len(sel.Identified) != 1 || sel.Identified[0].UID != 8 || sel.Identified[0].MessageID != "a@x.example") {
				t.Errorf("identified: %+v", sel.Identified)
			}
		})
	}
}

func TestSearchForms(t *testing.T) {
	t.Parallel()
	sparse := imap.UIDSet{{Start: 5, Stop: 5}, {Start: 9, Stop: 9}, {Start: 3_000_000, Stop: 3_000_001}}
	all := imap.UIDSet{{Start: 1, Stop: 1<<32 - 1}}
	for _, c := range []struct {
		caps, lines string
		asked, want imap.UIDSet
	}{
		{"", "* SEARCH 5 9\r\n", sparse, sparse[:2]},
		{"", "* SEARCH\r\n", sparse, nil},
		{"", "* SEARCH 5 9 (MODSEQ 917162500)\r\n", sparse, sparse[:2]},
		{"", "* SEARCH 9\r\n* SEARCH 5\r\n", sparse, sparse[:2]},
		{"", "* SEARCH 5 5 77\r\n", sparse, sparse[:1]},
		{"", "* SEARCH 3 1 2\r\n", all, imap.UIDSet{{Start: 1, Stop: 3}}},
		{"ESEARCH", "* ESEARCH (TAG \"x\") UID ALL 5,8:9\r\n", sparse, sparse[:2]},
		{"ESEARCH", "* ESEARCH (TAG \"x\") UID\r\n", sparse, nil},
		{"ESEARCH", "* ESEARCH (TAG \"x\") UID COUNT 3 ALL 9:5,3000001:1\r\n", sparse, sparse},
		{"ESEARCH", "* ESEARCH (TAG \"x\") UID ALL 1:4294967295\r\n", all, all},
		{"ESEARCH", "* SEARCH 5\r\n", sparse, sparse[:1]},
	} {
		s := examined(t, "IMAP4rev1 "+c.caps, [2]string{"UID SEARCH", c.lines})
		got, err := s.Search(t.Context(), c.asked)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s%q: %v: %v, want %v", c.caps, c.lines, err, got, c.want)
		}
	}
	s := examined(t, "IMAP4rev1", [2]string{"UID SEARCH", "{tag} NO [SERVERBUG] sorry\r\n"})
	_, err := s.Search(t.Context(), sparse)
	if f := wantFault(t, err, mail.KindNo); f.Mailbox != "INBOX" || f.Op != "UID SEARCH" {
		t.Errorf("%+v", f)
	}
}

// TestSearchIsSureOrFails: what is not found is deleted here, so half an answer is
// none.
func TestSearchIsSureOrFails(t *testing.T) {
	t.Parallel()
	for lines, kind := range map[string]mail.Kind{
		"* OK nothing\r\n":                            mail.KindNoData,
		"* NO the index is broken\r\n":                mail.KindNoData,
		"* SEARCH 5 x 77\r\n":                         mail.KindMalformed,
		"* SEARCH 5 99999999999\r\n":                  mail.KindMalformed,
		"* SEARCH 5\r\n* \"SEARCH 9\r\n":              mail.KindMalformed,
		"* SEARCH 5\r\n* ESEARCH UID ALL 9:?\r\n":     mail.KindMalformed,
		"{tag} BAD Request is throttled.\r\n":         mail.KindThrottled,
		"* BAD Request is throttled.\r\n{tag} NO\r\n": mail.KindThrottled,
	} {
		s := examined(t, "IMAP4rev1", [2]string{"UID SEARCH", lines})
		got, err := s.Search(t.Context(), imap.UIDSet{{Start: 5, Stop: 9}})
		if f, ok := errors.AsType[*mail.Fault](err); !ok || f.Kind != kind || f.Mailbox != "INBOX" || got != nil {
			t.Errorf("%q: %v: %v, want %v", lines, err, got, kind)
		} else if strings.Contains(lines, "index is broken") && !strings.Contains(f.Text, "index is broken") {
			t.Errorf("%q: the server's words are lost: %v", lines, f)
		}
	}
}

// TestVanishedForms reads VANISHED as servers write it.
func TestVanishedForms(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]imap.UIDSet{
		"* VANISHED (EARLIER) 41,43:116,118": {{Start: 41, Stop: 41}, {Start: 43, Stop: 116}, {Start: 118, Stop: 118}},
		"* vanished (earlier) 5:3":           {{Start: 3, Stop: 5}},
		"* VANISHED 7":                       nil, // it is of the mailbox before, or goes at this moment
		"* VANISHED (EARLIER) 1,x,0,2,*":     {{Start: 1, Stop: 2}},
		"* VANISHED (EARLIER)":               nil,
		"* VANISHED":                         nil,
	} {
		s := answering(t, "IMAP4rev1 QRESYNC", [2]string{"ENABLE", ""}, [2]string{"EXAMINE", line + "\r\n* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n"})
		sel, err := s.Examine(t.Context(), "INBOX", nil)
		if err != nil || !reflect.DeepEqual(sel.Vanished, want) {
			t.Errorf("%s: %v: %v, want %v", line, err, sel, want)
		}
	}
}

// TestLongSets splits a set over several commands.
func TestLongSets(t *testing.T) {
	t.Parallel()
	var uids imap.UIDSet
	var want []string
	for i := range 3000 {
		u := imap.UID(1_000_000 + 2*i)
		uids = append(uids, imap.UIDRange{Start: u, Stop: u})
		want = append(want, fmt.Sprint(u))
	}
	var got []string
	for _, part := range sets(uids) {
		if len(part) > maxCommand {
			t.Errorf("a set of %d bytes", len(part))
		}
		got = append(got, strings.Split(part, ",")...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d of %d ranges came back", len(got), len(want))
	}
}

// One session lists the mailboxes, another selects them: a name that is not
// what it should be goes back as it came from each of them.
func TestOddNamesAreKnownToAllSessions(t *testing.T) {
	t.Parallel()
	srv, err := imaptest.NewScript("IMAP4rev1", nil, imaptest.Box("A&b", "a"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	o := plain(srv.Port())
	o.Names = &Names{}
	boxes, err := dialed(t, o).List(t.Context(), mail.Listing{})
	if err != nil || len(boxes) != 1 {
		t.Fatalf("%v: %v", err, boxes)
	}
	if sel, err := dialed(t, o).Examine(t.Context(), boxes[0].Name, nil); err != nil || sel.Messages != 1 {
		t.Errorf("%v: %+v", err, sel)
	}
}

// A mailbox is counted anew when it is not open any more, where there is a way to leave it that
// expunges nothing.
func TestRecount(t *testing.T) {
	t.Parallel()
	const caps, status = "IMAP4rev1 CONDSTORE", "* STATUS Entw&APw-rfe (MESSAGES 4 UIDNEXT 8 UIDVALIDITY 3 HIGHESTMODSEQ 9)\r\n"
	want := mail.Status{Messages: 4, UIDNext: 8, UIDValidity: 3, HighestModSeq: 9}
	for name, c := range map[string]struct {
		caps, status, leave string
		want                mail.Status
		fails               string
	}{
		"UNSELECT":         {caps + " UNSELECT", status, "* OK left\r\n", want, ""},
		"no UNSELECT":      {caps, status, "{tag} BAD not left\r\n", want, ""},
		"UNSELECT refused": {caps + " UNSELECT", status, "{tag} NO not now\r\n", mail.Status{}, "not now"},
		"STATUS refused":   {caps + " UNSELECT", "{tag} NO not yours\r\n", "* OK left\r\n", mail.Status{}, "not yours"},
		"nothing told":     {caps + " UNSELECT", "* OK\r\n", "* OK left\r\n", mail.Status{}, "STATUS"},
		"hung up":          {caps + " UNSELECT", "", "* OK left\r\n", mail.Status{}, "connection"},
	} {
		s := answering(t, c.caps, [2]string{"EXAMINE", "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [UIDNEXT 8] x\r\n"},
			[2]string{"UNSELECT", c.leave}, [2]string{`STATUS "Entw&APw-rfe"`, c.status})
		if _, err := s.Examine(t.Context(), "Entwürfe", nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := s.Recount(t.Context(), "Entwürfe")
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if open := s.Mailbox() != ""; err == nil && open == s.Has("UNSELECT") {
			t.Errorf("%s: the mailbox is open: %v", name, open)
		}
	}
}
