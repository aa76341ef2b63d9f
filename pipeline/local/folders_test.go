package local

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// What the list of mailboxes does not explain is sorted out: folders that become mailboxes,
// those that take part in nothing, and mailboxes that are gone.
func TestFolders(t *testing.T) {
	t.Parallel()
	of := func(names ...string) (list []mail.Mailbox) {
		for _, n := range names {
			list = append(list, mail.Mailbox{Name: n, Delim: '.', Status: &mail.Status{UIDValidity: 7}})
		}
		return list
	}
	for name, c := range map[string]struct {
		folder string // here, beside those of INBOX and Archive
		list   []mail.Mailbox
		setup  func(a *account, l *Listed)
		want   string
		said   string
	}{
		"nothing":     {"", of("INBOX", "Archive"), nil, "", ""},
		"new":         {"New", of("INBOX", "Archive"), nil, "make New in New", ""},
		"new, nested": {"Old/2026", of("INBOX", "Archive"), nil, "make Old.2026 in Old/2026", ""},
		"below INBOX": {"New", of("INBOX", "Archive"), func(_ *account, l *Listed) {
			l.Personal = func(context.Context) (string, error) { return "INBOX.", nil }
		}, "make INBOX.New in New", ""},
		"beside others that are not below INBOX": {"New/x", of("INBOX", "Archive", "New"), func(_ *account, l *Listed) {
			l.Personal = func(context.Context) (string, error) { return "INBOX.", nil }
		}, "make New.x in New/x", ""},
		"not selected": {"New", of("INBOX", "Archive"), func(a *account, _ *Listed) {
			a.Selects = func(mailbox string, _ rune) bool { return mailbox != "New" }
		}, "", ""},
		"wanted by tags":                     {"New", of("INBOX", "Archive"), func(_ *account, l *Listed) { l.Wanted = []string{"New"} }, "", ""},
		"before the first sync":              {"New", of("INBOX", "Archive"), func(_ *account, l *Listed) { l.Taken, l.Rows = []string{"INBOX", "Archive"}, nil }, "detached New", "before the first sync"},
		"a name that the server cannot have": {"a\tb", of("INBOX", "Archive"), nil, "detached a\tb", "give the folder another one"},
		"another folder's mailbox": {"Notes", of("INBOX", "Archive", "INBOX.Notes"), func(a *account, l *Listed) {
			l.Personal = func(context.Context) (string, error) { return "INBOX.", nil }
			l.Rows = append(l.Rows, ledger.Mailbox{Name: "INBOX.Notes", Folder: "INBOX/Notes", UIDValidity: 7})
		}, "detached INBOX.Notes", "whose folder is another one"},
		"gone there":               {"", of("INBOX"), nil, "detached Archive, moved", "the server has this mailbox no more"},
		"gone there, can be asked": {"", append(of("INBOX"), mail.Mailbox{Name: "Archive", Unasked: true}), nil, "", ""},
		"gone on both sides":       {"", of("INBOX"), func(a *account, _ *Listed) { a.do(os.RemoveAll(filepath.Join(a.Root, "Archive"))) }, "detached Archive, forget Archive", ""},
		"read only":                {"New", of("INBOX", "Archive"), func(a *account, _ *Listed) { a.ReadOnly = true }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAccount(t)
			a.agree("INBOX", 1)
			a.agree("Archive", 1)
			if c.folder != "" {
				a.do(maildir.Dir(filepath.Join(a.Root, c.folder)).Create())
			}
			rows, err := a.Ledger.Mailboxes(t.Context())
			a.do(err)
			l := Listed{Mailboxes: c.list, Rows: rows, Personal: func(context.Context) (string, error) { return "", nil }}
			if c.setup != nil {
				c.setup(a, &l)
			}
			a.do(a.NoteBefore(t.Context(), len(l.Rows) == 0, nil))
			for n := range 2 {
				f, err := a.Folders(t.Context(), l)
				a.do(err)
				var got []string
				for _, n := range f.Create {
					got = append(got, "make "+n.Name+" in "+n.Folder)
				}
				for _, v := range f.Detached {
					got = append(got, "detached "+v.Name)
				}
				for _, k := range f.Forget {
					got = append(got, "forget "+k.Name)
				}
				if f.Moved {
					got = append(got, "moved")
				}
				for _, g := range f.Gone { // as the end of a run does
					a.do(a.SayGone(t.Context(), g, 0, false))
				}
				want := c.want
				if n > 0 { // it is scanned, and told, once
					want = strings.TrimSuffix(want, ", moved")
				}
				if s := strings.Join(got, ", "); s != want {
					t.Errorf("%q, want %q", s, want)
				}
			}
			if said := strings.Join(a.notes, "\n"); len(a.notes) > 1 || (c.said != "") != (len(a.notes) == 1) || !strings.Contains(said, c.said) {
				t.Errorf("said %q", said)
			}
		})
	}
}

// Where only some mailboxes are asked for, the folders of all others are places where mail
// may be.
func TestOthers(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	a.agree("INBOX", 1)
	m := a.agree("Archive", 1)
	a.do(m.Dir.Remove("cur/a:2,S"))
	a.do(maildir.Dir(filepath.Join(a.Root, "New")).Create())
	rows, err := a.Ledger.Mailboxes(t.Context())
	a.do(err)
	others, err := a.Others(t.Context(), Listed{Rows: rows, Taken: []string{"INBOX"}})
	a.do(err)
	var got []string
	for _, v := range others {
		got = append(got, v.Name+": "+brief(v.Folder))
	}
	slices.Sort(got)
	if want := []string{"Archive: unconfirmed a", "New: "}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A mail root that is gone though the ledger has mail there is a disk that is not mounted.
func TestCheckRoot(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	a.do(a.CheckRoot(t.Context())) // nothing was here before
	a.agree("INBOX", 1)
	a.agree("Empty", 0)
	a.do(a.CheckRoot(t.Context()))
	a.do(os.RemoveAll(filepath.Join(a.Root, "INBOX")))
	a.do(a.CheckRoot(t.Context())) // one of its folders is there
	a.do(os.RemoveAll(a.Root))
	if err := a.CheckRoot(t.Context()); err == nil || !strings.Contains(err.Error(), "is its disk mounted?") {
		t.Error(err)
	}
}

// The folder of a mailbox is one of its name, or the short one that was there before.
func TestFolderOf(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	m := mail.Mailbox{Name: "INBOX.Sent", Delim: '.'}
	for _, want := range []string{"INBOX/Sent", "Sent"} {
		if got, err := a.FolderOf(t.Context(), m, mail.Prefix([]mail.Mailbox{{Name: "INBOX"}, m}), nil); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		a.do(maildir.Dir(filepath.Join(a.Root, "Sent")).Create())
	}
	if got := mail.Prefix([]mail.Mailbox{{Name: "INBOX"}, m, {Name: "Other", Delim: '.'}}); got != "" {
		t.Errorf("prefix %q", got)
	}
}
