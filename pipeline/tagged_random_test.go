package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// Two machines, each with tags of its own, do not move a mail there and back.
func TestTwoMachinesWithTheSameRulesComeToRest(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		s, one, two := newServer(caps...), newHome(t), newHome(t)
		for i := range 4 {
			s.box("INBOX").add(plainMail(i))
		}
		s.box("Archive").add(plainMail(9))
		s.box("Junk")
		for range 2 {
			one.sync(s, afew)
			two.sync(s, afew)
		}
		one.tag(id(0), nil, []string{"inbox"})
		two.tag(id(1), []string{"spam"}, nil)
		one.tag(id(2), nil, []string{"inbox"}) // on both
		two.tag(id(2), nil, []string{"inbox"})
		for range 3 {
			one.sync(s, afew)
			two.sync(s, afew)
		}
		one.quiet(s, afew)
		two.quiet(s, afew)
		if in, archive, junk := s.box("INBOX").subjects(), s.box("Archive").subjects(), s.box("Junk").subjects(); !slices.Equal(in, []string{"mail 3"}) ||
			!slices.Equal(archive, []string{"mail 0", "mail 2", "mail 9"}) || !slices.Equal(junk, []string{"mail 1"}) {
			t.Errorf("%s: INBOX %q, Archive %q, Junk %q", wire, in, archive, junk)
		}
		for _, h := range []*home{one, two} {
			h.check(s)
			if slices.Contains(h.tags(id(0)), "inbox") || !slices.Contains(h.tags(id(3)), "inbox") {
				t.Errorf("%s: tags %v and %v", wire, h.tags(id(0)), h.tags(id(3)))
			}
		}
	}
}

// Random edits of files, folders and tags on one side, anything on the other, and
// connections that die: both sides end equal, nothing is lost or doubled, and in
// the end every mail is where its tags want it.
func TestRandomFoldersAndTagsConverge(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		if testing.Short() && seed > 0 {
			break
		}
		r := rand.New(rand.NewPCG(seed, 3))
		var caps []string
		for _, c := range []string{"MOVE", "UIDPLUS", "CONDSTORE", "NAMESPACE"} {
			if r.IntN(2) == 0 {
				caps = append(caps, c)
			}
		}
		if slices.Contains(caps, "CONDSTORE") && r.IntN(2) == 0 {
			caps = append(caps, "QRESYNC")
		}
		s, h := newServer(caps...), newHome(t)
		s.mute, s.shallow = r.IntN(2) == 0, r.IntN(2) == 0
		options := func(o *Options) { afew(o); o.YesDelete = true; o.TagFlags = seed%3 == 0 }
		next := 0
		fresh := func() string { next++; return plainMail(next) }
		names := []string{"INBOX", "Archive", "Trash"}
		for _, name := range names {
			for range 4 {
				s.box(name).add(fresh(), [][]string{nil, {`\Seen`}}[r.IntN(2)]...)
			}
		}
		h.sync(s, options)
		h.sync(s, options)
		alive := make(map[string]bool)
		both := make(map[string]bool)
		for round := range 3 {
			for _, name := range names {
				for _, sub := range s.box(name).subjects() {
					alive[sub] = true
				}
			}
			folder := fmt.Sprintf("New %d/Sub", round)
			h.maildir(folder)
			here := make(map[string][]imap.UID)
			for _, name := range names {
				here[name] = s.box(name).uids()
			}
			for _, name := range names {
				b := s.box(name)
				for _, u := range here[name] {
					head := mail.ParseEnvelope([]byte(b.msgs[u].raw))
					local := true
					switch k := r.IntN(16); {
					case k == 0 && name != "Trash":
						h.tag(head.MessageID, []string{"deleted"}, nil)
					case k == 1:
						h.tag(head.MessageID, nil, []string{"inbox"})
					case k == 2:
						h.tag(head.MessageID, []string{"inbox"}, nil)
					case k == 3:
						h.tag(head.MessageID, []string{"spam"}, nil)
					case k == 4:
						h.move(name, u, folder, r.IntN(2) == 0)
					case k == 5:
						h.flag(name, u, "FS")
					case k == 6:
						h.remove(name, u)
						if name == "Trash" {
							delete(alive, head.Subject)
						}
					default:
						local = false
					}
					remote := r.IntN(8) == 0
					if remote {
						to := s.box(names[r.IntN(len(names))])
						m := b.expunge(u)
						to.msgs[to.add(m.raw, m.flags...)].date = m.date
					}
					both[head.Subject] = both[head.Subject] || local && remote
				}
			}
			if r.IntN(2) == 0 {
				raw := fresh()
				h.put(folder, raw, "S")
				alive[mail.ParseEnvelope([]byte(raw)).Subject] = true
			}
			for range r.IntN(3) {
				s.cutAt = s.writes + 1 + r.IntN(8)
				h.sync(s, options)
			}
			s.cutAt = 0
			h.notmuchNew()
			for range 4 {
				h.sync(s, options)
			}
			h.notmuchNew()
			h.sync(s, options)
			h.check(s)
			h.quiet(s, options)
			if s.boxes[folder] == nil {
				t.Errorf("%s was not made: %q", folder, s.names())
			}
			names = s.names()
			have := make(map[string]int)
			for _, name := range names {
				for _, sub := range s.box(name).subjects() {
					have[sub]++
				}
				for _, m := range s.box(name).msgs {
					tags := h.tags(mail.ParseEnvelope([]byte(m.raw)).MessageID)
					for _, move := range h.options(s, nil).moved(afew) {
						if move.Holds(name, tags) && !slices.Contains(tags, "deleted") {
							t.Errorf("%s in %s has the tags %v", mail.ParseEnvelope([]byte(m.raw)).Subject, name, tags)
						}
					}
					if slices.Contains(tags, "deleted") && name != "Trash" {
						t.Errorf("%s in %s is deleted", mail.ParseEnvelope([]byte(m.raw)).Subject, name)
					}
				}
			}
			for sub := range alive {
				if have[sub] == 0 {
					t.Errorf("%s is lost", sub)
				}
			}
			for sub, n := range have {
				if n > 1 && !both[sub] {
					t.Errorf("%s is there %d times", sub, n)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d, round %d, %v, mute %v", seed, round, caps, s.mute)
			}
		}
	}
}

