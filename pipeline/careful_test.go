package pipeline

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// A dry run says what the run does that comes after it, in the same words and
// numbers, and changes nothing on either side.
func TestADryRunSaysWhatARunDoes(t *testing.T) {
	for i, tr := range readTriples(t) {
		if tr.has("dry") || tr.has("locked") { // that a mailbox is locked shows when it is written to
			continue
		}
		for wire, caps := range wires() {
			if spared(tr.name, wire) {
				continue
			}
			t.Run(tr.name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.mute = i%2 == 0
				tr.agree(s, h)
				tr.change(s, h)
				var planned []mail.Action
				said := func(dry bool) (rep *report.Report, lines []string) {
					if dry {
						planned, rep = h.planned(s, tr.options)
					} else {
						rep = h.sync(s, tr.options)
					}
					for _, e := range h.events {
						// What the push changes on the server is news only to a run.
						if e.Type == report.EventMailbox && !strings.Contains(e.Text, "new message") && !strings.Contains(e.Text, " deletion") && !strings.Contains(e.Text, "of flags") {
							lines = append(lines, e.Mailbox+": "+strings.TrimPrefix(e.Text, "would: "))
						}
					}
					return rep, lines
				}
				server, here := tr.sides(s, h)
				writes := s.writes
				dry, would := said(true)
				if a, b := tr.sides(s, h); a != server || b != here || s.writes != writes {
					t.Errorf("the dry run changed something: %s, %s", a, b)
				}
				run, does := said(false)
				if d := h.notAsPlanned(planned); d != "" {
					t.Errorf("the log differs from the plan:\n%s\nrefused: %q", d, h.log(mail.IsRefused))
				}
				for what, n := range map[string][2]int{
					"deleted": {dry.Deleted, run.Deleted}, "moved": {dry.Moved, run.Moved}, "uploaded": {dry.Uploaded, run.Uploaded},
					"pushed": {dry.Pushed, run.Pushed}, "held": {dry.Held, run.Held}, "faults": {len(dry.Faults), len(run.Faults)},
				} {
					if n[0] != n[1] {
						t.Errorf("%s: %d said, %d done", what, n[0], n[1])
					}
				}
				if !slices.Equal(would, does) && run.Deleted+run.Moved+run.Uploaded+run.Pushed > 0 {
					t.Errorf("said %q, did %q", would, does)
				}
			})
		}
	}
}

// The numbers change on the server while the user changed things here. Nothing is
// deleted for it, nothing comes twice, and flags come together.
func TestNewUIDValidityWhileThereIsSomethingToTell(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h, in := few(t, caps...)
			in.add(plainMail(4))
			h.sync(s)
			h.flag("INBOX", 1, "F")
			h.remove("INBOX", 2)
			h.move("INBOX", 3, "Archive", true)
			h.put("INBOX", plainMail(7), "S")
			old := s.boxes["INBOX"]
			delete(s.boxes, "INBOX")
			b := s.box("INBOX")
			b.validity, b.next, b.modseq = 15, 40, old.modseq
			for _, u := range old.uids() {
				b.msgs[b.add(old.msgs[u].raw, old.msgs[u].flags...)].date = old.msgs[u].date
			}
			for range 4 {
				h.sync(s)
			}
			h.quiet(s)
			h.has(s, map[string]string{"INBOX": "1 4 7", "Archive": "3 8", "Trash": "2 9"})
			if u := b.uids()[0]; !plan.HasFlag(b.msgs[u].flags, `\Flagged`) {
				t.Errorf("UID %d has %v", u, b.msgs[u].flags)
			}
		})
	}
}

