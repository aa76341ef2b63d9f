package pipeline

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// leave skips messages of INBOX with a placeholder.
func leave(uids ...uint32) hooks.Hook {
	return hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
		if e.Mailbox != "INBOX" || !slices.Contains(uids, e.UID) {
			return hooks.Verdict{}, nil
		}
		return hooks.Verdict{Action: hooks.Skip, Placeholder: true, Reason: "too much of it", Add: []string{"left"}, Remove: []string{"inbox"}}, nil
	}, hooks.PreFetch)
}

// withPlaceholders leaves two messages on the server.
func withPlaceholders(o *Options) { with(leave(2, 3))(o) }

// idle asserts that a sync finds nothing to do, says nothing and asks for no mail.
func (h *home) idle(s *server, change ...func(*Options)) {
	h.t.Helper()
	h.quiet(s, change...)
	for _, e := range h.events {
		if e.Type != report.EventDone && e.Type != report.EventProgress {
			h.t.Errorf("told %+v", e)
		}
	}
	for _, c := range s.asked {
		if c == "FETCH" || c == "IDENTIFY" || strings.HasPrefix(c, "UID ") {
			h.t.Errorf("the server was asked %q", c)
		}
	}
}

// placeholder gives the file that stands for a message of INBOX, and its text.
func (h *home) placeholder(uid imap.UID) (file, text string) {
	h.t.Helper()
	row := h.row(uid)
	for name, raw := range h.files("INBOX") {
		if row.StubKey != "" && strings.Contains(name, row.StubKey) {
			return filepath.Join(h.dir, "mail", "INBOX", name), raw
		}
	}
	h.t.Fatalf("nothing stands for UID %d: %+v", uid, row)
	return "", ""
}

func TestPlaceholderSaysWhatWasLeftAndCanBeFetched(t *testing.T) {
	t.Parallel()
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := inbox(4, caps...), newHome(t)
			in := s.box("INBOX")
			in.msgs[2].raw = "From: Jane Doe <jane@example.org>\r\nMessage-ID: <m1@example.org>\r\nReferences: <a@b> <bad id> <c@d>\r\nDate: Sat, 01 Nov 2025 10:00:00 +0000\r\n" +
				"Subject: =?utf-8?q?Bilder_aus_K=C3=B6ln?=\r\n\r\nmany pictures\r\n"
			in.msgs[2].flags = []string{`\Flagged`}
			hook := with(leave(2, 3))
			rep := h.sync(s, hook)
			if rep.New != 2 || rep.Skipped != 2 || rep.NewStubs != 0 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			if notes := h.of(report.EventNote); len(notes) != 1 || notes[0] != "hook test said skip 2 times: too much of it" {
				t.Errorf("told %q", notes)
			}
			h.placeholders = []imap.UID{2, 3}
			h.check(s)
			row := h.row(2)
			if row.State != ledger.Skipped || row.Reason != "hook test: too much of it" || row.ID != KeyOf("work", row).MessageID() || row.Key != "" {
				t.Errorf("%+v", row)
			}
			_, text := h.placeholder(2)
			for _, want := range []string{
				"From: \"Jane Doe\" <jane@example.org>\n", "Subject: =?utf-8?q?[not_fetched]_Bilder_aus_K=C3=B6ln?=\n", "In-Reply-To: <m1@example.org>\n",
				"References: <a@b>\n <c@d>\n <m1@example.org>\n", "X-Label: fetch-skipped\n", "leaves the mail on the server (hook test: too much of it).",
				"  Subject       Bilder aus Köln\n", fmt.Sprintf("  Size          %d bytes, as the server says\n", len(in.msgs[2].raw)), "notmuch imap retry",
			} {
				if !strings.Contains(mail.FoldSpace(text), mail.FoldSpace(want)) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			if strings.Contains(text, "many pictures") || s.fetched[2]+s.fetched[3] > 0 {
				t.Error("its body was fetched")
			}
			if tags := h.tags(row.ID); !slices.Equal(tags, []string{"fetch-skipped", "flagged", "left", "unread"}) {
				t.Errorf("tags %q", tags)
			}
			h.idle(s, hook)

			// What the server does to the message shows; --full changes nothing.
			in.flag(2, `\Seen`)
			if rep := h.sync(s, hook); rep.Flagged != 1 {
				t.Errorf("%+v", rep)
			}
			if tags := h.tags(row.ID); !slices.Equal(tags, []string{"fetch-skipped", "left"}) {
				t.Errorf("tags %q", tags)
			}
			in.flag(2, `\Answered`)
			full := func(o *Options) { o.Full = true }
			if rep := h.sync(s, hook, full); rep.New != 0 || rep.Skipped != 2 || !rep.Clean() {
				t.Errorf("full: %+v", rep)
			}
			if tags := h.tags(row.ID); !slices.Equal(tags, []string{"fetch-skipped", "left", "replied", "unread"}) {
				t.Errorf("tags %q", tags)
			}
			h.check(s)
			h.idle(s, hook)

			// At its user's word the mail takes its place, with the tags.
			h.tag(row.ID, []string{"important"}, nil)
			if rep := h.sync(s, hook, func(o *Options) { o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}} }); rep.New != 1 || rep.Healed != 1 || !rep.Clean() {
				t.Errorf("retry: %+v", rep)
			}
			if tags := h.tags("m1@example.org"); !slices.Equal(tags, []string{"important", "inbox", "left", "replied", "unread"}) {
				t.Errorf("tags %q", tags)
			}
			h.placeholders = []imap.UID{3}
			h.check(s)
			h.idle(s, hook)

			// Deleted on the server, it goes; wanted by its hook, the mail comes.
			if rep := h.sync(s, with(leave()), full); rep.New != 1 || rep.Healed != 1 {
				t.Errorf("%+v", rep)
			}
			h.placeholders = nil
			h.check(s)
			in.add(rawMail(9))
			h.sync(s, with(leave(5)))
			h.placeholders = []imap.UID{5}
			h.check(s)
			in.expunge(5)
			h.sync(s, with(leave(5)))
			h.placeholders = nil
			h.check(s)
		})
	}
}

