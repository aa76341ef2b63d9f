package plan

import (
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Renamed is a mailbox of the ledger that may be one which the server lists under another name.
type Renamed struct {
	Known ledger.Mailbox
	Now   mail.Mailbox
}

// Numbered tells whether the messages have the UIDs that they had.
func (r Renamed) Numbered() bool { return r.Known.UIDValidity == r.Now.Status.UIDValidity }

// MayBeRenamed gives the mailboxes that the server has no more by their names, each with every one
// that is new there, or has a name that another one had, and may be it: the same UIDVALIDITY, and
// no message less that was ever in it; or else a mailbox that is gone, or whose name another one
// has, and a new UIDVALIDITY with as many messages, or more.
func MayBeRenamed(rows []ledger.Mailbox, list []mail.Mailbox) (out []Renamed) {
	there := make(map[string]mail.Mailbox, len(list))
	for _, m := range list {
		if m.Status != nil || m.Err != nil || m.Unasked {
			there[m.Name] = m
		}
	}
	known, were := make(map[string]uint64, len(rows)), make(map[uint64]bool, len(rows)) // UIDVALIDITY
	for _, k := range rows {
		known[k.Name], were[k.UIDValidity] = k.UIDValidity, true
	}
	for _, k := range rows {
		m, is := there[k.Name]
		if k.UIDValidity == 0 || is && (m.Status == nil || m.Status.UIDValidity == k.UIDValidity) {
			continue
		}
		others := is && were[m.Status.UIDValidity]
		for _, m := range list {
			validity, had := known[m.Name]
			if m.Status == nil || m.Odd || m.Name == k.Name || had && (validity == 0 || validity == m.Status.UIDValidity) {
				continue
			}
			r := Renamed{k, m}
			anew := !is && !had || others && !were[m.Status.UIDValidity]
			if r.Numbered() && m.Status.UIDNext >= k.UIDNext || !r.Numbered() && anew && m.Status.Messages > 0 && m.Status.Messages >= k.Messages {
				out = append(out, r)
			}
		}
	}
	return out
}

// Untold gives a mailbox of which the server tells nothing, and which is new, by the names of those that
// are gone: it may be any of them.
func Untold(rows []ledger.Mailbox, list []mail.Mailbox) map[string]string {
	listed, out := make(map[string]bool, len(list)), make(map[string]string)
	for _, m := range list {
		listed[m.Name] = true
	}
	i := slices.IndexFunc(list, func(m mail.Mailbox) bool {
		return m.Err != nil && !slices.ContainsFunc(rows, func(k ledger.Mailbox) bool { return k.Name == m.Name })
	})
	for _, k := range rows {
		if i >= 0 && !listed[k.Name] && k.UIDValidity != 0 {
			out[k.Name] = list[i].Name
		}
	}
	return out
}

// Likeness is whether a mailbox is one that had another name.
type Likeness int

// The answers to that.
const (
	Unlike  Likeness = iota // it has none of the messages
	MayBe                   // it has some, or cannot be asked
	SameBox                 // it is that
)

// Like judges that. rows are messages that it had, and there those of them, by UID, that the one of
// the other name has; where the UIDs are others, they are all messages of both. Rows without UID are
// of mail that was put into it when it was empty: then all that is in it is of that. alone: no other
// mailbox has, or had, this UIDVALIDITY.
//
// A mailbox to which some mail was copied is not the one that it comes from: what is gone from that
// would look deleted.
func (r Renamed) Like(rows []ledger.Message, there []mail.Message, alone bool) Likeness {
	switch {
	case len(rows) == 0:
		if r.Numbered() && alone && r.Known.Complete && r.Now.Status.Messages == 0 && r.Now.Status.UIDNext == r.Known.UIDNext {
			return SameBox
		}
		return Unlike
	case !r.Numbered() && allOf(rows, there), r.Numbered() && r.has(rows, there, alone):
		return SameBox
	case slices.ContainsFunc(there, among(rows)):
		return MayBe
	default:
		return Unlike
	}
}

// has tells whether the messages are those that the mailbox had, as far as they are there: one of them
// if no other mailbox has their UIDVALIDITY, however many were moved out of it since, or else half.
func (r Renamed) has(rows []ledger.Message, there []mail.Message, alone bool) bool {
	if rows[0].UID == 0 {
		is := among(rows)
		return len(there) > 0 && !slices.ContainsFunc(there, func(m mail.Message) bool { return !is(m) })
	}
	byUID := make(map[imap.UID]ledger.Message, len(rows))
	for _, row := range rows {
		byUID[row.UID] = row
	}
	same := 0
	for _, m := range there {
		row, asked := byUID[m.UID]
		if !asked {
			continue
		}
		delete(byUID, m.UID)
		switch Judge(Agreed(&row), Told(m)) {
		case Different:
			return false
		case Same:
			same++
		case Open: // the others say
		}
	}
	return same > 0 && (alone || 2*same >= len(rows))
}

// among gives what tells whether a message is one of the rows, whatever its UID.
func among(rows []ledger.Message) func(mail.Message) bool {
	byID, bySize := make(map[string][]ledger.Message), make(map[int64][]ledger.Message)
	for _, row := range rows {
		id := mail.NotmuchID(row.ID)
		byID[id], bySize[row.Size] = append(byID[id], row), append(bySize[row.Size], row)
	}
	return func(m mail.Message) bool {
		is := func(row ledger.Message) bool { return Judge(Agreed(&row), Told(m)) == Same }
		return m.MessageID != "" && slices.ContainsFunc(byID[m.MessageID], is) || slices.ContainsFunc(bySize[m.Size], is)
	}
}

// allOf tells whether all rows are among the messages, each as one of its own. Were they copied
// there, that is where the mail of a mailbox that is gone is now.
func allOf(rows []ledger.Message, there []mail.Message) bool {
	byID := make(map[string][]mail.Message, len(there))
	for _, m := range there {
		byID[m.MessageID] = append(byID[m.MessageID], m)
	}
	for _, row := range rows {
		id := mail.NotmuchID(row.ID)
		i := slices.IndexFunc(byID[id], func(m mail.Message) bool { w := Weigh(Agreed(&row), Told(m)); return w.ID == Equal && w.Exact() })
		if i < 0 {
			return false
		}
		byID[id] = slices.Delete(byID[id], i, i+1)
	}
	return true
}

// Certain gives those renamings of which neither mailbox is in another one, and whose name no other
// mailbox of the ledger has, unless that has another one by them, too, or is gone: none that the
// server lists may be it. One that is gone gets a name beside that (Gone). likes are the answers for
// those that may be.
func Certain(maybe []Renamed, likes []Likeness, rows []ledger.Mailbox, list []mail.Mailbox) []Renamed {
	var all []Renamed
	for i, r := range maybe {
		if likes[i] == SameBox {
			all = append(all, r)
		}
	}
	from, to := make(map[string]int), make(map[string]int)
	for _, r := range all {
		from[r.Known.Name]++
		to[r.Now.Name]++
	}
	out := slices.DeleteFunc(slices.Clone(all), func(r Renamed) bool { return from[r.Known.Name] > 1 || to[r.Now.Name] > 1 })
	known := make(map[string]ledger.Mailbox, len(rows))
	for _, k := range rows {
		known[k.Name] = k
	}
	// Of one of which nothing is told it is not known what it is.
	unsure := slices.ContainsFunc(list, func(m mail.Mailbox) bool {
		_, had := known[m.Name]
		return m.Err != nil || m.Unasked && had
	})
	gone := func(name string) bool {
		for i, r := range maybe {
			if r.Known.Name == name && likes[i] != Unlike {
				return false
			}
		}
		return !unsure
	}
	for {
		goes := make(map[string]bool, len(out))
		for _, r := range out {
			goes[r.Known.Name] = true
		}
		n := len(out)
		out = slices.DeleteFunc(out, func(r Renamed) bool {
			_, has := known[r.Now.Name]
			return has && !goes[r.Now.Name] && !gone(r.Now.Name)
		})
		if len(out) < n {
			continue
		}
		for _, r := range out {
			if k, has := known[r.Now.Name]; has && !goes[k.Name] {
				out = append(out, Renamed{k, mail.Mailbox{Name: goneName(k.Name, known, list), Delim: k.Delim}})
			}
		}
		return out
	}
}

// Gone tells whether the mailbox is on the server no more, and another one has its name there.
func (r Renamed) Gone() bool { return r.Now.Status == nil }

// goneName gives a name that no mailbox has.
func goneName(name string, known map[string]ledger.Mailbox, list []mail.Mailbox) string {
	for i := 1; ; i++ {
		other := name + " (deleted)"
		if i > 1 {
			other = fmt.Sprintf("%s (deleted %d)", name, i)
		}
		if _, has := known[other]; !has && !slices.ContainsFunc(list, func(m mail.Mailbox) bool { return m.Name == other }) {
			return other
		}
	}
}
