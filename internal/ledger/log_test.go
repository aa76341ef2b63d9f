package ledger

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

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// BenchmarkRecord records the mail of a first sync in batches, as deliver does: without a log, and with it.
func BenchmarkRecord(b *testing.B) {
	for _, keeps := range []time.Duration{0, 90 * 24 * time.Hour} {
		b.Run(fmt.Sprint("log ", keeps > 0), func(b *testing.B) {
			l, err := Open(b.Context(), b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					b.Error(err)
				}
			}()
			l.KeepLog(Keeping{Now: time.Now, For: keeps})
			if err := l.SaveMailbox(b.Context(), Mailbox{Name: "INBOX", UIDValidity: 14}); err != nil {
				b.Fatal(err)
			}
			uid := imap.UID(0)
			for b.Loop() {
				var c Change
				for range 300 {
					uid++
					m := present(uid, `\Seen`)
					c.Save = append(c.Save, m)
					c.Log = append(c.Log, mail.Logged{Outcome: mail.IsDone, Action: mail.Action{
						Kind: mail.ActFetch, Mailbox: "INBOX", UIDValidity: 14, UID: uid, Key: m.Key, ID: m.ID, After: m.Flags,
						From: "Jane Doe", Subject: "Minutes of the meeting of the week before last", Why: "it is new on the server",
					}})
				}
				if err := l.Record(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(uid), "us/mail")
		})
	}
}

