package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// maildir makes a folder, as Mutt does.
func (w *world) maildir(folder string) {
	w.t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(w.index.MailRoot(), "work", folder, sub), 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
}

// listed gives the names that a server lists, or that are subscribed to.
func listed(t *testing.T, s *imaptest.DovecotServer, command string) []string {
	t.Helper()
	out, err := s.Command(command + ` "" "*"`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, line := range out {
		if strings.HasPrefix(line, "* "+command) {
			names = append(names, strings.Trim(line[strings.LastIndex(line, `" `)+2:], `"`))
		}
	}
	slices.Sort(names)
	return names
}

// Folders that are made on one machine, and tags that move and delete mail there,
// are so on a real server and on another machine; no mail travels for it.
func TestFoldersAndTagsReachADovecot(t *testing.T) {
	t.Parallel()
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			raws := rawsDovecot(10)
			anonymous := strings.Replace(rawDovecot(50), "Message-ID", "X-ID", 1)
			appendAll(t, s, "INBOX", append(raws, anonymous)...)
			appendAll(t, s, "Trash", rawDovecot(200))
			one, two := newWorld(t, s.Addr(), s.User, s.Password), newWorld(t, s.Addr(), s.User, s.Password)
			said := &spoken{}
			one.remote.DialContext = said.dial
			rules := func(o *pipeline.Options) {
				o.Moves = []pipeline.Move{
					{From: "INBOX", Without: "inbox", To: "Archive"},
					{From: "Archive", With: "inbox", To: "INBOX"},
				}
				o.DeletedTag = "deleted"
			}
			clean := func(w *world, change ...func(*pipeline.Options)) *pipeline.Report {
				rep := w.sync(change...)
				if !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				return rep
			}
			for range 2 {
				clean(one, rules)
				clean(two, rules)
			}
			one.maildir("Projekte/Übung & Co")
			one.mv("d0@example.org", "Projekte/Übung & Co", true)
			one.mv("d1@example.org", "Projekte/Übung & Co", false)
			one.put("Projekte/Übung & Co", rawDovecot(300), "FS")
			one.notmuch("tag", "-inbox", "--", "id:d2@example.org", "or", "id:d3@example.org", "or", "subject:50")
			one.notmuch("tag", "+deleted", "--", "id:d4@example.org", "or", "id:d200@example.org")
			one.notmuch("tag", "+deleted", "-inbox", "--", "id:d5@example.org")
			said.take()
			if rep := clean(one, rules, func(o *pipeline.Options) { o.DryRun = true }); rep.Moved != 5 || rep.Deleted != 2 || rep.Uploaded != 1 {
				t.Errorf("dry run: %+v", rep)
			}
			for _, line := range said.take() {
				if slices.Contains([]string{"CREATE", "UID MOVE", "UID COPY", "UID STORE", "APPEND"}, strings.Join(strings.Fields(line)[:min(2, len(strings.Fields(line)))], " ")) {
					t.Errorf("the dry run says %s", line)
				}
			}
			if rep := clean(one, rules); rep.Moved != 5 || rep.Deleted != 2 || rep.Uploaded != 1 {
				t.Errorf("%+v", rep)
			}
			// Where the server does not say which the copies are, only its text tells of mail without
			// Message-ID that it is the one whose original may go.
			texts := 0
			if name == "bare" {
				texts = 1
			}
			for _, line := range said.take() {
				if strings.Contains(line, "BODY.PEEK[])") {
					texts--
				}
				if texts < 0 || strings.HasPrefix(line, "APPEND") && !strings.HasPrefix(line, `APPEND "Projekte/&ANw-bung &- Co"`) {
					t.Errorf("mail travelled: %s", line)
				}
			}
			one.notmuch("new")
			for range 2 {
				clean(one, rules)
				clean(two, rules)
			}
			holds := func(w *world) {
				w.holds("INBOX", slices.Concat(raws[6:]))
				w.holds("Archive", []string{raws[2], raws[3], anonymous})
				w.holds("Trash", []string{raws[4], raws[5], rawDovecot(200)})
				w.holds("Projekte/Übung & Co", []string{raws[0], raws[1], rawDovecot(300)})
			}
			holds(one)
			holds(two)
			for _, command := range []string{"LIST", "LSUB"} {
				if got := listed(t, s, command); !slices.Contains(got, "Projekte/&ANw-bung &- Co") || !slices.Contains(got, "Archive") {
					t.Errorf("%s: %q", command, got)
				}
			}
			if got := one.notmuch("count", "tag:deleted"); got != "3" {
				t.Errorf("%s mails in the Trash have the tag", got)
			}

			// Back from the Trash by the other machine, and to INBOX by the tag.
			two.mv("d4@example.org", "INBOX", true)
			clean(two, rules)
			one.notmuch("tag", "+inbox", "--", "id:d2@example.org")
			for range 2 {
				clean(one, rules)
				one.notmuch("new")
				clean(two, rules)
			}
			for _, w := range []*world{one, two} {
				w.holds("INBOX", append([]string{raws[2], raws[4]}, raws[6:]...))
				if rep := clean(w, rules); rep.New+rep.Pushed+rep.Flagged+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0 {
					t.Errorf("not quiet: %+v", rep)
				}
			}

			// A mailbox goes where its owner says so, and by itself nowhere.
			l, err := ledger.Open(t.Context(), one.state())
			if err != nil {
				t.Fatal(err)
			}
			done, err := pipeline.DeleteFolder(t.Context(), one.options(l), "Projekte/Übung & Co", func(p pipeline.FolderPlan) (bool, error) {
				if p.Messages != 3 || p.Files != 3 || p.Alone != 0 {
					t.Errorf("%+v", p)
				}
				return true, nil
			})
			if err := errors.Join(err, l.Close()); !done || err != nil {
				t.Fatal(err)
			}
			if got := listed(t, s, "LSUB"); slices.Contains(got, "Projekte/&ANw-bung &- Co") {
				t.Errorf("subscribed: %q", got)
			}
			one.holds("Projekte/Übung & Co", nil)
			if got := one.notmuch("count", "id:d0@example.org"); got != "0" {
				t.Errorf("notmuch knows %s", got)
			}
			clean(one, rules)
			clean(two, rules)
			two.holds("Projekte/Übung & Co", []string{raws[0], raws[1], rawDovecot(300)})
			if got := listed(t, s, "LIST"); slices.Contains(got, "Projekte/&ANw-bung &- Co") {
				t.Errorf("it was made anew: %q", got)
			}
			if out := one.notmuch("new"); !strings.Contains(out, "No new mail") || strings.Contains(out, "Removed") {
				t.Errorf("notmuch new after us: %s", out)
			}
		})
	}
}

