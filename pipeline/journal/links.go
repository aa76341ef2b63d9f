package journal

import (
	"sync"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// Links are the messages that this run links into another folder. A mail that others moved is
// linked there first, and goes from the old folder last. In between there are two files of one
// message, and a run that ends there leaves them to their user, who takes either for the mail.
// The notes say that they are one.
type Links struct {
	journal *Journal

	mu      sync.Mutex
	keys    map[string][]string // of the new files, by About the messages that they are of
	letters map[string]string   // of the old files when they were linked, likewise
}

// NewLinks starts a run's.
func NewLinks(j *Journal) *Links {
	return &Links{journal: j, keys: make(map[string][]string), letters: make(map[string]string)}
}

// Note lets a change note that a message is about to be linked. gone: the server was asked whether it
// is where it was, and it is not.
func (l *Links) Note(c *Change, from, to ledger.Message, byTags, gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[About(from)] = append(l.keys[About(from)], to.Key)
	l.journal.Linked.Put(c, to.Key, Linking{
		Mailbox: from.Mailbox, UIDValidity: from.UIDValidity, UID: from.UID, To: to.Mailbox, ToValidity: to.UIDValidity, ToUID: to.UID, ByTags: byTags, Gone: gone,
	})
}

// Linked remembers which letters a message's file had when it was linked.
func (l *Links) Linked(from ledger.Message, letters string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.letters[About(from)] = letters
}

// ChangedSince tells whether a message's file has other letters than when it was linked. One
// that was not linked has not.
func (l *Links) ChangedSince(from ledger.Message, letters string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	had, linked := l.letters[About(from)]
	return linked && had != letters
}

// Forget lets a change forget the links of messages that are gone.
func (l *Links) Forget(c *Change, rows ...ledger.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range rows {
		for _, key := range l.keys[About(row)] {
			l.journal.Linked.Forget(c, key)
		}
		delete(l.keys, About(row))
	}
}
