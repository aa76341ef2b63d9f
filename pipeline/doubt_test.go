package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

func TestADifferenceMustAddUp(t *testing.T) {
	rows := []ledger.Row{{UID: 1, State: ledger.Present}, {UID: 2, State: ledger.Stub}, {UID: 3, State: ledger.Intended}, {UID: 4, State: ledger.GivenUp}}
	told := func(uids ...imap.UID) (ms []mail.Message) {
		for _, u := range uids {
			ms = append(ms, mail.Message{UID: u})
		}
		return ms
	}
	for name, c := range map[string]struct {
		v        plan.View
		messages uint32
		want     bool
	}{
		"nothing":                              {plan.View{}, 3, true},
		"one too many":                         {plan.View{}, 4, false},
		"one too few":                          {plan.View{}, 2, false},
		"a new one":                            {plan.View{Messages: told(5)}, 4, true},
		"a new one, told twice":                {plan.View{Messages: told(5, 5, 1)}, 4, true},
		"one that was intended":                {plan.View{Messages: told(3)}, 4, true},
		"of two new ones one":                  {plan.View{Messages: told(6)}, 5, false},
		"one is gone":                          {plan.View{Vanished: mail.UIDSet([]imap.UID{1})}, 2, true},
		"gone is what nobody knew":             {plan.View{Vanished: mail.UIDSet([]imap.UID{3, 9})}, 3, true},
		"of two that are gone one":             {plan.View{Vanished: mail.UIDSet([]imap.UID{1})}, 1, false},
		"one that is there is said to be gone": {plan.View{Vanished: mail.UIDSet([]imap.UID{1})}, 3, false},
		"new and gone":                         {plan.View{Messages: told(5), Vanished: mail.UIDSet([]imap.UID{5})}, 3, true},
		"UID 0":                                {plan.View{Messages: told(0)}, 3, true},
	} {
		if got := plan.AddsUp(rows, c.v, c.messages); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCountersThatWentBack(t *testing.T) {
	known := ledger.Mailbox{Complete: true, UIDValidity: 14, UIDNext: 9, HighestModSeq: 50}
	for name, c := range map[string]struct {
		known      ledger.Mailbox
		now        mail.Status
		back, uids bool
	}{
		"the same":            {known, mail.Status{UIDValidity: 14, UIDNext: 9, HighestModSeq: 50}, false, false},
		"they grew":           {known, mail.Status{UIDValidity: 14, UIDNext: 10, HighestModSeq: 51}, false, false},
		"not told":            {known, mail.Status{UIDValidity: 14}, false, false},
		"UIDNEXT":             {known, mail.Status{UIDValidity: 14, UIDNext: 8, HighestModSeq: 51}, true, true},
		"HIGHESTMODSEQ":       {known, mail.Status{UIDValidity: 14, UIDNext: 10, HighestModSeq: 1}, true, false},
		"another UIDVALIDITY": {known, mail.Status{UIDValidity: 15, UIDNext: 1, HighestModSeq: 1}, false, false},
		"never complete":      {ledger.Mailbox{UIDValidity: 14, UIDNext: 9}, mail.Status{UIDValidity: 14, UIDNext: 1}, false, false},
	} {
		if back, uids := plan.WentBack(c.known, c.now), plan.UIDsWentBack(c.known, c.now); back != c.back || uids != c.uids {
			t.Errorf("%s: %v, %v", name, back, uids)
		}
	}
}

func TestDoubtThatMessagesAreGone(t *testing.T) {
	strict := ledger.Mailbox{Complete: true, UIDValidity: 14, UIDNext: 9, HighestModSeq: 50}
	plain := ledger.Mailbox{Complete: true, UIDValidity: 14, UIDNext: 9}
	all := func(uids ...imap.UID) plan.View { return plan.View{Complete: true, UIDs: uids} }
	five := &mail.Status{UIDValidity: 14, Messages: 5}
	for name, c := range map[string]struct {
		known      ledger.Mailbox
		status     *mail.Status
		now        mail.Status
		v          plan.View
		gone, ours int
		want       string
		oldest     bool
	}{
		"as it should be":                                      {strict, five, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 5}, all(1, 2, 3, 4, 5), 1, 0, "", false},
		"a difference":                                         {strict, five, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 4}, plan.View{}, 1, 0, "", false},
		"nothing is gone":                                      {strict, five, mail.Status{UIDValidity: 14, UIDNext: 1}, all(), 0, 0, "", false},
		"one is not listed":                                    {strict, five, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 5}, all(1, 2, 3, 4), 1, 0, "has 5 messages, and lists 4", false},
		"one came meanwhile":                                   {strict, five, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 5}, all(1, 2, 3, 4, 5, 6), 1, 0, "", false},
		"empty all of a sudden":                                {strict, five, mail.Status{UIDValidity: 14, UIDNext: 9}, all(), 5, 0, "5 messages, and then that it has 0", false},
		"fewer all of a sudden":                                {plain, five, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 1}, all(1), 4, 0, "5 messages, and then that it has 1", false},
		"what we took away":                                    {plain, five, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 3}, all(1, 2, 3), 2, 2, "", false},
		"no status":                                            {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 3}, all(1, 2, 3), 2, 0, "", false},
		"a status of other UIDs":                               {plain, &mail.Status{UIDValidity: 13, Messages: 5}, mail.Status{UIDValidity: 14, UIDNext: 9, Messages: 3}, all(1, 2, 3), 2, 0, "", false},
		"UIDNEXT went back":                                    {strict, nil, mail.Status{UIDValidity: 14, UIDNext: 8}, all(), 1, 0, "next UID was 9 and is 8", false},
		"UIDNEXT after the newest":                             {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 8}, all(), 5, 0, "", false},
		"UIDNEXT went back a long way":                         {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 1}, all(), 6, 0, "next UID was 9 and is 1", false},
		"HIGHESTMODSEQ alone went back":                        {strict, nil, mail.Status{UIDValidity: 14, UIDNext: 9, HighestModSeq: 1, Messages: 4}, all(1, 2, 3, 4), 1, 0, "", false},
		"both went back, nothing is gone":                      {strict, nil, mail.Status{UIDValidity: 14, UIDNext: 8, HighestModSeq: 1, Messages: 4}, all(1, 2, 3, 4), 0, 0, "", false},
		"the oldest, and as many are left as Gmail shows":      {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 2003, Messages: 1000}, plan.View{}, 2, 0, "shows exactly 1000", true},
		"the oldest, by a difference":                          {strict, nil, mail.Status{UIDValidity: 14, UIDNext: 20003, Messages: 10000}, plan.View{}, 1, 0, "shows exactly 10000", true},
		"the oldest, and another number is left":               {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 2003, Messages: 1001}, plan.View{}, 2, 0, "", true},
		"others than the oldest, and as many as Gmail shows":   {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 2003, Messages: 1000}, plan.View{}, 2, 0, "", false},
		"the oldest, which we took away, and as many are left": {plain, nil, mail.Status{UIDValidity: 14, UIDNext: 2003, Messages: 1000}, plan.View{}, 2, 2, "", true},
	} {
		got := plan.DoubtOf(c.known, c.status, c.now, c.v, c.gone, c.ours, c.oldest)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTheOldestOfAMailbox(t *testing.T) {
	rows := []ledger.Row{{UID: 1, State: ledger.Intended}, {UID: 2, State: ledger.Present}, {UID: 4, State: ledger.Stub}, {UID: 7, State: ledger.Present}}
	for _, c := range []struct {
		gone []imap.UID
		want bool
	}{{nil, true}, {[]imap.UID{2}, true}, {[]imap.UID{2, 4}, true}, {[]imap.UID{2, 4, 7}, true}, {[]imap.UID{4}, false}, {[]imap.UID{2, 7}, false}, {[]imap.UID{7}, false}} {
		if got := plan.Oldest(rows, c.gone); got != c.want {
			t.Errorf("%v: %v", c.gone, got)
		}
	}
}

// TestWhatAServerShowsNoMoreStaysHere: it shows the newest 1,000 messages of a mailbox, so
// that each new one takes an old one out of sight.
func TestWhatAServerShowsNoMoreStaysHere(t *testing.T) {
	t.Parallel()
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const shown = 1000
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for i := range shown {
				in.add(plainMail(i+1), `\Seen`)
			}
			h.sync(s)
			for i := range 3 {
				in.expunge(imap.UID(i + 1))
				in.add(plainMail(shown+i+1), `\Seen`)
			}
			rep := h.sync(s)
			if rep.New != 3 || rep.Removed != 0 || rep.Held != 3 || len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "it shows exactly 1000") {
				t.Errorf("%+v", rep)
			}
			if n := len(h.files("INBOX")); n != shown+3 {
				t.Errorf("%d files", n)
			}
			// A person says that they were deleted.
			if rep := h.sync(s, func(o *Options) { o.YesDeleteIn = []string{"INBOX"} }); rep.Removed != 3 {
				t.Errorf("%+v", rep)
			}
			h.same(s, "INBOX")
		})
	}
}

