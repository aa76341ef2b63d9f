package local

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// notmuch is its database, with what it has of messages. Those of which changed is true have
// changed since any revision of it.
type notmuch struct {
	uuid    string
	stamps  []string
	later   uint64 // how often it changed since
	all     []mail.Tagged
	changed func(id string) bool
}

func (d *notmuch) Stamped(context.Context, string) (mail.Revision, string, []string, error) {
	return mail.Revision{UUID: d.uuid, N: 9 + d.later}, d.uuid, d.stamps, nil
}

func (d *notmuch) Messages(context.Context, []string, string) (map[string]mail.Tagged, error) {
	return nil, nil
}

func (d *notmuch) Stamp(_ context.Context, _ string, stamps ...string) (bool, error) {
	d.stamps = stamps
	return true, nil
}

func (d *notmuch) Changes(_ context.Context, since mail.Revision, _ string) (mail.Revision, []mail.Tagged, bool, error) {
	whole := since.UUID != d.uuid
	some := slices.DeleteFunc(slices.Clone(d.all), func(t mail.Tagged) bool { return !whole && since.N > 0 && !d.changed(t.ID) })
	return mail.Revision{UUID: d.uuid, N: 9 + d.later}, some, whole, nil
}

// ordered says where messages go by their tags.
func ordered(f *Folder) string {
	var out []string
	for to, rows := range f.Tagged {
		for _, m := range rows {
			out = append(out, m.Key+" to "+to)
		}
	}
	slices.Sort(out)
	if b := brief(f); b != "" {
		out = append(out, b)
	}
	return strings.Join(out, ", ")
}

// What tags say beside the names of files, and what they order, is added to what was
// scanned. Where something must be looked at again, no revision is given.
func TestScanTags(t *testing.T) {
	t.Parallel()
	keywords := func(r *Reader) { r.Tags.Keywords = []string{"*"} }
	rules := func(r *Reader) {
		r.Tags.DeletedTag = "deleted"
		r.Tags.Moves = []plan.MoveRule{{From: "INBOX", With: "filed", To: "Archive"}, {From: "INBOX", Without: "inbox", To: "Old"}}
	}
	for name, c := range map[string]struct {
		setup func(r *Reader)
		tags  string // of the message a
		more  func(a *account, m *Mailbox, d *notmuch)
		want  string
		again bool // its tags are looked at again
	}{
		"nothing goes up":             {func(*Reader) {}, "inbox work", nil, "", true},
		"a tag":                       {keywords, "work", nil, "a +work", false},
		"an order is no tag":          {func(r *Reader) { keywords(r); rules(r) }, "inbox filed", nil, "a to Archive", false},
		"flags in tags":               {func(r *Reader) { r.Tags.TagFlags = true }, "unread flagged", nil, `a +\Flagged, a -\Seen`, false},
		"told before":                 {func(r *Reader) { keywords(r); r.Told = toldOf("work") }, "", nil, "a -work", false},
		"told before, flags in tags":  {func(r *Reader) { r.Tags.TagFlags = true; r.Told = toldOf(`\Seen`) }, "unread", nil, `a -\Seen`, false},
		"moved":                       {rules, "inbox filed", nil, "a to Archive", false},
		"moved without a tag":         {rules, "work", nil, "a to Old", false},
		"deleted":                     {rules, "inbox deleted", nil, "marked a", false},
		"deleted, kept there":         {func(r *Reader) { rules(r); r.Deletions = plan.DeletionsKeep }, "inbox deleted", nil, "", false},
		"deleted in the Trash":        {rules, "inbox deleted", func(_ *account, m *Mailbox, _ *notmuch) { m.Name = "Trash" }, "", false},
		"not yet tagged by its owner": {func(r *Reader) { rules(r); r.Tags.NewTags = []string{"new"} }, "new", nil, "", false},
		"its file is gone":            {rules, "inbox filed", func(a *account, m *Mailbox, _ *notmuch) { a.do(m.Dir.Remove("cur/a:2,S")) }, "missing a", false},
		"in doubt": {rules, "inbox filed", func(a *account, m *Mailbox, _ *notmuch) {
			a.do(a.Journal.Scanned.Set(a.t.Context(), m.Name, journal.ScanDoubted(plan.DoubtReplaced)))
		}, "doubt", true},
		"not agreed": {rules, "inbox filed", func(_ *account, m *Mailbox, _ *notmuch) { m.Status.UIDValidity++ }, "", true},
		"two mails with one Message-ID": {rules, "inbox filed", func(a *account, m *Mailbox, d *notmuch) {
			a.write(*m, "cur/other:2,S", mailOf(0)+"another text\n")
			a.do(a.Journal.NeverUpload.Set(a.t.Context(), "other", journal.Text(m.Name)))
			d.all[0].Others = []string{m.path("cur/other:2,S")}
		}, "ruled out other", false},
		"a new database": {rules, "", func(_ *account, _ *Mailbox, d *notmuch) { d.uuid = "new" }, "", false}, // nobody knows who said what is there
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			m := a.agree("INBOX", 2)
			a.Deletions, a.Believed = plan.DeletionsTrash, func(string) bool { return false }
			c.setup(a.Reader)
			d := &notmuch{uuid: "db", changed: func(id string) bool { return id == idOf(0) }}
			for n, tags := range []string{c.tags, "inbox filed"} {
				d.all = append(d.all, mail.Tagged{ID: idOf(n), Paths: []string{m.path("cur/" + string(rune('a'+n)) + ":2,S")}, Tags: strings.Fields(tags)})
			}
			a.Index = d
			a.do(a.Journal.Tags.Set(t.Context(), journal.Revision{Revision: mail.Revision{UUID: "db", N: 8}, Rules: a.Tags.RulesFingerprint(a.Deletions)}))
			if c.more != nil {
				c.more(a, &m, d)
			}
			known := m
			if m.Name == "Trash" {
				known = a.agree("Trash", 2)
				d.all[0].Paths[0] = strings.ReplaceAll(d.all[0].Paths[0], "INBOX", "Trash")
			}
			f := a.scan(known)
			at, err := a.ScanTags(t.Context(), []View{{Mailbox: known, Folder: &f}}, "Trash")
			a.do(err)
			if got := ordered(&f); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if again := at.UUID == ""; again != c.again {
				t.Errorf("to be looked at again: %v", again)
			}
		})
	}
}

