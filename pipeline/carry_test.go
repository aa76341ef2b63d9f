package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// hugeMail is one that is not waited for.
func hugeMail(i int) string {
	return rawMail(i) + strings.Repeat("0123456789abcde\n", 17*plan.Large/16)
}

// carried is a store whose runs have large mail carried.
type carried struct {
	*home
	server  *server
	carrier *Carrier
}

func newCarried(t *testing.T) *carried {
	t.Helper()
	c := newUncarried(t)
	c.sync(c.server)
	return c
}

// newUncarried is one that was never synced.
func newUncarried(t *testing.T) *carried {
	t.Helper()
	c := &carried{home: newHome(t), server: newServer("UIDPLUS", "CONDSTORE")}
	c.server.box("INBOX").add(rawMail(0))
	c.carrier = NewCarrier(filepath.Join(c.dir, "state"), c.options(c.server, nil).Now)
	return c
}

func (c *carried) run() *Report {
	c.t.Helper()
	return c.sync(c.server, func(o *Options) { o.Carrier = c.carrier })
}

// carry brings what is ordered, and gives the mailboxes of which a run has something to take.
func (c *carried) carry() (mailboxes []string, err error) {
	a := c.options(c.server, nil).Account
	a.Carrier = c.carrier
	err = Carry(c.t.Context(), a, func(some []string) { mailboxes = append(mailboxes, some...) })
	return mailboxes, err
}

// lies gives how many messages lie with the carrier.
func (c *carried) lies() int {
	files, _ := os.ReadDir(filepath.Join(c.dir, "state", "large"))
	return len(files)
}

func TestNoRunWaitsForALargeMail(t *testing.T) {
	t.Parallel()
	t.Run("later", func(t *testing.T) { noRunWaits(t, newCarried(t), 0) })
	t.Run("in the first sync", func(t *testing.T) { noRunWaits(t, newUncarried(t), 1) })
	t.Run("under another UIDVALIDITY", func(t *testing.T) {
		c := newCarried(t)
		c.server.box("INBOX").validity++
		noRunWaits(t, c, 0)
	})
}

// noRunWaits has a large mail come, in a run to which so many others are new.
func noRunWaits(t *testing.T, c *carried, others int) {
	t.Helper()
	inbox := c.server.box("INBOX")
	huge := inbox.add(hugeMail(1)) // by itself, so that its size is not asked for otherwise
	if rep := c.run(); rep.New != others || !rep.Clean() || c.server.fetched[huge] != 0 {
		t.Fatalf("the run that met it: %+v", rep)
	}
	inbox.add(rawMail(2))
	if rep := c.run(); rep.New != 1 || !rep.Clean() || c.server.fetched[huge] != 0 {
		t.Fatalf("a run while it is on its way: %+v", rep)
	}
	if notes := c.of(report.EventNote); len(notes) > 0 {
		t.Errorf("each run says of it %q", notes)
	}
	if boxes, err := c.carry(); err != nil || !slices.Equal(boxes, []string{"INBOX"}) || c.server.fetched[huge] != 1 || c.lies() != 1 {
		t.Fatalf("it is carried: %v, %v", boxes, err)
	}
	inbox.flag(huge, `\Seen`)
	inbox.add(rawMail(3))
	if rep := c.run(); rep.New != 2 || !rep.Clean() || c.server.fetched[huge] != 1 {
		t.Errorf("the run that takes it: %+v", rep)
	}
	c.check(c.server)
	if rep := c.run(); rep.Changed != 0 || c.lies() != 0 {
		t.Errorf("and then: %+v, %d files", rep, c.lies())
	}
}