// same asserts that the folder holds what the server's mailbox does.
func (h *home) same(s *server, mailbox string) {
	h.t.Helper()
	var got []string
	for _, raw := range h.files(mailbox) {
		got = append(got, strings.ReplaceAll(raw, "\n", "\r\n"))
	}
	var want []string
	for _, m := range s.box(mailbox).msgs {
		want = append(want, m.raw)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.t.Errorf("%d files for %d messages", len(got), len(want))
	}
}

// What a server leaves out of a difference, or says wrongly in it, is found by a look
// at the whole mailbox.
func TestADifferenceThatDoesNotAddUpIsNotBelieved(t *testing.T) {
	without := func(sel *mail.Selected, uid imap.UID) {
		sel.Changed = slices.DeleteFunc(sel.Changed, func(m mail.Message) bool { return m.UID == uid })
	}
	for name, c := range map[string]struct {
		do    func(b *serverBox)
		tells func(sel *mail.Selected)
	}{
		"a new message left out": {
			func(b *serverBox) { b.add(plainMail(20)); b.add(plainMail(21)) },
			func(sel *mail.Selected) { without(sel, 11) },
		},
		"a message that went left out": {
			func(b *serverBox) { b.expunge(3); b.expunge(4) },
			func(sel *mail.Selected) { sel.Vanished = mail.UIDSet([]imap.UID{3}) },
		},
		"messages that are there are said to be gone": {
			func(b *serverBox) { b.flag(1, `\Seen`) },
			func(sel *mail.Selected) { sel.Vanished = mail.UIDSet([]imap.UID{2, 3, 4, 5, 6, 7, 8}) },
		},
		"the wrong messages are said to be gone": {
			func(b *serverBox) { b.expunge(9) },
			func(sel *mail.Selected) { sel.Vanished = mail.UIDSet([]imap.UID{8}) },
		},
		"mod-sequences went back": {
			func(b *serverBox) {
				b.add(plainMail(20))
				b.expunge(2)
				for u := range b.msgs {
					b.msgs[u].modseq = 1
				}
				b.flag(3, `\Flagged`)
				b.gone, b.modseq, b.msgs[3].modseq = map[imap.UID]uint64{}, 2, 2
			},
			nil,
		},
	} {
		for _, caps := range [][]string{{"CONDSTORE", "QRESYNC"}, {"CONDSTORE"}, nil} {
			t.Run(name+"/"+strings.Join(caps, " "), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				for i := range 10 {
					in.add(plainMail(i))
				}
				h.sync(s)
				h.sync(s)
				c.do(in)
				s.tells = func(sel *mail.Selected) {
					if sel.Resynced && c.tells != nil {
						c.tells(sel)
					}
				}
				if rep := h.sync(s); !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				h.check(s)
				h.quiet(s)
			})
		}
	}
}

