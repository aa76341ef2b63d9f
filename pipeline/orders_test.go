package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// ordering is a configuration in which several tags order something.
func ordering(o *Options) {
	o.Moves = []Move{{From: "INBOX", With: "spam", To: "Junk"}, {From: "INBOX", With: "file", To: "Lists"}, {From: "INBOX", Without: "todo", To: "Archive"}}
	o.DeletedTag, o.Deletions = "zap", DeletionsExpunge
	o.Orders = []string{"again", "enough"}
	o.NewTags = []string{"inbox", "unread", "todo"}
	o.Keywords = []string{"*"}
}

// orderMail is mail with one Message-ID for each n, and the text.
func orderMail(n int, text string) string {
	return fmt.Sprintf("From: a@example.org\r\nDate: Thu, 01 Jan 2026 00:00:0%d +0000\r\nMessage-ID: <m%d@example.org>\r\nSubject: mail %d\r\n\r\n%s\r\n", n, n, n, text)
}

// Whoever can set a keyword gives no orders by it, on new mail or on old, nor by
// taking it off again.
func TestKeywordsOfAServerOrderNothing(t *testing.T) {
	for _, keyword := range []string{"zap", "ZAP", "file", "$Junk", "Junk", "spam", "again", "enough", "todo"} {
		for name, caps := range wires() {
			if spared(keyword + "/" + name) {
				continue
			}
			t.Run(keyword+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				for _, box := range []string{"Archive", "Junk", "Lists", "Trash"} {
					s.box(box)
				}
				in.add(orderMail(1, "old"))
				h.sync(s, ordering)
				h.sync(s, ordering)
				whole := func() {
					t.Helper()
					if got := in.subjects(); !slices.Equal(got, []string{"mail 1", "mail 2", "mail 3"}) {
						t.Fatalf("INBOX has %q", got)
					}
				}
				in.flag(1, keyword)
				in.add(orderMail(2, "new"), keyword)
				in.add(orderMail(3, "late"))
				in.msgs[3].fault = &serverFault{}
				in.flag(3, keyword)
				for range 2 {
					h.sync(s, ordering)
				}
				whole()
				in.flag(2)
				in.msgs[3].flags = []string{keyword, `\Flagged`}
				in.flag(3, in.msgs[3].flags...)
				for range 3 {
					if rep := h.sync(s, ordering); rep.Moved+rep.Deleted+rep.Pushed > 0 {
						t.Errorf("%+v", rep)
					}
				}
				whole()
				if !plan.SameFlags(in.msgs[1].flags, []string{keyword}) || len(in.msgs[2].flags) > 0 {
					t.Errorf("flags on the server: %v, %v", in.msgs[1].flags, in.msgs[2].flags)
				}
				for n := range 3 {
					mail := id(n + 1)
					if n == 2 {
						mail = stub.NewKey("work", "INBOX", 14, 3).MessageID()
					}
					tags := h.tags(mail)
					for _, tag := range []string{"zap", "ZAP", "file", "spam", "again", "enough"} {
						if slices.Contains(tags, tag) {
							t.Errorf("%s has the tags %v", mail, tags)
						}
					}
					if !slices.Contains(tags, "todo") && n != 2 {
						t.Errorf("%s has the tags %v", mail, tags)
					}
				}
			})
		}
	}
}

// neighbour is a second account in the same notmuch database.
func (h *home) neighbour() *home {
	o := newHome(h.t)
	o.index = h.index
	return o
}

// The server of one account gives no orders about another's mail: not by keywords on
// a mail with the same Message-ID.
func TestAnotherAccountsServerOrdersNothing(t *testing.T) {
	t.Parallel()
	a, h := newServer("CONDSTORE", "MOVE", "UIDPLUS"), newHome(t)
	a.box("INBOX").add(orderMail(1, "mine"))
	a.box("Junk")
	h.sync(a, ordering)
	h.sync(a, ordering)
	b, other := newServer("CONDSTORE"), h.neighbour()
	b.box("INBOX").add(orderMail(1, "mine"), "zap", "spam")
	careful := func(o *Options) { o.OrderTags = []string{"zap", "spam"} }
	for range 2 {
		other.sync(b, careful)
		h.sync(a, ordering)
	}
	if got := a.box("INBOX").subjects(); !slices.Equal(got, []string{"mail 1"}) {
		t.Errorf("INBOX of the first has %q", got)
	}
	if tags := h.tags(id(1)); slices.Contains(tags, "zap") || slices.Contains(tags, "spam") {
		t.Errorf("tags %v", tags)
	}
}

