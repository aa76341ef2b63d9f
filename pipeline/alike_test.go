package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// alike gives one of several mails with the same header and size that came in the same
// second: only their text differs.
func alike(n int) string { return strings.Replace(plainMail(7), "bare", fmt.Sprintf("txt%d", n), 1) }

// addAlike puts such a mail into a mailbox.
func (b *serverBox) addAlike(n int) imap.UID {
	uid := b.add(alike(n), `\Seen`)
	b.msgs[uid].date = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	return uid
}

// relocate moves a message on the server to another mailbox.
func (s *server) relocate(from string, uid imap.UID, to string) {
	m := s.box(from).expunge(uid)
	s.box(to).msgs[s.box(to).add(m.raw, m.flags...)].date = m.date
}

// removeText deletes the file that holds a mail.
func (h *home) removeText(mailbox, raw string) {
	h.t.Helper()
	for name, text := range h.files(mailbox) {
		if strings.ReplaceAll(text, "\n", "\r\n") == raw {
			h.do(os.Remove(h.path(mailbox, name)))
			return
		}
	}
	h.t.Errorf("%s has no file of it", mailbox)
}

// staysHere gives which of the mails is here alone then.
func staysHere(name string) []int {
	switch name {
	case "other UIDs, the first is deleted", "the ledger is lost, the first is deleted", "the ledger is lost, the first is moved":
		return []int{1}
	case "the ledger is lost, the second is deleted":
		return []int{2}
	}
	return nil
}

// Where two mails cannot be told from each other by what the server lists of them, their
// text decides: each file stays that of its own message.
func TestMailsThatOnlyTheirTextTellsApart(t *testing.T) {
	lost := func(h *home, _ *server) { h.do(os.RemoveAll(filepath.Join(h.dir, "state"))) }
	for name, do := range map[string]func(h *home, s *server){
		"the ledger is lost":                        lost,
		"the ledger is lost, the first is deleted":  func(h *home, s *server) { lost(h, s); s.box("INBOX").expunge(4) },
		"the ledger is lost, the second is deleted": func(h *home, s *server) { lost(h, s); s.box("INBOX").expunge(5) },
		"the ledger is lost, the first is moved":    func(h *home, s *server) { lost(h, s); s.relocate("INBOX", 4, "Archive") },
		"the ledger is lost, the first file, too":   func(h *home, s *server) { lost(h, s); h.removeText("INBOX", alike(1)) },
		"the ledger is lost, the second file, too":  func(h *home, s *server) { lost(h, s); h.removeText("INBOX", alike(2)) },
		"other UIDs": func(_ *home, s *server) {
			in := s.box("INBOX")
			in.validity++
			in.msgs[4], in.msgs[5] = in.msgs[5], in.msgs[4]
		},
		"other UIDs, the first is deleted":                          func(_ *home, s *server) { s.box("INBOX").validity++; s.box("INBOX").expunge(4) },
		"the first is moved":                                        func(_ *home, s *server) { s.relocate("INBOX", 4, "Archive") },
		"the second is moved":                                       func(_ *home, s *server) { s.relocate("INBOX", 5, "Archive") },
		"both are moved":                                            func(_ *home, s *server) { s.relocate("INBOX", 5, "Archive"); s.relocate("INBOX", 4, "Archive") },
		"the first is deleted and the second is moved":              func(_ *home, s *server) { s.box("INBOX").expunge(4); s.relocate("INBOX", 5, "Archive") },
		"a third comes elsewhere":                                   func(_ *home, s *server) { s.box("Archive").addAlike(3) },
		"a third comes elsewhere while another mail is moved there": func(_ *home, s *server) { s.box("Archive").addAlike(3); s.relocate("INBOX", 2, "Archive") },
		"a third comes elsewhere while another mail is moved away":  func(_ *home, s *server) { s.box("Archive").addAlike(3); s.relocate("INBOX", 2, "Trash") },
		"a third comes elsewhere while the first is moved there":    func(_ *home, s *server) { s.box("Archive").addAlike(3); s.relocate("INBOX", 4, "Archive") },
		"the first is moved here, the second there": func(h *home, s *server) {
			for name, text := range h.files("INBOX") {
				if strings.ReplaceAll(text, "\n", "\r\n") == alike(1) {
					h.do(os.Rename(h.path("INBOX", name), h.path("Archive", "cur/other:2,S")))
				}
			}
			s.relocate("INBOX", 5, "Archive")
		},
	} {
		for wire, caps := range wires() {
			for _, old := range []bool{false, true} {
				if old && wire != "all" || spared(name, wire, old) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", name, wire, old), func(t *testing.T) {
					t.Parallel()
					s, h, in := few(t, caps...)
					in.addAlike(1)
					in.addAlike(2)
					h.sync(s)
					if old {
						h.forgetDigests()
					}
					do(h, s)
					for range 3 {
						if rep := h.sync(s); !rep.Clean() || rep.Deleted > 0 {
							t.Errorf("%+v", rep)
						}
					}
					h.notmuchNew()
					h.quiet(s)
					// What is there no more, before anything was agreed, stays here, and only here.
					for _, n := range staysHere(name) {
						h.removeText("INBOX", alike(n))
						h.notmuchNew()
					}
					h.check(s)
					// What is deleted here now is deleted there.
					for _, box := range []string{"INBOX", "Archive"} {
						for n := range 4 {
							if slices.Contains(s.box(box).raws(), alike(n)) {
								before := len(s.box(box).raws())
								h.removeText(box, alike(n))
								h.sync(s)
								after := s.box(box).raws()
								if len(after) != before-1 || slices.Contains(after, alike(n)) || !slices.Contains(s.box("Trash").raws(), alike(n)) {
									t.Errorf("text %d was deleted in %s, which has %q now, and Trash %q", n, box, after, s.box("Trash").raws())
								}
							}
						}
					}
				})
			}
		}
	}
}

