package plan

import (
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
// no message less that was ever in it; or else a mailbox that is gone, and a new one with as many
// messages. takes tells which ones take part.
func MayBeRenamed(rows []ledger.Mailbox, list []mail.Mailbox, takes func(mail.Mailbox) bool) (out []Renamed) {
	there := make(map[string]mail.Mailbox, len(list))
	for _, m := range list {
		if m.Status != nil || m.Err != nil || m.Unasked {
			there[m.Name] = m
		}
	}
	known := make(map[string]uint64, len(rows)) // UIDVALIDITY
	for _, k := range rows {
		known[k.Name] = k.UIDValidity
	}
	for _, k := range rows {
		m, is := there[k.Name]
		if k.UIDValidity == 0 || is && (m.Status == nil || m.Status.UIDValidity == k.UIDValidity) {
			continue
		}
		for _, m := range list {
			validity, had := known[m.Name]
			if m.Status == nil || m.Odd || had && (validity == 0 || validity == m.Status.UIDValidity) || !takes(m) {
				continue
			}
			r := Renamed{k, m}
			if r.Numbered() && m.Status.UIDNext >= k.UIDNext || !r.Numbered() && !is && !had && m.Status.Messages > 0 && m.Status.Messages == k.Messages {
				out = append(out, r)
			}
		}
	}
	return out
}

// Same tells whether it is the mailbox. rows are messages that it had, and there those of them, by
// UID, that the one of the other name has; where the UIDs are others, they are all messages of
// both. alone: no other mailbox has, or had, this UIDVALIDITY.
//
// A mailbox to which some mail was copied is not the one that it comes from: what is gone from that
// would look deleted.
func (r Renamed) Same(rows []ledger.Message, there []mail.Message, alone bool) bool {
	if !r.Numbered() {
		return len(rows) > 0 && sameMail(rows, there)
	}
	if len(rows) == 0 {
		return alone && r.Known.Complete && r.Now.Status.Messages == 0 && r.Now.Status.UIDNext == r.Known.UIDNext
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
		if !oneMail(row, m) {
			return false
		}
		same++
	}
	return same > 0 && 2*same >= len(rows)
}

// oneMail tells whether nothing that is known of a row and a message differs but for one of size
// and date, of which servers are not always exact, where the Message-ID says it.
func oneMail(row ledger.Message, m mail.Message) bool {
	size, date := row.Size == m.Size, row.Date.Equal(m.InternalDate.UTC().Truncate(1e9))
	if id := RealID(row.ID); id != "" && m.MessageID != "" {
		return id == m.MessageID && (size || date)
	}
	return size && date
}

// sameMail tells whether rows and messages are the same mail, one to one.
func sameMail(rows []ledger.Message, there []mail.Message) bool {
	type class struct {
		id         string
		size, date int64
	}
	count := make(map[class]int)
	for _, row := range rows {
		id := RealID(row.ID)
		if id == "" {
			return false
		}
		count[class{id, row.Size, row.Date.Unix()}]++
	}
	for _, m := range there {
		count[class{m.MessageID, m.Size, m.InternalDate.Unix()}]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// Certain gives those renamings of which neither mailbox is in another one, and whose name no other
// mailbox of the ledger has, unless that has another one by them, too.
func Certain(all []Renamed, rows []ledger.Mailbox) []Renamed {
	from, to := make(map[string]int), make(map[string]int)
	for _, r := range all {
		from[r.Known.Name]++
		to[r.Now.Name]++
	}
	out := slices.DeleteFunc(slices.Clone(all), func(r Renamed) bool { return from[r.Known.Name] > 1 || to[r.Now.Name] > 1 })
	for {
		has := make(map[string]bool, len(rows))
		for _, k := range rows {
			has[k.Name] = true
		}
		for _, r := range out {
			delete(has, r.Known.Name)
		}
		n := len(out)
		out = slices.DeleteFunc(out, func(r Renamed) bool { return has[r.Now.Name] })
		if len(out) == n {
			return out
		}
	}
}
