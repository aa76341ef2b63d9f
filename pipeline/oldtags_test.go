package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// filing is what sends mail from one mailbox to another by tags, and deletes it.
func filing(o *Options) {
	o.Moves = []Move{
		{From: "INBOX", To: "Archive", With: "archive"},
		{From: "INBOX", To: "Junk", With: "spam"},
		{From: "INBOX", To: "Archive", Without: "inbox"},
		{From: "Archive", To: "INBOX", With: "inbox"},
	}
	o.DeletedTag = "deleted"
}

// copied is a mail that is somewhere, and of which another file comes.
type copied struct {
	at          string // where it is, when the order of its tags was carried out
	add, remove []string
	to          string   // where the copy comes to
	again       []string // tags that are taken off and given again: a new order
	moves       string   // which moves what is in to there
}

func copiedMails() map[string]copied {
	return map[string]copied{
		"filed":                 {at: "Archive", add: []string{"archive"}, remove: []string{"inbox"}, to: "INBOX", again: []string{"archive"}, moves: "Archive"},
		"filed by a tag's lack": {at: "Archive", remove: []string{"inbox"}, to: "INBOX"},
		"spam":                  {at: "Junk", add: []string{"spam"}, to: "INBOX", again: []string{"spam"}, moves: "Junk"},
		"deleted":               {at: "Trash", add: []string{"deleted"}, to: "INBOX", again: []string{"deleted"}, moves: "Trash"},
		"deleted, in a list":    {at: "Trash", add: []string{"deleted"}, to: "Lists", again: []string{"deleted"}, moves: "Trash"},
		"kept":                  {at: "INBOX", to: "Archive"},
		"kept, in the Trash":    {at: "INBOX", to: "Trash"},
	}
}

// byList is a mail as a list sends it.
func byList(raw string) string { return "Received: by lists\r\n" + raw }

// arrivals are the ways in which a copy of mail 1 comes to a mailbox.
func copiesArrive() map[string]func(h *home, s *server, from, to string) {
	return map[string]func(h *home, s *server, from, to string){
		"by a list": func(_ *home, s *server, _, to string) { s.box(to).add(byList(plainMail(1)), `\Seen`) },
		"copied there": func(_ *home, s *server, from, to string) {
			for _, m := range s.box(from).msgs {
				if m.raw == plainMail(1) {
					s.box(to).msgs[s.box(to).add(m.raw, m.flags...)].date = m.date
				}
			}
			s.box("Lists").expunge(1) // so that mail may have moved
		},
		"copied here":                      func(h *home, _ *server, _, to string) { h.put(to, plainMail(1), "S") },
		"copied here, and notmuch knew it": func(h *home, _ *server, _, to string) { h.put(to, plainMail(1), "S"); h.notmuchNew() },
	}
}

// filed is a home whose mail 1 is where its tags sent it.
func (c copied) filed(t *testing.T, caps ...string) (*server, *home) {
	t.Helper()
	s, h := newServer(caps...), newHome(t)
	s.box("INBOX").add(plainMail(1), `\Seen`)
	for i, box := range []string{"INBOX", "Archive", "Junk", "Lists", "Lists", "Trash"} {
		s.box(box).add(plainMail(90+i), `\Seen`)
	}
	h.sync(s)
	h.tag(id(91), nil, []string{"inbox"})
	h.sync(s, filing)
	h.tag(id(1), c.add, c.remove)
	for range 3 {
		h.sync(s, filing)
	}
	if got := s.holding(id(1)); !slices.Equal(got, []string{c.at}) {
		t.Fatalf("it is in %v", got)
	}
	return s, h
}

// A tag orders something of the files that were there when it was given. What comes
// afterwards stays where it comes to, and so does what is there, until its owner says
// something new.
func TestAnOldTagOrdersNothingOfACopy(t *testing.T) {
	for name, c := range copiedMails() {
		for way, arrive := range copiesArrive() {
			for wire, caps := range wires() {
				if spared(name, way, wire) {
					continue
				}
				t.Run(name+"/"+way+"/"+wire, func(t *testing.T) {
					t.Parallel()
					s, h := c.filed(t, caps...)
					arrive(h, s, c.at, c.to)
					for range 3 {
						if rep := h.sync(s, filing); !rep.Clean() || rep.Moved+rep.Deleted > 0 {
							t.Errorf("%+v", rep)
						}
					}
					want := slices.Sorted(slices.Values([]string{c.at, c.to}))
					if got := s.holding(id(1)); !slices.Equal(got, want) {
						t.Errorf("it is in %v, want %v; tags %v", got, want, h.tags(id(1)))
					}
					h.notmuchNew()
					h.quiet(s, filing)
					h.check(s)
					if c.again == nil {
						return
					}
					h.tag(id(1), nil, c.again)
					h.sync(s, filing)
					h.tag(id(1), c.again, c.remove)
					for range 3 {
						h.sync(s, filing)
					}
					if got := s.holding(id(1)); !slices.Equal(got, []string{c.moves, c.moves}) {
						t.Errorf("after a new order it is in %v; tags %v", got, h.tags(id(1)))
					}
					h.quiet(s, filing)
				})
			}
		}
	}
}

