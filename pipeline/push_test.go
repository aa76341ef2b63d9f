package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// file gives the name of a message's file.
func (h *home) file(mailbox string, uid imap.UID) string {
	h.t.Helper()
	l, done := h.reading()
	defer done()
	row, ok, err := l.Get(context.Background(), mailbox, 14, uid)
	if err != nil || !ok {
		h.t.Fatalf("UID %d is not in the ledger: %v", uid, err)
	}
	key := row.Key
	if key == "" {
		key = row.StubKey
	}
	name, ok, err := maildir.Dir(filepath.Join(h.dir, "mail", mailbox)).Find(key)
	if err != nil || !ok {
		h.t.Fatalf("UID %d has no file: %v", uid, err)
	}
	return name
}

// flag gives a message's file these letters, as Mutt does, and tells the index,
// as `notmuch new` does.
func (h *home) flag(mailbox string, uid imap.UID, letters string) {
	h.t.Helper()
	h.flagFile(mailbox, h.file(mailbox, uid), letters)
}

// flagFile is flag of the file with this name.
func (h *home) flagFile(mailbox, from, letters string) {
	h.t.Helper()
	key, _ := maildir.ParseName(from)
	to := "cur/" + filepath.Base(key) + ":2," + letters
	dir := filepath.Join(h.dir, "mail", mailbox)
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		h.t.Fatal(err)
	}
	db, err := h.index.load()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range db {
		if i := slices.Index(m.Files, filepath.Join(dir, from)); i >= 0 {
			m.Files[i] = filepath.Join(dir, to)
			var all string // as notmuch new does, of all files of the message
			for _, f := range m.Files {
				_, l, _ := strings.Cut(f, ":2,")
				all += l
			}
			for _, f := range plan.FlagRows() {
				m.Tags = slices.DeleteFunc(m.Tags, func(t string) bool { return t == f.Tag })
				if f.Tag != "" && strings.Contains(all, f.Letter) != f.Absent {
					m.Tags = append(m.Tags, f.Tag)
				}
			}
			slices.Sort(m.Tags)
		}
	}
	if err := h.index.save(db); err != nil {
		h.t.Fatal(err)
	}
}

func TestFlagsThatTheUserChangesReachTheServer(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for i := range 6 {
				in.add(rawMail(i), [][]string{nil, {`\Seen`}, {`\Seen`, `\Flagged`, "todo"}}[i%3]...)
			}
			h.sync(s)
			h.flag("INBOX", 1, "S")
			h.flag("INBOX", 2, "")
			h.flag("INBOX", 3, "RS")
			in.flag(3, `\Seen`, `\Flagged`, "todo", `$Forwarded`)
			in.flag(4, `\Seen`)
			h.flag("INBOX", 4, "S")
			if rep := h.sync(s); rep.Pushed != 4 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			for u, want := range map[imap.UID][]string{1: {`\Seen`}, 2: {}, 3: {"todo", `\Seen`, `$Forwarded`, `\Answered`}, 4: {`\Seen`}, 5: {`\Seen`}} {
				if !plan.SameFlags(in.msgs[u].flags, want) {
					t.Errorf("UID %d has %v, want %v", u, in.msgs[u].flags, want)
				}
			}
			h.check(s)
			for range 2 {
				if rep := h.sync(s); rep.Pushed+rep.Flagged != 0 || !rep.Clean() {
					t.Errorf("then: %+v", rep)
				}
			}
			s.asked = nil
			h.sync(s)
			if s.Has("CONDSTORE") && !slices.Equal(s.asked, []string{"LIST"}) {
				t.Errorf("idle asks %q", s.asked)
			}
		})
	}
}

func (s *server) Has(capability string) bool { return slices.Contains(s.caps, capability) }

func TestWhatNeverGoesUp(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	in := s.box("INBOX")
	for i := range 4 {
		in.add(rawMail(i))
	}
	in.msgs[2].fault = &serverFault{}
	h.sync(s)
	h.flag("INBOX", 2, "FS") // a stub
	if rep := h.sync(s); rep.Pushed != 0 || s.writes != 0 {
		t.Errorf("%+v, %d writes", rep, s.writes)
	}
	h.flag("INBOX", 3, "F")
	if rep := h.sync(s, func(o *Options) { o.ReadOnly = true }); rep.Pushed != 0 || s.writes != 0 {
		t.Errorf("read only: %+v, %d writes", rep, s.writes)
	}
	if rep := h.sync(s, func(o *Options) { o.DryRun = true }); rep.Pushed != 1 || s.writes != 0 {
		t.Errorf("dry run: %+v, %d writes", rep, s.writes)
	}
	if rep := h.sync(s); rep.Pushed != 1 || !plan.HasFlag(in.msgs[3].flags, `\Flagged`) {
		t.Errorf("%+v", rep)
	}
}