// Nothing that is done to a placeholder here does anything on the server.
func TestPlaceholderNeverTravels(t *testing.T) {
	t.Parallel()
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := inbox(6, caps...), newHome(t)
			s.box("Archive").add(rawMail(100))
			s.box("Trash")
			leave := with(leave(1, 2, 3, 4))
			two := func(o *Options) { o.Keywords, o.TagFlags = []string{"*"}, true }
			h.sync(s, leave, two)
			h.sync(s, leave, two) // the tags of what came are known to both sides
			before := fmt.Sprint(s.box("INBOX").uids(), s.box("Archive").uids(), s.box("Trash").uids())
			writes := s.writes

			removed, _ := h.placeholder(1)
			if err := os.Remove(removed); err != nil {
				t.Fatal(err)
			}
			moved, text := h.placeholder(2)
			if err := os.Rename(moved, filepath.Join(h.dir, "mail", "Archive", "cur", filepath.Base(moved))); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(h.dir, "mail", "INBOX", "new", "copy.1"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			marked, _ := h.placeholder(3)
			if err := os.Rename(marked, filepath.Join(filepath.Dir(filepath.Dir(marked)), "cur", h.row(3).StubKey+":2,FST")); err != nil {
				t.Fatal(err)
			}
			h.tag(h.row(4).ID, []string{"deleted", "work"}, nil)
			for range 3 {
				rep := h.sync(s, leave, two)
				if rep.New+rep.Removed+rep.Deleted+rep.Moved+rep.Uploaded+rep.Pushed+rep.NewStubs != 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
			}
			if now := fmt.Sprint(s.box("INBOX").uids(), s.box("Archive").uids(), s.box("Trash").uids()); now != before || s.writes != writes {
				t.Errorf("the server has %s, had %s; %q", now, before, s.asked)
			}
			for u, m := range s.box("INBOX").msgs {
				if u <= 4 && len(m.flags) > 0 {
					t.Errorf("UID %d has %q", u, m.flags)
				}
			}
			// One that was removed says: ask no more. --full heeds that, too.
			for range 2 {
				h.sync(s, leave, two, func(o *Options) { o.Full = true })
			}
			if row := h.row(1); row.State != ledger.GivenUp {
				t.Errorf("%+v", row)
			}
			if rep := h.sync(s, leave, func(o *Options) { o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 1}} }); rep.New != 1 {
				t.Errorf("retry: %+v", rep)
			}
			if raw := h.files("INBOX")[h.row(1).Name]; raw != strings.ReplaceAll(rawMail(0), "\r\n", "\n") {
				t.Errorf("got %q", raw)
			}
		})
	}
}

