package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestATakeOverLeavesTagsAndPlaces as they are of mail that notmuch knew: no rule of the
// configuration gives or takes a tag, or moves a mail for one that it has. That is said, and what
// to type. A tag that changes afterwards is obeyed, and so is all on request.
func TestATakeOverLeavesTagsAndPlaces(t *testing.T) {
	upload := func(o *Options) { o.UploadHere = true }
	for name, first := range map[string]struct {
		there bool // whether the server has the mail
		said  int  // in how many mailboxes some are said to stay
		ways  []func(*Options)
	}{
		"sync":        {true, 2, []func(*Options){nil}},
		"import":      {true, 2, []func(*Options){func(o *Options) { o.PairOnly = true }, nil}},
		"upload":      {false, 2, []func(*Options){upload}},
		"then upload": {false, 0, []func(*Options){nil, upload}},
		"both":        {true, 2, []func(*Options){upload}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			takeOverLeavesTags(t, first.there, first.said, first.ways, plainMail)
		})
		// notmuch's id of a mail without Message-ID is of its file, also of what another program added.
		t.Run(name+", without Message-ID", func(t *testing.T) {
			t.Parallel()
			takeOverLeavesTags(t, first.there, first.said, first.ways, func(n int) string { return strings.Replace(plainMail(n), "Message-ID", "X-ID", 1) })
		})
	}
}

// takeOverLeavesTags takes mail over in some ways, one after the other.
func takeOverLeavesTags(t *testing.T, there bool, many int, ways []func(*Options), text func(n int) string) {
	t.Helper()
	rules := func(o *Options) {
		filing(o)
		o.TagRules = func(string, rune) (add, remove []string) { return []string{"work"}, []string{"todo"} }
	}
	ids := make([]string, 7)
	s, h := newServer(wires()["MOVE"]...), newHome(t)
	for i, box := range []string{"INBOX", "INBOX", "INBOX", "Archive", "Archive", "Drafts", "Sent"} {
		h.maildir(box)
		const added = "X-TUID: 123456789012\r\n"
		file := added + text(i)
		ids[i] = notmuchID([]byte(strings.ReplaceAll(file, "\r\n", "\n")))
		if h.put(box, file, ""); there {
			s.box(box).add(text(i))
		}
	}
	for i, box := range []string{"Junk", "Trash", "INBOX", "Archive", "Drafts", "Sent"} {
		s.box(box).add(plainMail(90+i), `\Seen`)
	}
	h.notmuchNew()
	h.tag(ids[0], []string{"todo"}, []string{"inbox"})
	h.tag(ids[1], []string{"spam"}, nil)
	h.tag(ids[4], nil, []string{"inbox"})
	tags := func() string {
		var out []string
		for i := range 7 {
			out = append(out, fmt.Sprint(i, h.tags(ids[i]), s.holding(id(i))))
		}
		return strings.Join(out, "\n")
	}
	had := make(map[int]string)
	for i := range 7 {
		had[i] = fmt.Sprint(h.tags(ids[i]))
	}
	said := 0
	for _, way := range append(slices.Clone(ways), nil, nil) {
		if way == nil {
			way = func(*Options) {}
		}
		h.sync(s, rules, way)
		said += h.said("2 have tags by which `moves` takes them elsewhere: they stay") + h.said("1 has tags by which `moves` takes it elsewhere: it stays")
	}
	for i, box := range []string{"INBOX", "INBOX", "INBOX", "Archive", "Archive", "Drafts", "Sent"} {
		if fmt.Sprint(h.tags(ids[i])) != had[i] || !slices.Equal(s.holding(id(i)), []string{box}) {
			t.Errorf("mail %d has %v, in %v; before, %v, in %s", i, h.tags(ids[i]), s.holding(id(i)), had[i], box)
		}
	}
	if said != many {
		t.Errorf("that they stay was said %d times, want %d", said, many)
	}
	h.tag(ids[1], nil, []string{"spam"})
	h.sync(s, rules)
	h.tag(ids[1], []string{"spam"}, nil)
	h.sync(s, rules)
	if got := s.holding(id(1)); !slices.Equal(got, []string{"Junk"}) {
		t.Errorf("%s", tags())
	}
	h.sync(s, rules, func(o *Options) { o.Rules = true })
	want := map[int]string{0: "Archive", 1: "Junk", 2: "INBOX", 3: "INBOX", 4: "Archive", 5: "Drafts", 6: "Sent"}
	for _, i := range slices.Sorted(maps.Keys(want)) {
		if got := s.holding(id(i)); !slices.Equal(got, []string{want[i]}) {
			t.Errorf("by the rules mail %d is in %v, want %s", i, got, want[i])
		}
	}
	h.quiet(s, rules)
}

