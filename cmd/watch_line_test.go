package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// through has the machine reach its server by a proxy.
func (w *watching) through(delay time.Duration) *imaptest.Proxy {
	w.t.Helper()
	p, err := imaptest.NewProxy(w.server.Addr(), delay)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.Close() }) // the watch has ended
	file := filepath.Join(w.dir, "config.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	now := strings.Replace(string(text), fmt.Sprintf("port = %d\n", w.server.Port), fmt.Sprintf("port = %d\n", p.Port()), 1)
	if err := os.WriteFile(file, []byte(now), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// TestWatchOverABadLine: a line that is slow, that is cut, and on which nothing arrives any
// more costs time, and neither mail nor what is done here.
func TestWatchOverABadLine(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `timeout = "2s"`)
	p := w.through(40 * time.Millisecond)
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here over a slow line", w.here("id:first@example.org", 1))
	for i := range 3 {
		p.Cut()
		id := fmt.Sprintf("cut%d", i)
		appendAll(t, w.server, "INBOX", watchMail(id))
		w.until("mail is here after the line was cut", w.here("id:"+id+"@example.org", 1))
	}
	p.Silence(true)
	appendAll(t, w.server, "INBOX", watchMail("silent"))
	if out, status := w.run("notmuch", "tag", "+flagged", "--", "id:first@example.org"); status != 0 {
		t.Fatal(out)
	}
	w.until("it is said that nothing arrives", w.said(": no answer"))
	p.Silence(false)
	w.until("mail is here after the silence", w.here("id:silent@example.org", 1))
	w.until("the flag is there after the silence", w.there(`\Flagged`, "EXAMINE INBOX", "FETCH 1 (FLAGS)"))
	if status := w.stop(os.Interrupt); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}

// TestWatchOfThreeHundredMailboxes: of many mailboxes, also one that IDLE does not tell of
// is looked at by itself, and what is done here reaches it.
func TestWatchOfThreeHundredMailboxes(t *testing.T) {
	t.Parallel()
	for kind, hide := range map[string][]string{"NOTIFY": nil, "IDLE": {"NOTIFY"}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, `watch = ["INBOX", "Lists/250"]`, hide...)
			var commands []string
			for i := range 300 {
				commands = append(commands, fmt.Sprintf("CREATE Lists/%d", i))
			}
			if out, err := w.server.Command(commands...); err != nil {
				t.Fatal(out)
			}
			appendAll(t, w.server, "Lists/299", watchMail("first"))
			w.start()
			w.until("mail of before is here", w.here("id:first@example.org", 1))
			appendAll(t, w.server, "Lists/250", watchMail("second"))
			w.until("mail that came is here", w.here("id:second@example.org", 1))
			if out, status := w.run("notmuch", "tag", "-unread", "--", "id:first@example.org"); status != 0 {
				t.Fatal(out)
			}
			w.until("what was done here is there", w.there(`\Seen`, "EXAMINE Lists/299", "FETCH 1 (FLAGS)"))
			if status := w.stop(os.Interrupt); status != exitInterrupted {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// TestWatchHearsOfWhatIsLoggedAnew: Dovecot begins a new log of a busy mailbox each five minutes,
// and from then on tells nothing of it at once to who has asked before. Where another session begins
// one between the question and the mail, the next look tells of it, and the watch is to hear again.
func TestWatchHearsOfWhatIsLoggedAnew(t *testing.T) {
	t.Parallel()
	for kind, hide := range map[string][]string{"NOTIFY": nil, "IDLE": {"NOTIFY"}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWatchingOf(t, "", imaptest.DovecotOptions{Hide: hide, Rotates: true})
			w.start()
			w.until("it watches", w.said("work: connected, by "+kind))
			const often, seldom = 5, 8 // so many the watch brings, and so many at most it does not
			patience, missed := 20*time.Second, 0
			for n := 1; n <= often+missed; n++ {
				id := fmt.Sprintf("mail%d@example.org", n)
				appendAll(t, w.server, "INBOX", strings.ReplaceAll(watchMail("x"), "<x@example.org>", "<"+id+">"))
				here := w.here("id:"+id, 1)
				if !w.within(patience, here) {
					if missed++; missed > seldom {
						t.Fatalf("of %d mails it heard of %d", n, n-missed)
					}
					patience = min(2*patience, 2*time.Minute) // the machine may be slow
					w.until("mail is here by a sync", func() bool { w.run(name, "sync"); return here() })
				}
				w.run("notmuch", "tag", "+flagged", "id:"+id)
				w.until("its tag is there", w.there(fmt.Sprintf("* SEARCH %d", n), "EXAMINE INBOX", "SEARCH FLAGGED HEADER MESSAGE-ID "+id))
			}
		})
	}
}

// TestWatchSignsInAfterAChangeOfThePassword: who puts the password file right need not wait
// for the next try of one that was refused.
func TestWatchSignsInAfterAChangeOfThePassword(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	secret := filepath.Join(w.dir, "secret")
	if err := os.WriteFile(secret, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.until("the sign-in is refused", w.said("the next try without a terminal is at "))
	w.until("it waits for the next try", func() bool {
		out, _ := w.run(name, "status", "--json")
		return strings.Contains(out, `"fault":"not signed in before`)
	})
	if err := os.WriteFile(secret, []byte(w.server.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("it is watched with the right one", w.said("work: connected, by NOTIFY"))
}

// TestWatchSyncsOnceForEachEvent: what a sync does here is no reason for another one. The wire has one
// connection for each, beside the one that watches.
func TestWatchSyncsOnceForEachEvent(t *testing.T) {
	t.Parallel()
	for kind, hide := range map[string][]string{"NOTIFY": nil, "IDLE": {"NOTIFY"}} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			syncsOnceForEachEvent(t, newWatching(t, "connections = 1", hide...))
		})
	}
}

func syncsOnceForEachEvent(t *testing.T, w *watching) {
	t.Helper()
	p := w.through(0)
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	const own, known = "what changed here needs no sync", "what the server tells of INBOX is known"
	heard := func(words string) func() bool {
		was, had := w.times(words), p.Connections()
		return func() bool { return w.times(words) > was || p.Connections() >= had+2 }
	}
	// What was at work already may have taken it there.
	orSyncs := func(is func() bool) func() bool {
		had := p.Connections()
		return func() bool { return is() || p.Connections() > had }
	}
	// Where what a sync writes is a reason, each event takes two connections, and it is not said that it
	// is none. On a slow machine one may have two events, but not each of five, in each round.
	once := func(what, words string, event func(round, i int)) {
		t.Helper()
		var took, said []int
		for round := range 6 {
			before, had := p.Connections(), w.times(words)
			for i := range 5 {
				event(round, i)
			}
			took, said = append(took, p.Connections()-before), append(said, w.times(words)-had)
			if took[round] > 0 && took[round] < 2*5 && said[round] >= 3 {
				return
			}
		}
		t.Errorf("5 %s took %v connections, and %v times it said %q", what, took, said, words)
	}
	mails := 0
	comes := func(int, int) {
		id, is := fmt.Sprintf("mail%d", mails), heard(own)
		mails++
		appendAll(t, w.server, "INBOX", watchMail(id))
		w.until("mail is here", w.here("id:"+id+"@example.org", 1))
		w.until("what its sync wrote was heard of", is)
	}
	w.until("mail is here", w.here("id:first@example.org", 1))
	comes(0, 0) // the first sync has made folders, which is a reason
	once("mails", own, comes)
	once("tags", known, func(round, i int) {
		is, tag, has := heard(known), "+flagged", "FLAGGED"
		if round%2 == 1 {
			tag, has = "-flagged", "UNFLAGGED"
		}
		w.run("notmuch", "tag", tag, fmt.Sprintf("id:mail%d@example.org", i))
		w.until("a tag is there", w.there(fmt.Sprintf("* SEARCH %d", i+2), "EXAMINE INBOX", fmt.Sprintf("SEARCH %s %d", has, i+2)))
		w.until("the server has told of it", orSyncs(is))
	})
	if status := w.stop(os.Interrupt); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}

// TestWatchBringsSmallMailBesideALargeOne: while a large mail is on its way nobody waits for it,
// and it comes all the same; status tells of it.
func TestWatchBringsSmallMailBesideALargeOne(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `timeout = "10m"`) // the line that the large one comes on is held
	p := w.through(0)
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	w.until("it watches", func() bool { out, _ := w.run(name, "status"); return strings.Contains(out, "by NOTIFY since") })
	p.Hold(1 << 20)
	appendAll(t, w.server, "INBOX", watchMail("large")+strings.Repeat(strings.Repeat("a", 76)+"\r\n", 10<<20/78))
	w.until("status tells of it", func() bool {
		out, _ := w.run(name, "status")
		return strings.Contains(strings.Join(strings.Fields(out), " "), "a message of 10.0 MB in INBOX is on its way since")
	})
	appendAll(t, w.server, "INBOX", watchMail("small"))
	w.until("small mail is here", w.here("id:small@example.org", 1))
	w.run("notmuch", "tag", "+flagged", "id:small@example.org")
	w.until("a tag is there", w.there(`\Flagged`, "EXAMINE INBOX", "FETCH 3 (FLAGS)"))
	if !w.here("id:large@example.org", 0)() {
		t.Error("the large mail came first")
	}
	w.until("a hook does not wait for it", func() bool {
		out, status := w.run(name, "hook", "pre-new", "--timeout", "1m")
		return status == 0 && out == ""
	})
	if !w.here("id:large@example.org", 0)() {
		t.Error("the large mail came before it might")
	}
	p.Hold(0)
	w.until("the large mail is here", w.here("id:large@example.org and path:work/INBOX/**", 1))
	w.rests()
	if status := w.stop(os.Interrupt); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}