// So it is when the run that brings the copy is stopped behind any of its effects, and also
// where another program tells notmuch of the file first.
func TestAnOldTagOrdersNothingOfACopyAfterAStop(t *testing.T) {
	share.Sweep(t)
	for name, c := range copiedMails() {
		for way, arrive := range copiesArrive() {
			if spared(name, way) {
				continue
			}
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				for at, stopped := 1, true; stopped && !t.Failed(); at += pace() {
					s, h := c.filed(t, wires()["MOVE"]...)
					arrive(h, s, c.at, c.to)
					stopped = h.stopAt(s, at, filing)
					if at%2 == 0 {
						h.notmuchNew()
					}
					for range 3 {
						h.sync(s, filing)
					}
					want := slices.Sorted(slices.Values([]string{c.at, c.to}))
					if got := s.holding(id(1)); !slices.Equal(got, want) {
						t.Errorf("stopped at %d: it is in %v, want %v; tags %v", at, got, want, h.tags(id(1)))
					}
					h.quiet(s, filing)
					h.check(s)
				}
			})
		}
	}
}

// What its owner says after the stop counts, for the copy, too.
func TestANewTagAfterAStopOrdersACopy(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	ordered := 0
	for at, stopped := 1, true; stopped && !t.Failed(); at++ {
		c := copied{at: "Archive", add: []string{"archive"}, remove: []string{"inbox"}}
		s, h := c.filed(t, wires()["MOVE"]...)
		s.box("INBOX").add(byList(plainMail(1)), `\Seen`)
		stopped = h.stopAt(s, at, filing)
		here := h.mailFile("INBOX", byList(plainMail(1))) != ""
		h.notmuchNew()
		h.tag(id(1), []string{"spam"}, []string{"archive"})
		for range 3 {
			h.sync(s, filing)
		}
		got := s.holding(id(1))
		if slices.Equal(got, []string{"Archive", "Junk"}) {
			ordered++
		} else if !slices.Equal(got, []string{"Archive", "INBOX"}) {
			t.Errorf("stopped at %d: it is in %v", at, got)
		}
		if !here && slices.Contains(got, "Junk") {
			t.Errorf("stopped at %d: it was ordered before the copy was there", at)
		}
		h.quiet(s, filing)
	}
	if ordered < 2 {
		t.Errorf("%d of these orders were heard", ordered)
	}
}

// New mail that comes to several mailboxes at once is filed by what its owner's hook says of
// it, whether this program asks it or `notmuch new` does; and that it comes to one mailbox
// moves it out of no other.
func TestNewMailInTwoMailboxesIsFiledByHooks(t *testing.T) {
	const all = "[Gmail]/All Mail"
	gmail := func(o *Options) {
		o.Moves = []Move{{From: "INBOX", To: all, With: "archive"}, {From: "INBOX", To: all, Without: "inbox"}}
	}
	afewTags := func(o *Options) { gmail(o); o.NewTags = []string{"new"} }
	for name, tc := range map[string]struct {
		options func(*Options)
		boxes   []string
		tag     func(h *home) // what the hook does of `notmuch new`
		want    []string
	}{
		"filed":              {gmail, []string{"INBOX", all}, func(h *home) { h.tag(id(1), []string{"archive"}, nil) }, []string{all, all}},
		"filed by afew":      {afewTags, []string{"INBOX", all}, func(h *home) { h.tag(id(1), nil, []string{"new"}) }, []string{all, all}},
		"left there by afew": {afewTags, []string{"INBOX", all}, func(h *home) { h.tag(id(1), []string{"inbox"}, []string{"new"}) }, []string{"INBOX", all}},
		"a copy is archived": {filing, []string{"INBOX", "Archive"}, func(*home) {}, []string{"Archive", "INBOX"}},
		"a copy is kept":     {filing, []string{"Archive", "INBOX"}, func(*home) {}, []string{"Archive", "INBOX"}},
	} {
		for _, batch := range []int{0, 1} {
			for _, connections := range []int{1, 2} {
				if spared(fmt.Sprintf("%s/%d/%d", name, batch, connections)) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%d", name, batch, connections), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(wires()["MOVE"]...), newHome(t)
					options := func(o *Options) { tc.options(o); o.Batch, o.Connections = batch, connections }
					for i, box := range []string{"INBOX", all, "Archive", "Junk", "Trash"} {
						s.box(box).add(plainMail(90+i), `\Seen`)
					}
					h.sync(s)
					h.tag(id(92), nil, []string{"inbox"})
					h.sync(s, options)
					for _, box := range tc.boxes {
						s.box(box).add(plainMail(1))
					}
					h.sync(s, options)
					tc.tag(h)
					for range 3 {
						h.sync(s, options)
					}
					if got := s.holding(id(1)); !slices.Equal(got, tc.want) {
						t.Errorf("it is in %v, want %v; tags %v", got, tc.want, h.tags(id(1)))
					}
					h.quiet(s, options)
				})
			}
		}
	}
}