// logOf gives what the log has, as "kind outcome".
func logOf(t *testing.T, l *Ledger) (out []string) {
	t.Helper()
	if err := l.Log(t.Context(), time.Time{}, func(line mail.Logged) error {
		out = append(out, fmt.Sprintf("%s %d %s", line.Kind, line.UID, line.Outcome))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func lineOf(kind mail.ActionKind, uid imap.UID, o mail.Outcome) mail.Logged {
	return mail.Logged{Outcome: o, Action: mail.Action{Kind: kind, Mailbox: "INBOX", UIDValidity: 14, UID: uid}}
}

// What was begun becomes what it became, in the same line, whichever process knows it; what was not
// begun gets no outcome that is for that alone; and a change that fails says nothing.
func TestTheLogSaysWhatBecameOfWhatWasBegun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	open := func() *Ledger {
		l, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		l.KeepLog(Keeping{Now: func() time.Time { return now }, For: 90 * 24 * time.Hour})
		return l
	}
	say := func(l *Ledger, lines ...mail.Logged) {
		t.Helper()
		if err := l.Record(t.Context(), Change{Log: lines}); err != nil {
			t.Fatal(err)
		}
	}
	l := open()
	if got := logOf(t, l); len(got) > 0 {
		t.Errorf("a log before its first line: %q", got)
	}
	nowhere := present(3)
	nowhere.Mailbox = "unknown"
	if err := l.Record(t.Context(), Change{Save: []Message{nowhere}, Log: []mail.Logged{lineOf(mail.ActFetch, 9, mail.IsDone)}}); err == nil {
		t.Error("a change that fails is recorded")
	}
	say(l, lineOf(mail.ActMove, 1, mail.IsBegun), lineOf(mail.ActMove, 2, mail.IsBegun), lineOf(mail.ActFetch, 3, mail.IsDone))
	say(l, lineOf(mail.ActMove, 1, mail.IsBegun)) // it is asked for again
	only := lineOf(mail.ActMove, 4, mail.IsDone)
	only.Only = true
	say(l, only)
	if got, want := logOf(t, l), []string{"move 1 begun", "move 2 begun", "fetch 3 done"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// As a process that is killed leaves it.
	if err := errors.Join(l.db.Close(), dropLock(l.lock)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	l = open()
	only.UID = 1
	say(l, only, lineOf(mail.ActMove, 2, mail.IsRefused))
	say(l, lineOf(mail.ActMove, 1, mail.IsBegun)) // another time
	if got, want := logOf(t, l), []string{"move 1 done", "move 2 refused", "fetch 3 done", "move 1 begun"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	runs, err := l.LogRuns(t.Context())
	if err != nil || len(runs) != 2 || !runs[0].Ended.IsZero() || !runs[1].Ended.IsZero() {
		t.Errorf("%+v, %v", runs, err)
	}
	if err := errors.Join(l.EndRun(t.Context()), l.Close()); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "ledger.db")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	if l, err = OpenReadOnly(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if runs, err = l.LogRuns(t.Context()); err != nil || len(runs) != 2 || !runs[0].Ended.IsZero() || runs[1].Ended.IsZero() {
		t.Errorf("the second run has come to its end, the first has not: %+v, %v", runs, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// The log is bounded by age and by number, and a ledger that is to keep none gets no table.
func TestTheLogIsBounded(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keep := Keeping{Now: func() time.Time { return now }, Most: 1500}
	say := func(uids ...imap.UID) {
		t.Helper()
		var c Change
		for _, u := range uids {
			c.Log = append(c.Log, lineOf(mail.ActFetch, u, mail.IsDone))
		}
		if err := errors.Join(l.Record(t.Context(), c), l.EndRun(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	l.KeepLog(keep)
	say(1)
	var tables int
	if err := l.db.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_master WHERE name LIKE 'log%'").Scan(&tables); err != nil || tables > 0 {
		t.Errorf("%d tables of a log that is not kept, %v", tables, err)
	}
	keep.For = 90 * 24 * time.Hour
	l.KeepLog(keep)
	say(2)
	now = now.Add(60 * 24 * time.Hour)
	say(3)
	now = now.Add(60 * 24 * time.Hour)
	say(4)
	if got, want := logOf(t, l), []string{"fetch 3 done", "fetch 4 done"}; !slices.Equal(got, want) {
		t.Errorf("after 120 days %q, want %q", got, want)
	}
	var many []imap.UID
	for u := range imap.UID(2000) {
		many = append(many, u+10)
	}
	now = now.Add(time.Minute)
	for part := range slices.Chunk(many, 100) {
		say(part...)
	}
	got := logOf(t, l)
	if len(got) != 1500 || got[1499] != "fetch 2009 done" {
		t.Errorf("%d lines of 1500, the last %s", len(got), got[len(got)-1])
	}
	if runs, err := l.LogRuns(t.Context()); err != nil || len(runs) != 1 {
		t.Errorf("runs of which there are lines: %+v, %v", runs, err)
	}
	keep.For = 0
	l.KeepLog(keep)
	say(5)
	if got := logOf(t, l); len(got) > 0 {
		t.Errorf("of a log that is kept no more there is %q", got[:1])
	}
}

// What is begun or done in a mailbox goes on under the name that it has then, also if two exchange theirs, and
// of one that is forgotten nothing stays open.
func TestWhatIsBegunFollowsItsMailbox(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	rename := func(lines []mail.Logged, names ...string) {
		t.Helper()
		c := Change{Renamed: make(map[string]Mailbox), Log: lines}
		for i := 0; i < len(names); i += 2 {
			c.Renamed[names[i]] = Mailbox{Name: names[i+1], UIDValidity: 14}
		}
		if err := l.Record(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := l.SaveMailbox(t.Context(), Mailbox{Name: name, UIDValidity: 14}); err != nil {
			t.Fatal(err)
		}
	}
	in := func(mailbox string, uid imap.UID, o mail.Outcome) mail.Logged {
		line := lineOf(mail.ActMove, uid, o)
		line.Mailbox, line.Only = mailbox, o != mail.IsBegun
		return line
	}
	over := func(mailbox, other string, uid imap.UID) mail.Logged { // one of which nothing changes any more
		line := lineOf(mail.ActLink, uid, mail.IsDone)
		line.Mailbox, line.Other = mailbox, other
		return line
	}
	rename(nil, "a", "A") // there is no log yet
	l.KeepLog(Keeping{Now: time.Now, For: time.Hour})
	if err := l.Record(t.Context(), Change{Log: []mail.Logged{in("A", 1, mail.IsBegun), in("b", 1, mail.IsBegun), in("c", 3, mail.IsBegun), in("c", 4, mail.IsBegun), in("d", 1, mail.IsBegun), over("A", "c", 5), over("c", "A", 6)}}); err != nil {
		t.Fatal(err)
	}
	rename([]mail.Logged{lineOf(mail.ActRename, 9, mail.IsDone)}, "A", "b", "b", "A")
	if err := l.Record(t.Context(), Change{Gone: "c", Log: []mail.Logged{in("c", 4, mail.IsDone)}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(t.Context(), Change{Log: []mail.Logged{in("b", 1, mail.IsDone), in("b", 1, mail.IsBegun), in("A", 1, mail.IsRefused), in("c", 3, mail.IsDone)}}); err != nil {
		t.Fatal(err)
	}
	rename(nil, "b", "d") // of which nobody knew
	var got []string
	if err := l.Log(t.Context(), time.Time{}, func(line mail.Logged) error {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %d %s %s", line.Mailbox, line.UID, line.Outcome, line.Other)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"d 1 done", "A 1 refused", "c 3 undone", "c 4 done", "d 1 undone", "d 5 done c", "c 6 done d", "INBOX 9 done", "d 1 begun"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
