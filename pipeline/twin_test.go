package pipeline

import (
	"fmt"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// listCopy is a mail as it comes back from a mailing list: the same Message-ID,
// one header field more.
func listCopy(raw string) string { return "List-Id: <list.example.org>\r\n" + raw }

// raws gives the mails of a mailbox on the server, sorted.
func (b *serverBox) raws() (out []string) {
	for _, u := range b.uids() {
		out = append(out, b.msgs[u].raw)
	}
	slices.Sort(out)
	return out
}

// A mail of which there are two on the server, as one in Sent and its copy from a
// mailing list, is moved here into the folder that holds the other: it is moved
// on the server, and nothing is deleted.
func TestAMoveIntoTheFolderOfATwinIsAMove(t *testing.T) {
	list, sent := listCopy(plainMail(1)), plainMail(1)
	boxes := []string{"INBOX", "Sent", "Archive", "Trash"}
	for name, tc := range map[string]struct {
		do   func(h *home, s *server, renamed bool)
		want map[string][]string
	}{
		"the list copy": {func(h *home, _ *server, renamed bool) { h.move("INBOX", 1, "Sent", renamed) },
			map[string][]string{"Sent": {list, sent}}},
		"the mail that was sent": {func(h *home, _ *server, renamed bool) { h.move("Sent", 1, "INBOX", renamed) },
			map[string][]string{"INBOX": {list, sent}}},
		"both, the other way round": {func(h *home, _ *server, renamed bool) {
			h.move("INBOX", 1, "Sent", renamed)
			h.move("Sent", 1, "INBOX", renamed)
		}, map[string][]string{"INBOX": {sent}, "Sent": {list}}},
		"both into a third folder": {func(h *home, _ *server, renamed bool) {
			h.move("INBOX", 1, "Archive", renamed)
			h.move("Sent", 1, "Archive", renamed)
		}, map[string][]string{"Archive": {list, sent}}},
		"moved and flagged": {func(h *home, _ *server, renamed bool) {
			h.flag("INBOX", 1, "FS")
			h.move("INBOX", 1, "Sent", renamed)
		}, map[string][]string{"Sent": {list, sent}}},
		"one here and the other there": {func(h *home, s *server, renamed bool) {
			h.move("INBOX", 1, "Archive", renamed)
			m := s.box("Sent").expunge(1)
			s.box("Archive").msgs[s.box("Archive").add(m.raw, m.flags...)].date = m.date
		}, map[string][]string{"Archive": {list, sent}}},
		"one after the other": {func(h *home, s *server, renamed bool) {
			h.move("INBOX", 1, "Archive", renamed)
			h.sync(s)
			h.move("Sent", 1, "Archive", renamed)
		}, map[string][]string{"Archive": {list, sent}}},
		"on the server": {func(_ *home, s *server, _ bool) {
			m := s.box("INBOX").expunge(1)
			s.box("Sent").msgs[s.box("Sent").add(m.raw, m.flags...)].date = m.date
		}, map[string][]string{"Sent": {list, sent}}},
	} {
		for wire, caps := range wires() {
			for _, deletions := range []Deletions{DeletionsTrash, DeletionsExpunge, DeletionsKeep} {
				for _, renamed := range []bool{false, true} {
					if spared(name, wire, deletions, renamed) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%v", name, wire, deletions, renamed), func(t *testing.T) {
						t.Parallel()
						s, h := newServer(caps...), newHome(t)
						options := func(o *Options) { o.Deletions = deletions }
						s.box("INBOX").add(list, `\Seen`)
						s.box("Sent").add(sent, `\Seen`, `\Answered`)
						for i, box := range boxes {
							s.box(box).add(plainMail(90+i), `\Seen`)
						}
						h.sync(s, options)
						tc.do(h, s, renamed)
						for range 3 {
							if rep := h.sync(s, options); rep.Deleted+rep.Uploaded > 0 || !rep.Clean() {
								t.Errorf("%+v", rep)
							}
						}
						h.quiet(s, options)
						for i, box := range boxes {
							want := slices.Sorted(slices.Values(append([]string{plainMail(90 + i)}, tc.want[box]...)))
							if got := s.box(box).raws(); !slices.Equal(got, want) {
								t.Errorf("%s has %d mails, want %d: %q", box, len(got), len(want), got)
							}
						}
						for _, b := range s.boxes {
							for _, m := range b.msgs {
								want := []string{`\Seen`, `\Answered`}
								if m.raw != sent {
									want = want[:1]
									if m.raw == list && name == "moved and flagged" {
										want = []string{`\Seen`, `\Flagged`}
									}
								}
								if !plan.SameFlags(m.flags, want) {
									t.Errorf("flags %v, want %v", m.flags, want)
								}
							}
						}
						h.notmuchNew()
						h.check(s)
					})
				}
			}
		}
	}
}

// A second file of a message that was there before stays one when a copy of the mail is deleted
// elsewhere: it has not come from there.
func TestAFileThatWasThereBeforeIsNoMove(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, marked := range []bool{false, true} {
			t.Run(fmt.Sprint(wire, " marked ", marked), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.box("INBOX").add(plainMail(1), `\Seen`)
				s.box("INBOX").add(plainMail(2), `\Seen`)
				s.box("Archive").add(plainMail(1), `\Seen`)
				s.box("Archive").add(plainMail(3), `\Seen`)
				s.box("Trash")
				h.sync(s)
				h.put("INBOX", plainMail(1), "S")
				h.sync(s)
				if marked {
					h.flag("Archive", 1, "ST")
				} else {
					h.remove("Archive", 1)
				}
				for range 3 {
					h.sync(s)
				}
				for box, want := range map[string]string{"INBOX": "[mail 1 mail 2]", "Archive": "[mail 3]", "Trash": "[mail 1]"} {
					if got := fmt.Sprint(s.box(box).subjects()); got != want {
						t.Errorf("%s has %s, want %s", box, got, want)
					}
				}
				h.quiet(s)
				if n := len(h.files("INBOX")); n != 3 {
					t.Errorf("INBOX has %d files", n)
				}
			})
		}
	}
}
