package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.uber.org/goleak"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

func TestMain(m *testing.M) {
	if os.Getenv("PIPELINE_CRASH_DIR") != "" {
		os.Exit(crashChild())
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// extensions are the sets of capabilities that every scenario runs with.
func extensions() map[string][]string {
	return map[string][]string{"bare": nil, "CONDSTORE": {"CONDSTORE"}, "QRESYNC": {"CONDSTORE", "QRESYNC"}}
}

func TestWhatHappensOnTheServerHappensHere(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in, ar := s.box("INBOX"), s.box("Archive/2024")
			for i := range 300 {
				in.add(rawMail(i), [][]string{nil, {`\Seen`}, {`\Flagged`, `\Seen`}, {"todo"}}[i%4]...)
			}
			for i := range 30 {
				ar.add(rawMail(1000+i), `\Seen`)
			}
			if rep := h.sync(s); rep.New != 330 || !rep.Clean() {
				t.Errorf("first: %+v", rep)
			}
			h.check(s)
			if rep := h.sync(s); rep.New+rep.Flagged+rep.Removed != 0 || !rep.Clean() {
				t.Errorf("idle: %+v", rep)
			}
			in.add(rawMail(2000))
			in.flag(7, `\Seen`, `\Answered`)
			in.flag(8)
			in.expunge(9)
			ar.expunge(1)
			if rep := h.sync(s); rep.New != 1 || rep.Flagged != 2 || rep.Removed != 2 || !rep.Clean() {
				t.Errorf("changes: %+v", rep)
			}
			h.check(s)
		})
	}
}

func TestIdleAsksOnlyOnceWhereTheServerTells(t *testing.T) {
	s, h := newServer("CONDSTORE"), newHome(t)
	for i := range 20 {
		s.box(fmt.Sprintf("box%d", i)).add(rawMail(i))
	}
	h.sync(s)
	h.sync(s)
	if want := []string{"LIST"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %q", s.asked)
	}
}

func faultOfServer(kind mail.Kind) *mail.Fault {
	return &mail.Fault{Kind: kind, Op: "UID FETCH", Text: "server says no"}
}

func messageFaults() map[string]serverFault {
	return map[string]serverFault{
		"ok without data":    {},
		"NO":                 {err: faultOfServer(mail.KindNo)},
		"BAD":                {err: faultOfServer(mail.KindBad)},
		"connection dies":    {death: true},
		"cut literal":        {err: faultOfServer(mail.KindShort)},
		"malformed":          {err: faultOfServer(mail.KindMalformed)},
		"substitute on PEEK": {plain: exchangeSubstitute},
		"substitute on BODY[]": {items: map[string]string{
			"BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]": "From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following message: 15541\r\n\r\n",
			"BODY[]": exchangeSubstitute,
		}},
	}
}

func TestOneBadMessageBecomesAStubAndCostsNothingElse(t *testing.T) {
	for name, fault := range messageFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(), newHome(t)
			in := s.box("INBOX")
			for i := range 400 {
				in.add(rawMail(i))
			}
			s.box("Other").add(rawMail(5000))
			f := fault
			in.msgs[150].fault = &f
			rep := h.sync(s)
			if rep.NewStubs != 1 || rep.New != 400 || len(rep.Faults) > 0 {
				t.Errorf("first: %+v", rep)
			}
			h.check(s, 150)
			// Known is quiet, and not asked for before its time.
			if rep := h.sync(s); rep.NewStubs != 0 || rep.Stubs != 1 || !rep.Clean() {
				t.Errorf("second: %+v", rep)
			}
			h.now = h.now.Add(16 * time.Minute)
			if rep := h.sync(s); rep.Stubs != 1 || !rep.Clean() {
				t.Errorf("third: %+v", rep)
			}
			h.check(s, 150)
			// The server recovers: the mail takes the stub's place.
			in.msgs[150].fault = nil
			h.tagStub(150, "mine")
			h.now = h.now.Add(2 * time.Hour)
			if rep := h.sync(s); rep.Healed != 1 || rep.Stubs != 0 || !rep.Clean() {
				t.Errorf("healed: %+v", rep)
			}
			h.check(s)
			tags := h.tags("m149@example.org")
			if !slices.Contains(tags, "mine") || slices.Contains(tags, TagFailed) {
				t.Errorf("tags after healing: %v", tags)
			}
		})
	}
}