// A mail comes to a mailbox into which another one is moved, and is like a mail that stays
// where it is: that one's file is not taken for it.
func TestAMailLikeOneThatStays(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, to := range []string{"Archive", "Trash"} {
			s, h, in := few(t, caps...)
			in.addAlike(1)
			h.sync(s)
			s.box("Archive").addAlike(3)
			s.relocate("INBOX", 2, to)
			for range 2 {
				h.sync(s)
			}
			if h.mailFile("Archive", alike(3)) == "" || h.mailFile("INBOX", alike(1)) == "" {
				t.Errorf("%s, %s: Archive has %q", wire, to, h.files("Archive"))
			}
			h.quiet(s)
		}
	}
}

// A mail is moved here and deleted there, and a mail like it comes to another mailbox there at the
// same time: with the same header and size, in the same second. It is not the one that was moved,
// which is uploaded where its owner put it.
func TestAMailLikeOneThatIsMovedHereAndDeletedThere(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, named := range []bool{true, false} {
			for how, come := range map[string]func(s *server){
				"moved":     func(s *server) { s.relocate("INBOX", 5, "Work") },
				"two moved": func(s *server) { s.relocate("INBOX", 5, "Work"); s.relocate("INBOX", 6, "Later") },
				"copied":    func(s *server) { s.box("Work").addAlike(2) },
				"new":       func(s *server) { s.box("Work").addAlike(4) },
			} {
				if spared(wire, named, how) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/Message-ID %v", wire, how, named), func(t *testing.T) {
					t.Parallel()
					s, h, in := few(t, caps...)
					raw := func(n int) string {
						if named {
							return alike(n)
						}
						return strings.Replace(alike(n), "Message-ID: <m7@example.org>\r\n", "", 1)
					}
					unname := func() {
						for _, b := range s.boxes {
							for _, m := range b.msgs {
								for n := range 5 {
									m.raw = strings.Replace(m.raw, alike(n), raw(n), 1)
								}
							}
						}
					}
					for i, box := range []string{"Work", "Later"} {
						s.box(box).add(plainMail(91 + i))
					}
					for n := range 3 {
						in.addAlike(n + 1)
					}
					unname()
					h.sync(s)
					h.moveFile("INBOX", h.mailFile("INBOX", raw(1)), "Archive", false)
					in.expunge(4)
					come(s)
					unname()
					for range 3 {
						if rep := h.sync(s); !rep.Clean() {
							t.Errorf("%+v", rep)
						}
					}
					if !slices.Contains(s.box("Archive").raws(), raw(1)) {
						t.Errorf("Archive has %q", s.box("Archive").raws())
					}
					h.notmuchNew()
					h.quiet(s)
					h.check(s)
				})
			}
		}
	}
}

// An upload is interrupted before the server has the mail, and another client puts one like it there:
// with the same header and size, in the same second. It is not the one that was on its way.
func TestAMailLikeOneWhoseUploadWasInterrupted(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, id := range []string{"Message-ID: <m7@example.org>\r\n", ""} {
			t.Run(fmt.Sprintf("%s/%q", wire, id), func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				raw := func(n int) string {
					return strings.Replace(alike(n), "Message-ID: <m7@example.org>\r\n", id, 1)
				}
				h.sync(s)
				h.put("INBOX", raw(1), "S")
				if !stopUpload(h, s, stopUnheard, 1) {
					t.Fatal("not interrupted")
				}
				last := slices.Max(in.uids())
				if in.msgs[last].raw != raw(1) {
					t.Fatal("it was not on its way")
				}
				in.msgs[last].raw = raw(2)
				for range 2 {
					if rep := h.sync(s); !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				if got := in.raws(); !slices.Contains(got, raw(1)) || !slices.Contains(got, raw(2)) {
					t.Errorf("INBOX has %q", got)
				}
				h.notmuchNew()
				h.quiet(s)
				h.check(s)
			})
		}
	}
}
