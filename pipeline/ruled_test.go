package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// A run that moves mail by its tags is stopped behind each of its effects, and then the
// tag is put back. What was said last holds: the mail goes back to where the rules want
// it. What another program moves afterwards stays where that put it.
func TestATagThatIsPutBackAfterAStop(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for wire, caps := range stopServers() {
		for _, how := range []string{stopCancelled, stopUnheard} {
			for _, back := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/%v", wire, how, back), func(t *testing.T) {
					t.Parallel()
					for at := 1; ; at += pace() {
						s, h := newServer(caps...), newHome(t)
						h.dir = ledgertest.Dir(t)
						h.index.path = filepath.Join(h.dir, "index.json")
						s.mute = wire == "mute" || wire == "bare"
						for i, box := range []string{"INBOX", "INBOX", "INBOX", "Archive", "Trash"} {
							s.box(box).add(plainMail(i + 1))
						}
						h.sync(s, afew)
						h.tag(id(4), nil, []string{"inbox"})
						h.sync(s, afew)
						h.sync(s, afew)
						h.tag(id(1), []string{"mine"}, []string{"inbox"})
						h.tag(id(2), nil, []string{"inbox"})
						stopped := stopUpload(h, s, how, at, afew)
						want := "Archive"
						if back {
							h.tag(id(1), []string{"inbox"}, nil)
							want = "INBOX"
						}
						for range 4 {
							h.sync(s, afew)
						}
						h.notmuchNew()
						h.check(s)
						if got := s.holding(id(1)); !slices.Equal(got, []string{want}) {
							t.Errorf("it is in %v, want %s", got, want)
						}
						if tags := h.tags(id(1)); !slices.Contains(tags, "mine") || slices.Contains(tags, "inbox") != back {
							t.Errorf("its tags are %v", tags)
						}
						if got := s.holding(id(2)); !slices.Equal(got, []string{"Archive"}) {
							t.Errorf("the other one is in %v", got)
						}
						// No note is left by which the move of another program would be undone.
						s.box("INBOX").take(id(3), s.box("Archive"))
						s.box("INBOX").take(id(1), s.box("Archive"))
						for range 3 {
							h.sync(s, afew)
						}
						h.quiet(s, afew)
						for _, n := range []int{1, 2, 3, 4} {
							if got := s.holding(id(n)); !slices.Equal(got, []string{"Archive"}) {
								t.Errorf("mail %d is then in %v", n, got)
							}
						}
						if t.Failed() {
							t.Fatalf("stopped at %d: %v; %+v", at, stopped, h.events)
						}
						h.do(os.RemoveAll(h.dir))
						if !stopped {
							break
						}
					}
				})
			}
		}
	}
}
