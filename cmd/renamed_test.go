package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// renamed is somebody whose mail reader gives files other names.
type renamed struct{ *mover }

// at gives the path of the one file of a mail that this mailbox has, wherever it is now.
func (m renamed) at(mailbox, id string) string {
	m.t.Helper()
	for _, sub := range []string{"new", "cur"} {
		files, err := filepath.Glob(filepath.Join(m.root, mailbox, sub, "*"))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				m.t.Fatal(err)
			}
			if strings.Contains(string(text), "Message-ID: <"+id+">") {
				return f
			}
		}
	}
	m.t.Fatalf("no file of %s in %s", id, mailbox)
	return ""
}

// to gives a mail's file another name in a mailbox: name of its key.
func (m renamed) to(from, mailbox string, name func(key string) string) {
	m.t.Helper()
	key, _, _ := strings.Cut(filepath.Base(from), ":2,")
	to := filepath.Join(m.root, mailbox, name(key))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		m.t.Fatal(err)
	}
}

func info(letters string) func(string) string {
	return func(key string) string { return "cur/" + key + ":2," + letters }
}

// inStep wants notmuch to have nothing to do, and to name files that are there.
func (m renamed) inStep() {
	m.t.Helper()
	for _, f := range strings.Fields(m.must("notmuch", "search", "--output=files", "*")) {
		if _, err := os.Lstat(f); errors.Is(err, fs.ErrNotExist) {
			m.t.Errorf("notmuch names %s, which is not there", f)
		}
	}
	if out := m.must("notmuch", "new"); out != "No new mail.\n" {
		m.t.Errorf("notmuch new says %s", out)
	}
}