// What the server does not keep stays in the file, and is said once.
func TestAFlagThatTheServerDoesNotKeepStaysHere(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			s.permanent = []string{`\Seen`}
			in := s.box("INBOX")
			for i := range 3 {
				in.add(rawMail(i))
			}
			h.sync(s)
			h.flag("INBOX", 1, "PS")
			said := 0
			for i := range 4 {
				h.flag("INBOX", 2, []string{"S", ""}[i%2])
				in.flag(3, [][]string{{`\Seen`}, {}}[i%2]...)
				h.events = nil
				h.sync(s)
				for _, e := range h.events {
					if e.Type == report.EventNote && strings.Contains(e.Text, "$Forwarded") {
						said++
					}
				}
				if name := h.file("INBOX", 1); !strings.HasSuffix(name, ":2,PS") {
					t.Errorf("the file became %s", name)
				}
				if !plan.SameFlags(in.msgs[1].flags, []string{`\Seen`}) {
					t.Errorf("the server has %v", in.msgs[1].flags)
				}
			}
			if said != 1 {
				t.Errorf("said %d times", said)
			}
		})
	}
}

func TestACutInThePushIsMadeGood(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 3; at++ {
		s, h := newServer(), newHome(t)
		in := s.box("INBOX")
		for i := range 6 {
			in.add(rawMail(i), [][]string{nil, {`\Seen`}}[i%2]...)
		}
		h.sync(s)
		h.flag("INBOX", 1, "FS")
		h.flag("INBOX", 2, "")
		in.flag(3, `\Answered`)
		s.cutAt = at
		h.sync(s) // on a fresh connection, or with the next run
		if s.writes < at {
			t.Errorf("no cut at %d", at)
		}
		h.sync(s)
		h.check(s)
		if !plan.SameFlags(in.msgs[1].flags, []string{`\Seen`, `\Flagged`}) || !plan.SameFlags(in.msgs[2].flags, nil) {
			t.Errorf("cut at %d: %v %v", at, in.msgs[1].flags, in.msgs[2].flags)
		}
	}
}

func TestARefusedStoreCostsOnlyItsMailbox(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(1))
	s.box("Other").add(rawMail(2))
	h.sync(s)
	h.flag("INBOX", 1, "S")
	s.refuses = map[string]*mail.Fault{"UID STORE": {Text: "read-only today"}}
	s.box("Other").add(rawMail(3))
	if rep := h.sync(s); len(rep.Faults) != 1 || rep.Faults[0].Mailbox != "INBOX" || rep.New != 1 {
		t.Errorf("%+v", rep)
	}
	s.refuses = nil
	if rep := h.sync(s); rep.Pushed != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}

// Random changes of flags on both sides, with any extensions, and a connection
// that dies now and then: both sides end with what a person would expect of the
// two, flag by flag, and the sync after that has nothing to do.
func TestRandomFlagsConverge(t *testing.T) {
	t.Parallel()
	rows := slices.DeleteFunc(plan.FlagRows(), func(f plan.FlagRow) bool { return f.Tag == "" })
	for seed := range uint64(60) {
		if spared(seed) {
			continue
		}
		r := rand.New(rand.NewPCG(seed, 1))
		caps := [][]string{nil, {"CONDSTORE"}, {"CONDSTORE", "QRESYNC"}}[r.IntN(3)]
		s, h := newServer(caps...), newHome(t)
		in := s.box("INBOX")
		random := func() (letters string, flags []string) {
			for _, f := range rows {
				if r.IntN(2) == 0 {
					letters, flags = letters+f.Letter, append(flags, f.Flag)
				}
			}
			b := []byte(letters)
			slices.Sort(b)
			return string(b), flags
		}
		for i := range 8 {
			_, flags := random()
			in.add(rawMail(i), flags...)
		}
		h.sync(s)
		for range 3 {
			want := map[imap.UID][]string{}
			for _, u := range in.uids() {
				base := in.msgs[u].flags
				letters, ours := "", slices.Clone(base)
				theirs := slices.Clone(base)
				if r.IntN(2) == 0 {
					letters, ours = random()
					h.flag("INBOX", u, letters)
				}
				if r.IntN(2) == 0 {
					_, theirs = random()
					in.flag(u, theirs...)
				}
				for _, f := range rows {
					was, a, b := plan.HasFlag(base, f.Flag), plan.HasFlag(ours, f.Flag), plan.HasFlag(theirs, f.Flag)
					if a != was && a || b != was && b || was && a && b {
						want[u] = append(want[u], f.Flag)
					}
				}
			}
			if r.IntN(2) == 0 {
				s.cutAt = s.writes + 1 + r.IntN(5)
				h.sync(s)
				s.cutAt = 0
			}
			for range 2 {
				h.sync(s)
			}
			for u, flags := range want {
				if !plan.SameFlags(in.msgs[u].flags, flags) {
					t.Errorf("seed %d: UID %d has %v, want %v", seed, u, in.msgs[u].flags, flags)
				}
			}
			h.check(s)
			if rep := h.sync(s); rep.Pushed+rep.Flagged != 0 || !rep.Clean() {
				t.Errorf("seed %d: not quiet: %+v", seed, rep)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// A connection that dies behind the push lets the mailbox be looked into again:
// what was done is not done, nor counted, twice.
func TestALookThatIsRepeatedCountsOnce(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for i := range 6 {
				in.add(rawMail(i))
			}
			h.sync(s)
			h.flag("INBOX", 1, "S")
			h.flag("INBOX", 2, "F")
			in.flag(3, `\Seen`)
			in.expunge(4)
			in.add(rawMail(7))               // wants EXAMINE behind the push
			for _, at := range []int{1, 2} { // SELECT before the push, EXAMINE behind it
				s.dials, s.writes, s.cutExamine = 0, 0, at
				if at == 2 {
					h.flag("INBOX", 1, "")
					h.flag("INBOX", 2, "")
					in.flag(3)
					in.expunge(5)
					in.add(rawMail(8))
				}
				rep := h.sync(s)
				if s.dials != 2 || rep.Pushed != 2 || rep.Flagged != 1 || rep.Removed != 1 || rep.New != 1 || !rep.Clean() || s.writes != 2 {
					t.Errorf("cut at %d: %d dials, %d writes, %+v", at, s.dials, s.writes, rep)
				}
			}
			h.check(s)
		})
	}
}

// A change of flags that could not be made here is none of the user's: it does
// not go back to the server, and is made when it can be.
func TestAFlagThatCouldNotBeSetHereIsNotTakenOffTheServer(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for i := range 3 {
				in.add(rawMail(i), `\Flagged`)
			}
			h.sync(s)
			in.flag(2, `\Flagged`, `\Seen`)
			h.index.refuses = errors.New("permission denied")
			if rep := h.sync(s); rep.Flagged != 0 {
				t.Errorf("%+v", rep)
			}
			h.flag("INBOX", 1, "FR")
			h.sync(s)
			if !plan.SameFlags(in.msgs[1].flags, []string{`\Flagged`, `\Answered`}) || !plan.SameFlags(in.msgs[2].flags, []string{`\Flagged`, `\Seen`}) {
				t.Errorf("the server has %v and %v", in.msgs[1].flags, in.msgs[2].flags)
			}
			h.index.refuses = nil
			h.sync(s)
			h.check(s)
			if !plan.SameFlags(in.msgs[2].flags, []string{`\Flagged`, `\Seen`}) {
				t.Errorf("the server has %v", in.msgs[2].flags)
			}
		})
	}
}