// Where a server has all mailboxes below INBOX., a new folder is one there, and a
// folder that the server refuses costs only itself.
func TestANewFolderBelowInbox(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	for name, hide := range map[string][]string{"NAMESPACE": nil, "no NAMESPACE": {"NAMESPACE"}} {
		s, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{Prefix: "INBOX.", Hide: hide})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
		appendAll(t, s, "INBOX.Trash", rawDovecot(2))
		w := newWorld(t, s.Addr(), s.User, s.Password)
		w.sync()
		w.maildir("Work/2026")
		w.maildir("INBOX/Lists")
		w.maildir("a%2Eb")
		w.mv("d0@example.org", "Work/2026", true)
		w.put("INBOX/Lists", rawDovecot(3), "S")
		if rep := w.sync(); rep.Moved != 1 || rep.Uploaded != 1 || !rep.Clean() {
			t.Errorf("%s: %+v", name, rep)
		}
		if got := listed(t, s, "LSUB"); !slices.Equal(got, []string{"INBOX.Lists", "INBOX.Work.2026"}) {
			t.Errorf("%s: subscribed are %q", name, got)
		}
		if rep := w.sync(); rep.New+rep.Moved+rep.Uploaded != 0 || !rep.Clean() {
			t.Errorf("%s: %+v", name, rep)
		}
		if err := removeAll(w.state()); err != nil {
			t.Fatal(err)
		}
		w.sync()
		if rep := w.sync(); rep.New+rep.Moved+rep.Uploaded != 0 || !rep.Clean() {
			t.Errorf("%s, with a lost ledger: %+v", name, rep)
		}
		w.holds("Work/2026", []string{rawDovecot(0)})
		w.holds("INBOX/Lists", []string{rawDovecot(3)})
	}
}