// TestNotmuchHearsOfEveryNewName of a file within the sync that sees it, whatever of that
// goes to the server.
func TestNotmuchHearsOfEveryNewName(t *testing.T) {
	t.Parallel()
	const one = "d1@example.org"
	sync := []string{name, "sync"}
	config := func(m renamed, lines string) { m.write("config.toml", m.read("config.toml")+lines) }
	// A file that no message of the server is, and stays here.
	here := func(m renamed) {
		if err := errors.Join(os.MkdirAll(m.root+"/INBOX/cur", 0o700), os.MkdirAll(m.root+"/INBOX/new", 0o700), os.MkdirAll(m.root+"/INBOX/tmp", 0o700)); err != nil {
			m.t.Fatal(err)
		}
		m.write("mail/work/INBOX/new/here", "Message-ID: <here@example.org>\nSubject: here\n\nx\n")
		m.must("notmuch", "new")
	}
	// Mail that is missing in so many messages that it waits for a person's word.
	held := func(m renamed) {
		for i := 20; i < 80; i++ {
			if err := os.Remove(m.at("INBOX", fmt.Sprintf("d%d@example.org", i))); err != nil {
				m.t.Fatal(err)
			}
		}
		m.must("notmuch", "new")
	}
	for what, c := range map[string]struct {
		first func(renamed) // before the first sync
		then  func(renamed) // after it
		sync  []string
		many  bool // mail, so that a guard holds what is missing
		waits bool // the sync says that something waits
	}{
		"opened":              {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", info("")) }},
		"opened, no letters":  {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", func(key string) string { return "cur/" + key }) }},
		"flags":               {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", info("FS")) }},
		"another letter":      {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", info("a")) }},
		"another key":         {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", func(string) string { return "cur/other:2," }) }},
		"another key, no cur": {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", func(string) string { return "new/other" }) }},
		"moved":               {then: func(m renamed) { m.to(m.at("INBOX", one), "Work", info("")) }},
		"moved, another key":  {then: func(m renamed) { m.to(m.at("INBOX", one), "Work", func(string) string { return "cur/other:2,S" }) }},
		"one mailbox":         {then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", info("")) }, sync: []string{name, "sync", "-m", "INBOX"}},
		"one mailbox, moved": {then: func(m renamed) { m.to(m.at("INBOX", one), "Work", info("S")) },
			sync: []string{name, "sync", "-m", "INBOX"}},
		"read only": {first: func(m renamed) { config(m, "read_only = true\n") }, then: func(m renamed) { m.to(m.at("INBOX", one), "INBOX", info("S")) }},
		"read only, moved": {first: func(m renamed) { config(m, "read_only = true\n") }, then: func(m renamed) {
			m.to(m.at("INBOX", one), "Work", info("S"))
		}},
		"read only, another key": {first: func(m renamed) { config(m, "read_only = true\n") }, then: func(m renamed) {
			m.to(m.at("INBOX", one), "INBOX", func(string) string { return "cur/other:2," })
		}},
		"no letters for tags": {
			first: func(m renamed) { m.write("notmuch", m.read("notmuch")+"[maildir]\nsynchronize_flags=false\n") },
			then:  func(m renamed) { m.to(m.at("INBOX", one), "INBOX", info("")) },
		},
		"here before":        {first: here, then: func(m renamed) { m.to(m.root+"/INBOX/new/here", "INBOX", info("S")) }},
		"here before, moved": {first: here, then: func(m renamed) { m.to(m.root+"/INBOX/new/here", "Work", func(string) string { return "cur/then:2," }) }},
		"guarded": {many: true, waits: true, then: func(m renamed) {
			held(m)
			m.to(m.at("INBOX", one), "INBOX", info(""))
			m.to(m.at("INBOX", "d2@example.org"), "Work", info("S"))
			m.to(m.at("INBOX", "d3@example.org"), "Work", func(string) string { return "cur/other:2," })
		}},
		"doubted": {many: true, waits: true, then: func(m renamed) {
			held(m)
			m.must("cp", "-a", m.root+"/INBOX/cur", m.root+"/INBOX/curr")
			m.must("mv", m.root+"/INBOX/cur", m.dir+"/was")
			m.must("mv", m.root+"/INBOX/curr", m.root+"/INBOX/cur")
			m.to(m.at("INBOX", one), "INBOX", info(""))
			m.to(m.at("INBOX", "d2@example.org"), "Work", info(""))
			m.to(m.at("INBOX", "d3@example.org"), "Work", func(string) string { return "cur/other:2," })
		}},
		"new UIDVALIDITY": {then: func(m renamed) {
			if out, err := m.dovecot.Doveadm("mailbox", "update", "--uid-validity", "4242", "INBOX"); err != nil {
				m.t.Fatalf("%v: %s", err, out)
			}
			m.to(m.at("INBOX", one), "INBOX", info(""))
		}},
		"copied and opened": {then: func(m renamed) {
			m.must("cp", m.at("INBOX", one), m.root+"/Work/cur/copy:2,")
			m.to(m.at("INBOX", one), "INBOX", info(""))
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			raws := rawsDovecot(6)
			if c.many {
				for i := 20; i < 80; i++ {
					raws = append(raws, rawDovecot(i))
				}
			}
			appendAll(t, s, "INBOX", raws...)
			appendAll(t, s, "Work", rawDovecot(100))
			mov, _, _ := settle(t, s)
			m := renamed{mov}
			if c.first != nil {
				c.first(m)
			}
			m.must("notmuch", "new")
			m.must(sync...)
			m.inStep()
			if t.Failed() {
				return
			}
			c.then(m)
			words := sync
			if c.sync != nil {
				words = c.sync
			}
			if out, status := m.run(words...); (status != 0) != c.waits {
				t.Fatalf("status %d: %s", status, out)
			}
			m.inStep()
		})
	}
}

// A stub that was opened has another name, too.
func TestNotmuchHearsOfTheNewNameOfAStub(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	w, _, _ := rungWorld(t, faultMail(2), imaptest.OnlyRungs(imaptest.NoData()))
	if rep := w.sync(); rep.NewStubs != 1 {
		t.Fatalf("%+v", rep)
	}
	_, stubs := w.mails("INBOX")
	for from := range stubs {
		to := filepath.Join(filepath.Dir(filepath.Dir(from)), "cur", filepath.Base(from)+":2,")
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	w.sync()
	if out := w.notmuch("new"); out != "No new mail." {
		t.Errorf("notmuch new says %s", out)
	}
	if rep := w.sync(); rep.Stubs != 1 {
		t.Errorf("then: %+v", rep)
	}
}
