package pipeline

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// A file is renamed by hand, with its letters or with others, and its message is tagged
// before notmuch knows the new name: the tag reaches the name and the server.
func TestATagOfAFileThatNotmuchKnowsByAnOlderName(t *testing.T) {
	for wire, caps := range wires() {
		for name, to := range map[string]string{"letters": ":2,FS", "none": ":2,", "same": ".by-hand:2,S"} {
			t.Run(wire+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				in.add(plainMail(1), `\Seen`)
				in.add(plainMail(2), `\Seen`)
				h.sync(s)
				h.quiet(s)
				file := h.file("INBOX", 1)
				key, _, _ := strings.Cut(file, ":2,")
				h.do(os.Rename(h.path("INBOX", file), h.path("INBOX", key+to)))
				h.tag(id(1), []string{"replied"}, nil)
				for range 2 {
					h.sync(s)
				}
				want := []string{`\Answered`, `\Seen`}
				switch name {
				case "letters":
					want = append(want, `\Flagged`)
				case "none":
					want = want[:1]
				}
				if got := in.msgs[1].flags; !plan.SameFlags(got, want) {
					t.Errorf("the server has %v, want %v", got, want)
				}
				if name != "same" && plan.Letters(in.msgs[1].flags) != strings.Split(h.file("INBOX", 1), ":2,")[1] {
					t.Errorf("the file is %s", h.file("INBOX", 1))
				}
				h.quiet(s)
			})
		}
	}
}

// A database of notmuch that was made anew gets the tags of keywords back, at once or
// as soon as it has the mail, and takes none off the server.
func TestANewDatabaseGetsTheTagsOfKeywordsBack(t *testing.T) {
	for _, empty := range []bool{false, true} {
		for name, o := range map[string]func(*Options){
			"sync": func(*Options) {}, "full": func(o *Options) { o.Full = true }, "restore": func(o *Options) { o.Restore = true },
			"read only": func(o *Options) { o.ReadOnly = true },
			"keywords":  func(o *Options) { o.Keywords = []string{"work", "home"} },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s, h := newServer("CONDSTORE"), newHome(t)
				in := s.box("INBOX")
				in.add(plainMail(1), `\Seen`, "work", "home")
				in.add(plainMail(2))
				h.sync(s, o)
				h.sync(s, o)
				h.do(h.index.save(map[string]*indexed{}))
				h.index.another()
				if empty {
					h.sync(s, o)
				}
				h.notmuchNew()
				for range 2 {
					h.sync(s, o)
				}
				if tags := h.tags(id(1)); !slices.Contains(tags, "work") || !slices.Contains(tags, "home") {
					t.Errorf("tags %v", tags)
				}
				if !plan.SameFlags(in.msgs[1].flags, []string{`\Seen`, "work", "home"}) {
					t.Errorf("the server has %v", in.msgs[1].flags)
				}
			})
		}
	}
}
