package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// Another client moves a mail, and a run sees only where it went: it looks into that mailbox alone, or
// looked into the other one before. Until the next run there are two files of one mail here, and what
// its owner does to the old one is done to the mail.
func TestAMoveOfWhichARunHasSeenTheTargetAlone(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, how := range []string{"one mailbox", "too late"} {
			for user, want := range map[string]string{
				"nothing": `Archive[\Seen]`, "flag": `Archive[\Flagged \Seen]`, "on": `Later[\Seen]`, "on renamed": `Later[\Seen]`,
				"there": `Archive[\Seen]`, "there renamed": `Archive[\Seen]`, "rename": `Archive[\Seen]`, "remove": `Archive[\Seen]`, "tag": `Archive[\Flagged \Seen]`,
			} {
				for _, named := range []string{"Message-ID: <m1@example.org>\r\n", ""} {
					if spared(wire, how, user, named) || named == "" && user == "tag" {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%q", wire, how, user, named), func(t *testing.T) {
						t.Parallel()
						s, h := newServer(caps...), newHome(t)
						raw := strings.Replace(plainMail(1), "Message-ID: <m1@example.org>\r\n", named, 1)
						in := s.box("INBOX")
						uid := in.add(raw, `\Seen`)
						in.add(plainMail(2), `\Seen`)
						for i, name := range []string{"Archive", "Later"} {
							s.box(name).add(plainMail(8+i), `\Seen`)
						}
						h.sync(s)
						h.notmuchNew()
						switch how {
						case "one mailbox":
							s.relocate("INBOX", uid, "Archive")
							h.sync(s, func(o *Options) { o.Only = []string{"Archive"} })
						case "too late":
							in.expunge(2)
							s.box("Archive").add(plainMail(3), `\Seen`)
							s.before = func(what string) {
								if strings.HasPrefix(what, "EXAMINE Archive") {
									s.before = nil
									s.relocate("INBOX", uid, "Archive")
								}
							}
							h.sync(s, func(o *Options) { o.Connections = 1 })
						}
						file := h.mailFile("INBOX", raw)
						if file == "" {
							t.Fatal("the old file is gone")
						}
						switch user {
						case "flag":
							h.flagFile("INBOX", file, "FS")
						case "tag":
							h.index.tag(t, id(1), []string{"flagged"}, nil)
						case "on", "on renamed":
							h.moveFile("INBOX", file, "Later", user == "on renamed")
						case "there", "there renamed":
							h.moveFile("INBOX", file, "Archive", user == "there renamed")
						case "rename":
							h.moveFile("INBOX", file, "INBOX", true)
						case "remove":
							h.removeText("INBOX", raw)
						}
						for range 3 {
							if rep := h.sync(s); !rep.Clean() {
								t.Errorf("%+v %+v", rep, h.events)
							}
						}
						if got := s.whereIs(raw); got != want {
							t.Errorf("on the server it is in %q, want %q", got, want)
						}
						h.notmuchNew()
						h.quiet(s)
						h.check(s)
					})
				}
			}
		}
	}
}

// A mail is moved here, and by another client to another mailbox at the moment of the sync that would
// tell the server: that mailbox was found unchanged before. The mail is there, once.
func TestAMoveByOthersAtTheMomentOfAnother(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, renamed := range []bool{false, true} {
			for _, n := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s/%v/%d", wire, renamed, n), func(t *testing.T) {
					t.Parallel()
					s, h, in := few(t, caps...)
					s.box("Later").add(plainMail(20))
					h.sync(s)
					for i := range n {
						h.moveFile("INBOX", h.mailFile("INBOX", plainMail(i+1)), "Later", renamed)
					}
					s.before = func(what string) {
						if what == "LIST" {
							return
						}
						s.before = nil
						for i := range n {
							if in.msgs[imap.UID(i+1)] != nil {
								s.relocate("INBOX", imap.UID(i+1), "Archive")
							}
						}
					}
					for range 3 {
						if rep := h.sync(s); !rep.Clean() || rep.Uploaded > 0 {
							t.Errorf("%+v %+v", rep, h.events)
						}
					}
					for i := range n {
						if got := s.whereIs(plainMail(i + 1)); got != "Archive[]" {
							t.Errorf("on the server mail %d is in %q", i+1, got)
						}
					}
					h.notmuchNew()
					h.quiet(s)
					h.check(s)
				})
			}
		}
	}
}

// A draft is edited here, and its old version gets a flag on the server meanwhile, so that it is kept; the
// new one is moved by another client as soon as it was uploaded. It is where that put it.
func TestADraftThatIsMovedAsSoonAsItWasUploaded(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, flagged := range []bool{false, true} {
			for _, same := range []bool{false, true} {
				for _, to := range []string{"Archive", "Work", "INBOX"} {
					if spared(wire, flagged, same, to) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%v/%v/%s", wire, flagged, same, to), func(t *testing.T) {
						t.Parallel()
						s, h, _ := few(t, caps...)
						d := s.box("Drafts")
						var after [3]string
						for i := range after {
							d.add(plainMail(40+i), `\Draft`, `\Seen`)
							s.box("Work").add(plainMail(50 + i))
							after[i] = finished(plainMail(40 + i))
							if !same {
								after[i] = strings.Replace(after[i], "<m4", "<n4", 1)
							}
						}
						h.sync(s)
						for i := range after {
							h.removeText("Drafts", plainMail(40+i))
							h.put("Drafts", after[i], "DS")
							if flagged {
								d.flag(imap.UID(i+1), `\Draft`, `\Seen`, `\Flagged`)
							}
						}
						s.effect = func(verb string) {
							if verb != "APPEND" {
								return
							}
							for _, u := range d.uids() {
								if u > 3 {
									s.relocate("Drafts", u, to)
								}
							}
						}
						h.sync(s, func(o *Options) { o.Connections = 1 })
						s.effect = nil
						for range 3 {
							if rep := h.sync(s); !rep.Clean() {
								t.Errorf("%+v %+v", rep, h.events)
							}
						}
						h.sync(s, func(o *Options) { o.Full = true })
						for i := range after {
							if got := s.whereIs(after[i]); !strings.HasPrefix(got, to+"[") || strings.Contains(got, "Drafts[") {
								t.Errorf("the new one is in %q", got)
							}
						}
						h.notmuchNew()
						h.quiet(s)
						h.check(s)
					})
				}
			}
		}
	}
}

// whereIs gives the mailboxes in which the server has a mail, with its flags there.
func (s *server) whereIs(raw string) string {
	var out []string
	for name, b := range s.boxes {
		for _, u := range b.uids() {
			if b.msgs[u].raw == raw {
				out = append(out, fmt.Sprint(name, slices.Sorted(slices.Values(b.msgs[u].flags))))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