// In a mailbox that had a fault nothing is removed, and nothing anywhere once
// the account is left: what moved may not have come yet.
func TestNothingIsRemovedAfterAFault(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*mail.Fault{
		"of the mailbox": {Kind: mail.KindNo, Text: "in use"},
		"of the account": {Kind: mail.KindThrottled, Text: "slow down", RetryAfter: time.Hour},
	} {
		s, h := newServer(), newHome(t)
		in := s.box("INBOX")
		for i := range 6 {
			in.add(rawMail(i))
		}
		s.box("Archive").add(rawMail(9))
		h.sync(s)
		// One of INBOX goes to Archive, and Archive or INBOX cannot be had.
		m := in.expunge(2)
		s.box("Archive").msgs[s.box("Archive").add(m.raw, m.flags...)].date = m.date
		if name == "of the mailbox" {
			in.msgs[in.add(rawMail(7))].fault = &serverFault{death: true}
			first := s.dials + 1
			s.dialErr = func(n int) error {
				if n > first {
					in.refuse = fault
				}
				return nil
			}
		} else {
			s.box("Archive").refuse = fault
		}
		rep := h.sync(s, func(o *Options) { o.Connections = 1 })
		if rep.Removed != 0 || len(rep.Faults) == 0 {
			t.Errorf("%s: %+v", name, rep)
		}
		if n := len(h.files("INBOX")); n != 6 {
			t.Errorf("%s: %d files in INBOX", name, n)
		}
		in.refuse, s.box("Archive").refuse, s.dialErr = nil, nil, nil
		for _, m := range in.msgs {
			m.fault = nil
		}
		h.now = h.now.Add(2 * time.Hour)
		if rep := h.sync(s); rep.Removed != 1 || !rep.Clean() {
			t.Errorf("%s: %+v", name, rep)
		}
		h.check(s)
	}
}

// A server that goes away in the middle is no more than that.
func TestAServerThatGoesAwayDuringThePush(t *testing.T) {
	t.Parallel()
	s, h := newServer("CONDSTORE"), newHome(t)
	s.box("A").add(rawMail(1))
	s.box("B").add(rawMail(2))
	h.sync(s)
	h.flag("A", 1, "S")
	h.flag("B", 1, "S")
	first := s.dials
	s.refuses = map[string]*mail.Fault{"UID STORE": {Kind: mail.KindCut}}
	s.dialErr = func(n int) error {
		if n > first+2 {
			return &mail.Fault{Kind: mail.KindDial, Text: "refused"}
		}
		return nil
	}
	if rep := h.sync(s); len(rep.Faults) != 2 {
		t.Errorf("%+v", rep)
	}
	s.refuses, s.dialErr = nil, nil
	if rep := h.sync(s); rep.Pushed != 2 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
}