func TestPlaceholderOfAMessageThatDoesNotComeBecomesAStub(t *testing.T) {
	t.Parallel()
	s, h := inbox(4, "CONDSTORE"), newHome(t)
	hook := with(leave(2))
	h.sync(s, hook)
	s.box("INBOX").msgs[2].fault = &serverFault{}
	if rep := h.sync(s, hook, func(o *Options) { o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}} }); rep.NewStubs != 1 || rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s, 2)
	if row := h.row(2); row.State != ledger.Stub || row.Attempts != 1 || row.NextTry.IsZero() {
		t.Errorf("%+v", row)
	}
	// From here on it is asked for like any other.
	s.box("INBOX").msgs[2].fault = nil
	h.now = h.now.AddDate(0, 0, 1)
	if rep := h.sync(s, hook); rep.Healed != 1 {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}

func TestPlaceholdersOutliveANewUIDValidity(t *testing.T) {
	t.Parallel()
	s, h := inbox(4), newHome(t)
	silent := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
		if e.UID == 3 || e.UID == 703 {
			return hooks.Verdict{Action: hooks.Skip}, nil
		}
		return hooks.Verdict{}, nil
	}, hooks.PreFetch)
	h.sync(s, with(leave(2, 702), silent))
	old := s.boxes["INBOX"]
	delete(s.boxes, "INBOX")
	in := s.box("INBOX")
	in.validity, in.next, in.modseq = 99, 701, old.modseq
	for _, u := range old.uids() {
		in.msgs[in.add(old.msgs[u].raw)].date = old.msgs[u].date
	}
	h.placeholders, h.givenUp = []imap.UID{702}, []imap.UID{703}
	for range 2 {
		if rep := h.sync(s, with(leave(2, 702), silent)); rep.New != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
		h.check(s)
	}
	if row := h.row(3); row.State != "" {
		t.Errorf("a row of the numbers before stayed: %+v", row)
	}
}

// With the ledger its stubs' rows are lost, but not what the stubs are for.
func TestLostLedgerLeavesEveryMessageOneStub(t *testing.T) {
	t.Parallel()
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := inbox(7, caps...), newHome(t)
			hook := with(leave(2, 3))
			s.box("INBOX").msgs[5].fault = &serverFault{}
			s.box("INBOX").msgs[6].fault = &serverFault{}
			h.sync(s, hook)
			h.placeholders = []imap.UID{2, 3}
			h.check(s, 5, 6)
			h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
			s.box("INBOX").expunge(3)
			s.box("INBOX").expunge(6)
			h.placeholders = []imap.UID{2}
			for range 2 {
				if rep := h.sync(s, hook); rep.New+rep.NewStubs != 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				h.check(s, 5)
			}
			if a, b := h.row(2), h.row(5); a.State != ledger.Skipped || a.Attempts != 0 || b.State != ledger.Stub || b.Attempts == 0 {
				t.Errorf("%+v %+v", a, b)
			}
			s.box("INBOX").msgs[5].fault = nil
			h.now = h.now.AddDate(0, 1, 0)
			if rep := h.sync(s, hook, func(o *Options) { o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}} }); rep.Healed != 2 {
				t.Errorf("%+v", rep)
			}
			h.placeholders = nil
			h.check(s)
			h.idle(s)
		})
	}
}

func TestOnlyAPreFetchSkipHasAPlaceholder(t *testing.T) {
	t.Parallel()
	for _, v := range []hooks.Verdict{{Placeholder: true}, {Action: hooks.Defer, Placeholder: true}} {
		s, h := inbox(2), newHome(t)
		h.sync(s, with(hook(verdict(v), hooks.PreFetch)))
		if lines := h.of(report.EventHook); len(lines) != 1 || !strings.Contains(lines[0], "it answered placeholder, which goes with skip at pre-fetch only") {
			t.Errorf("told %q", lines)
		}
		h.check(s)
	}
}

