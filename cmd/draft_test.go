package cmd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// A draft that was begun on the telephone and finished in Mutt, which saves what it
// sent and takes the draft away: the sent text is in Sent on the server, and the half
// one in the Trash.
func TestAFinishedDraftGoesUpToSent(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, hide []string) {
		s := dovecot(t, hide...)
		const half = "From: me@example.org\r\nTo: you@example.org\r\nSubject: supper\r\nDate: Tue, 01 Dec 2015 10:00:00 +0000\r\nMessage-ID: <supper@example.org>\r\n\r\nWill you\r\n"
		sent := strings.Replace(half, "Will you", "Will you come at eight?", 1)
		for _, box := range []string{"Drafts", "Sent", "Trash"} {
			command(t, s, "CREATE "+box)
		}
		appendAll(t, s, "Drafts", half)
		w := newWorld(t, s.Addr(), s.User, s.Password)
		if rep := w.sync(); rep.New != 1 || !rep.Clean() {
			t.Fatalf("first: %+v", rep)
		}
		drafts, _ := w.mails("Drafts")
		for path := range drafts {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(w.index.MailRoot(), "work/Sent/cur/1.mutt:2,S")
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(sent, "\r\n", "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		rep := w.sync(func(o *pipeline.Options) { o.YesDelete = true })
		if rep.Uploaded != 1 || rep.Deleted != 1 || rep.Moved != 0 || !rep.Clean() {
			t.Errorf("%+v\n%v", rep, texts(w.events))
		}
		w.sync() // what went to the Trash comes
		settled(t, s, w, map[string][]string{"Drafts": nil, "Sent": {sent}, "Trash": {half}})
		for box, text := range map[string]string{"Sent": "come at eight", "Trash": "Will you"} {
			lines, err := s.Command("EXAMINE "+box, "UID FETCH 1:* (BODY.PEEK[TEXT])")
			if err != nil || !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, text) }) {
				t.Errorf("%s: %q, %v", box, lines, err)
			}
		}
	})
}