// TestTagsOlderThanTheMailboxGoToTheServer as keywords, when mail that was tagged before becomes a
// mailbox's: by an upload, or since the mailbox is asked for now, or is there now.
func TestTagsOlderThanTheMailboxGoToTheServer(t *testing.T) {
	words := func(o *Options) { o.Keywords = []string{"todo"} }
	for name, tc := range map[string]struct {
		before func(*Options)
		then   func(*server, *Options)
	}{
		"upload":       {then: func(_ *server, o *Options) { o.UploadHere = true }},
		"asked for":    {before: func(o *Options) { o.Selects = func(m string, _ rune) bool { return m != "Archive" } }},
		"there by now": {then: func(s *server, _ *Options) { s.box("Later").add(plainMail(5)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(wires()["MOVE"]...), newHome(t)
			for i, box := range []string{"INBOX", "INBOX", "INBOX", "Archive", "Archive", "Later"} {
				h.maildir(box)
				h.put(box, plainMail(i), "")
			}
			s.box("INBOX").add(plainMail(0))
			s.box("Archive").add(plainMail(3))
			s.box("Archive").add(plainMail(4))
			h.notmuchNew()
			for i := range 6 {
				h.tag(id(i), []string{"todo"}, nil)
			}
			if tc.before == nil {
				tc.before = func(*Options) {}
			}
			for range 3 {
				h.sync(s, words, tc.before)
			}
			h.sync(s, words, func(o *Options) {
				if tc.then != nil {
					tc.then(s, o)
				}
			})
			h.sync(s, words)
			n := 0
			for _, name := range s.names() {
				for _, m := range s.box(name).msgs {
					if n++; !slices.Contains(m.flags, "todo") {
						t.Errorf("%s has a mail without the keyword", name)
					}
				}
			}
			if n < 3 {
				t.Errorf("%d mails", n)
			}
			h.quiet(s, words)
		})
	}
}

// TestWhatComesInATakeOverLeavesTags of mail that notmuch knew: the whole mail whose file was cut
// off, mail that was moved before, and one more copy; so does what an upload that was stopped
// leaves to a sync. Mail that notmuch did not know is tagged by the rules.
func TestWhatComesInATakeOverLeavesTags(t *testing.T) {
	t.Parallel()
	rules := func(o *Options) {
		filing(o)
		o.TagRules = func(string, rune) (add, remove []string) { return []string{"work"}, []string{"todo"} }
	}
	long := func(n int) string { return plainMail(n) + strings.Repeat("a line of text\r\n", 99) }
	s, h := newServer(wires()["MOVE"]...), newHome(t)
	for i, box := range []string{"INBOX", "Archive", "Archive", "Archive", "INBOX", "INBOX", "Archive"} {
		h.maildir(box)
		text := long(i)
		if i < 2 {
			text = text[:len(text)-700] // cut off
		}
		h.put(box, text, "")
		switch i {
		case 0, 1:
			s.box(box).add(long(i))
		case 2: // it was moved from there
			s.box("INBOX").add(long(i))
		case 3, 4: // there are two
			s.box("INBOX").add(long(i))
			s.box("Archive").add(long(i))
		} // the rest is only here
	}
	s.box("INBOX").add(plainMail(90))
	h.notmuchNew()
	for i := range 7 {
		if i%2 == 0 {
			h.tag(id(i), []string{"todo"}, []string{"inbox"}) // the others have what a rule takes
		}
	}
	had := make(map[int]string)
	for i := range 7 {
		had[i] = fmt.Sprint(h.tags(id(i)))
	}
	check := func(when string) {
		t.Helper()
		for i := range 7 {
			if got := fmt.Sprint(h.tags(id(i))); got != had[i] {
				t.Errorf("%s: mail %d has %v, and had %v", when, i, got, had[i])
			}
		}
	}
	h.sync(s, rules)
	check("sync")
	if got := h.tags(id(90)); !slices.Contains(got, "work") {
		t.Errorf("the mail that is new has %v", got)
	}
	h.sync(s, rules)
	check("second sync")
	// It goes on with a sync, if it is stopped when the first mail is sent.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if _, err := h.tryIn(ctx, s, rules, func(o *Options) {
		o.UploadHere = true
		o.Step = func(what string) {
			if what == "message uploaded" {
				stop()
			}
		}
	}); err == nil {
		t.Error("it was not stopped")
	}
	h.put("INBOX", plainMail(91), "S") // so that the folder is read
	h.sync(s, rules)
	check("upload")
	for i, box := range map[int]string{5: "INBOX", 6: "Archive"} {
		if got := s.holding(id(i)); !slices.Equal(got, []string{box}) {
			t.Errorf("mail %d, which was only here, is in %v", i, got)
		}
	}
	h.sync(s, rules)
	check("the end")
	h.quiet(s, rules)
}