// What is whole is taken by the process after the one that carried it. What nobody goes on with goes.
func TestALargeMailIsCarriedOverAStop(t *testing.T) {
	t.Parallel()
	c := newCarried(t)
	inbox := c.server.box("INBOX")
	huge := inbox.add(hugeMail(1))
	c.run()
	if _, err := c.carry(); err != nil || c.lies() != 1 {
		t.Fatalf("it is carried: %v, %d files", err, c.lies())
	}
	for _, other := range []string{"14.99.494e424f58.part", "no parcel", "no parcel.part"} {
		path, old := filepath.Join(c.dir, "state", "large", other), c.now.Add(-25*time.Hour)
		if err := errors.Join(os.WriteFile(path, []byte("half a mail"), 0o600), os.Chtimes(path, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	c.carrier = NewCarrier(filepath.Join(c.dir, "state"), c.options(c.server, nil).Now)
	if boxes := c.carrier.Sweep(); !slices.Equal(boxes, []string{"INBOX"}) || c.lies() != 1 {
		t.Errorf("the next process has what is of %q, in %d files", boxes, c.lies())
	}
	if rep := c.run(); rep.New != 1 || !rep.Clean() || c.server.fetched[huge] != 1 || c.lies() != 0 {
		t.Errorf("fetched %d times, %d files are left: %+v", c.server.fetched[huge], c.lies(), rep)
	}
	c.check(c.server)
}

// What is half here is gone on with, by the next connection or the next process, behind all but its
// last bytes.
func TestALargeMailIsGoneOnWith(t *testing.T) {
	t.Parallel()
	const cut = 3 << 20
	for _, stops := range []bool{false, true} {
		c := newCarried(t)
		inbox := c.server.box("INBOX")
		huge := inbox.add(hugeMail(1))
		inbox.msgs[huge].fault = &serverFault{cut: cut, times: 1}
		c.run()
		if _, err := c.carry(); err == nil || c.lies() != 1 {
			t.Fatalf("it is cut: %v, %d files", err, c.lies())
		}
		if stops {
			c.carrier = NewCarrier(filepath.Join(c.dir, "state"), c.options(c.server, nil).Now)
		}
		if rep := c.run(); rep.New != 0 || !rep.Clean() {
			t.Fatalf("the run that orders it again: %+v", rep)
		}
		if _, err := c.carry(); err != nil || c.server.fetched[huge] != 0 || asks(c.server, fmt.Sprintf("REST %d", cut-1<<20)) != 1 {
			t.Errorf("after a stop (%v): %v, %q", stops, err, c.server.asked)
		}
		if rep := c.run(); rep.New != 1 || c.lies() != 0 {
			t.Errorf("the run that takes it: %+v", rep)
		}
		c.check(c.server)
	}
}

// One whose line is cut again and again comes by the carrier as long as more of it comes. A server that
// gives no rest, or another one, gives the whole.
func TestALargeMailWhoseRestDoesNotCome(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]func(string) (string, error){
		"none":     func(string) (string, error) { return "", nil },
		"refused":  func(string) (string, error) { return "", &mail.Fault{Kind: mail.KindNo, Op: "UID FETCH"} },
		"too much": func(rest string) (string, error) { return "more" + rest, nil },
		"too few":  func(rest string) (string, error) { return rest[1:], nil },
	} {
		c := newCarried(t)
		c.server.rest = rest
		inbox := c.server.box("INBOX")
		huge := inbox.add(hugeMail(1))
		inbox.msgs[huge].fault = &serverFault{cut: 3 << 20, times: 2}
		for range 4 { // cut, no rest, cut, no rest
			if rep := c.run(); rep.New != 0 || !rep.Clean() || c.server.fetched[huge] != 0 {
				t.Fatalf("%s: the run that orders it: %+v", name, rep)
			}
			if _, err := c.carry(); err == nil {
				t.Fatalf("%s: it came", name)
			}
		}
		if rep := c.run(); rep.New != 1 || c.server.fetched[huge] != 1 || c.lies() != 0 {
			t.Errorf("%s: the run that fetches it: %+v, %d files", name, rep, c.lies())
		}
		c.check(c.server)
	}
}

// What cannot be carried comes by the run, with all that is tried there.
func TestALargeMailThatCannotBeCarried(t *testing.T) {
	t.Parallel()
	c := newCarried(t)
	inbox := c.server.box("INBOX")
	huge := inbox.add(hugeMail(1))
	inbox.msgs[huge].fault = &serverFault{err: &mail.Fault{Kind: mail.KindNo, Op: "UID FETCH"}, times: 2}
	for range 2 {
		if rep := c.run(); rep.New != 0 || !rep.Clean() {
			t.Fatalf("the run that ordered it: %+v", rep)
		}
		if boxes, err := c.carry(); err == nil || !slices.Equal(boxes, []string{"INBOX"}) {
			t.Fatalf("%v, %v", boxes, err)
		}
	}
	if rep := c.run(); rep.New != 1 || !rep.Clean() {
		t.Errorf("the run that fetches it: %+v", rep)
	}
	c.check(c.server)
}

// Of what was carried nothing is taken for another message, nor for one that went.
func TestALargeMailThatIsNoMore(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*serverBox, imap.UID){
		"deleted":           func(b *serverBox, huge imap.UID) { b.expunge(huge) },
		"another numbering": func(b *serverBox, huge imap.UID) { b.msgs[huge].raw = hugeMail(7); b.validity++ },
	} {
		c := newCarried(t)
		inbox := c.server.box("INBOX")
		huge := inbox.add(hugeMail(1))
		c.run()
		if _, err := c.carry(); err != nil {
			t.Fatal(err)
		}
		change(inbox, huge)
		for range 3 {
			c.run()
			if _, err := c.carry(); err != nil {
				t.Fatal(err)
			}
		}
		t.Log(what)
		c.check(c.server)
	}
}

// A run to which something else comes brings some of the large mail, and all runs together
// bring all of it.
func TestARunGivesWay(t *testing.T) {
	t.Parallel()
	h, s := newHome(t), newServer("UIDPLUS")
	for i := range 3 {
		for j, box := range []string{"INBOX", "Lists"} {
			s.box(box).add(hugeMail(10*i + j))
			s.box(box).add(rawMail(100 + 10*i + j))
		}
	}
	n := 0
	for more := true; more; n++ {
		rep := h.sync(s, func(o *Options) { o.Connections, o.GiveWay = 1, func() bool { return true } })
		if more = rep.GaveWay; !rep.Clean() || rep.New != map[bool]int{true: 7, false: 1}[n == 0] {
			t.Fatalf("run %d: %+v", n, rep)
		}
	}
	if n != 6 {
		t.Errorf("%d runs", n)
	}
	h.check(s)
}

// So it is with one that failed before, and that is asked for again. What a hook puts off each
// time is not carried each time: that would never end.
func TestNoRunWaitsForALargeMailThatIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, state := range []ledger.State{ledger.Stub, ledger.Deferred} {
		triedAgain(t, state)
	}
}

