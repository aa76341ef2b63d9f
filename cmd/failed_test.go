package cmd

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	line "github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// failure is something that failed, as the ledger has it, and what is to be told of it.
type failure struct {
	state  pipeline.FailedState
	rows   []ledger.Message
	note   func(c *journal.Change, j *journal.Journal)
	named  string // in the list
	reason string
	next   string // when it is tried again; "" if it is not, or that is in the reason
	waits  bool
}

// everyFailure is one of each state.
func everyFailure(now time.Time) []failure {
	at, since := now.Add(time.Hour), now.Add(-48*time.Hour)
	next := "next time " + minute(at)
	row := func(uid imap.UID, s ledger.State, change ...func(*ledger.Message)) []ledger.Message {
		m := ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: uid, State: s, Since: since, Attempts: 2, Reason: "why of " + string(s)}
		for _, f := range change {
			f(&m)
		}
		return []ledger.Message{m}
	}
	soon := func(m *ledger.Message) { m.NextTry = at }
	text := func(of func(*journal.Journal) journal.Notes[journal.Text], about string, text journal.Text) func(*journal.Change, *journal.Journal) {
		return func(c *journal.Change, j *journal.Journal) { of(j).Put(c, about, text) }
	}
	standing := func(kind, why string) func(*journal.Change, *journal.Journal) {
		return func(c *journal.Change, j *journal.Journal) {
			j.Standing.Put(c, journal.AboutWord(kind, "Work"), journal.Standing{Told: since, Since: since, Text: why})
		}
	}
	lacks := func(op, mailbox string, n journal.Unavailable) func(*journal.Change, *journal.Journal) {
		return func(c *journal.Change, j *journal.Journal) { j.Unavailable.Put(c, journal.AboutWord(op, mailbox), n) }
	}
	unsent := journal.Unsent{Mailbox: "INBOX", Name: "cur/1.new:2,S", ID: "new@example.org", Tries: journal.Tries{Reason: "APPEND: refused (NO): \"too big\"", Attempts: 3, Since: since, NextTry: at}}
	dropped := unsent
	dropped.Name, dropped.GivenUp, dropped.Reason = "cur/2.new:2,S", true, "APPEND: refused (NO): \"a virus\""
	return []failure{
		{state: pipeline.FailedStub, rows: row(1, ledger.Stub, soon), named: "work/INBOX/1", reason: "why of stub", next: next, waits: true},
		{state: pipeline.FailedStub, rows: row(2, ledger.Stub), named: "work/INBOX/2", reason: "why of stub", next: "due with the next sync", waits: true},
		{state: pipeline.FailedGivenUp, rows: row(3, ledger.GivenUp), named: "work/INBOX/3", reason: "given up", next: "notmuch imap retry work/INBOX/3 asks again"},
		{state: pipeline.FailedSkipped, rows: row(4, ledger.Skipped), named: "work/INBOX/4", reason: "why of skipped", next: "notmuch imap retry work/INBOX/4 fetches it"},
		{state: pipeline.FailedDeferred, rows: row(5, ledger.Deferred), named: "work/INBOX/5", reason: "why of deferred", next: "due with the next sync"},
		{state: pipeline.FailedNotMail, rows: row(6, ledger.Present, func(m *ledger.Message) { m.Reason, m.Key, m.Attempts = line.NotMail, "k6", 0 }),
			named: "work/INBOX/6", reason: "notmuch does not take its file for a mail"},
		{state: pipeline.FailedUnsent, note: func(c *journal.Change, j *journal.Journal) { j.Unsent.Put(c, "INBOX/1.new", unsent) },
			named: "work/INBOX: cur/1.new:2,S", reason: "too big", next: next, waits: true},
		{state: pipeline.FailedGivenUp, note: func(c *journal.Change, j *journal.Journal) { j.Unsent.Put(c, "INBOX/2.new", dropped) },
			named: "work/INBOX: cur/2.new:2,S", reason: "a virus", next: "notmuch imap retry 'work/INBOX: cur/2.new:2,S' asks again"},
		{state: pipeline.FailedRefused, note: func(c *journal.Change, j *journal.Journal) {
			j.Declined.Put(c, "Work/14/7", journal.Declined{Mailbox: "Work", UIDValidity: 14, UID: 7, Changes: map[string]journal.Tries{
				"move Full": {Attempts: 3, Since: since, NextTry: at, Reason: `UID MOVE: refused (NO): "over quota"`},
			}})
		}, named: "work/Work", reason: "not moved to Full: UID 7: UID MOVE: refused (NO): \"over quota\"", next: next, waits: true},
		{state: pipeline.FailedGivenUp, note: func(c *journal.Change, j *journal.Journal) {
			j.Declined.Put(c, "Work/14/7", journal.Declined{Mailbox: "Work", UIDValidity: 14, UID: 7, Changes: map[string]journal.Tries{
				"delete": {Attempts: 3, Since: since, NextTry: at, Reason: `UID MOVE: refused (NO): "no right"`, GivenUp: true},
			}})
		}, named: "work/Work", reason: "not deleted: UID 7: UID MOVE: refused (NO): \"no right\"", next: "notmuch imap retry work/Work asks again"},
		{state: pipeline.FailedRefused, note: standing("push", "not moved to Full: over quota"), named: "work/Work", reason: "over quota", next: "due with the next sync", waits: true},
		{state: pipeline.FailedHeld, note: standing("held", "12 messages are gone: --yes-delete=work/Work"), named: "work/Work", reason: "--yes-delete=work/Work", waits: true},
		{state: pipeline.FailedHeld, note: standing("doubted", "its folder looks restored"), named: "work/Work", reason: "looks restored", waits: true},
		{state: pipeline.FailedHeld, note: standing("gone", "the server lists 9 of 9 no more"), named: "work/Work", reason: "lists 9 of 9", waits: true},
		{state: pipeline.FailedMailbox, note: standing("mailbox", "its folder cannot be read"), named: "work/Work", reason: "cannot be read", next: "due with the next sync", waits: true},
		{state: pipeline.FailedUnavailable, note: lacks("EXAMINE", "Closed", journal.Unavailable{Tries: journal.Tries{Attempts: 2, NextTry: at, Since: since, Reason: `EXAMINE: refused (NO): "no right"`}}),
			named: "work/Closed", reason: "no right", next: next, waits: true},
		{state: pipeline.FailedUnavailable, note: lacks("STATUS", "Dead", journal.Unavailable{Tries: journal.Tries{Attempts: 2, NextTry: at}}), named: "work/Dead", reason: "STATUS: no answer", next: next, waits: true},
		{state: pipeline.FailedUnavailable, note: lacks("CREATE", "a&b", journal.Unavailable{Tries: journal.Tries{Attempts: 2, NextTry: at, Reason: `CREATE: refused (NO): "bad name"`}}),
			named: "work/a&b", reason: "bad name", next: next, waits: true},
		{state: pipeline.FailedGivenUp, note: lacks("EXAMINE", "Left", journal.Unavailable{Tries: journal.Tries{Attempts: 2, NextTry: at, Reason: `EXAMINE: refused (NO): "never"`, GivenUp: true}}),
			named: "work/Left", reason: "never", next: "notmuch imap retry work/Left asks again"},
		{state: pipeline.FailedAccount, note: func(c *journal.Change, j *journal.Journal) {
			j.LastRun.Put(c, journal.LastRun{At: since, Faults: []string{"the server is not well; the next sync tries again"}})
		}, named: "work", reason: "the server is not well", next: "the next sync tries again", waits: true},
		{state: pipeline.FailedSignIn, note: func(c *journal.Change, j *journal.Journal) {
			j.Refused.Put(c, journal.Refusal{Attempts: 2, NextTry: at, Since: since, Text: "LOGIN: sign-in refused"})
		}, named: "work", reason: "LOGIN: sign-in refused", next: minute(at), waits: true},
		{state: pipeline.FailedUnnamed, note: text(func(j *journal.Journal) journal.Notes[journal.Text] { return j.OddSaid }, "x\r\ny", "not said: said"),
			named: "work/x??y", reason: "no command can say it"},
		{state: pipeline.FailedFolder, note: text(func(j *journal.Journal) journal.Notes[journal.Text] { return j.FolderSaid }, "a.b", "the server can have no mailbox of this name"),
			named: "work: a.b", reason: "can have no mailbox of this name"},
		{state: pipeline.FailedGone, note: text(func(j *journal.Journal) journal.Notes[journal.Text] { return j.GoneSaid }, "14/Old", "Old"), named: "work/Old", reason: "has this mailbox no more"},
		{state: pipeline.FailedTwin, note: text(func(j *journal.Journal) journal.Notes[journal.Text] { return j.TwinSaid }, "3.twin", "INBOX"),
			named: "work/INBOX: 3.twin", reason: "a message that the mailbox has already"},
		{state: pipeline.FailedFlag, note: text(func(j *journal.Journal) journal.Notes[journal.Text] { return j.StaysSaid }, `\Flagged/Work`, "Work"),
			named: "work/Work", reason: `keeps no flag \Flagged`},
	}
}

