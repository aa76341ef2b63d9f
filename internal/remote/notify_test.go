package remote

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// notifier is a server that answers NOTIFY, and says lines in IDLE.
func notifier(t *testing.T, notify func(command string) string, lines string) (*Session, *heard) {
	t.Helper()
	var h heard
	s := dialed(t, h.options(plain(serve(t, func(p *peer) {
		p.greet(testCaps + " IDLE NOTIFY CONDSTORE")
		for {
			tag, command := p.command()
			switch {
			case tag == "":
				return
			case strings.HasPrefix(command, "NOTIFY"):
				p.send("%s", strings.ReplaceAll(notify(command), "{tag}", tag))
			case command == "IDLE":
				p.send("+ idling\r\n%s", lines)
				p.line()
				p.send("%s OK done\r\n", tag)
			default:
				p.send("%s OK done\r\n", tag)
			}
		}
	}))))
	return s, &h
}

const notifyStatus = "* STATUS INBOX (MESSAGES 10 UIDNEXT 20 UIDVALIDITY 14 HIGHESTMODSEQ 5)\r\n* STATUS Entw&APw-rfe (MESSAGES 2 UIDNEXT 3 UIDVALIDITY 15 HIGHESTMODSEQ 5)\r\n{tag} OK done\r\n"

func TestNotifyTellsOfAllMailboxes(t *testing.T) {
	t.Parallel()
	s, h := notifier(t, func(string) string { return notifyStatus },
		"* STATUS INBOX (MESSAGES 10 UIDNEXT 20 UIDVALIDITY 14 HIGHESTMODSEQ 5)\r\n"+ // a repetition
			"* STATUS INBOX (MESSAGES 11 UIDNEXT 21 UIDVALIDITY 14 HIGHESTMODSEQ 6)\r\n"+ // new mail
			"* STATUS INBOX (UIDVALIDITY 14 HIGHESTMODSEQ 7)\r\n"+ // flags
			"* STATUS INBOX (MESSAGES 10 UIDNEXT 21 UIDVALIDITY 14 HIGHESTMODSEQ 8)\r\n"+ // an expunge
			"* STATUS INBOX (MESSAGES 11 UIDNEXT 22 UIDVALIDITY 14)\r\n"+ // without what flags would change
			"* STATUS Entw&APw-rfe (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 15 HIGHESTMODSEQ 9)\r\n"+
			"* STATUS New (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 16)\r\n"+ // was not there
			"* STATUS a&b (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 16)\r\n"+ // no name in UTF-7
			"* LIST () \"/\" Other (\"OLDNAME\" (Elsewhere))\r\n")
	if err := s.Notify(t.Context(), func(mail.News) {}); err != nil {
		t.Fatal(err)
	}
	if text := h.String(t); !strings.Contains(text, "NOTIFY SET STATUS (personal (MessageNew MessageExpunge FlagChange MailboxName))\n") {
		t.Errorf("the transcript is\n%s", text)
	}
	inbox := func(messages uint32, next imap.UID, modseq uint64) mail.Status {
		return mail.Status{Messages: messages, UIDNext: next, UIDValidity: 14, HighestModSeq: modseq}
	}
	want := []mail.News{
		{Mailbox: "INBOX", Status: inbox(11, 21, 6)}, {Mailbox: "INBOX", Status: inbox(11, 21, 7)},
		{Mailbox: "INBOX", Status: inbox(10, 21, 8), Gone: true}, {Mailbox: "INBOX"},
		{Mailbox: "Entwürfe", Status: mail.Status{Messages: 3, UIDNext: 4, UIDValidity: 15, HighestModSeq: 9}},
		{Mailbox: "New", Gone: true}, {Gone: true}, {Gone: true},
	}
	end := make(chan struct{})
	var got []mail.News
	if err := s.Idle(t.Context(), end, func(n mail.News) {
		if got = append(got, n); len(got) == len(want) {
			close(end)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %+v, want %+v", got, want)
	}
}

// TestNotifyAgain: Dovecot must let go of what it watches before it is asked anew, and what
// changed meanwhile is told, however the server tells it.
func TestNotifyAgain(t *testing.T) {
	t.Parallel()
	answers := []string{
		notifyStatus,
		"* STATUS INBOX (MESSAGES 10 UIDNEXT 20 UIDVALIDITY 14 HIGHESTMODSEQ 6)\r\n{tag} OK done\r\n", // of NONE
		"* STATUS INBOX (MESSAGES 11 UIDNEXT 21 UIDVALIDITY 14 HIGHESTMODSEQ 7)\r\n* STATUS Entw&APw-rfe (MESSAGES 2 UIDNEXT 3 UIDVALIDITY 15 HIGHESTMODSEQ 5)\r\n{tag} OK done\r\n",
		"{tag} OK done\r\n",
		"* STATUS INBOX (MESSAGES 10 UIDNEXT 21 UIDVALIDITY 14 HIGHESTMODSEQ 8)\r\n* STATUS a&b (MESSAGES 3 UIDNEXT 4 UIDVALIDITY 16)\r\n{tag} OK done\r\n",
		"{tag} BAD what?\r\n",
		"{tag} OK and tells nothing\r\n",
	}
	n := 0
	s, h := notifier(t, func(string) string { n++; return answers[n-1] }, "")
	var got []mail.News
	for range 4 {
		if err := s.Notify(t.Context(), func(n mail.News) { got = append(got, n) }); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortStableFunc(got[2:], func(a, b mail.News) int { return strings.Compare(b.Mailbox, a.Mailbox) }) // of one answer, in any order
	if want := []mail.News{
		{Mailbox: "INBOX", Status: mail.Status{Messages: 10, UIDNext: 20, UIDValidity: 14, HighestModSeq: 6}}, {Mailbox: "INBOX", Status: mail.Status{Messages: 11, UIDNext: 21, UIDValidity: 14, HighestModSeq: 7}},
		{Mailbox: "INBOX", Status: mail.Status{Messages: 10, UIDNext: 21, UIDValidity: 14, HighestModSeq: 8}, Gone: true}, {Gone: true}, {Gone: true},
	}; !slices.Equal(got, want) {
		t.Errorf("told %+v, want %+v", got, want)
	}
	if none, set := strings.Count(h.String(t), " NOTIFY NONE\n"), strings.Count(h.String(t), " NOTIFY SET "); none != 3 || set != 4 {
		t.Errorf("asked for none %d times, and for all %d times", none, set)
	}
}

func TestNotifyOverflows(t *testing.T) {
	t.Parallel()
	s, _ := notifier(t, func(string) string { return notifyStatus }, "* OK [NOTIFICATIONOVERFLOW] ...A comment can go here...\r\n")
	if err := s.Notify(t.Context(), func(mail.News) {}); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	var got []mail.News
	err := s.Idle(t.Context(), end, func(n mail.News) { got = append(got, n); close(end) })
	if err != nil || len(got) != 1 || !got[0].Over {
		t.Errorf("%v, %+v", err, got)
	}
	if err := s.Notify(t.Context(), func(mail.News) {}); err != nil {
		t.Errorf("asked again: %v", err)
	}
}

func TestNotifyRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(command string) string
		asked  int
		ok     bool
	}{
		"NO":       {func(string) string { return "{tag} NO not for you\r\n" }, 1, false},
		"BAD":      {func(string) string { return "{tag} BAD what?\r\n" }, 1, false},
		"BADEVENT": {func(string) string { return "{tag} NO [BADEVENT (FlagChange)] no\r\n" }, 2, false},
		"no FlagChange": {func(command string) string {
			if strings.Contains(command, "FlagChange") {
				return "{tag} NO [BADEVENT (MessageNew MessageExpunge)] no\r\n"
			}
			return notifyStatus
		}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := notifier(t, c.answer, "")
			err := s.Notify(t.Context(), func(mail.News) {})
			if _, refused := mail.Refused(err); refused == c.ok || !c.ok && err == nil {
				t.Errorf("%v", err)
			}
			if n := strings.Count(h.String(t), " NOTIFY SET "); n != c.asked {
				t.Errorf("asked %d times", n)
			}
			if _, err := s.Exchange(t.Context(), "NOOP"); err != nil {
				t.Errorf("the session does not live on: %v", err)
			}
		})
	}
}
