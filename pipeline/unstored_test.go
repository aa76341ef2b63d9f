package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// swallow takes out of the mailbox, before the command is answered, what it has put there. If
// never, it was never stored at all; else it had its UID.
func (b *serverBox) swallow(from imap.UID, never bool) {
	for _, u := range b.uids() {
		if u >= from {
			delete(b.msgs, u)
		}
	}
	if never {
		b.next = from
	}
}

func (s *server) count(verb string) int {
	return len(slices.DeleteFunc(slices.Clone(s.asked), func(a string) bool { return !strings.HasPrefix(a, verb) }))
}

// A server says that it has stored a mail, or moved it, and has not, or loses it at once,
// whether another mail comes and goes there meanwhile or none. The mail is never gone on both
// sides; that is said, and the mail is sent again, ever more rarely, or when its owner asks.
func TestWhatTheServerSaysItHasStoredAndHasNot(t *testing.T) {
	t.Parallel()
	for wire, caps := range stopServers() {
		for _, what := range []string{"append", "move"} {
			for _, never := range []bool{true, false} {
				for _, passing := range []string{"none", "before", "behind"} {
					if spared(wire, what, never, passing) {
						continue
					}
					t.Run(fmt.Sprintf("%s %s never stored %v, passing %s", wire, what, never, passing), func(t *testing.T) {
						t.Parallel()
						s, h := newServer(caps...), newHome(t)
						s.mute = wire == "mute" || wire == "bare"
						in, archive := s.box("INBOX"), s.box("Archive")
						for i := range 4 {
							in.add(plainMail(i), `\Seen`)
						}
						archive.add(plainMail(50), `\Seen`)
						h.sync(s)
						of := id(1)
						if what == "append" {
							of = id(70)
							h.put("Archive", plainMail(70), "S")
						} else {
							h.move("INBOX", 2, "Archive", true)
						}
						pass := func() { archive.expunge(archive.add(plainMail(99))) }
						if passing == "before" {
							pass()
						}
						s.effect = func(verb string) {
							if verb != "APPEND" && verb != "UID MOVE" && verb != "UID COPY" {
								return
							}
							before := archive.next - 1
							archive.swallow(before, never)
							if passing == "behind" {
								pass()
							}
						}
						said, sent, uploaded := 0, 0, 0
						for i := range 24 {
							rep := h.sync(s)
							if h.said("deletion") > 0 && rep.Removed == 0 {
								t.Errorf("run %d says that mail was deleted, and removes none: %+v", i, h.events)
							}
							for _, f := range rep.Faults {
								if strings.Contains(f.Text, "in no mailbox") || strings.Contains(f.Text, "has no copy") {
									said++
								}
							}
							sent, uploaded = sent+s.count("APPEND")+s.count("UID MOVE")+s.count("UID COPY"), uploaded+rep.Uploaded
							if n := len(s.holding(of)) + len(h.holding(of)); n == 0 && !h.coincidence(wire, never, passing) {
								t.Fatalf("run %d: the mail is nowhere any more", i)
							} else if n == 0 {
								return
							}
							h.now = h.now.Add(time.Hour)
						}
						if said == 0 || sent > 8 || uploaded > 0 && never && passing == "none" {
							t.Errorf("said %d times, sent %d times, counted as uploaded %d times", said, sent, uploaded)
						}
						s.effect = nil
						failed := h.failures()
						h.now = h.now.Add(8 * 24 * time.Hour)
						h.sync(s, func(o *Options) {
							for _, f := range failed {
								o.Retry = append(o.Retry, f.Target())
							}
						})
						h.sync(s)
						if in := s.holding(of); fmt.Sprint(in) != "[Archive]" || len(h.unsent()) > 0 {
							t.Errorf("it is in %v, remembered %+v", in, h.unsent())
						}
						h.notmuchNew()
						h.check(s)
						h.quiet(s)
					})
				}
			}
		}
	}
}

// coincidence tells whether all that a server says speaks for it that the mail was there and
// left: the UID that it told was dealt, and it names that as one that vanished.
func (h *home) coincidence(wire string, never bool, passing string) bool {
	return wire == "all" && never && passing == "behind"
}

// holding gives the folders that have a file of the mail.
func (h *home) holding(id string) (in []string) {
	for _, box := range []string{"INBOX", "Archive"} {
		for _, raw := range h.files(box) {
			if strings.Contains(raw, "<"+id+">") {
				in = append(in, box)
			}
		}
	}
	return in
}

// failures gives all that the ledger remembers to have failed.
func (h *home) failures() (all []Failed) {
	h.edit(func(l *ledger.Ledger) (err error) {
		all, err = FailedOf(h.t.Context(), "work", l)
		return err
	})
	return all
}
