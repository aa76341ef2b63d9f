package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// finished is a draft as its writer finished it elsewhere: the same Message-ID,
// another text of nearly the same size.
func finished(raw string) string { return strings.TrimRight(raw, "\r\n") + " and the rest of it.\r\n" }

// asSaved is what Mutt makes of a mail that it saves in another folder.
func asSaved(raw string) string {
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	return fmt.Sprintf("%s\r\nStatus: RO\r\nContent-Length: %d\r\nLines: 7\r\n\r\n%s", head, len(body), body)
}

// A draft that is finished and sent elsewhere than it was begun is a new mail: the
// text that was sent goes up to Sent, and the half one is deleted as deletions say.
func TestAFinishedDraftIsNotTheDraft(t *testing.T) {
	draft := plainMail(1)
	for what, text := range map[string]string{
		"longer": finished(draft), "as long": strings.Replace(draft, "bare", "bear", 1),
		"saved": asSaved(finished(draft)), "shorter": strings.Replace(draft, "bare", "", 1),
	} {
		for wire, caps := range wires() {
			for _, deletions := range []Deletions{DeletionsTrash, DeletionsExpunge, DeletionsKeep} {
				for _, old := range []bool{false, true} {
					if spared(what, wire, deletions, old) {
						continue
					}
					t.Run(fmt.Sprintf("%s/%s/%s/%v", what, wire, deletions, old), func(t *testing.T) {
						t.Parallel()
						if old && what == "as long" {
							return // an old ledger knows of a mail no more than its size
						}
						s, h := newServer(caps...), newHome(t)
						options := func(o *Options) { o.Deletions = deletions }
						s.box("Drafts").add(draft, `\Draft`, `\Seen`)
						for i, box := range []string{"Drafts", "Sent", "Trash"} {
							s.box(box).add(plainMail(90+i), `\Seen`)
						}
						h.sync(s, options)
						if old {
							h.forgetDigests()
						}
						h.remove("Drafts", 1)
						h.put("Sent", text, "S")
						for range 3 {
							if rep := h.sync(s, options); !rep.Clean() || rep.Moved > 0 {
								t.Errorf("%+v", rep)
							}
						}
						want := map[string][]string{"Drafts": {plainMail(90)}, "Sent": {text, plainMail(91)}, "Trash": {plainMail(92)}}
						switch deletions {
						case DeletionsTrash:
							want["Trash"] = append(want["Trash"], draft)
						case DeletionsKeep:
							want["Drafts"] = append(want["Drafts"], draft)
						}
						for box, mails := range want {
							slices.Sort(mails)
							if got := s.box(box).raws(); !slices.Equal(got, mails) {
								t.Errorf("%s has %q\nwant %q", box, got, mails)
							}
						}
						h.notmuchNew()
						h.quiet(s, options)
					})
				}
			}
		}
	}
}

// What Mutt adds to a mail that it moves makes it no other.
func TestWhatMuttAddsToAMoveIsNoOtherMail(t *testing.T) {
	for wire, caps := range wires() {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", wire, old), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.box("INBOX").add(plainMail(1), `\Seen`)
				s.box("INBOX").add(plainMail(2), `\Seen`)
				s.box("Archive").add(plainMail(3), `\Seen`)
				h.sync(s)
				if old {
					h.forgetDigests()
				}
				h.remove("INBOX", 1)
				h.put("Archive", asSaved(plainMail(1)), "S")
				if rep := h.sync(s); rep.Moved != 1 || rep.Uploaded+rep.Deleted+rep.New > 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				if got, want := s.box("Archive").raws(), []string{plainMail(1), plainMail(3)}; !slices.Equal(got, want) {
					t.Errorf("Archive has %q, want %q", got, want)
				}
				h.quiet(s)
			})
		}
	}
}

// Another mail with the Message-ID of one in the folder is a mail of its own; the
// same one in a second file is not.
func TestOnlyAFileOfEqualContentIsATwin(t *testing.T) {
	for text, up := range map[string]int{finished(plainMail(1)): 1, asSaved(plainMail(1)): 0} {
		t.Run(fmt.Sprint(up), func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS"), newHome(t)
			s.box("INBOX").add(plainMail(1), `\Seen`)
			h.sync(s)
			h.put("INBOX", text, "S")
			if rep := h.sync(s); rep.Uploaded != up || rep.Deleted+rep.Moved+rep.New > 0 {
				t.Errorf("%+v", rep)
			}
			if got := len(s.box("INBOX").raws()); got != 1+up {
				t.Errorf("%d mails on the server", got)
			}
			h.quiet(s)
		})
	}
}

// A file that was edited under its own name before it was moved is another mail.
func TestAFileThatWasEditedInPlaceIsNotMoved(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS"), newHome(t)
	s.box("INBOX").add(plainMail(1), `\Seen`)
	s.box("INBOX").add(plainMail(2), `\Seen`)
	s.box("Archive").add(plainMail(3), `\Seen`)
	s.box("Trash")
	h.sync(s)
	path := h.path("INBOX", h.file("INBOX", 1))
	h.do(os.WriteFile(path, []byte(strings.ReplaceAll(finished(plainMail(1)), "\r\n", "\n")), 0o600))
	h.do(os.Rename(path, h.path("Archive", "cur/"+filepath.Base(path))))
	if rep := h.sync(s); rep.Uploaded != 1 || rep.Deleted != 1 || rep.Moved > 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	if got, want := s.box("Archive").raws(), []string{finished(plainMail(1)), plainMail(3)}; !slices.Equal(got, want) {
		t.Errorf("Archive has %q, want %q", got, want)
	}
	h.quiet(s)
}

// forgetDigests makes the ledger know of mail what one of the first version knows.
func (h *home) forgetDigests() {
	h.edit(func(l *ledger.Ledger) error {
		all, err := l.InState(h.t.Context(), ledger.Present)
		for i := range all {
			all[i].Digest = mail.Digest{}
		}
		return errors.Join(err, l.Save(h.t.Context(), all...))
	})
}