func (h *home) tagStub(uid imap.UID, tag string) {
	h.t.Helper()
	db, err := h.index.load()
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = h.index.Apply(context.Background(), []mail.Change{{
		Op: mail.OpAdd, Path: db[stub.NewKey("work", "INBOX", 14, uid).MessageID()].Files[0], Add: []string{tag},
	}})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) tags(id string) []string {
	h.t.Helper()
	db, err := h.index.load()
	if err != nil {
		h.t.Fatal(err)
	}
	if db[id] == nil {
		h.t.Fatalf("%s is not indexed", id)
	}
	return db[id].Tags
}

func TestStubGoesWithItsMessage(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			in.add(rawMail(1))
			in.msgs[in.add(rawMail(2))].fault = &serverFault{}
			h.sync(s)
			in.expunge(2)
			if rep := h.sync(s); !rep.Clean() || rep.Removed != 1 {
				t.Errorf("%+v", rep)
			}
			h.check(s)
		})
	}
}

func TestRemovedStubMeansStopAsking(t *testing.T) {
	s, h := newServer(), newHome(t)
	in := s.box("INBOX")
	in.add(rawMail(1))
	in.msgs[in.add(rawMail(2))].fault = &serverFault{}
	h.sync(s)
	for name, raw := range h.files("INBOX") {
		if strings.Contains(raw, stub.Field) {
			if err := os.Remove(filepath.Join(h.dir, "mail", "INBOX", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		h.now = h.now.Add(10 * 24 * time.Hour)
		if rep := h.sync(s); rep.NewStubs != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	if n := len(h.files("INBOX")); n != 1 {
		t.Errorf("%d files", n)
	}
}

// When everything fails at once the server is ill: no stub may flood the
// mailbox, and everything is asked for again.
func TestIllServerMakesNoStubs(t *testing.T) {
	s, h := newServer(), newHome(t)
	in := s.box("INBOX")
	in.add(rawMail(0))
	h.sync(s)
	for i := range 40 {
		in.add(rawMail(1 + i))
	}
	for _, m := range in.msgs {
		m.fault = &serverFault{err: faultOfServer(mail.KindNo)}
	}
	rep := h.sync(s)
	if rep.NewStubs != 0 || len(rep.Faults) != 1 || rep.Faults[0].Scope != report.ScopeAccount {
		t.Errorf("%+v", rep)
	}
	for _, m := range in.msgs {
		m.fault = nil
	}
	if rep := h.sync(s); rep.New != 40 || !rep.Clean() {
		t.Errorf("recovered: %+v", rep)
	}
	h.check(s)
}

// But when a good message still comes, many bad ones are just that.
func TestManyBadMessagesOnAWellServer(t *testing.T) {
	s, h := newServer(), newHome(t)
	in := s.box("INBOX")
	in.add(rawMail(0))
	h.sync(s)
	var bad []imap.UID
	for i := range 25 {
		u := in.add(rawMail(1 + i))
		in.msgs[u].fault = &serverFault{}
		bad = append(bad, u)
	}
	if rep := h.sync(s); rep.NewStubs != 25 || len(rep.Faults) > 0 {
		t.Errorf("%+v", rep)
	}
	h.check(s, bad...)
}

func TestRefusedMailboxCostsOnlyItself(t *testing.T) {
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(1))
	s.box("Bad").add(rawMail(2))
	s.box("Good").add(rawMail(3))
	s.box("Bad").refuse = &mail.Fault{Kind: mail.KindNo, Op: "EXAMINE", Text: "locked"}
	rep := h.sync(s)
	if rep.New != 2 || len(rep.Faults) != 1 || rep.Faults[0].Scope != report.ScopeMailbox || rep.Faults[0].Mailbox != "Bad" {
		t.Errorf("%+v", rep)
	}
	s.box("Bad").refuse = nil
	if rep := h.sync(s); rep.New != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}

func TestManyDeletionsWantAWord(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for i := range 100 {
				in.add(rawMail(i))
			}
			h.sync(s)
			for u := range imap.UID(60) {
				in.expunge(u + 1)
			}
			in.add(rawMail(500))
			for range 2 {
				if rep := h.sync(s); rep.Removed != 0 || rep.Held != 60 || len(rep.Faults) != 1 {
					t.Errorf("%+v", rep)
				}
			}
			if n := len(h.files("INBOX")); n != 101 {
				t.Errorf("%d files: the new mail must come, the others stay", n)
			}
			if rep := h.sync(s, func(o *Options) { o.YesDelete = true }); rep.Removed != 60 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			h.check(s)
		})
	}
}