// Random edits of placeholders here, and of everything on the server, with words
// of the user in between and connections that die: nothing ever reaches the
// server, every other mail is here, and no message has two stubs.
func TestRandomEditsOfPlaceholders(t *testing.T) {
	t.Parallel()
	names := []string{"Archive", "INBOX"}
	isLeft := func(id string) bool { return strings.ContainsAny(id[:strings.IndexByte(id, '@')], "369") }
	for seed := range uint64(20) {
		if spared(seed) {
			continue
		}
		r := rand.New(rand.NewPCG(seed, 3))
		sets := slices.Sorted(maps.Keys(extensions()))
		s, h := newServer(extensions()[sets[r.IntN(len(sets))]]...), newHome(t)
		leave := func(o *Options) {
			with(hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
				return hooks.Verdict{Action: map[bool]hooks.Action{true: hooks.Skip}[isLeft(e.MessageID)], Placeholder: isLeft(e.MessageID)}, nil
			}, hooks.PreFetch))(o)
			o.YesDelete = true
		}
		next := 0
		add := func(b *serverBox) { next++; b.add(rawMail(next)) }
		for _, name := range names {
			for range 8 {
				add(s.box(name))
			}
		}
		h.sync(s, leave)
		asked := make(map[string]bool) // what the user had all the same, or gave up: whatever
		for range 4 {
			var retry, giveUp []Target
			for _, name := range names {
				here := make(map[imap.UID]string) // their files: each seed has the same edits
				for file, raw := range h.files(name) {
					if key, err := stub.ReadKey(strings.NewReader(raw)); err == nil {
						here[key.UID] = file
					}
				}
				for _, u := range slices.Sorted(maps.Keys(here)) {
					switch r.IntN(8) {
					case 0:
						h.do(os.Remove(h.path(name, here[u])))
					case 1:
						key, _ := maildir.ParseName(here[u])
						h.do(os.Rename(h.path(name, here[u]), h.path(name, "cur/"+key+":2,"+[]string{"", "S", "FST"}[r.IntN(3)])))
					}
				}
				b, to := s.box(name), s.box(names[r.IntN(2)])
				for _, u := range b.uids() {
					t := Target{Mailbox: name, UIDValidity: 14, UID: u}
					id := mail.ParseEnvelope([]byte(b.msgs[u].raw)).MessageID
					switch r.IntN(16) {
					case 0:
						b.expunge(u)
					case 1:
						b.flag(u, [][]string{nil, {`\Seen`}, {`\Flagged`}}[r.IntN(3)]...)
					case 2:
						if to != b {
							m := b.expunge(u)
							to.msgs[to.add(m.raw, m.flags...)].date = m.date
						}
					case 3:
						retry, asked[id] = append(retry, t), true
					case 4:
						giveUp = append(giveUp, t)
					}
				}
				add(b)
			}
			for range r.IntN(3) {
				s.cutExamine = 1 + r.IntN(3)
				h.sync(s, leave, func(o *Options) { o.Retry = retry })
			}
			s.cutExamine = 0
			h.sync(s, leave, func(o *Options) { o.Retry, o.GiveUp, o.Full = retry, giveUp, r.IntN(2) == 0 })
			h.sync(s, leave)
			h.quiet(s, leave)
			if s.writes > 0 {
				t.Errorf("the server was told of something")
			}
			for _, name := range names {
				stubs := make(map[string]int)
				mails := make(map[string]int)
				for _, raw := range h.files(name) {
					if key, err := stub.ReadKey(strings.NewReader(raw)); err == nil {
						stubs[fmt.Sprint(key.UID)]++
					} else {
						mails[mail.ParseEnvelope([]byte(raw)).MessageID]++
					}
				}
				for u, m := range s.box(name).msgs {
					id := mail.ParseEnvelope([]byte(m.raw)).MessageID
					n, uid := mails[id], fmt.Sprint(u)
					if n+stubs[uid] > 1 || !isLeft(id) && n != 1 || isLeft(id) && !asked[id] && n > 0 {
						t.Errorf("%s UID %d (%s): %d mails, %d stubs", name, u, id, n, stubs[uid])
					}
					delete(mails, id)
					delete(stubs, uid)
				}
				if len(mails)+len(stubs) > 0 {
					t.Errorf("%s: mails %v and stubs %v of messages that are gone", name, mails, stubs)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}