// A mail of two accounts in one database has one set of tags. What one account's mail was
// tagged with orders nothing of the other's that comes afterwards, and what comes to the other
// one's folders orders nothing of the first one's.
func TestAnotherAccountsTagsOrderNothingOfACopy(t *testing.T) {
	for name, c := range copiedMails() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := c.filed(t, wires()["MOVE"]...)
			two, other := newServer(wires()["MOVE"]...), h.neighbour()
			options := func(o *Options) {
				filing(o)
				o.OrderTags = []string{"archive", "spam", "inbox", "deleted"}
			}
			for i, box := range []string{"INBOX", "Archive", "Junk", "Lists", "Trash"} {
				two.box(box).add(plainMail(80+i), `\Seen`)
			}
			other.sync(two)
			h.tag(id(81), nil, []string{"inbox"})
			other.sync(two, options)
			two.box(c.to).add(plainMail(1), `\Seen`)
			for range 3 {
				other.sync(two, options)
				h.sync(s, options)
			}
			if got, there := s.holding(id(1)), two.holding(id(1)); !slices.Equal(got, []string{c.at}) || !slices.Equal(there, []string{c.to}) {
				t.Errorf("it is in %v here and in %v there; tags %v", got, there, h.tags(id(1)))
			}
			h.quiet(s, options)
			other.quiet(two, options)
		})
	}
}

// A copy keeps that it was not ordered where its owner, a rule or another program moves it, or
// gives its file another name; and a mail that is moved on the way obeys as any other.
func TestACopyThatIsMovedOnObeysNoOldTag(t *testing.T) {
	for name, move := range map[string]func(h *home, s *server){
		"by hand":          func(h *home, _ *server) { h.moveFile("INBOX", h.mailFile("INBOX", plainMail(1)), "Lists", false) },
		"under a new name": func(h *home, _ *server) { h.moveFile("INBOX", h.mailFile("INBOX", plainMail(1)), "Lists", true) },
		"renamed, then by hand": func(h *home, s *server) {
			h.moveFile("INBOX", h.mailFile("INBOX", plainMail(1)), "INBOX", true)
			h.sync(s, filing)
			h.moveFile("INBOX", h.mailFile("INBOX", plainMail(1)), "Lists", true)
		},
		"by a rule": func(h *home, _ *server) { h.tag(id(1), []string{"list"}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := func(o *Options) { filing(o); o.Moves = append(o.Moves, Move{From: "INBOX", To: "Lists", With: "list"}) }
			c := copied{at: "Trash", add: []string{"deleted"}}
			s, h := c.filed(t, wires()["MOVE"]...)
			h.put("INBOX", plainMail(1), "S")
			h.sync(s, options)
			h.sync(s, options)
			// Nobody can say any more that there was another file.
			trash := s.box("Trash")
			trash.take(id(1), s.box("Elsewhere"))
			delete(s.boxes, "Elsewhere")
			h.sync(s, options)
			move(h, s)
			for range 3 {
				if rep := h.sync(s, options); !rep.Clean() || rep.Deleted > 0 {
					t.Errorf("%+v", rep)
				}
			}
			if got := s.holding(id(1)); !slices.Equal(got, []string{"Lists"}) {
				t.Errorf("it is in %v; tags %v", got, h.tags(id(1)))
			}
			h.quiet(s, options)
			h.tag(id(1), nil, []string{"deleted"})
			h.sync(s, options)
			h.tag(id(1), []string{"deleted"}, nil)
			h.sync(s, options)
			if got := s.holding(id(1)); !slices.Equal(got, []string{"Trash"}) {
				t.Errorf("after a new order it is in %v", got)
			}
		})
	}
}