func TestNewUIDValidityCostsNoDownload(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			for i := range 50 {
				in.add(rawMail(i), `\Seen`)
			}
			in.msgs[3].fault = &serverFault{}
			h.sync(s)
			// All get new UIDs, one is gone, one is new, one was flagged.
			old := s.boxes["INBOX"]
			delete(s.boxes, "INBOX")
			in = s.box("INBOX")
			in.validity, in.next, in.modseq = 15, 1000, old.modseq
			for _, u := range old.uids()[1:] {
				v := in.add(old.msgs[u].raw, old.msgs[u].flags...)
				in.msgs[v].date, in.msgs[v].fault = old.msgs[u].date, old.msgs[u].fault
			}
			in.add(rawMail(900))
			in.flag(1010, `\Flagged`)
			clear(s.fetched)
			rep := h.sync(s)
			if rep.Removed > 1 || rep.Flagged != 1 || rep.NewStubs != 1 {
				t.Errorf("%+v", rep)
			}
			if len(s.fetched) != 1 {
				t.Errorf("%d bodies were fetched", len(s.fetched))
			}
			// 48 matched, one new, one stub, and the one without a match stays.
			if n := len(h.files("INBOX")); n != 51 {
				t.Errorf("%d files", n)
			}
			if rep := h.sync(s); rep.New+rep.Flagged+rep.Removed+rep.NewStubs != 0 || !rep.Clean() {
				t.Errorf("second: %+v", rep)
			}
		})
	}
}

// A server without UIDVALIDITY that numbers its messages anew must not make us
// take one mail for another.
func TestUIDsWithoutUIDValidityAreNotBelieved(t *testing.T) {
	s, h := newServer(), newHome(t)
	in := s.box("INBOX")
	in.validity = 0
	for i := range 20 {
		in.add(rawMail(i), [][]string{{`\Seen`}, nil}[i%2]...)
	}
	h.sync(s)
	h.sync(s)
	h.check(s)
	old := s.boxes["INBOX"]
	delete(s.boxes, "INBOX")
	in = s.box("INBOX")
	in.validity = 0
	in.add(rawMail(100))
	for _, u := range old.uids() {
		in.msgs[in.add(old.msgs[u].raw, old.msgs[u].flags...)].date = old.msgs[u].date
	}
	clear(s.fetched)
	rep := h.sync(s)
	if !rep.Clean() || len(s.fetched) != 1 || rep.Removed != 0 {
		t.Errorf("%+v, %d fetched", rep, len(s.fetched))
	}
	h.check(s)
}

func TestLostLedgerCostsNoDownload(t *testing.T) {
	s, h := newServer("CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 50 {
		in.add(rawMail(i), `\Seen`)
	}
	h.sync(s)
	if err := os.RemoveAll(filepath.Join(h.dir, "state")); err != nil {
		t.Fatal(err)
	}
	in.add(rawMail(99))
	clear(s.fetched)
	h.sync(s)
	if len(s.fetched) != 1 {
		t.Errorf("%d bodies were fetched", len(s.fetched))
	}
	h.check(s)
}

func TestMovedMailIsLinked(t *testing.T) {
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			s, h := newServer(caps...), newHome(t)
			in, ar := s.box("INBOX"), s.box("Archive")
			for i := range 20 {
				in.add(rawMail(i), `\Seen`)
			}
			ar.add(rawMail(100))
			h.sync(s)
			for u := range imap.UID(5) {
				m := in.expunge(u + 1)
				v := ar.add(m.raw, m.flags...)
				ar.msgs[v].date = m.date
			}
			// The same Message-ID on another mail is no reason to link.
			ar.add(strings.Replace(rawMail(10), "body", "BODY!", 1))
			clear(s.fetched)
			rep := h.sync(s)
			if rep.Linked != 5 || rep.Removed != 5 || len(s.fetched) != 1 {
				t.Errorf("%+v, %d fetched", rep, len(s.fetched))
			}
			h.check(s)
		})
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(1))
	rep := h.sync(s, func(o *Options) { o.DryRun = true })
	if rep.New != 1 || len(h.files("INBOX")) != 0 {
		t.Errorf("%+v", rep)
	}
	if rep := h.sync(s); rep.New != 1 {
		t.Errorf("%+v", rep)
	}
}