// Where there is no room, or no right, all stays as it is on both sides until there
// is; the other mailboxes go on.
func TestWhatThereIsNoRoomForWaits(t *testing.T) {
	for _, code := range []string{"OVERQUOTA", "TOOBIG", "NOPERM", "LIMIT"} {
		for verb, caps := range map[string][]string{"UID COPY": {"UIDPLUS"}, "UID MOVE": {"MOVE", "UIDPLUS", "CONDSTORE"}, "APPEND": {"UIDPLUS"}} {
			t.Run(code+"/"+verb, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				s.refuses = map[string]*mail.Fault{verb: {Kind: mail.KindNo, Code: code, Text: "no room"}}
				h.remove("INBOX", 1)
				h.move("INBOX", 2, "Archive", true)
				h.put("Archive", plainMail(7), "")
				h.flag("Trash", 1, "F")
				for i := range 2 {
					rep := h.sync(s)
					if verb == "APPEND" && i == 1 {
						if rep.Unsent != 1 || !rep.Clean() { // it is known
							t.Errorf("%+v", rep)
						}
						continue
					}
					if len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "no room") {
						t.Errorf("%+v", rep)
					}
				}
				if !plan.HasFlag(s.box("Trash").msgs[1].flags, `\Flagged`) || verb != "APPEND" && len(in.msgs) != 3 {
					t.Errorf("the Trash has %v, INBOX %v", s.box("Trash").msgs[1].flags, in.uids())
				}
				s.refuses = nil
				soon := time.Now().Add(16 * time.Minute)
				for range 2 {
					h.sync(s, func(o *Options) { o.Now = func() time.Time { return soon } })
				}
				h.quiet(s)
				h.has(s, map[string]string{"INBOX": "3", "Archive": "2 7 8", "Trash": "1 9"})
			})
		}
	}
}

// A Trash that is not there yet is made; one that cannot be made deletes nothing.
func TestATrashThatIsNotThereIsMade(t *testing.T) {
	for wire, caps := range wires() {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprint(wire, "/", refused), func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				h.remove("INBOX", 1)
				bin := func(o *Options) { o.Trash = "Bin" }
				if refused {
					s.refuses = map[string]*mail.Fault{"CREATE": {Text: "not yours"}}
					if rep := h.sync(s, bin); len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "not yours") || len(in.msgs) != 3 || rep.Deleted != 0 {
						t.Errorf("%+v", rep)
					}
					s.refuses = nil
				}
				if rep := h.sync(s, bin); rep.Deleted != 1 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				h.sync(s, bin)
				h.quiet(s, bin)
				h.has(s, map[string]string{"INBOX": "2 3", "Archive": "8", "Trash": "9", "Bin": "1"})
			})
		}
	}
}

// While a run is at work, at each of its effects, somebody changes a message on the
// server, the user changes it here, tags it, and new mail comes on both sides. In
// the end both sides have all of it.
func TestChangesWhileWeRun(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			keywords := func(o *Options) { o.Keywords = []string{"work"} }
			for at, more := 1, true; more && !t.Failed(); at += pace() {
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				for i := range 4 {
					in.add(plainMail(i + 1))
				}
				s.box("Archive").add(plainMail(8))
				s.box("Trash").add(plainMail(9))
				h.sync(s, keywords)
				h.sync(s, keywords)
				h.flag("INBOX", 1, "F")
				h.remove("INBOX", 2)
				h.move("INBOX", 3, "Archive", true)
				h.put("INBOX", plainMail(7), "S")
				in.flag(4, `\Answered`)
				r := rand.New(rand.NewPCG(uint64(at), 3))
				n := 0
				h.sync(s, keywords, func(o *Options) {
					o.Connections = 1
					o.Step = func(string) {
						s.mu.Lock()
						n++
						strike := n == at
						s.mu.Unlock()
						if !strike {
							return
						}
						s.mu.Lock()
						in.flag(1, append(slices.Clone(in.msgs[1].flags), `\Answered`)...)
						in.add(plainMail(20))
						s.mu.Unlock()
						h.index.mu.Lock()
						h.tag("m4@example.org", []string{"work"}, nil)
						h.index.mu.Unlock()
						h.put("Archive", plainMail(21), []string{"", "S"}[r.IntN(2)])
					}
				})
				more = n >= at
				for range 4 {
					h.notmuchNew()
					h.sync(s, keywords)
				}
				h.quiet(s, keywords)
				if !more {
					break
				}
				h.has(s, map[string]string{"INBOX": "1 20 4 7", "Archive": "21 3 8", "Trash": "2 9"})
				if f := in.msgs[1].flags; !plan.SameFlags(f, []string{`\Flagged`, `\Answered`}) {
					t.Errorf("mail 1 has %v", f)
				}
				if f := in.msgs[4].flags; !plan.SameFlags(f, []string{`\Answered`, "work"}) {
					t.Errorf("mail 4 has %v", f)
				}
				if t.Failed() {
					t.Fatalf("at effect %d", at)
				}
			}
		})
	}
}