// New rules are about all mail, and old ones about what has changed.
func TestNewRulesAreAboutAllMail(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := a.agree("INBOX", 3)
	a.Tags.Moves = []plan.MoveRule{{From: "INBOX", With: "filed", To: "Archive"}}
	d := &notmuch{uuid: "db", changed: func(id string) bool { return id == idOf(1) }}
	for n := range 3 {
		d.all = append(d.all, mail.Tagged{ID: idOf(n), Paths: []string{m.path(fmt.Sprintf("cur/%c:2,S", 'a'+n))}, Tags: []string{"filed"}})
	}
	a.Index = d
	a.do(a.Journal.Tags.Set(t.Context(), journal.Revision{Revision: mail.Revision{UUID: "db", N: 8}}))
	for _, want := range []string{"a to Archive, b to Archive, c to Archive", "b to Archive"} {
		a.do(a.JudgeDatabase(t.Context()))
		f := a.scan(m)
		at, err := a.ScanTags(t.Context(), []View{{Mailbox: m, Folder: &f}}, "")
		a.do(err)
		if got := ordered(&f); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		a.do(a.MarkTags(t.Context(), at))
	}
}

// So are those of a database by which nothing was deleted while deletions were kept back.
func TestDeletionsThatWereKeptAreAboutAllMail(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := a.agree("INBOX", 2)
	a.Tags.DeletedTag, a.Believed = "deleted", func(string) bool { return false }
	d := &notmuch{uuid: "db", changed: func(id string) bool { return false }}
	d.all = []mail.Tagged{{ID: idOf(0), Paths: []string{m.path("cur/a:2,S")}, Tags: []string{"deleted"}}, {ID: idOf(1), Paths: []string{m.path("cur/b:2,S")}}}
	a.Index = d
	a.do(a.Journal.Tags.Set(t.Context(), journal.Revision{Revision: mail.Revision{UUID: "db", N: 8}}))
	for i, want := range []string{"", "marked a", ""} {
		a.Deletions = []plan.Deletions{plan.DeletionsKeep, plan.DeletionsTrash, plan.DeletionsExpunge}[i]
		a.do(a.JudgeDatabase(t.Context()))
		f := a.scan(m)
		at, err := a.ScanTags(t.Context(), []View{{Mailbox: m, Folder: &f}}, "Trash")
		a.do(err)
		if got := ordered(&f); got != want {
			t.Errorf("%s: %q, want %q", a.Deletions, got, want)
		}
		a.do(a.MarkTags(t.Context(), at))
	}
}

// Where notmuch could not give a file the letters that tags want, or was made anew and has
// no tag of a keyword, the changes that bring that are given.
func TestUnfollowed(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := a.agree("INBOX", 2)
	row, _, err := a.ledger.Get(t.Context(), "INBOX", 7, 2)
	a.do(err)
	row.Flags = append(row.Flags, "work")
	a.do(a.ledger.Save(t.Context(), row))
	d := &notmuch{uuid: "db", changed: func(string) bool { return true }}
	d.all = []mail.Tagged{
		{ID: idOf(0), Paths: []string{m.path("cur/a:2,")}, Set: "F"},
		{ID: idOf(1), Paths: []string{m.path("cur/b:2,S")}},
	}
	a.Index = d
	f := a.scan(m)
	views := []View{{Mailbox: m, Folder: &f}}
	for _, c := range []struct {
		since string
		want  string
	}{
		{"", ""},
		{"db", "cur/a:2,S set F []"},
		{"old", "cur/a:2,S set S [], cur/b:2,S set S [work]"}, // its tags are not its owner's
	} {
		a.do(a.Journal.TagNames.Set(t.Context(), journal.Revision{Revision: mail.Revision{UUID: c.since, N: 1}}))
		a.do(a.JudgeDatabase(t.Context()))
		follow, err := a.Unfollowed(t.Context(), views, "")
		a.do(err)
		var got []string
		for _, ch := range follow.Changes {
			got = append(got, fmt.Sprintf("%s set %s %v", strings.TrimPrefix(ch.Path, string(m.Dir)+"/"), ch.Set, ch.Add))
		}
		if strings.Join(got, ", ") != c.want || !follow.All || follow.Now.UUID != "db" {
			t.Errorf("since %q: %q, all %v, now %v", c.since, got, follow.All, follow.Now)
		}
	}
	// The mail with the keyword comes to a new database when its mark has moved on.
	d.uuid = "new"
	b := d.all[1]
	d.all = d.all[:1]
	for _, want := range []int{1, 1, 0} {
		a.do(a.JudgeDatabase(t.Context()))
		follow, err := a.Unfollowed(t.Context(), views, "")
		a.do(err)
		a.do(a.Journal.Record(t.Context(), follow.Seen))
		a.do(a.MarkNames(t.Context(), follow.Now))
		if len(follow.Changes) != want {
			t.Errorf("%+v, want %d", follow.Changes, want)
		}
		d.all, d.later = []mail.Tagged{b}, d.later+1
	}
}

func toldOf(flag string) map[string]map[imap.UID][]string {
	return map[string]map[imap.UID][]string{"INBOX": {1: {flag}}}
}
