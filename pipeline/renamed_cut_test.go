package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// What an interrupted run has put into a mailbox is found where that is now, if it got another name
// on the server meanwhile: it is neither sent again, nor fetched.
func TestARunIsCutOffAndAMailboxRenamedThen(t *testing.T) {
	share.Sweep(t)
	for _, made := range []bool{true, false} { // the mailbox by that run
		for _, wire := range []string{"all", "bare"} {
			for at := 1; at < 14; at += pace() {
				t.Run(fmt.Sprint(made, " ", wire, " cut at ", at), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(wires()[wire]...), newHome(t)
					s.mute, s.made = wire == "bare", 3 // each mailbox that is made has a UIDVALIDITY of its own
					for i := range 4 {
						s.box("INBOX").add(plainMail(i + 20))
					}
					s.box("Trash")
					want := "1 2 20 21 3"
					if !made {
						s.box("Old").add(plainMail(10))
						want = "1 10 2 20 21 3"
					}
					h.sync(s)
					h.sync(s)
					h.maildir("Old")
					for i := range 3 {
						h.put("Old", plainMail(i+1), "S")
					}
					h.move("INBOX", 1, "Old", true)
					h.move("INBOX", 2, "Old", false)
					h.stopAt(s, at)
					known := false
					h.edit(func(l *ledger.Ledger) error {
						rows, err := l.Mailboxes(t.Context())
						known = slices.ContainsFunc(rows, func(k ledger.Mailbox) bool { return k.Name == "Old" && k.UIDValidity != 0 })
						return err
					})
					if !known {
						return // nobody knows who made it, and nothing is in it
					}
					s.rename("Old", "New/Name")
					for range 2 {
						if rep := h.sync(s); !rep.Clean() || rep.Held > 0 || rep.New > 0 {
							t.Errorf("%+v %v", rep, h.events)
						}
					}
					h.has(s, map[string]string{"INBOX": "22 23", "New/Name": want, "Trash": ""})
					h.named()
					h.quiet(s)
					if got := s.names(); len(got) != 3 {
						t.Errorf("the server has %q", got)
					}
				})
			}
		}
	}
}

// A mailbox that gets the name of one that was deleted there is followed, also where several do, as
// the logs of months whose last is deleted. What is here of the deleted one stays, under a name beside.
func TestAMailboxIsRenamedToTheNameOfADeletedOne(t *testing.T) {
	for name, tc := range map[string]struct {
		names []string
		gone  string
		want  map[string]string // numbers of mail
	}{
		"one":     {[]string{"Log", "Log 1"}, "Log 1", map[string]string{"Log 1": "1 2 3 9", "Log 2": "7 8"}},
		"rotated": {[]string{"Log", "Log 1", "Log 1", "Log 2"}, "Log 2", map[string]string{"Log": "10", "Log 1": "1 2 3 9", "Log 2": "4 5 6"}},
	} {
		for _, wire := range []string{"all", "bare"} {
			for at := 0; at < 12; at += pace() {
				t.Run(fmt.Sprint(name, " ", wire, " stopped at ", at), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(wires()[wire]...), newHome(t)
					s.mute = wire == "bare"
					for i, box := range []string{"Log", "Log 1", "Log 2"} {
						s.box(box).validity = uint64(14 + i)
						for n := range 3 - i/2 {
							s.box(box).add(plainMail(3*i + n + 1))
						}
					}
					h.sync(s)
					h.sync(s)
					h.tag("m1@example.org", []string{"mine"}, nil)
					h.tag(fmt.Sprintf("m%d@example.org", map[string]int{"one": 4, "rotated": 7}[name]), []string{"mine"}, nil)
					h.flag("Log", 1, "S")
					h.put("Log", plainMail(9), "S")
					gone := h.files(tc.gone)
					s.drop(tc.gone)
					s.rename(tc.names...)
					if name == "rotated" {
						s.box("Log").validity = 30
						s.box("Log").add(plainMail(10))
					}
					var plan []mail.Action
					if at > 0 {
						h.stopAt(s, at)
					} else if plan, _ = h.planned(s); h.said("would: work/Log is called so") != 1 || h.said("would: the server has another mailbox of this name") != 1 || h.said("no more") > 0 {
						t.Errorf("the dry run said %v", h.events)
					}
					if name == "rotated" { // into which a dry run cannot look by that name
						plan = append(plan, mail.Action{Kind: mail.ActFetch, Mailbox: "Log", From: "a@example.org", Subject: "mail 10"})
					}
					for i := range 2 {
						rep := h.sync(s)
						if !rep.Clean() || rep.Held > 0 || rep.Deleted+rep.Moved+rep.Removed > 0 || at == 0 && rep.New > len(tc.want)-2 {
							t.Errorf("%+v %v", rep, h.events)
						}
						if at == 0 && i == 0 {
							if d := h.notAsPlanned(plan); d != "" {
								t.Errorf("the log differs from the plan:\n%s", d)
							}
						}
					}
					if got := h.files(tc.gone + " (deleted)"); !maps.Equal(got, gone) {
						t.Errorf("of the one that is gone there is %q", slices.Sorted(maps.Keys(got)))
					}
					for _, id := range []string{"m1@example.org", fmt.Sprintf("m%d@example.org", map[string]int{"one": 4, "rotated": 7}[name])} {
						if tags := h.tags(id); !slices.Contains(tags, "mine") {
							t.Errorf("%s has the tags %q", id, tags)
						}
					}
					h.named()
					h.quiet(s)
					if !slices.Equal(s.names(), slices.Sorted(maps.Keys(tc.want))) {
						t.Errorf("the server has %q", s.names())
					}
					for box, numbers := range tc.want {
						var subjects []string
						for n := range strings.FieldsSeq(numbers) {
							subjects = append(subjects, "mail "+n)
						}
						slices.Sort(subjects)
						if got := s.box(box).subjects(); !slices.Equal(got, subjects) || len(h.files(box)) != len(subjects) {
							t.Errorf("%s has %q, and here %d files", box, got, len(h.files(box)))
						}
					}
					if !slices.Contains(s.box("Log 1").msgs[1].flags, `\Seen`) {
						t.Errorf("the flag is not there: %q", s.box("Log 1").msgs[1].flags)
					}
				})
			}
		}
	}
}
