package cmd

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// TestWhatVerifySaysSettlesADifference does: the command that a line names, or else a sync.
func TestWhatVerifySaysSettlesADifference(t *testing.T) {
	t.Parallel()
	const byName, byTags = "true", "false" // maildir.synchronize_flags
	rename := func(m *mover, n, letters string) {
		f := m.file("d" + n + "@example.org")
		base, _, _ := strings.Cut(filepath.Base(f), ":2,")
		m.must("mv", f, filepath.Join(filepath.Dir(f), "..", "cur", base+":2,"+letters))
	}
	tag := func(m *mover, n string, tags ...string) {
		m.must(append(append([]string{"notmuch", "tag"}, tags...), "--", "id:d"+n+"@example.org")...)
	}
	for what, c := range map[string]struct {
		flags         string
		before, after func(m *mover) // the import and the first sync; or after these
		want          string
	}{
		"read, by its tag": {byTags, func(m *mover) { tag(m, "1", "-unread") }, nil, `/2: flags: \Seen here alone; a sync sends that`},
		"unread, by its tag": {byTags, func(m *mover) { tag(m, "0", "+unread") }, nil,
			`/1: flags: \Seen on the server alone; no sync changes that, since nothing says which is right; as on the server it is after ` + "`notmuch tag '-unread' -- 'id:d0@example.org'`"},
		"unread again, by its tag": {byTags, nil, func(m *mover) { tag(m, "0", "+unread") }, `/1: flags: \Seen on the server alone; a sync sends that`},
		"a keyword":                {byName, func(m *mover) { m.store("2", "+FLAGS (todo)") }, nil, `/2: flags: todo on the server alone; a sync brings that here`},
		"a keyword by tags":        {byTags, func(m *mover) { m.store("2", "+FLAGS (todo)") }, nil, `/2: flags: todo on the server alone; a sync brings that here`},
		"a tag":                    {byName, func(m *mover) { tag(m, "1", "+todo") }, nil, `/2: flags: todo here alone; a sync sends that`},
		"a tag that went":          {byName, func(m *mover) { tag(m, "1", "+todo") }, func(m *mover) { tag(m, "1", "-todo") }, `/2: flags: todo on the server alone; a sync sends that`},
		"a flag there":             {byName, nil, func(m *mover) { m.store("2", `+FLAGS (\Flagged)`) }, `/2: flags: \Flagged on the server alone; a sync brings that here`},
		"a letter":                 {byName, nil, func(m *mover) { rename(m, "1", "RS") }, `/2: flags: \Answered \Seen here alone; a sync sends that`},
		"a letter, by tags":        {byTags, nil, func(m *mover) { rename(m, "1", "RS") }, `/2: flags: \Answered \Seen here alone; a sync sends that`},
		"each":                     {byName, nil, func(m *mover) { rename(m, "1", "S"); m.store("2", `+FLAGS (\Flagged)`) }, `/2: flags: \Seen here alone, \Flagged on the server alone; a sync takes each to the other side`},
		"another tag than the name": {byName, nil, func(m *mover) {
			m.must("notmuch", "config", "set", "maildir.synchronize_flags", "false")
			tag(m, "1", "+flagged")
			m.must("notmuch", "config", "set", "maildir.synchronize_flags", "true")
		}, `/2: flags: its tags in notmuch are not those of its file's name: flagged in notmuch alone; as its name says it is after ` + "`notmuch tag '-flagged' -- 'id:d1@example.org'`"},
		"new there": {byName, nil, func(m *mover) { appendAll(t, m.dovecot, "INBOX", rawDovecot(9)) }, `/6: not here: it is on the server; a sync fetches it`},
		"gone there": {byName, nil, func(m *mover) { m.store("2", `+FLAGS.SILENT (\Deleted)`, "EXPUNGE") },
			`/2: not there: the server has it no more; its file is in the folder, from where a sync removes it`},
		"gone here": {byName, nil, func(m *mover) { m.must("rm", m.file("d1@example.org")) },
			`/2: not here: its file is gone from the folder; the server has the message, and a sync deletes it there, or moves it where it is here now`},
		"gone here before": {byName, func(m *mover) { m.must("rm", m.file("d1@example.org")); m.must("notmuch", "new") }, nil,
			`/2: not here: its file is gone from the folder; the server has the message, and a sync deletes it there, or moves it where it is here now`},
		"marked as deleted": {byName, nil, func(m *mover) { rename(m, "1", "T") }, `/2: leaving: the name of its file marks it as deleted (T), and a sync deletes it on the server`},
		"marked by its tag": {byName, nil, func(m *mover) {
			m.write("config.toml", m.read("config.toml")+"deleted_tag = \"zap\"\n")
			tag(m, "1", "+zap")
		}, `/2: leaving: it has the tag zap, and a sync deletes it on the server`},
		"new here": {byName, nil, func(m *mover) { m.put("INBOX/cur/new:2,S", rawDovecot(9)) }, `: not there: INBOX/cur/new:2,S: no message on the server is this file; a sync uploads it`},
		"a new folder": {byName, nil, func(m *mover) { m.maildir("Own"); m.put("Own/cur/new:2,S", rawDovecot(9)) },
			`work: not there: Own: the folder is of no mailbox of the server; 1 mail is in it; a sync makes it one`},
		"a note of mbsync": {byName, nil, func(m *mover) {
			m.put("INBOX/cur/note:2,", "From: a@example.org\nSubject: [placeholder] large\nX-TUID: 123456789012\n\nHaving a size of 2M, this message is over the MaxSize limit.\n")
		}, `: not there: INBOX/cur/note:2,: a note that mbsync left in place of a large mail, which nothing sends; remove it`},
		"a stub of another account": {byName, nil, func(m *mover) {
			key := stub.NewKey("old", "INBOX", 14, 2)
			m.put("INBOX/cur/note-of-ours:2,", fmt.Sprintf("From: a@example.org\nSubject: [not fetched] large\nMessage-ID: <%s>\n%s: v=1; key=%s\nX-Notmuch-Imap-Account: old\nX-Notmuch-Imap-Mailbox: INBOX\n\nnote\n", key.MessageID(), stub.Field, key))
		}, `: not there: INBOX/cur/note-of-ours:2,: a stub of a mail that did not come, of which this account knows nothing, as of an account that has another name now: nothing sends it; remove it, if it is not wanted`},
		"cut off": {byName, nil, func(m *mover) { m.must("sh", "-c", "echo Message-ID: '<d1@example.org>' > "+m.file("d1@example.org")) },
			`/2: content: its file was changed since it came; move that away, and ` + "`notmuch imap sync --restore work` brings what the server has"},
		"unknown to notmuch": {byName, nil, func(m *mover) {
			f := m.file("d1@example.org")
			m.must("mv", f, m.dir)
			m.must("notmuch", "new")
			m.must("mv", filepath.Join(m.dir, filepath.Base(f)), f)
		}, `/2: not in notmuch: notmuch does not know its file `},
	} {
		if share.Spares(what) {
			continue
		}
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2), rawDovecot(3), rawDovecot(4))
			command(t, s, "SELECT INBOX", `UID STORE 1 +FLAGS (\Seen)`)
			m, host, port := settle(t, s)
			m.write("notmuch", m.read("notmuch")+"[maildir]\nsynchronize_flags="+c.flags+"\n")
			m.write("config.toml", m.read("config.toml")+"keywords = [\"todo\"]\ndeletions = \"expunge\"\n")
			with := mbsyncOf("Path "+m.root+"/\nInbox "+m.root+"/INBOX\nSubFolders Verbatim")(m, host, port)
			with.run()
			m.must("notmuch", "new")
			tag(m, "0", "-unread") // as its name says
			if c.before != nil {
				c.before(m)
			}
			m.must(with.words...)
			if c.after != nil {
				m.sync()
				says(t, m.must(name, "verify"), "work: all 5 messages are here")
				c.after(m)
			}
			out, status := m.run(name, "verify")
			want := strings.ReplaceAll(c.want, "MAIL", m.root)
			if status != exitPartly || !strings.Contains(out, want) || !strings.Contains(out, "; 1 difference: ") {
				t.Errorf("status %d, want %s\n%s", status, want, out)
			}
			if strings.Contains(out, "; move that away, ") {
				m.must("mv", m.file("d1@example.org"), m.dir)
			}
			if strings.Contains(out, "; remove it") {
				m.must("sh", "-c", "rm "+m.root+"/INBOX/cur/note*")
			}
			for _, typed := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(out, -1) {
				m.must("sh", "-c", typed[1])
			}
			m.sync()
			if again, status := m.run(name, "verify", "--deep"); status != 0 {
				t.Errorf("%s\nand after a sync\n%s", out, again)
			}
		})
	}
}