// A run that ends behind any of its effects, and the next one as well, lose and
// double nothing.
func TestARunThatEndsAtAnyPointOfFoldersAndTags(t *testing.T) {
	share.Sweep(t)
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at += pace() {
				s, h := newServer(caps...), newHome(t)
				s.mute = at%2 == 0
				for i := range 6 {
					s.box("INBOX").add(plainMail(i))
				}
				s.box("Trash")
				h.sync(s, afew)
				h.sync(s, afew)
				h.maildir("New/Sub")
				h.move("INBOX", 1, "New/Sub", true)
				h.put("New/Sub", plainMail(7), "S")
				h.tag(id(1), nil, []string{"inbox"})
				h.tag(id(2), []string{"deleted"}, nil)
				h.flag("INBOX", 4, "F")
				h.tag(id(3), nil, []string{"inbox"})
				killed := false
				for range 2 {
					ctx, kill := context.WithCancel(t.Context())
					var n atomic.Int64
					h.withLedger(s, func(o Options) {
						afew(&o)
						o.Step = func(string) {
							if n.Add(1) == int64(at) {
								kill()
							}
						}
						_, err := Sync(ctx, o)
						killed = killed || err != nil
					})
					kill()
				}
				for range 3 {
					h.sync(s, afew)
				}
				for box, want := range map[string][]string{"INBOX": {"mail 4", "mail 5"}, "Archive": {"mail 1", "mail 3"}, "New/Sub": {"mail 0", "mail 7"}, "Trash": {"mail 2"}} {
					if got := s.box(box).subjects(); !slices.Equal(got, want) {
						t.Errorf("killed at %d: %s has %q, want %q", at, box, got, want)
					}
				}
				h.notmuchNew()
				h.check(s)
				h.quiet(s, afew)
				if !killed {
					if at < 20 {
						t.Errorf("only %d points", at)
					}
					return
				}
				if t.Failed() {
					t.FailNow()
				}
			}
		})
	}
}

func (o Options) moved(change func(*Options)) []Move { change(&o); return o.Moves }
