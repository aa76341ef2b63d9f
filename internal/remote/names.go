package remote

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// Names keeps the wire form of mailboxes whose name on the wire is not what it
// should be, what the server refuses, and that a session was signed in at all. The
// zero value is ready; several sessions may use it at once.
type Names struct {
	Refusals Refusals

	mu      sync.Mutex
	wires   map[string]string
	reached atomic.Bool
}

// keep takes all of them in place of those before.
func (n *Names) keep(wires map[string]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires = wires
}

func (n *Names) wire(name string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, ok := n.wires[name]
	return w, ok
}

// displayName gives a name for a mailbox whose wire form is not what it should
// be (latin-1 and the like): bytes outside ASCII as %XX, so that it is shown and
// stored safely. The session keeps the wire form for it.
func displayName(wire string) string {
	if utf8.ValidString(wire) && !strings.ContainsFunc(wire, unicode.IsControl) {
		return wire // plain UTF-8, as UTF8=ACCEPT would allow
	}
	var b strings.Builder
	for _, c := range []byte(wire) {
		if c < ' ' || c > '~' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
