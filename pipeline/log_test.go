package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// log gives the lines of the log, of one outcome or of all ("").
func (h *home) log(o mail.Outcome) (lines []string) {
	h.t.Helper()
	l, done := h.reading()
	defer done()
	err := l.Log(context.Background(), time.Time{}, func(line mail.Logged) error {
		if o == "" || line.Outcome == o {
			lines = append(lines, line.Plan())
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return lines
}

// forgetLog lets the log begin anew.
func (h *home) forgetLog() {
	h.edit(func(l *ledger.Ledger) error {
		l.KeepLog(ledger.Keeping{Now: func() time.Time { return h.now.Add(1000 * 24 * time.Hour) }, For: time.Hour})
		return l.Record(context.Background(), ledger.Change{Log: []mail.Logged{{Outcome: mail.IsDone, Action: mail.Action{Kind: mail.ActPair}}}})
	})
}

// logStory is an account in which one thing of each kind is to be done, on both sides, and what the log
// says of it then.
func logStory(h *home, s *server) (want []string) {
	in, ar := s.box("INBOX"), s.box("Archive")
	s.box("Trash").add(plainMail(90))
	for i := range 12 {
		in.add(plainMail(i))
	}
	ar.add(plainMail(50))
	h.sync(s)
	h.sync(s)
	h.flag("INBOX", 1, "S")
	h.move("INBOX", 2, "Archive", false)
	h.remove("INBOX", 3)
	h.remove("Trash", 1)
	h.put("INBOX", plainMail(60), "S")
	h.maildir("New")
	h.put("New", plainMail(61), "")
	in.flag(5, `\Flagged`)
	in.expunge(6)
	in.add(plainMail(70))
	m := in.expunge(7)
	ar.msgs[ar.add(m.raw, m.flags...)].date = m.date
	return []string{
		`store  INBOX  +\Seen  a@example.org  mail 0`,
		"move  INBOX -> Archive  a@example.org  mail 1",
		"delete  INBOX -> Trash  a@example.org  mail 2",
		"delete  Trash  a@example.org  mail 90",
		"upload  INBOX  a@example.org  mail 60",
		"create  New",
		"upload  New  a@example.org  mail 61",
		`flag  INBOX  +\Flagged  a@example.org  mail 4`,
		"remove  INBOX  a@example.org  mail 5",
		"fetch  INBOX  a@example.org  mail 70",
		"link  INBOX -> Archive  a@example.org  mail 6",
		"remove  INBOX  a@example.org  mail 6",
		"fetch  Trash  a@example.org  mail 2",
	}
}

// planned has a dry run say its plan, and gives that as the log would have it. What is done then is
// all that the log has.
func (h *home) planned(s *server, change ...func(*Options)) (planned []mail.Action, rep *Report) {
	h.t.Helper()
	h.forgetLog()
	rep = h.sync(s, append(slices.Clone(change), func(o *Options) { o.DryRun, o.Plan = true, true })...)
	for _, e := range h.events {
		if e.Type == EventAction {
			planned = append(planned, *e.Action)
		}
	}
	return append(planned, mail.Action{Kind: mail.ActPair}), rep // forgetLog's
}

func sortedDiff(got, want []string) string {
	count := make(map[string]int)
	for _, g := range got {
		count[g]++
	}
	for _, w := range want {
		count[w]--
	}
	maps.DeleteFunc(count, func(_ string, n int) bool { return n == 0 })
	var out []string
	for _, k := range slices.Sorted(maps.Keys(count)) {
		out = append(out, fmt.Sprintf("%+d %s", count[k], k))
	}
	return strings.Join(out, "\n")
}

// Everything that a run does is in the log, each once, and nothing else.
func TestTheLogHasWhatWasDone(t *testing.T) {
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			want := logStory(h, s)
			h.forgetLog()
			h.sync(s)
			h.sync(s)
			if d := sortedDiff(h.log(mail.IsDone), append(want, "pair")); d != "" {
				t.Errorf("the log differs:\n%s", d)
			}
			if open := h.log(mail.IsBegun); len(open) > 0 {
				t.Errorf("begun: %q", open)
			}
			before := h.log("")
			h.sync(s)
			if after := h.log(""); !slices.Equal(before, after) {
				t.Errorf("an idle run says %q", after[len(before):])
			}
		})
	}
}

