package cmd

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// What notmuch's tags and Mutt's letters say of a mail reaches a real server,
// with any of its extensions, and both sides are the same afterwards.
func TestDovecotIsToldOfChangedFlags(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			appendAll(t, s, "INBOX", rawsDovecot(6)...)
			appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100))
			w := newWorld(t, s.Addr(), s.User, s.Password)
			w.sync()
			w.notmuch("tag", "-unread", "+flagged", "--", "id:d0@example.org", "or", "id:d100@example.org")
			w.notmuch("tag", "+replied", "--", "id:d1@example.org")
			command(t, s, "SELECT INBOX", `UID STORE 2 +FLAGS (\Seen)`, `UID STORE 3 +FLAGS (\Flagged work)`)
			if rep := w.sync(func(o *pipeline.Options) { o.ReadOnly = true }); rep.Pushed != 0 || !rep.Clean() {
				t.Errorf("read only: %+v", rep)
			}
			if rep := w.sync(); rep.Pushed != 3 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			flags := func(mailbox string) string {
				out, err := s.Command("EXAMINE "+mailbox, "UID FETCH 1:* (FLAGS)")
				if err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				for _, line := range out {
					var seq, uid int
					if n, _ := fmt.Sscanf(line, "* %d FETCH (UID %d", &seq, &uid); n == 2 {
						_, list, _ := strings.Cut(line, "FLAGS (")
						list, _, _ = strings.Cut(list, ")")
						fmt.Fprintf(&b, "%d: %s\n", uid, list)
					}
				}
				return b.String()
			}
			want := "1: \\Flagged \\Seen\n2: \\Answered \\Seen\n3: \\Flagged work\n4: \n5: \n6: \n"
			if got := flags("INBOX"); got != want {
				t.Errorf("the server has\n%s, want\n%s", got, want)
			}
			if got := flags("Archiv&AOk-/2024"); got != "1: \\Flagged \\Seen\n" {
				t.Errorf("the other mailbox has %s", got)
			}
			for query, n := range map[string]string{"tag:unread": "4", "tag:flagged": "3", "tag:replied": "1", "tag:work": "1"} {
				if got := w.notmuch("count", query); got != n {
					t.Errorf("%s: %s, want %s", query, got, n)
				}
			}
			for range 2 {
				if rep := w.sync(); rep.Pushed+rep.Flagged+rep.New != 0 || !rep.Clean() {
					t.Errorf("then: %+v", rep)
				}
			}
			// And back again.
			w.notmuch("tag", "+unread", "-flagged", "--", "id:d0@example.org")
			if rep := w.sync(); rep.Pushed != 1 {
				t.Errorf("%+v", rep)
			}
			if got, want := flags("INBOX"), strings.Replace(want, "1: \\Flagged \\Seen", "1: ", 1); got != want {
				t.Errorf("the server has\n%s, want\n%s", got, want)
			}
		})
	}
}

// What is done to files and tags on two machines reaches a real server, with any
// of its extensions, and both machines end with the same.
func TestTwoMachinesAndADovecot(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			raws := rawsDovecot(8)
			appendAll(t, s, "INBOX", raws...)
			appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100))
			appendAll(t, s, "Trash", rawDovecot(200))
			one, two := newWorld(t, s.Addr(), s.User, s.Password), newWorld(t, s.Addr(), s.User, s.Password)
			keywords := func(o *pipeline.Options) { o.Keywords = []string{"todo*"} }
			both := func() {
				for range 3 {
					for _, w := range []*world{one, two} {
						if rep := w.sync(keywords); !rep.Clean() {
							t.Errorf("%+v", rep)
						}
						w.notmuch("new")
					}
				}
			}
			both()
			one.notmuch("tag", "-unread", "+flagged", "--", "id:d0@example.org")
			one.mv("d1@example.org", "Archivé/2024", true)
			one.mv("d2@example.org", "Archivé/2024", false)
			one.rm("d3@example.org")
			sent := "Date: Tue, 02 Mar 2021 04:05:06 +0000\r\n" + rawDovecot(300)
			one.put("INBOX", sent, "S")
			two.notmuch("tag", "+replied", "--", "id:d0@example.org", "or", "id:d1@example.org")
			one.notmuch("tag", "+todo/now", "+mine", "--", "id:d5@example.org")
			two.rm("d4@example.org")
			two.put("Archivé/2024", rawDovecot(301), "FS")
			both()
			for _, w := range []*world{one, two} {
				w.holds("INBOX", []string{raws[0], raws[5], raws[6], raws[7], sent})
				w.holds("Archivé/2024", []string{raws[1], raws[2], rawDovecot(100), rawDovecot(301)})
				w.holds("Trash", []string{raws[3], raws[4], rawDovecot(200)})
				if rep := w.sync(keywords); rep.New+rep.Pushed+rep.Flagged+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0 || !rep.Clean() {
					t.Errorf("not quiet: %+v", rep)
				}
				if r := w.verified(keywords); r.Compared != 12 {
					t.Errorf("%d messages were compared", r.Compared)
				}
			}
			search := "--output=tags"
			one.notmuch("tag", "-mine", "--", "*")
			for _, id := range []string{"d0", "d1", "d2", "d5", "d300", "d301"} {
				a, b := one.notmuch("search", search, "id:"+id+"@example.org"), two.notmuch("search", search, "id:"+id+"@example.org")
				if a != b {
					t.Errorf("%s has %q here and %q there", id, a, b)
				}
			}
			if got := two.notmuch("count", "tag:todo/now"); got != "1" {
				t.Errorf("%s mails are to be done", got)
			}
			if got := two.notmuch("search", search, "id:d0@example.org"); got != "flagged\ninbox\nreplied" {
				t.Errorf("tags %q", got)
			}
			// What was uploaded has the date of its header.
			out, err := s.Command("EXAMINE INBOX", "UID FETCH 1:* (INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(out, "\n"); !strings.Contains(text, `INTERNALDATE "02-Mar-2021 04:05:06 +0000"`) {
				t.Errorf("INBOX: %s", text)
			}
		})
	}
}

// file gives the one file of a message below the account's folder.
func (w *world) file(id string) string {
	w.t.Helper()
	return w.notmuch("search", "--output=files", "id:"+id)
}

// mv puts a mail into another folder, with its name or with a new one, as Mutt
// does.
func (w *world) mv(id, folder string, renamed bool) {
	w.t.Helper()
	from := w.file(id)
	key, letters, _ := strings.Cut(filepath.Base(from), ":2,")
	if renamed {
		key = "1700000000.R1." + id[:strings.IndexByte(id, '@')] + ".mutt"
	}
	if err := os.Rename(from, filepath.Join(w.index.MailRoot(), "work", folder, "cur", key+":2,"+letters)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) rm(id string) {
	w.t.Helper()
	if err := os.Remove(w.file(id)); err != nil {
		w.t.Fatal(err)
	}
}

// put delivers a mail into a folder, as an Fcc does.
func (w *world) put(folder, raw, letters string) {
	w.t.Helper()
	sum := crc32.ChecksumIEEE([]byte(raw))
	path := filepath.Join(w.index.MailRoot(), "work", folder, "cur", fmt.Sprintf("1700000001.R%d.mutt:2,%s", sum, letters))
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(raw, "\r\n", "\n")), 0o600); err != nil {
		w.t.Fatal(err)
	}
}
