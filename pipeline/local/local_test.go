package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// account is a mail root and a ledger, without a server.
type account struct {
	*Reader
	t      *testing.T
	ledger *ledger.Ledger
	notes  []string
}

func newAccount(t *testing.T) *account {
	t.Helper()
	dir := t.TempDir()
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &account{t: t, ledger: l}
	now := func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	a.Reader = &Reader{
		Account: "work", Root: filepath.Join(dir, "mail"), Ledger: l, Journal: journal.Of(l), Old: journal.NewOldTags(journal.Of(l)), Secret: "secret",
		Report: report.NewReporter(report.Report{}, now, func(e report.Event) bool { a.notes = append(a.notes, e.Text); return true }, nil),
	}
	return a
}

func (a *account) do(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// agree makes a mailbox of which both sides have so many messages: their UIDs are from 1,
// and their keys a letter each.
func (a *account) agree(name string, messages int) Mailbox {
	a.t.Helper()
	k := ledger.Mailbox{Name: name, Folder: name, UIDValidity: 7, UIDNext: imap.UID(messages + 1), Complete: true, Messages: uint32(messages)}
	a.do(a.ledger.SaveMailbox(a.t.Context(), k))
	m := a.of(k)
	a.do(m.Dir.Create())
	for n := range messages {
		file := "cur/" + string(rune('a'+n)) + ":2,S"
		text := mailOf(n)
		a.write(m, file, text)
		digest, err := maildir.Digest(m.path(file))
		a.do(err)
		a.do(a.ledger.Save(a.t.Context(), ledger.Message{
			Mailbox: name, UIDValidity: 7, UID: imap.UID(n + 1), Key: string(rune('a' + n)), Name: file, ID: idOf(n),
			Size: int64(len(text)), Digest: digest, Flags: []string{`\Seen`}, State: ledger.Present,
		}))
	}
	a.age(m)
	m.Status = &mail.Status{UIDValidity: 7, UIDNext: k.UIDNext, Messages: k.Messages}
	return m
}

// age lets what changes in a folder from here on show, however coarse the clock of the file
// system is.
func (a *account) age(m Mailbox) {
	a.t.Helper()
	for _, sub := range []string{"cur", "new"} {
		old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		a.do(os.Chtimes(m.path(sub), old, old))
	}
}

func idOf(n int) string { return string(rune('a'+n)) + "@example.org" }

func mailOf(n int) string { return "Message-ID: <" + idOf(n) + ">\nSubject: x\n\ntext\n" }

func (a *account) write(m Mailbox, name, text string) {
	a.t.Helper()
	a.do(os.WriteFile(m.path(name), []byte(text), 0o600))
}

func (a *account) rename(m Mailbox, from, to string) {
	a.t.Helper()
	a.do(os.Rename(m.path(from), m.path(to)))
}

func (a *account) scan(m Mailbox) Folder {
	a.t.Helper()
	f, err := a.Scan(a.t.Context(), m, nil)
	a.do(err)
	return f
}

// brief says in a word for each what was found.
func brief(f *Folder) string {
	var out []string
	for _, m := range f.Missing {
		out = append(out, "missing "+m.Key)
	}
	for _, m := range f.MissingUnconfirmed {
		out = append(out, "unconfirmed "+m.Key)
	}
	for _, m := range f.Marked {
		out = append(out, "marked "+m.Key)
	}
	for _, u := range f.Untracked {
		word := "new "
		switch {
		case u.RuledOut:
			word = "ruled out "
		case u.Twin:
			word = "twin "
		}
		out = append(out, word+u.Key)
	}
	for uid := range imap.UID(9) {
		for _, flag := range f.Flags[uid].Add {
			out = append(out, string(rune('a'+uid-1))+" +"+flag)
		}
		for _, flag := range f.Flags[uid].Remove {
			out = append(out, string(rune('a'+uid-1))+" -"+flag)
		}
	}
	if f.Doubt != "" {
		out = append(out, "doubt")
	}
	if f.Unread {
		out = append(out, "unread")
	}
	return strings.Join(out, ", ")
}

// What a folder holds is told against the rows; and nothing is changed by that, so that a
// second scan finds the same.
func TestScan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(a *account, m *Mailbox)
		want   string
	}{
		"nothing":        {func(*account, *Mailbox) {}, ""},
		"read on":        {func(a *account, m *Mailbox) { a.rename(*m, "cur/a:2,S", "cur/a:2,FS") }, `a +\Flagged`},
		"unread again":   {func(a *account, m *Mailbox) { a.rename(*m, "cur/a:2,S", "cur/a:2,") }, `a -\Seen`},
		"without info":   {func(a *account, m *Mailbox) { a.rename(*m, "cur/a:2,S", "new/a") }, ""},
		"deleted":        {func(a *account, m *Mailbox) { a.do(m.Dir.Remove("cur/b:2,S")) }, "missing b"},
		"marked":         {func(a *account, m *Mailbox) { a.rename(*m, "cur/b:2,S", "cur/b:2,ST") }, "marked b"},
		"saved here":     {func(a *account, m *Mailbox) { a.write(*m, "new/n", mailOf(8)) }, "new n"},
		"empty file":     {func(a *account, m *Mailbox) { a.write(*m, "new/n", "") }, ""},
		"saved twice":    {func(a *account, m *Mailbox) { a.write(*m, "new/n", mailOf(0)) }, "twin n"},
		"edited by Mutt": {func(a *account, m *Mailbox) { a.write(*m, "new/n", mailOf(0)); a.rename(*m, "cur/a:2,S", "cur/a:2,ST") }, "marked a, new n"},
		"ruled out": {func(a *account, m *Mailbox) {
			a.write(*m, "new/n", mailOf(8))
			a.do(a.Journal.NeverUpload.Set(a.t.Context(), "n", journal.Text(m.Name)))
		}, "ruled out n"},
		"ruled out elsewhere": {func(a *account, m *Mailbox) {
			a.write(*m, "new/n", mailOf(8))
			a.do(a.Journal.NeverUpload.Set(a.t.Context(), "n", "Archive"))
		}, "new n"},
		"told before": {func(a *account, m *Mailbox) {
			a.Told = map[string]map[imap.UID][]string{m.Name: {1: {`\Flagged`}}}
			a.write(*m, "new/n", mailOf(8)) // so that the folder is read
		}, `new n, a -\Flagged`},
		"all gone":      {func(a *account, m *Mailbox) { a.do(m.Dir.Remove("cur/a:2,S")); a.do(m.Dir.Remove("cur/b:2,S")) }, "missing a, missing b, doubt"},
		"folder gone":   {func(a *account, m *Mailbox) { a.do(os.RemoveAll(string(m.Dir))) }, "missing a, missing b, doubt"},
		"never agreed":  {func(a *account, m *Mailbox) { m.Known.Complete = false; a.do(m.Dir.Remove("cur/b:2,S")) }, "missing b, unconfirmed b"},
		"not to be had": {func(a *account, m *Mailbox) { m.Status = nil; a.do(m.Dir.Remove("cur/b:2,S")) }, "unconfirmed b"},
		"other UIDs":    {func(a *account, m *Mailbox) { m.Status.UIDValidity++; a.do(m.Dir.Remove("cur/b:2,S")) }, "unconfirmed b"},
		"read only":     {func(a *account, m *Mailbox) { a.ReadOnly = true; a.do(m.Dir.Remove("cur/b:2,S")) }, ""},
		"read only, but the server is right": {func(a *account, m *Mailbox) {
			a.ReadOnly, a.Restore = true, true
			a.do(m.Dir.Remove("cur/b:2,S"))
		}, "missing b"},
		"not a folder": {func(a *account, m *Mailbox) {
			a.do(os.RemoveAll(m.path("cur")))
			a.do(os.WriteFile(m.path("cur"), nil, 0o600))
		}, "unread"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			m := a.agree("INBOX", 2)
			if f := a.scan(m); brief(&f) != "" {
				t.Fatalf("before: %s", brief(&f))
			}
			c.change(a, &m)
			for range 2 {
				f := a.scan(m)
				if got := brief(&f); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				if f.Unread != (f.Err != nil) {
					t.Errorf("unread %v, since %v", f.Unread, f.Err)
				}
				if f.Nothing() {
					break // that was noted
				}
			}
		})
	}
}

