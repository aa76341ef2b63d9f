// Package plan decides what is to be done, and does nothing: what the server is told of
// the changes in the folders (OfFolders), what comes from the server (OfServer), what of
// either is not believed and waits for a person, and which message is which file (Pair).
// It is pure: no I/O and no clock, so that tables and fuzzing test it.
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Need says how much of a mailbox must be asked for.
type Need int

const (
	NeedNothing Need = iota
	NeedStubs        // only stubs are due
	NeedChanges      // something changed, or may have
)

// NeedOf decides from STATUS alone whether a mailbox must be looked into. A
// server without CONDSTORE does not tell about flags there, so its mailboxes
// always must.
func NeedOf(known ledger.Mailbox, st mail.Status, stubsDue, full bool) Need {
	switch {
	case full, !Current(known, st), st.UIDValidity == 0,
		st.HighestModSeq == 0, known.HighestModSeq != st.HighestModSeq,
		known.UIDNext != st.UIDNext, known.Messages != st.Messages:
		return NeedChanges
	case stubsDue:
		return NeedStubs
	}
	return NeedNothing
}

// FlagsSeen tells whether a status is that of a change of flags alone, and what was agreed on
// includes it: all that changed up to its mod-sequence (RFC 7162 3.1).
func FlagsSeen(known ledger.Mailbox, now mail.Status) bool {
	return now.UIDNext == 0 && now.HighestModSeq != 0 && now.HighestModSeq <= known.HighestModSeq && Current(known, now)
}

// Current tells whether what was agreed on is of the mailbox as it is now, and of all that was
// in it then: the ledger had all of it, and its UIDs mean what they meant.
func Current(known ledger.Mailbox, now mail.Status) bool {
	return known.Complete && known.UIDValidity == now.UIDValidity
}

// Offer is what the server is offered so that it tells by itself what changed (QRESYNC); nil
// if it cannot, or is not to.
func Offer(known ledger.Mailbox, not bool) *mail.Known {
	if not || !known.Complete || known.HighestModSeq == 0 {
		return nil
	}
	return &mail.Known{UIDValidity: known.UIDValidity, HighestModSeq: known.HighestModSeq}
}

// WentBack tells whether a mailbox's counters are below those that were agreed on,
// under the same UIDVALIDITY: they only ever grow (RFC 9051 2.3.1.1, RFC 7162 3.1.1),
// unless the server was restored from a backup, lost its index, or is another one.
func WentBack(known ledger.Mailbox, now mail.Status) bool {
	return Current(known, now) &&
		(UIDsWentBack(known, now) || now.HighestModSeq != 0 && now.HighestModSeq < known.HighestModSeq)
}

// UIDsWentBack is WentBack of UIDNEXT alone: UIDs may be dealt a second time.
func UIDsWentBack(known ledger.Mailbox, now mail.Status) bool {
	return Current(known, now) && now.UIDNext != 0 && now.UIDNext < known.UIDNext
}

// AddsUp tells whether a difference makes as many messages of those that are known as
// the mailbox is said to have. One that does not left something out. Rows are by UID.
func AddsUp(rows []ledger.Row, v View, messages uint32) bool {
	n := 0
	for i := range rows {
		if rows[i].State != ledger.Intended && !v.Vanished.Contains(rows[i].UID) {
			n++
		}
	}
	came, f := make(map[imap.UID]bool), finder{rows: rows}
	for _, m := range v.Messages {
		if m.UID != 0 && !came[m.UID] && f.known(m.UID) == nil && !v.Vanished.Contains(m.UID) {
			came[m.UID] = true
			n++
		}
	}
	return uint32(n) == messages
}

// finder finds rows by UID. There may be hundreds of thousands, of which little changed:
// no map is made of them, and those that are asked for in order are found at once.
type finder struct {
	rows []ledger.Row // by UID
	next int
}

// known gives the row of a message; nil if there is none, or only an intent.
func (f *finder) known(uid imap.UID) *ledger.Row {
	if f.next >= len(f.rows) || f.rows[f.next].UID != uid {
		i, ok := slices.BinarySearchFunc(f.rows, uid, func(r ledger.Row, u imap.UID) int { return cmp.Compare(r.UID, u) })
		if f.next = i; !ok {
			return nil
		}
	}
	r := &f.rows[f.next]
	f.next++
	if r.State == ledger.Intended {
		return nil
	}
	return r
}

