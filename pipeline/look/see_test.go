package look

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/match"
)

// fetcher fetches.
type fetcher = match.Session

// there is a server with one mailbox, and the connection to it.
type there struct {
	fetcher  // that anything is fetched is an error
	caps     []string
	status   mail.Status
	answer   mail.Selected // what EXAMINE tells beside the status, if it is offered a difference
	msgs     []mail.Message
	searched []imap.UID // what SEARCH answers
	asked    []string
}

func (s *there) Has(capability string) bool { return slices.Contains(s.caps, capability) }
func (s *there) Alive() bool                { return true }
func (s *there) Lost() bool                 { return false }
func (s *there) Session() Session           { return Session{Describer: s} }
func (s *there) Connect(context.Context) error {
	return nil
}
func (s *there) Enter(context.Context, string, uint64) error { return nil }
func (s *there) StillThere(context.Context, string, uint64, []imap.UID) (imap.UIDSet, error) {
	return nil, nil
}

func (s *there) Examine(_ context.Context, _ string, known *mail.Known) (*mail.Selected, error) {
	s.asked = append(s.asked, "EXAMINE")
	sel := &mail.Selected{Status: s.status}
	if known != nil && known.UIDValidity == s.status.UIDValidity {
		sel.Resynced, sel.Vanished, sel.Changed, sel.Identified = true, s.answer.Vanished, s.answer.Changed, s.answer.Identified
	}
	return sel, nil
}

func (s *there) Flags(_ context.Context, uids imap.UIDSet, since uint64) (out []mail.Message, err error) {
	s.asked = append(s.asked, fmt.Sprintf("FLAGS %v since %d", uids, since))
	for _, m := range s.msgs {
		if m.ModSeq > since || since == 0 {
			out = append(out, m)
		}
	}
	return out, nil
}

func (s *there) Identify(_ context.Context, uids imap.UIDSet) (out []mail.Message, err error) {
	s.asked = append(s.asked, fmt.Sprintf("IDENTIFY %v", uids))
	for _, m := range s.msgs {
		if uids.Contains(m.UID) {
			out = append(out, m)
		}
	}
	return out, nil
}

func (s *there) Sizes(context.Context, imap.UIDSet) ([]mail.Message, error) { return nil, nil }

func (s *there) Search(_ context.Context, uids imap.UIDSet) (out imap.UIDSet, err error) {
	s.asked = append(s.asked, fmt.Sprintf("SEARCH %v", uids))
	for _, u := range s.searched {
		if uids.Contains(u) {
			out.AddNum(u)
		}
	}
	return out, nil
}

// rows are a ledger of which nothing but its rows is asked: any write is an error.
type rows struct {
	Ledger
	have []ledger.Message
}

func (r rows) Rows(_ context.Context, _ string, uidValidity uint64) (out []ledger.Row, err error) {
	for _, m := range r.have {
		if m.UIDValidity == uidValidity {
			out = append(out, ledger.Row{UID: m.UID, State: m.State, Key: m.Key, Flags: m.Flags})
		}
	}
	return out, nil
}

func (r rows) GetMany(_ context.Context, _ string, uidValidity uint64, uids []imap.UID) (out []ledger.Message, err error) {
	for _, m := range r.have {
		if m.UIDValidity == uidValidity && slices.Contains(uids, m.UID) {
			out = append(out, m)
		}
	}
	return out, nil
}