// Whatever stops a run, and wherever: the log has what was done, each once, when the next runs have
// ended it, and says of nothing that it may have been done.
func TestAStopLosesNoLineOfTheLogAndAddsNone(t *testing.T) {
	for i, wire := range []string{"bare", "MOVE"} {
		for j, how := range []string{stopCancelled, stopUnheard} {
			t.Run(wire+" "+how, func(t *testing.T) {
				t.Parallel()
				every := 4
				if how == stopUnheard {
					every = 2
				}
				stops := 0
				for at := 1 + (2*i+j)%every; ; at += every * pace() {
					s, h := newServer(wires()[wire]...), newHome(t)
					want := append(logStory(h, s), "pair")
					h.forgetLog()
					c := &stopped{home: h, s: s, how: how, at: at}
					reached := c.stop()
					doubt := h.log(mail.IsBegun)
					for range 3 {
						h.sync(s)
					}
					if d := sortedDiff(h.log(mail.IsDone), want); d != "" || t.Failed() {
						t.Fatalf("stopped behind effect %d, in doubt %q: the log differs:\n%s", at, doubt, d)
					}
					if open := h.log(mail.IsBegun); len(open) > 0 {
						t.Fatalf("stopped behind effect %d: begun: %q", at, open)
					}
					if stops++; !reached {
						break
					}
				}
				if stops <= 4/pace() {
					t.Errorf("it was stopped %d times", stops)
				}
			})
		}
	}
}

// notAsPlanned tells how what was done differs from a plan. Where that knows a message by its UID alone,
// since nothing here has its subject, any message will do. What is fetched by the plan may be linked: that
// it is here in another mailbox, too, shows when the server has put it where it goes.
func (h *home) notAsPlanned(plan []mail.Action) string {
	h.t.Helper()
	did := h.log(mail.IsDone)
	var want, unknown []string
	for _, a := range plan {
		line := a.Plan()
		if a.From+a.Subject == "" && !slices.Contains(did, line) {
			unknown = append(unknown, strings.TrimSuffix(line, fmt.Sprintf("  UID %d", a.UID)))
		} else {
			want = append(want, line)
		}
	}
	left := slices.Clone(did)
	for _, w := range want {
		if i := slices.Index(left, w); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
	}
	for n, w := range want {
		what, fetched := strings.CutPrefix(w, "fetch  ")
		i := slices.IndexFunc(left, func(l string) bool { return strings.HasPrefix(l, "link  ") && strings.HasSuffix(l, " -> "+what) })
		if fetched && i >= 0 && !slices.Contains(did, w) {
			want[n] = left[i]
			left = slices.Delete(left, i, i+1)
		}
	}
	for _, u := range unknown {
		i := slices.IndexFunc(left, func(l string) bool { return strings.HasPrefix(l, u+"  ") })
		if i < 0 {
			want = append(want, u)
			continue
		}
		want = append(want, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return sortedDiff(did, want)
}

// Of many mails at once notmuch is asked who wrote them, and what about, and no file is read.
func TestOfManyMailsNotmuchIsAsked(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{3: "mail 0", 60: "as notmuch has it"} {
		s, h := newServer(wires()["all"]...), newHome(t)
		for i := range n {
			s.box("INBOX").add(plainMail(i))
		}
		h.sync(s)
		known, err := h.index.load()
		h.do(err)
		for _, m := range known {
			m.About = "as notmuch has it"
		}
		h.do(h.index.save(known))
		h.forgetLog()
		for i := range n {
			h.flag("INBOX", imap.UID(i+1), "S")
		}
		h.sync(s)
		if got := h.log(mail.IsDone); len(got) != n+1 || !slices.Contains(got, `store  INBOX  +\Seen  a@example.org  `+want) {
			t.Errorf("of %d mails: %q", n, got)
		}
	}
}
