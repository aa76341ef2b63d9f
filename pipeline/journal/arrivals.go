package journal

import (
	"sync"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Arrivals are the mails that this run has given to the server, or moved there, and that are
// not recorded where they went yet.
type Arrivals struct {
	journal *Journal

	mu    sync.Mutex
	noted map[string]Arrival // by the keys of their files
}

// NewArrivals starts a run's.
func NewArrivals(j *Journal) *Arrivals {
	return &Arrivals{journal: j, noted: make(map[string]Arrival)}
}

// Note lets a change note an arrival. It is forgotten with the record of the file's row.
func (a *Arrivals) Note(c *Change, arrival Arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noted[arrival.Row.Key] = arrival
	a.journal.Arriving.Put(c, arrival.Row.Key, arrival)
}

// Noted tells whether this run has noted that a file arrives.
func (a *Arrivals) Noted(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, noted := a.noted[key]
	return noted
}

// NotedIn is Noted of one mailbox: a file of the same name in another's folder is a copy, made by
// hand.
func (a *Arrivals) NotedIn(mailbox, key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	arrival, noted := a.noted[key]
	return noted && arrival.Row.Mailbox == mailbox
}

// Moved gives the message, as it was, that was moved to where a file arrives, if this run has
// noted that.
func (a *Arrivals) Moved(key string) (ledger.Message, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := a.noted[key].From
	return from, from.UID != 0
}

// Recorded lets a change that records rows forget that their files arrive.
func (a *Arrivals) Recorded(c *Change, rows []ledger.Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, row := range rows {
		arrival, noted := a.noted[row.Key]
		if noted {
			a.journal.Arriving.Forget(c, row.Key)
			c.Became(mail.IsDone, "", mail.Action{Kind: mail.ActUpload, Mailbox: row.Mailbox, Key: row.Key})
		}
		if arrival.Here {
			a.journal.Sent(c, row.Key)
		}
	}
}

// Sent lets a change forget that a file was here before the first sync: the server has its mail.
func (j *Journal) Sent(c *Change, key string) {
	j.Stood.Forget(c, key)
	j.HereBefore.Forget(c, key)
}