// A mail that a new rule is about, and one that was there in two files when its tag was given,
// obey; so does what comes for the first time, whatever its folder gives it.
func TestWhatIsOrderedOfSeveralFilesIsDone(t *testing.T) {
	t.Parallel()
	s, h := newServer(wires()["MOVE"]...), newHome(t)
	options := func(o *Options) {
		filing(o)
		o.TagRules = func(mailbox string, _ rune) (add, remove []string) {
			if mailbox == "Lists" {
				add = []string{"spam"}
			}
			return add, nil
		}
		o.Moves = append(o.Moves, Move{From: "Lists", To: "Junk", With: "spam"})
	}
	for i, box := range []string{"INBOX", "Archive", "Junk", "Trash"} {
		s.box(box).add(plainMail(90+i), `\Seen`)
	}
	h.sync(s)
	h.tag(id(91), nil, []string{"inbox"})
	s.box("INBOX").add(plainMail(1))
	s.box("INBOX").add(byList(plainMail(1)))
	h.sync(s, options)
	h.put("INBOX", plainMail(2), "S")
	h.put("INBOX", plainMail(2), "S")
	h.notmuchNew()
	h.tag(id(1), []string{"archive"}, []string{"inbox"})
	h.tag(id(2), []string{"deleted"}, nil)
	s.box("Lists").add(plainMail(3))
	for range 4 {
		h.sync(s, options)
	}
	for n, want := range map[int]string{1: "Archive Archive", 2: "Trash", 3: "Junk"} {
		if got := s.holding(id(n)); strings.Join(got, " ") != want {
			t.Errorf("mail %d is in %v, want %s; tags %v", n, got, want, h.tags(id(n)))
		}
	}
	h.quiet(s, options)
}

// Copies of a mail without Message-ID are one message to notmuch, too.
func TestAnOldTagOrdersNothingOfACopyWithoutMessageID(t *testing.T) {
	t.Parallel()
	s, h := newServer(wires()["MOVE"]...), newHome(t)
	raw := strings.NewReplacer("Message-ID", "X-ID", "\x00", "").Replace(plainMail(1))
	s.box("INBOX").add(raw, `\Seen`)
	for i, box := range []string{"INBOX", "Junk", "Trash"} {
		s.box(box).add(plainMail(90+i), `\Seen`)
	}
	h.sync(s)
	h.sync(s, filing)
	db, err := h.index.load()
	h.do(err)
	for id := range db {
		if strings.HasPrefix(id, "notmuch-sha1") {
			h.tag(id, []string{"spam"}, nil)
		}
	}
	h.sync(s, filing)
	h.sync(s, filing)
	s.box("INBOX").add(raw, `\Seen`)
	for range 3 {
		h.sync(s, filing)
	}
	if in, junk := s.box("INBOX").subjects(), s.box("Junk").subjects(); !slices.Equal(in, []string{"mail 1", "mail 90"}) || !slices.Equal(junk, []string{"mail 1", "mail 91"}) {
		t.Errorf("INBOX has %q, Junk %q", in, junk)
	}
	h.quiet(s, filing)
}

// Of a mail that was here in several files before the first sync nobody knows which of them its
// tags were given to. A dry run says so.
func TestTagsOfSeveralFilesBeforeTheFirstSyncOrderNothing(t *testing.T) {
	for name, c := range map[string]struct {
		to    string // where there is another file of mail 1; "": nowhere
		where []string
	}{
		"alone":             {"", []string{"Trash"}},
		"in two mailboxes":  {"Lists", []string{"INBOX", "Lists"}},
		"in one, two times": {"INBOX", []string{"INBOX", "INBOX"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(wires()["MOVE"]...), newHome(t)
			for i, box := range []string{"INBOX", "Archive", "Lists", "Trash"} {
				s.box(box).add(plainMail(90+i), `\Seen`)
				h.put(box, plainMail(90+i), "S")
			}
			s.box("INBOX").add(plainMail(1), `\Seen`)
			h.put("INBOX", plainMail(1), "S")
			if c.to != "" {
				s.box(c.to).add(byList(plainMail(1)), `\Seen`)
				h.put(c.to, byList(plainMail(1)), "S")
			}
			h.notmuchNew()
			h.tag(id(1), []string{"deleted"}, nil)
			h.tag(id(91), nil, []string{"inbox"})
			dry := h.sync(s, filing, func(o *Options) { o.DryRun = true })
			rep := h.sync(s, filing)
			for range 3 {
				h.sync(s, filing)
			}
			if got := s.holding(id(1)); !slices.Equal(got, c.where) {
				t.Errorf("it is in %v; tags %v", got, h.tags(id(1)))
			}
			if dry.Deleted != rep.Deleted {
				t.Errorf("the dry run said %d, the run did %d", dry.Deleted, rep.Deleted)
			}
			h.quiet(s, filing)
		})
	}
}