func TestUnmountedMailIsNotTakenForDeleted(t *testing.T) {
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(1))
	h.sync(s)
	gone := filepath.Join(h.dir, "mail")
	_, err := h.try(s, func(o *Options) {
		if err := os.Rename(gone, gone+".unmounted"); err != nil {
			t.Fatal(err)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("err = %v", err)
	}
}

func TestServerThatAsksToWaitIsLeftAlone(t *testing.T) {
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(1))
	s.dialErr = func(int) error {
		return &mail.Fault{Kind: mail.KindThrottled, Text: "Suggested Backoff Time: 299961 milliseconds", RetryAfter: 299961 * time.Millisecond}
	}
	if rep := h.sync(s); !rep.Nothing() {
		t.Errorf("%+v", rep)
	}
	dials := s.dials
	s.dialErr = nil
	h.now = h.now.Add(4 * time.Minute)
	if rep := h.sync(s); !rep.Nothing() || s.dials != dials {
		t.Errorf("asked before its time: %+v", rep)
	}
	h.now = h.now.Add(time.Minute)
	if rep := h.sync(s); rep.New != 1 {
		t.Errorf("%+v", rep)
	}
}

func TestSecondConnectionRefusedIsNoFaultOfTheMail(t *testing.T) {
	s, h := newServer(), newHome(t)
	for i := range 600 {
		s.box("INBOX").add(rawMail(i))
	}
	s.dialErr = func(n int) error {
		if n > 1 {
			return &mail.Fault{Kind: mail.KindCrowded, Text: "[ALERT] Too many simultaneous connections. (Failure)"}
		}
		return nil
	}
	rep := h.sync(s)
	if rep.New != 600 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}

func TestBrokenIndexEndsTheRunAndLosesNothing(t *testing.T) {
	s, h := newServer(), newHome(t)
	for i := range 10 {
		s.box("INBOX").add(rawMail(i))
	}
	h.index.fail = errors.New("disk full")
	if _, err := h.try(s); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("err = %v", err)
	}
	h.index.fail = nil
	h.sync(s)
	h.check(s)
}

// TestALongTextKeepsNoneWaitingAfterAStop: what is on disk and not in notmuch yet is told by
// status, and the next run tells notmuch of small mail first, in commits without long ones.
func TestALongTextKeepsNoneWaitingAfterAStop(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	for i := range 10 {
		raw := plainMail(i)
		if i%4 == 0 {
			raw += strings.Repeat("a long text\r\n", 1+plan.Large/12)
		}
		s.box("INBOX").add(raw)
	}
	unindexed := func() (n int) {
		h.withLedger(s, func(o Options) {
			st, err := StatusOf(t.Context(), o)
			if err != nil || len(st.Mailboxes) != 1 {
				t.Fatalf("%v; %+v", err, st)
			}
			n = st.Mailboxes[0].Unindexed
		})
		return n
	}
	h.index.at = func([]mail.Change) error {
		for end := time.Now().Add(watchdog); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if files, _ := filepath.Glob(filepath.Join(h.dir, "mail/INBOX/[nc]*/*")); len(files) == 10 {
				break
			}
		}
		return errors.New("locked")
	}
	if _, err := h.try(s); err == nil {
		t.Fatal("notmuch is told though it is locked")
	}
	if n := unindexed(); n != 10 {
		t.Errorf("status tells of %d, all of 10 are on disk", n)
	}
	h.index.at = func(changes []mail.Change) error {
		for _, c := range changes {
			if fi, err := os.Stat(c.Path); err == nil && fi.Size() > plan.Large {
				return errors.New("it takes minutes")
			}
		}
		return nil
	}
	if _, err := h.try(s); err == nil {
		t.Error("the long ones are left out")
	}
	if left := unindexed(); left != 3 {
		t.Errorf("%d of 10 are not in notmuch, of which 3 are long", left)
	}
	h.index.at = nil
	h.sync(s)
	if left := unindexed(); left != 0 {
		t.Errorf("status tells of %d", left)
	}
	h.check(s)
}

func TestInterruptedRunGoesOnWhereItWas(t *testing.T) {
	s, h := newServer(), newHome(t)
	for i := range 500 {
		s.box("INBOX").add(rawMail(i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := ledger.Open(ctx, filepath.Join(h.dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := h.options(s, l)
	o.Step = func(effect string) {
		if effect == "batch indexed" {
			cancel()
		}
	}
	if _, err := Sync(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h.sync(s)
	h.check(s)
}
