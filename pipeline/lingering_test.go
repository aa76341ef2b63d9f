package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// A connection is lost while mail is uploaded or moved, and the server, which has read what was
// sent, does it while the next connection looks already: each mail is there once.
func TestAServerThatIsStillAtWhatWasSent(t *testing.T) {
	t.Parallel()
	const mails = 6
	for wire, caps := range stopServers() {
		for _, what := range []string{"uploads", "moves", "deletions"} {
			for _, next := range []string{"the same run", "the next run"} {
				t.Run(fmt.Sprintf("%s %s %s", wire, what, next), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.mute = wire == "mute" || wire == "bare"
					s.box("Archive").add(plainMail(100))
					s.box("Trash").add(plainMail(101))
					in := s.box("INBOX")
					in.add(plainMail(102))
					for i := range mails {
						if what != "uploads" {
							in.add(plainMail(i))
						}
					}
					h.sync(s)
					for i := range mails {
						if what == "uploads" {
							h.put("INBOX", plainMail(i), "S")
							continue
						}
						file := uploadedFile(h, "INBOX", fmt.Sprintf("m%d@example.org", i))
						if what == "moves" {
							h.do(os.Rename(file, h.path("Archive", "cur/"+filepath.Base(file))))
						} else {
							h.do(os.Remove(file))
						}
					}
					s.lingers, s.cutAt, s.writes = true, 1, 0
					if next == "the next run" {
						dials := s.dials
						s.dialErr = func(n int) error {
							if n > dials+1 {
								return &mail.Fault{Kind: mail.KindCut, Op: "connect", Err: errors.New("no route")}
							}
							return nil
						}
					}
					h.sync(s)
					if s.writes == 0 {
						t.Fatal("nothing was cut")
					}
					s.dialErr = nil
					if next == "the next run" {
						h.sync(s)
					}
					s.catchUp(mails) // what it has not come to
					h.sync(s)
					h.sync(s)
					there := make(map[string]int)
					for name, b := range s.boxes {
						for _, u := range b.uids() {
							for i := range mails {
								if strings.Contains(b.msgs[u].raw, fmt.Sprintf("<m%d@example.org>", i)) {
									there[name]++
								}
							}
						}
					}
					want := map[string]string{"uploads": "INBOX", "moves": "Archive", "deletions": "Trash"}[what]
					if len(there) != 1 || there[want] != mails {
						t.Errorf("%d mails are in %v, not in %s alone", mails, there, want)
					}
					h.quiet(s)
					h.check(s)
				})
			}
		}
	}
}
