package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What commands are asked for beyond the plain form, by the names under which a refusal is
// remembered.
const (
	listReturn   = "LIST RETURN"
	statusModSeq = "STATUS HIGHESTMODSEQ"
	condstore    = "SELECT CONDSTORE"
	qresync      = "EXAMINE QRESYNC"
	enable       = "ENABLE QRESYNC"
	changedSince = "FETCH CHANGEDSINCE"
	gmailID      = "FETCH X-GM-MSGID"
	searchReturn = "SEARCH RETURN"
	compression  = "COMPRESS"
)

// needs gives the capability that is worth nothing without an argument; "" where the rest of
// it is good all the same.
func needs(argument string) string {
	switch argument {
	case listReturn:
		return "LIST-STATUS"
	case condstore:
		return "CONDSTORE"
	case qresync, enable:
		return "QRESYNC"
	case compression:
		return deflate
	}
	return ""
}

// Refusals are the optional arguments that a server refuses although it advertises them. All
// sessions of an account share them. The zero value is ready.
type Refusals struct {
	mu     sync.Mutex
	server string
	args   map[string]bool
}

// Recall takes what is known of earlier sessions in place of all else. It counts so long as
// the server says the same of itself.
func (r *Refusals) Recall(server string, arguments []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server, r.args = server, make(map[string]bool, len(arguments))
	for _, a := range arguments {
		r.args[a] = true
	}
}

// Refused gives them, sorted, and of which server they are.
func (r *Refusals) Refused() (server string, arguments []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server, slices.Sorted(maps.Keys(r.args))
}

// at forgets those of another server.
func (r *Refusals) at(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != server {
		r.server, r.args = server, nil
	}
}

func (r *Refusals) has(argument string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.args[argument]
}

func (r *Refusals) add(argument string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.args == nil {
		r.args = make(map[string]bool)
	}
	r.args[argument] = true
}

// describe says which server it is, by what it can do and by its greeting, without the parts
// of that which may be others each time.
func (s *Session) describe() string {
	words := s.Capabilities()
	for _, w := range strings.Fields(s.greeting) {
		if !strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsLetter(r) }) {
			words = append(words, w)
		}
	}
	hash := sha256.Sum256([]byte(strings.Join(words, " ")))
	return hex.EncodeToString(hash[:8])
}

// recallRefusals leaves unused what the server has refused before.
func (s *Session) recallRefusals() {
	refusals := &s.names.Refusals
	refusals.at(s.describe())
	_, arguments := refusals.Refused()
	for _, a := range arguments {
		s.disable(needs(a))
	}
}

// wants tells whether a command is to have an argument.
func (s *Session) wants(argument string) bool { return !s.names.Refusals.has(argument) }

// refuse remembers that the server refuses an argument.
func (s *Session) refuse(argument string) {
	s.names.Refusals.add(argument)
	s.disable(needs(argument))
	s.note("the server refuses " + argument + ", though it says that it knows that; it is asked without for a while")
}

// optional has f speak a command with an argument that it can do without, if that is to be
// had, and where the server refuses that, without. What then succeeds tells that it was the
// argument that was refused, which is remembered. Each f begins anew.
func (s *Session) optional(argument string, has bool, f func(with bool) error) error {
	if !has || !s.wants(argument) {
		return f(false)
	}
	err := f(true)
	if s.dead || !mayBeOfArgument(err) {
		return err
	}
	if err = f(false); err == nil {
		s.refuse(argument)
	}
	return err
}

// mayBeOfArgument tells whether a refusal may be of a part of the command. Some codes say
// that it is of what the command is about.
func mayBeOfArgument(err error) bool {
	f, ok := mail.Refused(err)
	return ok && !slices.Contains([]string{"NONEXISTENT", "NOPERM", "TRYCREATE", "UNAVAILABLE", "INUSE", "LIMIT", "OVERQUOTA", "EXPUNGEISSUED"}, f.Code)
}