// TestWhatVerifySaysOfFoldersIsSo, of those that were here before the first sync: what it says that
// makes a mailbox of a folder does, and else nothing does.
func TestWhatVerifySaysOfFoldersIsSo(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0))
	m, _, _ := settle(t, s)
	m.write("config.toml", m.read("config.toml")+"mailboxes = [\"*\", \"!excl*\"]\n")
	m.maildir("INBOX")
	const (
		upload  = "`notmuch imap upload work` makes it one, and sends all that was here before the first sync"
		unnamed = "the server can have no mailbox of this name; give the folder another one"
		refused = "; it is tried again after a while, or with --full"
	)
	folders := []struct{ folder, before, after string }{
		{"Alt", upload, ""},
		{"dot.", upload, ""},
		{"we%ird", upload, ""},
		{"excl", "", ""},
		{"excl.", "", ""},
		{"inbox", unnamed, unnamed},
		{"~x", upload, refused},
	}
	for i, f := range folders {
		m.maildir(f.folder)
		m.put(fmt.Sprintf("%s/cur/own%d:2,S", f.folder, i), rawDovecot(i+1))
	}
	m.must("notmuch", "new")
	m.must(name, "sync")
	left := 0
	says := func(when string, of func(i int) string) {
		t.Helper()
		left = 0
		out, status := m.run(name, "verify")
		for i, f := range folders {
			line, want := regexp.MustCompile(`(?m)^work: not there: `+regexp.QuoteMeta(f.folder)+`: .*$`).FindString(out), of(i)
			if (want == "") != (line == "") || !strings.HasSuffix(line, want) {
				t.Errorf("%s, %s: %q, want %q", when, f.folder, line, want)
			}
			if want != "" {
				left++
			}
		}
		if status != exitPartly || !strings.Contains(out, fmt.Sprintf("%d difference", left)) {
			t.Errorf("%s: status %d, not %d differences:\n%s", when, status, left, out)
		}
	}
	says("at first", func(i int) string { return folders[i].before })
	m.run(name, "upload", "work")
	for _, when := range []string{"after the upload", "after a sync"} {
		says(when, func(i int) string { return folders[i].after })
		m.run(name, "sync", "--full")
	}
	m.holds(map[string]int{"INBOX": 1, "Alt": 1, "dot.": 1, "we%ird": 1})
	if out, _ := m.run(name, "stubs", "--all"); strings.Contains(out, "upload") || strings.Contains(out, "folder create") {
		t.Errorf("advises what was done:\n%s", out)
	}
}

// store changes flags of a message in INBOX, and says more to the server then.
func (m *mover) store(uid, what string, more ...string) {
	m.t.Helper()
	if out, err := m.dovecot.Command(append([]string{"SELECT INBOX", "UID STORE " + uid + " " + what}, more...)...); err != nil {
		m.t.Fatal(out, err)
	}
}