func triedAgain(t *testing.T, state ledger.State) {
	t.Helper()
	c := newCarried(t)
	inbox := c.server.box("INBOX")
	huge := inbox.add(hugeMail(1))
	inbox.msgs[huge].fault = &serverFault{}
	if rep := c.sync(c.server); rep.NewStubs != 1 {
		t.Fatalf("it does not fail: %+v", rep)
	}
	inbox.msgs[huge].fault = nil
	c.withLedger(c.server, func(o Options) { // a server that says no more than the size
		row, _, err := o.Ledger.Get(t.Context(), "INBOX", inbox.validity, huge)
		row.Size, row.State = int64(len(inbox.msgs[huge].raw)), state
		if err := errors.Join(err, o.Ledger.Save(t.Context(), row)); err != nil {
			t.Fatal(err)
		}
	})
	again := func() *Report {
		return c.sync(c.server, func(o *Options) { o.Carrier, o.Full = c.carrier, true })
	}
	if state == ledger.Deferred {
		if rep := again(); rep.New != 1 || c.server.fetched[huge] != 1 {
			t.Errorf("of one that was put off: %+v", rep)
		}
		return
	}
	if rep := again(); rep.Healed != 0 || !rep.Clean() || c.server.fetched[huge] != 0 {
		t.Errorf("the run that asks for it: %+v", rep)
	}
	if _, err := c.carry(); err != nil {
		t.Fatal(err)
	}
	if rep := again(); rep.Healed != 1 || c.server.fetched[huge] != 1 {
		t.Errorf("the run that takes it: %+v", rep)
	}
	c.check(c.server)
}

