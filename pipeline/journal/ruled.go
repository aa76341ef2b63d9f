package journal

import (
	"sync"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// RuledMoves are the messages that this run, or one that was interrupted, moves by their tags.
// A mail that this program moves because of its tags keeps them when it arrives; one that
// others moved gets those by which no rule moves it back. A run may end between the server's
// answer and the arrival. So that the next one tells the two apart, and tags that were set
// meanwhile hold, it is noted what was about to be moved.
type RuledMoves struct {
	journal *Journal

	mu sync.Mutex
	to map[string]string // mailboxes, by what the notes are about
}

// NewRuledMoves starts a run's.
func NewRuledMoves(j *Journal) *RuledMoves {
	return &RuledMoves{journal: j, to: make(map[string]string)}
}

// Note lets a change note where messages go by their tags.
func (r *RuledMoves) Note(c *Change, rows []ledger.Message, to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		r.to[About(row)] = to
		r.journal.Ruled.Put(c, About(row), Ruled{Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, UID: row.UID, To: to})
	}
}

// Forget lets a change forget that.
func (r *RuledMoves) Forget(c *Change, rows ...ledger.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if key := About(row); r.to[key] != "" {
			r.journal.Ruled.Forget(c, key)
			delete(r.to, key)
		}
	}
}

// Into tells whether a message is moved into the mailbox by its tags.
func (r *RuledMoves) Into(mailbox string, from ledger.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.to[About(from)] == mailbox
}