// A server whose answers contradict each other has nothing removed here, however
// little it is; that is said, and it is over when they agree.
func TestAContradictionRemovesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(s *server)
		over  func(s *server)
		words string
	}{
		"EXAMINE says 0 where STATUS says 10": {
			func(s *server) {
				s.box("INBOX").flag(1, `\Seen`)
				s.tells = func(sel *mail.Selected) { sel.Messages, sel.Resynced = 0, false }
			},
			func(s *server) { s.tells = nil },
			"has 10 messages, and then that it has 0",
		},
		"a list that lacks one": {
			func(s *server) {
				s.box("INBOX").flag(1, `\Seen`)
				s.hides = mail.UIDSet([]imap.UID{4})
				s.tells = func(sel *mail.Selected) { sel.Resynced = false; sel.HighestModSeq = 0 }
			},
			func(s *server) { s.hides, s.tells = nil, nil },
			"has 10 messages, and lists 9",
		},
		"another server, with nothing in it": {
			func(s *server) {
				s.boxes["INBOX"] = nil
				s.box("INBOX")
			},
			func(s *server) {
				for i := range 10 {
					s.box("INBOX").add(plainMail(i))
				}
				s.box("INBOX").modseq = 99
			},
			"next UID was 11 and is 1",
		},
		"another server, with nothing in it but as many UIDs": {
			func(s *server) {
				s.boxes["INBOX"] = nil
				s.box("INBOX").next, s.box("INBOX").modseq = 11, 50
			},
			func(s *server) {
				s.boxes["INBOX"] = nil
				for i := range 10 {
					s.box("INBOX").add(plainMail(i))
				}
				s.box("INBOX").modseq = 99
			},
			"lists 10 of 10 messages no more",
		},
	} {
		for _, caps := range [][]string{{"CONDSTORE", "QRESYNC"}, {"CONDSTORE"}, nil} {
			t.Run(name+"/"+strings.Join(caps, " "), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				for i := range 10 {
					s.box("INBOX").add(plainMail(i))
				}
				h.sync(s)
				h.sync(s)
				before := len(h.files("INBOX"))
				c.do(s)
				for range 2 {
					rep := h.sync(s)
					if rep.Removed > 0 || rep.Held == 0 || len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, c.words) || !strings.Contains(rep.Faults[0].Text, "--yes-delete") {
						t.Errorf("%+v", rep)
					}
					if n := len(h.files("INBOX")); n != before {
						t.Errorf("%d files of %d", n, before)
					}
				}
				c.over(s)
				if rep := h.sync(s); !rep.Clean() || rep.New+rep.Removed > 0 {
					t.Errorf("%+v", rep)
				}
				h.same(s, "INBOX")
				h.quiet(s)
			})
		}
	}
}

