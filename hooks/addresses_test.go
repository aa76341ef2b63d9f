package hooks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// book tells a fresh address book of mails, by the day on which they came, and of
// the end of the run.
func book(t *testing.T, b Book, mails ...string) []Failure {
	t.Helper()
	b.Own, b.Mailboxes = []string{"me@example.org"}, onlyInbox
	if b.Most == 0 {
		b.Most = 100
	}
	r, err := NewRunner([]Hook{Addresses("a", b)})
	if err != nil {
		t.Fatal(err)
	}
	var failed []Failure
	for _, m := range mails {
		day, head, _ := strings.Cut(m, " ")
		e := came(t, head)
		e.Point, e.Received = PostIndex, day+"T10:00:00Z"
		if strings.Contains(head, "junk") {
			e.Mailbox = "Junk"
		}
		out, err := r.Ask(t.Context(), e, false)
		if err != nil {
			t.Fatal(err)
		}
		failed = append(failed, out.Failed...)
	}
	out, err := r.Ask(t.Context(), Event{Point: PostSync, Account: "work"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return append(failed, out.Failed...)
}

func TestAddressesOfMailAreWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sub", "book")
	if f := book(t, Book{File: file}); len(f) > 0 {
		t.Error(f)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a book of nobody was written")
	}
	mails := []string{
		"2026-11-01 From: =?utf-8?q?J=C3=BCrgen?= <J@example.org>\nTo: me@example.org, other@example.org\n",
		"2026-11-03 From: j@example.org\n", // the name stays
		"2026-11-02 From: \"Doe, Jane\" <jane@example.org>\n",
		"2026-11-02 From: no-reply@example.org\n",
		"2026-11-02 From: list-bounces@example.org\n",
		"2026-11-02 From: junk@example.org\n",
		"2026-11-04 From: Me <Me@example.org>\nTo: Ann <ann@example.org>,\n\tbob@example.org\nCc: undisclosed-recipients:;\n",
		"2026-11-05 From: nothing\n",
		"2026-11-05 From: Tab\there \"x\x1b[1m <tab@example.org>\n",
	}
	if f := book(t, Book{File: file}, mails...); len(f) > 0 {
		t.Error(f)
	}
	want := "tab@example.org\tTab here \"x [1m\t2026-11-05\nann@example.org\tAnn\t2026-11-04\nbob@example.org\t\t2026-11-04\n" +
		"j@example.org\tJürgen\t2026-11-03\njane@example.org\tDoe, Jane\t2026-11-02\n"
	text, err := os.ReadFile(file)
	if err != nil || string(text) != want {
		t.Errorf("got\n%s\nwant\n%s%v", text, want, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	// Told again it is the same; who was not met for long goes first.
	book(t, Book{File: file}, mails...)
	if text, _ := os.ReadFile(file); string(text) != want {
		t.Errorf("got\n%s", text)
	}
	book(t, Book{File: file, Most: 2}, "2026-11-06 From: new@example.org\n")
	if text, _ := os.ReadFile(file); string(text) != "new@example.org\t\t2026-11-06\n"+strings.SplitAfter(want, "\n")[0] {
		t.Errorf("got\n%s", text)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Mutt runs what stands between backticks in a file of aliases.
func TestAliasesHoldNothingThatMuttWouldRun(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "aliases")
	evil := "`touch x`"
	mails := []string{
		"2026-11-01 From: \"Jane " + evil + " $HOME \\\"q\\\" ; # \\\\\" <jane@example.org>\n",
		"2026-11-01 From: <" + strings.ReplaceAll(evil, " ", "$IFS") + "@example.org>\n",
		"2026-11-01 From: x <`id`@example.org>\n",
		"2026-11-02 From: o'brien@example.org\n",
		"2026-11-02 From: ann+x@example.org\n",
	}
	for range 2 {
		if f := book(t, Book{File: file, Alias: true}, mails...); len(f) > 0 {
			t.Error(f)
		}
		want := "alias ann+x@example.org <ann+x@example.org> # 2026-11-02\nalias jane@example.org \"Jane 'touch x' HOME 'q' ; # \" <jane@example.org> # 2026-11-01\n"
		if text, _ := os.ReadFile(file); string(text) != want {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
	}
}

func TestABookThatIsSomebodysIsNotOverwritten(t *testing.T) {
	t.Parallel()
	for _, alias := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "muttrc")
		const text = "set from=me@example.org\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := book(t, Book{File: file, Alias: alias}, "2026-11-01 From: a@example.org\n")
		if want := fmt.Sprintf("%s: line 1 is not one of ours; nothing is written there, choose another file", file); len(f) != 1 || f[0].Err.Error() != want {
			t.Errorf("%+v", f)
		}
		if now, _ := os.ReadFile(file); string(now) != text {
			t.Errorf("it holds %q", now)
		}
	}
}