// What the server has is asked for in the cheapest way that is to be believed, and as a whole
// where the cheap one is not; nothing is written for that.
func TestWhatIsSeen(t *testing.T) {
	t.Parallel()
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	message := func(uid imap.UID) mail.Message {
		return mail.Message{UID: uid, MessageID: fmt.Sprintf("m%d@example.org", uid), Size: 100, InternalDate: at, Flags: []string{}, ModSeq: uint64(uid)}
	}
	known := ledger.Mailbox{Name: "INBOX", Complete: true, UIDValidity: 14, UIDNext: 4, HighestModSeq: 3, Messages: 3}
	var here []ledger.Message
	for uid := imap.UID(1); uid <= 3; uid++ {
		m := message(uid)
		here = append(here, ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: uid, State: ledger.Present, Key: fmt.Sprint("k", uid), ID: m.MessageID, Size: m.Size, Date: at})
	}
	gone := mail.Selected{Vanished: mail.UIDSet([]imap.UID{2})}
	other := message(3)
	other.MessageID, other.Size = "another@example.org", 7
	for name, c := range map[string]struct {
		caps         []string
		status       mail.Status
		answer       mail.Selected
		msgs         []mail.Message
		searched     []imap.UID
		asked        []string
		complete     bool // the view has all that there is
		contradicted bool
		rows         int
		fails        bool
	}{
		"nothing new, by a difference": {[]string{"QRESYNC"}, mail.Status{UIDValidity: 14, UIDNext: 4, HighestModSeq: 3, Messages: 3}, mail.Selected{},
			nil, nil, []string{"EXAMINE"}, false, false, 3, false},
		"one is gone, and that is so": {[]string{"QRESYNC"}, mail.Status{UIDValidity: 14, UIDNext: 4, HighestModSeq: 5, Messages: 2}, gone,
			[]mail.Message{message(1), message(3)}, []imap.UID{1, 3}, []string{"EXAMINE", "IDENTIFY 1:3", "SEARCH 2"}, false, false, 3, false},
		"one is said to be gone, and is there": {[]string{"QRESYNC"}, mail.Status{UIDValidity: 14, UIDNext: 4, HighestModSeq: 5, Messages: 2}, gone,
			[]mail.Message{message(1), message(2), message(3)}, []imap.UID{1, 2, 3}, []string{"EXAMINE", "IDENTIFY 1:3", "SEARCH 2", "FLAGS 1:4294967295 since 0", "SEARCH 1:4294967295"}, true, false, 3, false},
		"a count that does not add up": {nil, mail.Status{UIDValidity: 14, UIDNext: 4, HighestModSeq: 5, Messages: 2}, mail.Selected{},
			[]mail.Message{message(1), message(3)}, []imap.UID{1, 3}, []string{"EXAMINE", "IDENTIFY 1:3", "FLAGS 1:4294967295 since 3", "SEARCH 1:4294967295"}, true, false, 3, false},
		"a list that is empty, of a mailbox that is not": {nil, mail.Status{UIDValidity: 14, UIDNext: 4, HighestModSeq: 5, Messages: 2}, mail.Selected{},
			[]mail.Message{message(1), message(3)}, nil, []string{"EXAMINE", "IDENTIFY 1:3", "FLAGS 1:4294967295 since 3", "SEARCH 1:4294967295", "EXAMINE"}, true, false, 3, true},
		"a UID that is another message's": {nil, mail.Status{UIDValidity: 14, UIDNext: 5, HighestModSeq: 5, Messages: 4}, mail.Selected{},
			[]mail.Message{message(1), message(2), other, message(4)}, nil, []string{"EXAMINE", "IDENTIFY 1:3", "FLAGS 1:4294967295 since 0"}, true, true, 3, false},
		"a new UIDVALIDITY": {[]string{"QRESYNC"}, mail.Status{UIDValidity: 15, UIDNext: 3, HighestModSeq: 1, Messages: 2}, mail.Selected{},
			[]mail.Message{message(1), message(2)}, []imap.UID{1, 2}, []string{"EXAMINE", "SEARCH 1:4294967295"}, true, false, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &there{caps: c.caps, status: c.status, answer: c.answer, msgs: c.msgs, searched: c.searched}
			l := New(Options{Ledger: rows{have: here}}).Over(server)
			s, err := l.See(t.Context(), Agreed{Name: "INBOX", Known: known, Listed: &c.status})
			if (err != nil) != c.fails || !slices.Equal(server.asked, c.asked) {
				t.Fatalf("%v, asked %q", err, server.asked)
			}
			if !c.fails && (s.View.Complete != c.complete || s.Contradicted != c.contradicted || len(s.Rows) != c.rows) {
				t.Errorf("%+v", s)
			}
		})
	}
}