// A folder is not read again until something in it has changed. What is in doubt stays so
// when mail comes into the folder.
func TestScanIsNoted(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := a.agree("INBOX", 2)
	scanned := func() journal.Scan {
		s, _, err := a.Journal.Scanned.Get(t.Context(), m.Name)
		a.do(err)
		return s
	}
	a.scan(m)
	f, err := a.Compare(t.Context(), m, scanned())
	a.do(err)
	if !f.unchanged {
		t.Error("it is read again, though nothing has changed")
	}
	a.do(m.Dir.Remove("cur/a:2,S"))
	a.do(m.Dir.Remove("cur/b:2,S"))
	a.scan(m)
	if why, ok := scanned().Doubt(); !ok {
		t.Errorf("no doubt is noted: %q", why)
	}
	a.write(m, "new/n", mailOf(8))
	if f := a.scan(m); brief(&f) != "missing a, missing b, new n, doubt" {
		t.Error(brief(&f))
	}
	a.do(a.Believe(t.Context(), m.Name, m.Dir))
	if f := a.scan(m); brief(&f) != "missing a, missing b, new n" {
		t.Error(brief(&f))
	}
	// A dry run notes nothing.
	a.DryRun = true
	before := scanned()
	a.do(os.RemoveAll(string(m.Dir)))
	if a.scan(m); scanned() != before {
		t.Errorf("%q was %q", scanned(), before)
	}
}

