package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

func TestStubsListsWhatTheLedgerHas(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	conf := filepath.Join(home, "config.toml")
	text := "[account.work]\nhost = \"h\"\nuser = \"u\"\nkeyring = true\n[account.home]\nhost = \"h\"\nuser = \"u\"\nkeyring = true\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), filepath.Join(home, ".local/state/notmuch-imap/work"))
	if err != nil {
		t.Fatal(err)
	}
	// It stays open and locked: a sync may be under way.
	defer l.Close()
	if err := l.SaveMailbox(t.Context(), ledger.Mailbox{Name: "INBOX", Folder: "INBOX", UIDValidity: 14}); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	row := ledger.Message{
		Mailbox: "INBOX", UIDValidity: 14, UID: 15541, State: ledger.Stub, Attempts: 2, Since: now.Add(-time.Hour), NextTry: now.Add(time.Hour),
		Reason: "the server lists this message and says OK, but sends nothing of it",
	}
	fine := ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: 15544, State: ledger.Present}
	due := ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: 9, State: ledger.Stub, Attempts: 1, Since: now, NextTry: now, Reason: "odd \x1b[1m"}
	if err := l.Save(t.Context(), row, fine, due); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": home}

	status, out, errs := runHere(t.Context(), env, "stubs", "--config", conf)
	if status != 0 || errs != "" {
		t.Fatal(status, errs)
	}
	local := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
	want := "work/INBOX/15541\n" +
		"    the server lists this message and says OK, but sends nothing of it\n" +
		"    since " + local(row.Since) + ", asked 2 times, next time " + local(row.NextTry) + "\n" +
		"    notmuch show id:15541.14."
	if !strings.HasPrefix(out, want) {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
	if !strings.Contains(out, "work/INBOX/9\n    odd ?[1m\n    since "+local(now)+", asked once, due with the next sync\n") || strings.Contains(out, "15544") {
		t.Errorf("got:\n%s", out)
	}

	if status, out, errs = runHere(t.Context(), env, "stubs", "--config", conf, "--json", "work"); status != 0 || errs != "" {
		t.Fatal(status, errs)
	}
	first, _, _ := strings.Cut(out, "\n")
	var got failedIn
	if err := json.Unmarshal([]byte(first), &got); err != nil {
		t.Fatal(err)
	}
	if got.Account != "work" || got.UID != 15541 || got.UIDValidity != 14 || !got.Since.Equal(row.Since) || !got.NextTry.Equal(row.NextTry) ||
		got.Attempts != 2 || got.Reason != row.Reason || !strings.HasSuffix(got.ID, "@imap-stub.invalid") {
		t.Errorf("%+v", got)
	}

	// What hooks kept away is in the list of all alone.
	left := ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: 20, State: ledger.Skipped, StubKey: "k", Since: now, Reason: "hook big: it has 20.0 MB, more than 10.0 MB"}
	plain := ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: 21, State: ledger.Skipped, Since: now, Reason: "hook mine"}
	later := ledger.Message{Mailbox: "INBOX", UIDValidity: 14, UID: 22, State: ledger.Deferred, Since: now, Attempts: 3, Reason: "hook scan: not now"}
	if err := l.Save(t.Context(), left, plain, later); err != nil {
		t.Fatal(err)
	}
	if status, out, _ = runHere(t.Context(), env, "stubs", "--config", conf); status != 0 || strings.Contains(out, "hook") {
		t.Errorf("%d, %q", status, out)
	}
	status, out, _ = runHere(t.Context(), env, "stubs", "--config", conf, "--all")
	for _, want := range []string{
		"work/INBOX/20\n    hook big: it has 20.0 MB, more than 10.0 MB\n    left on the server since " + local(now) + ", not asked for; notmuch imap retry work/INBOX/20 fetches it\n    notmuch show id:20.14.",
		"work/INBOX/21\n    hook mine\n    left on the server since " + local(now) + ", not asked for; notmuch imap retry work/INBOX/21 fetches it\nwork/INBOX/22\n" +
			"    hook scan: not now\n    put off since " + local(now) + ", due with the next sync\n",
	} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, got:\n%s\nwant:\n%s", status, out, want)
		}
	}
	_, out, _ = runHere(t.Context(), env, "stubs", "--config", conf, "--all", "--json")
	states := make(map[uint32]string)
	for line := range strings.Lines(out) {
		var s failedIn
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		states[uint32(s.UID)] = string(s.State) + " " + s.Reason
		if (s.ID != "") != (s.UID != 21 && s.UID != 22) || s.Since.IsZero() || s.Account != "work" || s.Mailbox != "INBOX" || strings.Contains(line, "0001") {
			t.Errorf("%s", line)
		}
	}
	if len(states) != 5 || states[20] != "skipped "+left.Reason || states[21] != "skipped hook mine" || states[22] != "deferred "+later.Reason {
		t.Errorf("%v", states)
	}

	if status, out, _ = runHere(t.Context(), env, "stubs", "--config", conf, "home"); status != 0 || out != "no message failed\n" {
		t.Errorf("an account without a ledger: %d, %q", status, out)
	}
}