// Each large mail is there as soon as it is here, also where another one of its mailbox comes
// after it, which the server shows on a mailbox that is opened anew.
func TestEachLargeMailIsTakenWhenItIsHere(t *testing.T) {
	t.Parallel()
	c := newCarried(t)
	inbox := c.server.box("INBOX")
	inbox.add(hugeMail(1))
	inbox.add(hugeMail(2))
	c.run()
	a := c.options(c.server, nil).Account
	a.Carrier = c.carrier
	c.server.asked = nil
	asked := 0
	err := Carry(t.Context(), a, func([]string) {
		asked++
		c.now = c.now.Add(time.Minute)
		if asked == 1 {
			inbox.add(hugeMail(3))
		}
		if rep := c.run(); rep.New != 1 || !rep.Clean() {
			t.Errorf("%d: %+v", asked, rep)
		}
	})
	if err != nil || asked != 3 {
		t.Errorf("%d times, %v", asked, err)
	}
	c.check(c.server)
}

// A run of another process takes what is here of large mail, and leaves what is on its way; what a
// watch left that was killed is in nobody's way.
func TestARunBesideAWatchTakesLargeMail(t *testing.T) {
	t.Parallel()
	c := newCarried(t)
	inbox := c.server.box("INBOX")
	state := filepath.Join(c.dir, "state")
	huge := inbox.add(hugeMail(1))
	c.run()
	beside := func() *Report {
		return c.sync(c.server, func(o *Options) { o.Carrier = NewTaker(state, o.Now) })
	}
	lying := func(old, now string, at time.Time) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(state, "large", "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		name := strings.TrimSuffix(files[0], old) + now
		if err := errors.Join(os.Rename(files[0], name), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.carry(); err != nil {
		t.Fatal(err)
	}
	lying("", ".part", c.now)
	if rep := beside(); rep.New != 0 || !rep.Clean() || c.server.fetched[huge] != 1 {
		t.Errorf("while it is on its way: %+v", rep)
	}
	if notes := c.of(report.EventNote); len(notes) != 1 || !strings.Contains(notes[0], "on its way by a watch") {
		t.Errorf("a run beside the watch says of it %q", notes)
	}
	lying(".part", "", c.now)
	if rep := beside(); rep.New != 1 || c.server.fetched[huge] != 1 || c.lies() != 0 {
		t.Errorf("when it is here: %+v", rep)
	}
	c.check(c.server)

	huge = inbox.add(hugeMail(2))
	c.run()
	if _, err := c.carry(); err != nil {
		t.Fatal(err)
	}
	lying("", ".part", c.now.Add(-time.Hour))
	if rep := beside(); rep.New != 1 || c.server.fetched[huge] != 2 || c.lies() != 0 {
		t.Errorf("what a watch left that was killed: %+v, %d", rep, c.lies())
	}
	c.check(c.server)
}

// What there is no room for is carried once, and taken when there is.
func TestALargeMailThatThereIsNoRoomFor(t *testing.T) {
	t.Parallel()
	c := newCarried(t)
	huge := c.server.box("INBOX").add(hugeMail(1))
	c.run()
	if _, err := c.carry(); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(c.dir, "mail", "INBOX", "tmp")
	if err := errors.Join(os.RemoveAll(tmp), os.WriteFile(tmp, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, _ = c.try(c.server, func(o *Options) { o.Carrier = c.carrier }) // its folder takes nothing
		if _, err := c.carry(); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.server.fetched[huge]; n != 1 || !slices.Equal(c.carrier.Sweep(), []string{"INBOX"}) {
		t.Errorf("it was fetched %d times", n)
	}
	if err := errors.Join(os.Remove(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		t.Fatal(err)
	}
	if rep := c.run(); rep.New != 1 || c.server.fetched[huge] != 1 {
		t.Errorf("%+v", rep)
	}
	c.check(c.server)
}