// DoubtOf says why it is not to be believed that messages are gone of which the
// server, asked for all, says nothing; "" if it is. ours is how many of the messages
// of its status this run took out of the mailbox; oldest says that those which are gone
// were the oldest of it.
func DoubtOf(known ledger.Mailbox, status *mail.Status, now mail.Status, v View, gone, ours int, oldest bool) string {
	switch {
	case gone > ours && oldest && slices.Contains(windows(), now.Messages):
		return fmt.Sprintf("it shows exactly %d, as servers do that show the newest alone: Yahoo's, and Gmail's by \"Folder size limits\" in its settings", now.Messages)
	case !v.Complete || gone == 0:
	case len(v.UIDs) < int(now.Messages):
		return fmt.Sprintf("the server says that it has %s, and lists %d", mail.Number(int(now.Messages), "message", "messages"), len(v.UIDs))
	case status != nil && Fewer(*status, now, ours):
		return fmt.Sprintf("the server said first that it has %s, and then that it has %d", mail.Number(int(status.Messages)-ours, "message", "messages"), now.Messages)
	case UIDsWentBack(known, now) && (known.HighestModSeq > 0 || gone > Handful):
		return fmt.Sprintf("the server's next UID was %d and is %d now, as after a restored backup, or of another server", known.UIDNext, now.UIDNext)
	}
	return ""
}

// Fewer tells whether a mailbox that is open shows fewer messages than its status says, beside those
// that came since, and ours which this run took out of it.
func Fewer(status, now mail.Status, ours int) bool {
	came := 0
	if now.UIDNext > 0 && status.UIDNext > now.UIDNext {
		came = int(status.UIDNext - now.UIDNext)
	}
	return status.UIDValidity == now.UIDValidity && int(status.Messages)-ours-came > int(now.Messages)
}

// windows are the numbers of messages beyond which servers are known to show the newest
// messages of a mailbox alone (Gmail's setting; Yahoo and AOL): what falls out of sight is
// not deleted.
func windows() []uint32 { return []uint32{1000, 2000, 5000, 10000} }

// Oldest tells whether messages were the oldest of a mailbox with these rows. Both are by
// UID.
func Oldest(rows []ledger.Row, gone []imap.UID) bool {
	n := 0
	for _, row := range rows {
		switch {
		case n == len(gone):
			return true
		case row.State == ledger.Intended:
		case row.UID != gone[n]:
			return false
		default:
			n++
		}
	}
	return n == len(gone)
}

// MayHaveMoved tells whether STATUS says that messages left the mailbox since
// known: fewer stayed than were there and came, or all have other UIDs. Only then may
// mail that is new elsewhere be mail that is here already.
func MayHaveMoved(known ledger.Mailbox, st mail.Status) bool {
	if known.UIDValidity != 0 && (known.UIDValidity != st.UIDValidity || !known.Complete) {
		return true // how much of it is known is not
	}
	if !Current(known, st) || st.UIDNext < known.UIDNext {
		return false
	}
	return uint64(st.Messages) < uint64(known.Messages)+uint64(st.UIDNext-known.UIDNext)
}

// View is what the server told of a mailbox.
type View struct {
	// Complete says that uids are all messages of the mailbox. Otherwise only
	// what changed was told: vanished and messages.
	Complete bool
	UIDs     []imap.UID // ascending
	Vanished imap.UIDSet
	Messages []mail.Message // with flags
}

// Actions is what must be done in a mailbox so that it holds what the server's
// does.
type Actions struct {
	Fetch []imap.UID // newest first
	Flags []FlagChange
	Gone  []imap.UID
}

// FlagChange is a message whose flags are others on the server than were agreed.
type FlagChange struct {
	UID    imap.UID
	Before []string
	After  []string
}