// Others delete mail while a run asks one question after another: that is no contradiction.
func TestWhatOthersDeleteMeanwhileIsNoContradiction(t *testing.T) {
	for _, caps := range [][]string{{"CONDSTORE", "QRESYNC"}, {"CONDSTORE"}, nil} {
		for _, before := range []string{"EXAMINE INBOX", "FLAGS", "SEARCH"} {
			for _, gone := range [][]imap.UID{{4}, {1, 2, 3, 4, 5}, {4, 6}, {1, 2, 3, 4, 5, 6}} {
				for _, came := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/%v/%v", strings.Join(caps, " "), before, gone, came), func(t *testing.T) {
						t.Parallel()
						s, h := newServer(caps...), newHome(t)
						in := s.box("INBOX")
						for i := range 5 {
							in.add(plainMail(i))
						}
						h.sync(s)
						in.flag(1, `\Seen`)
						in.add(plainMail(6))
						in.expunge(2)
						s.before = func(what string) {
							if !strings.HasPrefix(what, before) {
								return
							}
							for _, u := range gone {
								if in.msgs[u] != nil {
									in.expunge(u)
								}
							}
							if came {
								in.add(plainMail(7))
							}
							s.before = nil
						}
						for range 2 {
							if rep := h.sync(s); !rep.Clean() || rep.Held > 0 {
								t.Errorf("%+v", rep)
							}
						}
						h.check(s)
						h.quiet(s)
					})
				}
			}
		}
	}
}

// Another client moves all mail of a mailbox to one that this run has looked into already, or found
// unchanged, or that is new: that is no reason to ask anybody. What is deleted while something else comes
// is asked about with the next sync.
func TestMailThatIsMovedBetweenTwoLooksIsAskedAboutByNobody(t *testing.T) {
	for wire, caps := range wires() {
		for _, to := range []string{"looked into", "unchanged", "new", "nowhere"} {
			t.Run(wire+"/"+to, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				from := s.box("Z")
				for i := range 12 {
					from.add(plainMail(i), `\Seen`)
				}
				s.box("A").add(plainMail(20), `\Seen`)
				h.sync(s)
				h.index.tag(t, id(3), []string{"mine"}, nil)
				from.flag(1, `\Flagged`, `\Seen`)
				if to == "looked into" {
					s.box("A").add(plainMail(21), `\Seen`)
				}
				s.before = func(what string) {
					if !strings.HasPrefix(what, "EXAMINE Z") {
						return
					}
					s.before = nil
					for _, u := range from.uids() {
						switch to {
						case "nowhere":
							from.expunge(u)
						case "new":
							s.relocate("Z", u, "N")
						default:
							s.relocate("Z", u, "A")
						}
					}
					if to == "nowhere" {
						s.box("A").add(plainMail(22), `\Seen`)
					}
				}
				if rep := h.sync(s, func(o *Options) { o.Connections = 1 }); !rep.Clean() || rep.Held+rep.Removed > 0 {
					t.Errorf("%+v", rep)
				}
				if n := len(h.files("Z")); n != 12 {
					t.Errorf("%d files", n)
				}
				rep := h.sync(s)
				if to == "nowhere" {
					if rep.Held != 12 || len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "--yes-delete") {
						t.Errorf("%+v", rep)
					}
					return
				}
				if !rep.Clean() || rep.New != 12 || rep.Linked != 12 {
					t.Errorf("%+v", rep)
				}
				h.check(s)
				h.quiet(s)
				if db, err := h.index.load(); err != nil || !slices.Contains(db[id(3)].Tags, "mine") {
					t.Errorf("%v: the mail has the tags %q", err, db[id(3)].Tags)
				}
			})
		}
	}
}

