package pipeline

import (
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// need says how much of a mailbox must be asked for.
type need int

const (
	needNothing need = iota
	needStubs        // only stubs are due
	needChanges      // something changed, or may have
)

// needOf decides from STATUS alone whether a mailbox must be looked into. A
// server without CONDSTORE does not tell about flags there, so its mailboxes
// always must.
func needOf(known ledger.Mailbox, st mail.Status, stubsDue, full bool) need {
	switch {
	case full, !known.Complete, known.UIDValidity != st.UIDValidity, st.UIDValidity == 0,
		st.HighestModSeq == 0, known.HighestModSeq != st.HighestModSeq,
		known.UIDNext != st.UIDNext, known.Messages != st.Messages:
		return needChanges
	case stubsDue:
		return needStubs
	}
	return needNothing
}

// wentBack tells whether a mailbox's counters are below those that were agreed on,
// under the same UIDVALIDITY: they only ever grow (RFC 9051 2.3.1.1, RFC 7162 3.1.1),
// unless the server was restored from a backup, lost its index, or is another one.
func wentBack(known ledger.Mailbox, now mail.Status) bool {
	return known.Complete && known.UIDValidity == now.UIDValidity &&
		(uidsWentBack(known, now) || now.HighestModSeq != 0 && now.HighestModSeq < known.HighestModSeq)
}

// uidsWentBack is wentBack of UIDNEXT alone: UIDs may be dealt a second time.
func uidsWentBack(known ledger.Mailbox, now mail.Status) bool {
	return known.Complete && known.UIDValidity == now.UIDValidity && now.UIDNext != 0 && now.UIDNext < known.UIDNext
}

// addsUp tells whether a difference makes as many messages of those that are known as
// the mailbox is said to have. One that does not left something out.
func addsUp(rows []ledger.Row, v view, messages uint32) bool {
	there := make(map[imap.UID]bool, len(rows))
	for _, r := range rows {
		if r.State != ledger.Intended {
			there[r.UID] = true
		}
	}
	for _, m := range v.messages {
		if m.UID != 0 {
			there[m.UID] = true
		}
	}
	n := 0
	for u := range there {
		if !v.vanished.Contains(u) {
			n++
		}
	}
	return uint32(n) == messages
}

// doubtOf says why it is not to be believed that messages are gone of which the
// server, asked for all, says nothing; "" if it is. ours is how many of the messages
// of its status this run took out of the mailbox.
func doubtOf(known ledger.Mailbox, status *mail.Status, now mail.Status, v view, gone, ours int) string {
	switch {
	case !v.complete || gone == 0:
	case len(v.uids) < int(now.Messages):
		return fmt.Sprintf("the server says that it has %s, and lists %d", number(int(now.Messages), "message", "messages"), len(v.uids))
	case status != nil && status.UIDValidity == now.UIDValidity && int(status.Messages)-ours > int(now.Messages):
		return fmt.Sprintf("the server said first that it has %s, and then that it has %d", number(int(status.Messages)-ours, "message", "messages"), now.Messages)
	case uidsWentBack(known, now) && (known.HighestModSeq > 0 || gone > handful):
		return fmt.Sprintf("the server's next UID was %d and is %d now, as after a restored backup, or of another server", known.UIDNext, now.UIDNext)
	}
	return ""
}

// mayHaveMoved tells whether STATUS says that messages left the mailbox since
// known: fewer stayed than were there and came. Only then may mail that is new
// elsewhere be mail that is here already.
func mayHaveMoved(known ledger.Mailbox, st mail.Status) bool {
	if !known.Complete || known.UIDValidity != st.UIDValidity || st.UIDNext < known.UIDNext {
		return false
	}
	return uint64(st.Messages) < uint64(known.Messages)+uint64(st.UIDNext-known.UIDNext)
}

// view is what the server told of a mailbox.
type view struct {
	// complete says that uids are all messages of the mailbox. Otherwise only
	// what changed was told: vanished and messages.
	complete bool
	uids     []imap.UID // ascending
	vanished imap.UIDSet
	messages []mail.Message // with flags
}

// actions is what must be done in a mailbox so that it holds what the server's
// does.
type actions struct {
	fetch []imap.UID // newest first
	flags []flagChange
	gone  []imap.UID
}

type flagChange struct {
	uid    imap.UID
	before []string
	after  []string
}

// plan compares what the server told with the ledger's rows. Rows of a message
// that is only intended count as absent: it is fetched again.
func plan(rows []ledger.Row, v view) actions {
	var a actions
	have := make(map[imap.UID]ledger.Row, len(rows))
	for _, r := range rows {
		if r.State != ledger.Intended {
			have[r.UID] = r
		}
	}
	fetch := make(map[imap.UID]bool)
	for _, m := range v.messages {
		r, ok := have[m.UID]
		switch {
		case m.UID == 0 || v.vanished.Contains(m.UID):
		case !ok:
			fetch[m.UID] = true
		case r.State == ledger.Present && r.Key == "" && hasFlag(r.Flags, `\Deleted`) && m.Flags != nil && !hasFlag(m.Flags, `\Deleted`):
			fetch[m.UID] = true // it was copied elsewhere and could not be expunged, and now it is to stay
		case m.Flags != nil && !sameFlags(r.Flags, m.Flags):
			a.flags = append(a.flags, flagChange{m.UID, r.Flags, m.Flags})
		}
	}
	if v.complete {
		there := make(map[imap.UID]bool, len(v.uids))
		for _, u := range v.uids {
			there[u] = true
			if _, ok := have[u]; !ok {
				fetch[u] = true
			}
		}
		for u := range have {
			if !there[u] {
				a.gone = append(a.gone, u)
			}
		}
		for u := range fetch {
			if !there[u] {
				delete(fetch, u)
			}
		}
		a.flags = slices.DeleteFunc(a.flags, func(c flagChange) bool { return !there[c.uid] })
	} else {
		for u := range have {
			if v.vanished.Contains(u) {
				a.gone = append(a.gone, u)
			}
		}
	}
	for u := range fetch {
		a.fetch = append(a.fetch, u)
	}
	slices.SortFunc(a.fetch, func(x, y imap.UID) int { return int(int64(y) - int64(x)) })
	slices.Sort(a.gone)
	slices.SortStableFunc(a.flags, func(x, y flagChange) int { return int(int64(x.uid) - int64(y.uid)) })
	// A hostile or confused server may name one message many times; the last
	// word counts.
	a.flags = lastPerUID(a.flags)
	return a
}

func lastPerUID(cs []flagChange) []flagChange {
	out := cs[:0]
	for i, c := range cs {
		if i+1 < len(cs) && cs[i+1].uid == c.uid {
			continue
		}
		out = append(out, c)
	}
	return out
}

// batches cuts UIDs, newest first, into fetch commands. The first is small so
// that the newest mail is searchable at once; 100-250 is where fetching is
// fastest (GOIMAP.md, Speed).
func batches(uids []imap.UID) [][]imap.UID {
	const first, rest = 25, 200
	var out [][]imap.UID
	for n := first; len(uids) > 0; n = rest {
		n = min(n, len(uids))
		out = append(out, uids[:n:n])
		uids = uids[n:]
	}
	return out
}