// OfServer compares what the server told with the ledger's rows, which are by UID. Rows
// of a message that is only intended count as absent: it is fetched again.
func OfServer(rows []ledger.Row, v View) Actions {
	var a Actions
	uids := v.UIDs
	if !slices.IsSorted(uids) {
		uids = slices.Sorted(slices.Values(uids))
	}
	next := 0
	listed := func(u imap.UID) bool {
		ok := next < len(uids) && uids[next] == u
		if !ok {
			next, ok = slices.BinarySearch(uids, u)
		}
		if ok {
			next++
		}
		return ok
	}
	f := finder{rows: rows}
	fetch := make(map[imap.UID]bool)
	for _, m := range v.Messages {
		r := f.known(m.UID)
		switch {
		case m.UID == 0 || v.Vanished.Contains(m.UID) || v.Complete && !listed(m.UID):
		case r == nil:
			fetch[m.UID] = true
		case r.State == ledger.Present && r.Key == "" && HasFlag(r.Flags, `\Deleted`) && m.Flags != nil && !HasFlag(m.Flags, `\Deleted`):
			fetch[m.UID] = true // it was copied elsewhere and could not be expunged, and now it is to stay
		case m.Flags != nil && !SameFlags(r.Flags, m.Flags):
			a.Flags = append(a.Flags, FlagChange{m.UID, r.Flags, m.Flags})
		}
	}
	if v.Complete {
		for _, u := range uids {
			if f.known(u) == nil {
				fetch[u] = true
			}
		}
	}
	for i := range rows {
		if gone := v.Complete && !listed(rows[i].UID) || !v.Complete && v.Vanished.Contains(rows[i].UID); gone && rows[i].State != ledger.Intended {
			a.Gone = append(a.Gone, rows[i].UID)
		}
	}
	for u := range fetch {
		a.Fetch = append(a.Fetch, u)
	}
	slices.SortFunc(a.Fetch, func(x, y imap.UID) int { return int(int64(y) - int64(x)) })
	slices.SortStableFunc(a.Flags, func(x, y FlagChange) int { return int(int64(x.UID) - int64(y.UID)) })
	// A hostile or confused server may name one message many times; the last
	// word counts.
	a.Flags = lastPerUID(a.Flags)
	return a
}

// NotKept gives the messages whose flags are not as the server said that it made them. rows
// and what is gone or changed of them are by UID.
func NotKept(told map[imap.UID]Delta, rows []ledger.Row, a Actions) (out []imap.UID) {
	f := finder{rows: rows}
	for _, uid := range slices.Sorted(maps.Keys(told)) {
		row := f.known(uid)
		if _, gone := slices.BinarySearch(a.Gone, uid); gone || row == nil {
			continue
		}
		there := row.Flags
		if i, changed := slices.BinarySearchFunc(a.Flags, uid, func(c FlagChange, u imap.UID) int { return cmp.Compare(c.UID, u) }); changed {
			there = a.Flags[i].After
		}
		if !SameFlags(told[uid].Merged(there), there) {
			out = append(out, uid)
		}
	}
	return out
}

// lastPerUID keeps the last of several changes of one message.
func lastPerUID(cs []FlagChange) []FlagChange {
	out := cs[:0]
	for i, c := range cs {
		if i+1 < len(cs) && cs[i+1].UID == c.UID {
			continue
		}
		out = append(out, c)
	}
	return out
}

// Large is from how many bytes on a mail would keep others waiting on a slow line, and Huge from
// how many on it has a batch for itself.
const (
	Large = 256 << 10
	Huge  = 16 * Large
)

// BySize parts large messages from the others, which have the newest first. Of the large ones the
// smallest come first, and a batch has several only as far as all of it is no more than one that
// is not huge. What is not known to be large is not.
func BySize(uids []imap.UID, sizes map[imap.UID]int64) (small []imap.UID, large [][]imap.UID, huge []imap.UID) {
	var sum int64
	newest := func(a, b imap.UID) int { return cmp.Compare(b, a) }
	for _, u := range slices.SortedFunc(slices.Values(uids), func(a, b imap.UID) int {
		if sizes[a] < Large && sizes[b] < Large {
			return newest(a, b)
		}
		return cmp.Or(cmp.Compare(sizes[a], sizes[b]), newest(a, b))
	}) {
		size := sizes[u]
		switch {
		case size < Large:
			small = append(small, u)
			continue
		case size >= Huge:
			huge = append(huge, u)
			continue
		case len(large) == 0 || sum+size > Huge:
			large, sum = append(large, nil), 0
		}
		sum += size
		large[len(large)-1] = append(large[len(large)-1], u)
	}
	return small, large, huge
}

// Batches cuts UIDs, newest first, into fetch commands. The first is small so
// that the newest mail is searchable at once; 100-250 is where fetching is
// fastest (GOIMAP.md, Speed).
func Batches(uids []imap.UID) [][]imap.UID {
	const first, rest = 25, 200
	var out [][]imap.UID
	for n := first; len(uids) > 0; n = rest {
		n = min(n, len(uids))
		out = append(out, uids[:n:n])
		uids = uids[n:]
	}
	return out
}
