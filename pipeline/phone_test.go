package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Another program corrects a draft, and the new text is as long as the old one, of the
// same second and with the same Message-ID. Here it becomes what the server has, in
// whatever mailbox, and whether the old one stays there.
func TestADraftThatWasCorrectedElsewhere(t *testing.T) {
	t.Parallel()
	draft := plainMail(1)
	body, subject := strings.Replace(draft, "bare", "bear", 1), strings.Replace(draft, "Subject: mail 1", "Subject: mail !", 1)
	for wire, caps := range wires() {
		for what, text := range map[string]string{"body": body, "subject": subject} {
			for _, to := range []string{"Sent", "Drafts", "INBOX"} {
				for _, flag := range []string{`\Draft`, `\Seen`} {
					for _, after := range []string{"expunged", "stays", "renumbered"} {
						if flag != `\Draft` && after == "renumbered" || after == "renumbered" && to != "Drafts" {
							continue
						}
						if spared(wire, what, to, flag, after) {
							continue
						}
						t.Run(fmt.Sprintf("%s/%s/%s/%s/%s", wire, what, to, flag, after), func(t *testing.T) {
							t.Parallel()
							s, h := newServer(caps...), newHome(t)
							at := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
							for i, box := range []string{"Drafts", "Sent", "INBOX"} {
								s.box(box).add(plainMail(90+i), `\Seen`)
							}
							drafts := s.box("Drafts")
							old := drafts.add(draft, flag)
							drafts.msgs[old].date = at
							h.sync(s)
							s.box(to).msgs[s.box(to).add(text, `\Seen`)].date = at
							if after != "stays" {
								drafts.expunge(old)
							}
							if after == "renumbered" {
								drafts.validity++
							}
							for range 2 {
								h.sync(s)
							}
							for name := range s.boxes {
								var got []string
								for _, raw := range h.files(name) {
									got = append(got, strings.ReplaceAll(raw, "\n", "\r\n"))
								}
								slices.Sort(got)
								want := s.box(name).raws()
								if after == "renumbered" && name == to {
									want = append(want, draft) // it is kept, as all that has no match is
									slices.Sort(want)
								}
								if !slices.Equal(got, want) {
									t.Errorf("%s has %q, want %q", name, got, want)
								}
							}
						})
					}
				}
			}
		}
	}
}

// A mail is moved to one mailbox here and to another one on the server. The server's move
// holds, and the file follows with what was changed of it here; a mail that was changed
// on its way is another one. Filing the mail where the server has it changes nothing more.
func TestAMailThatIsMovedOnBothSides(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, renamed := range []bool{false, true} {
			for _, letters := range []string{"", "S", "F"} {
				t.Run(fmt.Sprintf("%s/%v/%s", wire, renamed, letters), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					in := s.box("INBOX")
					in.add(plainMail(1), "todo")
					in.add(plainMail(2))
					for i, box := range []string{"A", "B", "Trash"} {
						s.box(box).add(plainMail(90 + i))
					}
					h.sync(s)
					h.flag("INBOX", 1, letters)
					h.move("INBOX", 1, "B", renamed)
					in.take("m1@example.org", s.box("A"))
					h.sync(s)
					for _, e := range h.events {
						if strings.Contains(e.Text, "move 1 message on the server") {
							t.Errorf("it says %q", e.Text)
						}
					}
					h.sync(s)
					if got := s.holding("m1@example.org"); !slices.Equal(got, []string{"A"}) {
						t.Errorf("it is in %v", got)
					}
					m := s.box("A").msgs[2]
					if want := append(letterFlags(letters), "todo"); !plan.SameFlags(m.flags, want) {
						t.Errorf("it has %v, want %v", m.flags, want)
					}
					h.quiet(s)
					h.notmuchNew()
					h.check(s)
				})
			}
		}
	}
}
