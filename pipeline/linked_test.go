package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// mailFile is the one file of a mail in a folder, as it was sent; "" if there is none.
func (h *home) mailFile(mailbox, raw string) string {
	h.t.Helper()
	for name, text := range h.files(mailbox) {
		if text == strings.ReplaceAll(raw, "\r\n", "\n") {
			return name
		}
	}
	return ""
}

// moveFile moves a file as `mv` does, or, with a new name, as Mutt does.
func (h *home) moveFile(mailbox, name, to string, renamed bool) {
	h.t.Helper()
	h.maildir(to)
	key, letters := maildir.ParseName(name)
	if renamed {
		key = "mutt" + key
	}
	h.do(os.Rename(h.path(mailbox, name), h.path(to, "cur/"+key+":2,"+letters)))
}

// A mail is moved or comes on the server, and the run that hears of it is stopped behind any
// of its effects. Its user then moves, flags or deletes the file in the one folder or in the
// other: for a while there may be two of the one message. It is there once, as it was left.
func TestAStopBehindEachEffectOfAMoveByOthers(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	seen := make(map[string]bool) // which files there were
	for wire, caps := range map[string][]string{"bare": nil, "all": wires()["all"]} {
		for _, user := range []string{"move", "flag", "delete", "nothing"} {
			for _, folder := range []string{"Archive", "Work"} {
				for _, renamed := range []bool{false, true} {
					if renamed && user != "move" || folder == "Work" && user == "nothing" || spared(wire, user, folder, renamed) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%v", wire, user, folder, renamed), func(t *testing.T) {
						for at, stopped := 1, true; stopped && !t.Failed(); at++ {
							s, h := newServer(caps...), newHome(t)
							s.box("Archive").add(plainMail(1), `\Seen`)
							for i, box := range []string{"Archive", "Work", "Later", "Trash"} {
								s.box(box).add(plainMail(90+i), `\Seen`)
							}
							h.sync(s)
							s.box("Archive").take(id(1), s.box("Work"))
							s.box("Work").flag(2, `\Seen`, `\Answered`)
							s.box("Work").add(plainMail(2))
							stopped = h.stopAt(s, at)
							old, there := h.mailFile("Archive", plainMail(1)), h.mailFile("Work", plainMail(1))
							seen[fmt.Sprint(old != "", there != "")] = true
							name, want, flags := h.mailFile(folder, plainMail(1)), "Work", []string{`\Seen`, `\Answered`}
							if name != "" {
								switch user {
								case "move":
									h.moveFile(folder, name, "Later", renamed)
									if there != "" { // else the server's move holds
										want = "Later"
									}
								case "flag":
									_, letters := maildir.ParseName(name)
									h.flagFile(folder, name, "F"+letters)
									flags = append(flags, `\Flagged`)
								case "delete":
									h.do(os.Remove(h.path(folder, name)))
									if folder == "Work" {
										want = "Trash"
									}
								}
							}
							for range 3 {
								if rep := h.sync(s); !rep.Clean() {
									t.Errorf("%+v", rep)
								}
							}
							got := s.holding(id(1))
							if user == "delete" && there != "" && slices.Equal(got, []string{"Work"}) {
								want = "Work" // its row was not recorded yet, and it comes again
							}
							if !slices.Equal(got, []string{want}) {
								t.Errorf("it is in %v, want %s", got, want)
							} else {
								for _, m := range s.box(want).msgs {
									if m.raw == plainMail(1) && !plan.SameFlags(m.flags, flags) {
										t.Errorf("it has %v, want %v", m.flags, flags)
									}
								}
							}
							if got := s.holding(id(2)); !slices.Equal(got, []string{"Work"}) {
								t.Errorf("the other is in %v", got)
							}
							h.notmuchNew()
							h.quiet(s)
							h.check(s)
							if t.Failed() {
								t.Fatalf("stopped behind %d with files in Archive: %q, Work: %q", at, old, there)
							}
							h.do(os.RemoveAll(h.dir))
						}
					})
				}
			}
		}
	}
	if want := []string{"false true", "true false", "true true"}; !testing.Short() {
		for _, w := range want {
			if !seen[w] {
				t.Errorf("no stop left files so: %s", w)
			}
		}
	}
}