// Whatever failed, in whatever direction, is listed by `stubs --all` and by `status`, for
// people and for programs, with why, and when it is tried again.
func TestEveryFailureIsListed(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	states := make(map[pipeline.FailedState]bool)
	for _, f := range everyFailure(now) {
		states[f.state] = true
		t.Run(string(f.state)+" "+f.named, func(t *testing.T) {
			home := t.TempDir()
			conf := filepath.Join(home, "notmuch-config") // libnotmuch looks for it by itself
			t.Setenv("NOTMUCH_CONFIG", conf)
			if err := os.WriteFile(conf, []byte("[database]\npath="+home+"/mail\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(home, "mail"), 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := index.Open(t.Context(), index.Options{Config: conf}); err != nil { // which makes the database
				t.Fatal(err)
			}
			conf = filepath.Join(home, "config.toml")
			if err := os.WriteFile(conf, []byte("[account.work]\nhost = \"h\"\nuser = \"u\"\nkeyring = true\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := ledger.Open(t.Context(), filepath.Join(home, ".local/state/notmuch-imap/work"))
			if err != nil {
				t.Fatal(err)
			}
			var c journal.Change
			if f.note != nil {
				f.note(&c, journal.Of(l))
			}
			err = errors.Join(l.SaveMailbox(t.Context(), ledger.Mailbox{Name: "INBOX", Folder: "INBOX", UIDValidity: 14}), l.Save(t.Context(), f.rows...),
				journal.Of(l).Record(t.Context(), c), l.Close())
			if err != nil {
				t.Fatal(err)
			}
			run := func(want int, args ...string) string {
				t.Helper()
				status, out, errs := runHere(t.Context(), map[string]string{"HOME": home}, append(args, "--config", conf)...)
				if status != want || errs != "" || strings.Contains(out, "0001") {
					t.Errorf("%v: %d, %q, %s", args, status, errs, out)
				}
				return out
			}
			waits := 0
			if f.waits {
				waits = exitPartly
			}
			for command, out := range map[string]string{"stubs": run(0, "stubs", "--all"), "status": run(waits, "status")} {
				text := strings.Join(strings.Fields(out), " ")
				if !strings.Contains(text, f.reason) || !strings.Contains(text, f.next) || command == "stubs" && !strings.HasPrefix(out, f.named+"\n") {
					t.Errorf("%s:\n%s", command, out)
				}
			}
			var one, all struct {
				Account string
				pipeline.Failed
				Of []pipeline.Failed `json:"failed"`
			}
			if err := errors.Join(json.Unmarshal([]byte(run(0, "stubs", "--all", "--json")), &one), json.Unmarshal([]byte(run(waits, "status", "--json")), &all)); err != nil {
				t.Fatal(err)
			}
			if one.Account != "work" || one.State != f.state || len(all.Of) != 1 || all.Of[0] != one.Failed || f.state != pipeline.FailedGivenUp && !strings.Contains(one.Reason, f.reason) {
				t.Errorf("%+v, %+v", one, all.Of)
			}
		})
	}
	for _, s := range []pipeline.FailedState{
		pipeline.FailedStub, pipeline.FailedGivenUp, pipeline.FailedSkipped, pipeline.FailedDeferred, pipeline.FailedNotMail, pipeline.FailedUnsent, pipeline.FailedRefused,
		pipeline.FailedHeld, pipeline.FailedUnavailable, pipeline.FailedMailbox, pipeline.FailedAccount, pipeline.FailedSignIn, pipeline.FailedUnnamed, pipeline.FailedFolder,
		pipeline.FailedGone, pipeline.FailedTwin, pipeline.FailedFlag,
	} {
		if !states[s] {
			t.Errorf("none is %s", s)
		}
	}
}