// What changes in a folder right after a scan is seen by the next one, also where the clock of
// the file system has not gone on since the change before.
func TestAScanIsNotNotedOfAFolderThatChangedJustNow(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := a.agree("INBOX", 2)
	// Later than now, so that it is just now however long the scan takes.
	tick := time.Now().Add(time.Hour)
	at := func() {
		a.do(errors.Join(os.Chtimes(m.path("cur"), tick, tick), os.Chtimes(m.path("new"), tick, tick)))
	}
	at()
	if f := a.scan(m); brief(&f) != "" {
		t.Errorf("before: %s", brief(&f))
	}
	a.rename(m, "cur/a:2,S", "cur/a:2,FS")
	at()
	if f := a.scan(m); brief(&f) != `a +\Flagged` {
		t.Errorf("%q is seen of a flag", brief(&f))
	}
}

// A program that puts the times of directories back, as touch -r, rsync and tar do, hides no change.
func TestAFolderWhoseTimesArePutBackIsScanned(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := a.agree("INBOX", 2)
	a.scan(m)
	a.rename(m, "cur/a:2,S", "cur/a:2,FS")
	a.age(m)
	if f := a.scan(m); brief(&f) != `a +\Flagged` {
		t.Errorf("%q is seen of a flag", brief(&f))
	}
}

// What was found in a folder before the server was heard of counts while the folder
// and the ledger are as they were, and for the mailbox as it was.
func TestPrescanHoldsWhileNothingChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(a *account, m *Mailbox)
		holds  bool
		want   string
	}{
		{"nothing", func(*account, *Mailbox) {}, true, "missing b, new n"},
		{"a mail is delivered", func(a *account, m *Mailbox) { a.write(*m, "new/o", mailOf(7)) }, false, "missing b, new n, new o"},
		{"a mail is removed", func(a *account, m *Mailbox) { a.do(m.Dir.Remove("cur/c:2,S")) }, false, "missing b, missing c, new n"},
		{"the ledger has another state", func(_ *account, m *Mailbox) { m.Known.UIDNext--; m.Status.UIDNext-- }, false, "missing b, new n"},
		// What is missing then is all that counts.
		{"the server has another UIDVALIDITY", func(_ *account, m *Mailbox) { m.Status.UIDValidity++ }, true, "unconfirmed b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			m := a.agree("INBOX", 3)
			a.do(m.Dir.Remove("cur/b:2,S"))
			a.write(m, "cur/n:2,S", mailOf(8))
			a.age(m)
			p := a.Prescan(t.Context(), func(k ledger.Mailbox) bool { return k.Name == m.Name })
			<-p.done
			c.change(a, &m)
			now, err := m.Dir.Changed()
			a.do(err)
			if holds := p.of(&m, now) != nil; holds != c.holds {
				t.Errorf("what was found holds: %v", holds)
			}
			f, err := a.Scan(t.Context(), m, p)
			a.do(err)
			if got := brief(&f); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if p.Discard(); p.of(&m, now) != nil {
				t.Error("it holds though it is discarded")
			}
		})
	}
}

// Scans are repeated until no folder has changed meanwhile; and where mail may have gone
// between mailboxes, those that are not agreed upon take part.
func TestLocals(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	in, archive := a.agree("INBOX", 2), a.agree("Archive", 0)
	archive.Known.Complete = false // it was never synchronised to its end
	from, to := a.scan(in), a.scan(archive)
	views := []View{{Mailbox: in, Folder: &from}, {Mailbox: archive, Folder: &to}}
	a.do(os.Rename(in.path("cur/b:2,S"), archive.path("cur/b:2,S")))
	if still, err := a.Unchanged(views); still || err != nil {
		t.Errorf("unchanged %v, %v", still, err)
	}
	if still, err := a.ScanAgain(t.Context(), views); !still || err != nil {
		t.Errorf("of one moment %v, %v", still, err)
	}
	locals, err := a.Locals(t.Context(), views, nil)
	a.do(err)
	if l := locals["INBOX"]; l == nil || len(l.Missing) != 1 || l.Closed {
		t.Errorf("INBOX: %+v", l)
	}
	if l := locals["Archive"]; l == nil || len(l.Untracked) != 1 || !l.Closed {
		t.Errorf("Archive: %+v", l)
	}
	views[0].Unasked = true
	if locals, err = a.Locals(t.Context(), views, nil); err != nil || !locals["INBOX"].Closed {
		t.Errorf("%+v, %v", locals["INBOX"], err)
	}
	// One that cannot be read any more has changed, and after that it is read by nobody.
	a.do(os.RemoveAll(string(archive.Dir)))
	a.do(os.WriteFile(string(archive.Dir), nil, 0o600))
	for _, want := range []bool{false, true} {
		if still, err := a.Unchanged(views); still != want || err != nil || !to.Unread {
			t.Errorf("unchanged %v, %v, unread %v", still, err, to.Unread)
		}
	}
}