// A mail that comes is moved on by its user when the run that brought it was stopped: it is
// there once.
func TestAMailThatIsMovedAsSoonAsItComes(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for wire, caps := range wires() {
		for _, renamed := range []bool{false, true} {
			if testing.Short() && (wire != "all" || renamed) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", wire, renamed), func(t *testing.T) {
				moved := 0
				for at, stopped := 1, true; stopped && !t.Failed(); at++ {
					s, h, in := few(t, caps...)
					in.add(plainMail(20), `\Seen`)
					stopped = h.stopAt(s, at)
					want := "INBOX"
					if name := h.mailFile("INBOX", plainMail(20)); name != "" {
						h.moveFile("INBOX", name, "Archive", renamed)
						want = "Archive"
						moved++
					}
					for range 3 {
						h.sync(s)
					}
					if got := s.holding(id(20)); !slices.Equal(got, []string{want}) {
						t.Errorf("stopped at %d: it is in %v, want %s", at, got, want)
					}
					h.notmuchNew()
					h.quiet(s)
					h.check(s)
					h.do(os.RemoveAll(h.dir))
				}
				if moved < 3 {
					t.Errorf("it was moved %d times", moved)
				}
			})
		}
	}
}

// Another client moves mails between the mailboxes of rules, and the run that hears of it is
// stopped behind any of its effects: no rule moves them back.
func TestAStopBehindEachEffectOfAMoveByOthersAgainstTheRules(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			for at, stopped := 1, true; stopped && !t.Failed(); at += pace() {
				s, h := newServer(caps...), newHome(t)
				for i := range 4 {
					s.box("Archive").add(plainMail(i))
					s.box("INBOX").add(plainMail(i + 10))
				}
				s.box("Trash").add(plainMail(30))
				h.sync(s, afew)
				h.sync(s, afew)
				s.box("Archive").take(id(1), s.box("INBOX"))
				s.box("INBOX").take(id(11), s.box("Archive"))
				s.box("Archive").add(plainMail(20))
				stopped = h.stopAt(s, at, afew)
				if at%2 == 0 {
					h.notmuchNew()
				}
				for range 3 {
					h.sync(s, afew)
				}
				if one, other, third := s.holding(id(1)), s.holding(id(11)), s.holding(id(20)); !slices.Equal(one, []string{"INBOX"}) ||
					!slices.Equal(other, []string{"Archive"}) || !slices.Equal(third, []string{"Archive"}) {
					t.Errorf("stopped at %d: one is in %v, the other in %v, the new one in %v", at, one, other, third)
				}
				h.notmuchNew()
				h.quiet(s, afew)
				h.check(s)
				h.do(os.RemoveAll(filepath.Join(h.dir, "mail")))
			}
		})
	}
}

// A copy on the server leaves no note when the run is over, also where nothing changed in
// the mailbox of its source, so that the run did not look into that.
func TestACopyByOthersLeavesNoNote(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		s, h, in := few(t, caps...)
		for u, m := range s.box("Archive").msgs {
			copied := in.add(m.raw, m.flags...)
			in.msgs[copied].date = m.date
			if u != 1 {
				t.Fatal("there are others in Archive")
			}
		}
		in.expunge(1) // so that mail may have moved
		h.sync(s)
		h.sync(s)
		h.quiet(s)
		h.atRest(s)
		if got := s.holding(id(8)); !slices.Equal(got, []string{"Archive", "INBOX"}) {
			t.Errorf("%s: it is in %v", wire, got)
		}
		h.check(s)
	}
}
