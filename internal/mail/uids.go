package mail

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// MaxUIDs bounds what is taken for the list of messages of one mailbox.
const MaxUIDs = 20_000_000

// EveryUID is all of a mailbox. Cyrus leaves the highest UID out of VANISHED
// for `1:*` (cyrus-imapd#6071).
func EveryUID() imap.UIDSet { return UIDsFrom(1) }

// UIDsFrom is what of a mailbox has this UID or a higher one.
func UIDsFrom(first imap.UID) imap.UIDSet { return imap.UIDSet{{Start: first, Stop: 4294967295}} }

// UIDList gives the UIDs of a set, ascending. ok is false if there are more
// than limit: a server's `1:4294967295` must not become four billion numbers.
func UIDList(set imap.UIDSet, limit int) (uids []imap.UID, ok bool) {
	n := 0
	for _, r := range set {
		if r.Start == 0 || r.Stop == 0 || r.Stop < r.Start {
			return nil, false
		}
		if uint64(r.Stop-r.Start) >= uint64(limit-n) {
			return nil, false
		}
		n += int(r.Stop-r.Start) + 1
	}
	uids = make([]imap.UID, 0, n)
	for _, r := range set {
		for u := uint64(r.Start); u <= uint64(r.Stop); u++ {
			uids = append(uids, imap.UID(u))
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), true
}

// UIDSet gives the set of UIDs in ascending order: some servers refuse others
// (modern-email/defects#40).
func UIDSet(uids []imap.UID) imap.UIDSet {
	sorted := slices.Sorted(slices.Values(uids))
	var set imap.UIDSet
	for _, u := range slices.Compact(sorted) {
		if n := len(set); n > 0 && set[n-1].Stop+1 == u {
			set[n-1].Stop = u
			continue
		}
		set = append(set, imap.UIDRange{Start: u, Stop: u})
	}
	return set
}