// A tag is on all mails with one Message-ID. Where they are different ones it orders
// nothing, and that is said; copies of one mail obey it.
func TestTagsOrderNothingOfDifferentMailsWithOneMessageID(t *testing.T) {
	real := orderMail(1, "the real one")
	for name, c := range map[string]struct {
		mails   map[string]string // by mailbox, beside the real one in INBOX
		theirs  string            // in another account
		stale   bool              // another program renamed the file since notmuch saw it
		obeyed  bool
		removed bool // the second file is gone
		locked  bool // the second file cannot be read for now
	}{
		"in Junk":               {mails: map[string]string{"Junk": orderMail(1, "buy this")}},
		"in INBOX, too":         {mails: map[string]string{"INBOX": orderMail(1, "buy this")}},
		"in another account":    {theirs: orderMail(1, "buy this")},
		"with another sender":   {theirs: strings.Replace(real, "a@example", "b@example", 1)},
		"with another subject":  {theirs: strings.Replace(real, "mail 1", "buy this", 1)},
		"with another date":     {theirs: strings.Replace(real, "2026", "2027", 1)},
		"without a body":        {theirs: strings.Replace(real, "the real one", "", 1)},
		"with a name since":     {theirs: orderMail(1, "buy this"), stale: true},
		"gone since":            {theirs: orderMail(1, "buy this"), removed: true, obeyed: true},
		"cannot be read":        {theirs: orderMail(1, "buy this"), locked: true},
		"the same mail":         {mails: map[string]string{"Lists": real}, theirs: real, obeyed: true},
		"by way of a list":      {theirs: "Received: by lists\r\n" + strings.Replace(real, "mail 1", "[list] mail 1", 1), obeyed: true},
		"with more blank lines": {theirs: real + "\r\n\r\n", obeyed: true},
	} {
		for _, tag := range []string{"spam", "zap"} {
			if spared(name + "/" + tag) {
				continue
			}
			t.Run(name+"/"+tag, func(t *testing.T) {
				t.Parallel()
				s, h := newServer("CONDSTORE", "MOVE", "UIDPLUS"), newHome(t)
				in := s.box("INBOX")
				in.add(real)
				for _, box := range []string{"Archive", "Junk", "Lists", "Trash"} {
					s.box(box)
				}
				for box, raw := range c.mails {
					s.box(box).add(raw)
				}
				n := len(in.msgs)
				if c.theirs != "" {
					other := h.neighbour()
					theirs := newServer("CONDSTORE")
					theirs.box("INBOX").add(c.theirs)
					other.sync(theirs)
					for name := range other.files("INBOX") {
						path := filepath.Join(other.dir, "mail", "INBOX", name)
						if c.stale {
							h.do(os.Rename(path, filepath.Join(other.dir, "mail", "INBOX", maildir.WithFlags(name, "S", ""))))
						}
						if c.removed {
							h.do(os.Remove(path))
						}
						if c.locked {
							h.do(os.Remove(path))
							h.do(os.Mkdir(path, 0o700))
						}
					}
				}
				h.sync(s, ordering)
				h.sync(s, ordering)
				h.tag(id(1), []string{tag}, nil)
				said := 0
				for range 3 {
					h.sync(s, ordering)
					for _, e := range h.events {
						if strings.Contains(e.Text, "its tags want it moved or deleted") {
							said++
						}
					}
				}
				_, here := in.msgs[imap.UID(1)]
				if here == c.obeyed || !c.obeyed && len(in.msgs) != n {
					t.Errorf("INBOX has %q", in.subjects())
				}
				if (said > 0) == c.obeyed || said > n+len(c.mails) && !c.locked {
					t.Errorf("said %d times", said)
				}
			})
		}
	}
}