// A server that was restored from a backup deals its UIDs anew: what has them now is
// not what had them, and what it lost stays here.
func TestAServerRestoredFromABackup(t *testing.T) {
	for _, caps := range [][]string{{"CONDSTORE", "QRESYNC", "UIDPLUS", "MOVE"}, {"CONDSTORE"}, nil} {
		for _, came := range []int{0, 2, 4, 6} {
			if caps == nil && came != 2 {
				continue // nothing tells it from one whose newest mail was deleted, or to which mail came
			}
			t.Run(fmt.Sprint(caps, came), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				for i := range 10 {
					in.add(plainMail(i))
				}
				h.sync(s)
				h.sync(s)
				backup := newServer(caps...)
				for i := range 6 {
					backup.box("INBOX").add(plainMail(i))
				}
				for i := range came {
					backup.box("INBOX").add(plainMail(100 + i))
				}
				backup.box("INBOX").modseq = 8 // fewer changes than before
				// A flag that is set here meant a mail that has its UID no more.
				h.flag("INBOX", 8, "FS")
				for range 3 {
					rep := h.sync(backup)
					if rep.Removed+rep.Pushed > 0 {
						t.Errorf("%+v", rep)
					}
				}
				var have []string
				for _, raw := range h.files("INBOX") {
					have = append(have, raw)
				}
				for i := range 10 {
					if n := countOf(have, plainMail(i)); n != 1 {
						t.Errorf("mail %d is here %d times", i, n)
					}
				}
				for i := range came {
					if n := countOf(have, plainMail(100+i)); n != 1 {
						t.Errorf("new mail %d is here %d times", i, n)
					}
				}
				for u, m := range backup.box("INBOX").msgs {
					if len(m.flags) > 0 {
						t.Errorf("UID %d got the flags %v", u, m.flags)
					}
				}
			})
		}
	}
}

func countOf(have []string, raw string) (n int) {
	for _, h := range have {
		if h == strings.ReplaceAll(raw, "\r\n", "\n") {
			n++
		}
	}
	return n
}

// What is asked beside a difference costs a round trip only where messages are gone.
func TestADifferenceIsCheckedByOneSearch(t *testing.T) {
	t.Parallel()
	s, h := newServer("CONDSTORE", "QRESYNC"), newHome(t)
	in := s.box("INBOX")
	for i := range 10 {
		in.add(plainMail(i))
	}
	h.sync(s)
	h.sync(s)
	for name, c := range map[string]struct {
		do   func()
		want []string
	}{
		"nothing": {func() {}, []string{"LIST"}},
		"a flag":  {func() { in.flag(1, `\Seen`) }, []string{"LIST", "EXAMINE INBOX"}},
		"a mail":  {func() { in.add(plainMail(30)) }, []string{"LIST", "EXAMINE INBOX", "FETCH"}},
		"is gone": {func() { in.expunge(slices.Max(in.uids())) }, []string{"LIST", "EXAMINE INBOX", "SEARCH"}},
	} {
		c.do()
		if rep := h.sync(s); !rep.Clean() {
			t.Errorf("%+v", rep)
		}
		if !slices.Equal(s.asked, c.want) {
			t.Errorf("%s: asked %q, want %q", name, s.asked, c.want)
		}
	}
}
