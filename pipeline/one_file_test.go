package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// A mail is deleted here, and kept since somebody has flagged it on the server meanwhile. What its
// owner has put in its place, with its Message-ID and another text, is another mail: the one that was
// kept comes again, and what is done with one of the two is done with that one alone.
func TestWhatTakesThePlaceOfAMailThatIsKeptIsAnother(t *testing.T) {
	t.Parallel()
	before := plainMail(1)
	for what, after := range map[string]string{"as long": strings.Replace(before, "bare", "bear", 1), "longer": finished(before)} {
		for wire, caps := range wires() {
			for _, box := range []string{"INBOX", "Drafts"} {
				for _, footer := range []string{"", "added\r\n"} {
					if spared(what, wire, box, footer) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%q", what, wire, box, footer), func(t *testing.T) {
						t.Parallel()
						s, h := newServer(caps...), newHome(t)
						s.footer = footer
						b := s.box(box)
						b.add(before, `\Seen`)
						b.add(plainMail(2), `\Seen`)
						s.box("Trash").add(plainMail(3), `\Seen`)
						h.sync(s)
						h.remove(box, 1)
						h.put(box, after, "S")
						b.flag(1, `\Seen`, `\Answered`)
						for range 2 {
							if rep := h.sync(s); rep.Deleted > 0 || !rep.Clean() {
								t.Errorf("%+v", rep)
							}
						}
						h.quiet(s)
						if got := b.msgs[3]; got == nil || slices.Contains(got.flags, `\Answered`) || len(b.msgs) != 3 {
							t.Errorf("the server has %d mails, the new one is %+v", len(b.msgs), got)
						}
						here := make(map[string]string)
						for name, raw := range h.files(box) {
							_, letters := maildir.ParseName(name)
							here[strings.ReplaceAll(raw, "\n", "\r\n")] = strings.TrimPrefix(letters, "D") // what is put into Drafts is one
						}
						if here[before] != "RS" || here[after] != "S" || len(here) != 3 {
							t.Errorf("here are, with their letters: %q", here)
						}
						h.removeText(box, after)
						if rep := h.sync(s); rep.Deleted != 1 || !rep.Clean() {
							t.Errorf("when the new one is deleted: %+v", rep)
						}
						h.sync(s)
						h.quiet(s)
						if _, kept := b.msgs[1]; !kept || len(b.msgs) != 2 {
							t.Errorf("the server has %d mails then, the one that was kept: %v", len(b.msgs), kept)
						}
					})
				}
			}
		}
	}
}
