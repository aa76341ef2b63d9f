package pipeline

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// What notmuch calls a mail without Message-ID is of the bytes of its file, line ends and all. Its
// text says that it is the same one, whatever its file is called, and wherever it is.
func TestAMailWithoutMessageIDIsKnownByItsText(t *testing.T) {
	t.Parallel()
	mail := strings.Replace(plainMail(1), "Message-ID:", "X-Was:", 1)
	lf := strings.ReplaceAll(mail, "\r\n", "\n")
	for what, tc := range map[string]struct {
		now   func(h *home)
		moved int
	}{
		"it gets another name":             {func(h *home) { h.move("INBOX", 2, "INBOX", true) }, 0},
		"and other line ends":              {func(h *home) { h.remove("INBOX", 2); h.put("INBOX", lf, "S") }, 0},
		"it is moved under another name":   {func(h *home) { h.move("INBOX", 2, "Archive", true) }, 1},
		"and gets other line ends with it": {func(h *home) { h.remove("INBOX", 2); h.put("Archive", lf, "S") }, 1},
		"one more of it comes":             {func(h *home) { h.put("INBOX", lf, "S") }, 0},
	} {
		for _, crlf := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", what, crlf), func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				for i, box := range []string{"INBOX", "Archive", "Trash"} {
					s.box(box).add(plainMail(90+i), `\Seen`)
				}
				h.sync(s)
				file := lf
				if crlf {
					file = mail
				}
				h.do(os.WriteFile(h.path("INBOX", "cur/1.mutt:2,S"), []byte(file), 0o600))
				if rep := h.sync(s); rep.Uploaded != 1 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				h.notmuchNew()
				h.quiet(s)
				tc.now(h)
				if rep := h.sync(s); rep.Moved != tc.moved || rep.Deleted+rep.Uploaded+rep.New > 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				h.notmuchNew()
				h.quiet(s)
				if got := []int{len(s.box("INBOX").msgs), len(s.box("Archive").msgs), len(s.box("Trash").msgs)}; !slices.Equal(got, []int{2 - tc.moved, 1 + tc.moved, 1}) {
					t.Errorf("INBOX, Archive and Trash have %v mails", got)
				}
			})
		}
	}
}

// What notmuch does not take for a mail it calls nothing. It is moved and renamed as any other mail is.
func TestWhatNotmuchDoesNotTakeIsKnownByItsText(t *testing.T) {
	t.Parallel()
	for what, raw := range map[string]string{"with a Message-ID": "Message-ID: <x@example.org>\r\n\r\nbody\r\n", "without": "X-Nothing: of use\r\n\r\nbody\r\n"} {
		for to, moved := range map[string]int{"INBOX": 0, "Archive": 1} {
			t.Run(what+"/"+to, func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				for i, box := range []string{"INBOX", "Archive", "Trash"} {
					s.box(box).add(plainMail(90+i), `\Seen`)
				}
				s.box("INBOX").add(raw, `\Seen`)
				use := func(o *Options) { o.Index = answering{o.Index, choosy} }
				for range 2 { // the note beside it
					h.sync(s, use)
				}
				h.move("INBOX", 2, to, true)
				if rep := h.sync(s, use); rep.Moved != moved || rep.Deleted+rep.Uploaded+rep.New > 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				h.sync(s, use)
				h.quiet(s, use)
				if got := []int{len(s.box("INBOX").msgs), len(s.box("Archive").msgs), len(s.box("Trash").msgs)}; !slices.Equal(got, []int{2 - moved, 1 + moved, 1}) {
					t.Errorf("INBOX, Archive and Trash have %v mails", got)
				}
			})
		}
	}
}
