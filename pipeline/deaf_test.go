package pipeline

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// deaf answers for notmuch that it cannot read a new file.
func deaf(c mail.Change) *mail.Result {
	if c.Op != mail.OpAdd {
		return nil
	}
	return &mail.Result{Path: c.Path, Err: fmt.Errorf("open %s: %w", c.Path, syscall.EACCES)}
}

// A file of which notmuch cannot be told, run after run, is there once, however it came, and its
// mail is recorded when it can be.
func TestAFileOfWhichNotmuchCannotBeToldIsThereOnce(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for what, happens := range map[string]func(s *server, run int){
			"it is new": func(s *server, run int) {
				if run == 0 {
					s.box("INBOX").add(plainMail(7))
				}
			},
			"it was moved": func(s *server, run int) {
				if run == 0 {
					s.box("INBOX").expunge(1)
					s.box("Archive").add(plainMail(0), `\Seen`)
				}
			},
			"it does not come": func(s *server, run int) {
				if in := s.box("INBOX"); run == 0 {
					in.msgs[in.add(plainMail(7))].fault = &serverFault{}
				}
			},
			"it gets flags": func(s *server, run int) {
				if in := s.box("INBOX"); run == 0 {
					in.add(plainMail(7))
				} else {
					in.flag(4, [][]string{1: {`\Flagged`}, 2: nil, 3: {`\Seen`}}[run]...)
				}
			},
			"others come, too": func(s *server, run int) { s.box("INBOX").add(plainMail(7 + run)) },
		} {
			t.Run(wire+"/"+what, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				for i := range 3 {
					s.box("INBOX").add(plainMail(i), `\Seen`)
				}
				s.box("Archive").add(plainMail(3), `\Seen`)
				h.sync(s)
				for run := range 4 {
					happens(s, run)
					rep, err := h.try(s, func(o *Options) { o.Index = answering{o.Index, deaf} })
					if err != nil {
						t.Fatal(err)
					}
					if !rep.Broken() {
						t.Errorf("run %d passed for success: %+v", run, rep)
					}
					want := len(s.box("INBOX").msgs) + len(s.box("Archive").msgs)
					if n := len(h.files("INBOX")) + len(h.files("Archive")); n != want && (what != "it was moved" || run > 0) {
						t.Errorf("run %d: %d files of %d mails: %+v", run, n, want, rep)
					}
					h.now = h.now.Add(time.Minute)
				}
				h.sync(s)
				if what == "it does not come" {
					h.check(s, 4)
				} else {
					h.check(s)
				}
				h.quiet(s)
				h.atRest(s)
			})
		}
	}
}
