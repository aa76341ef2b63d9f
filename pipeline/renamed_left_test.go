package pipeline

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What waits for a mailbox that the server has under a name which takes no part is not taken for mail of
// one that is gone: nothing of it is sent anew, and nothing is deleted. When the name takes part, it
// goes on. Where the mailbox is gone, what was moved out of it is mail that the server lacks.
func TestWhatWaitsForAMailboxThatTakesNoPart(t *testing.T) {
	cc := func(name string) bool { return name == "CC" || name == "CC/Sub" }
	excluded := func(o *Options) { o.Selects = func(name string, _ rune) bool { return !cc(name) } }
	for name, tc := range map[string]struct {
		gone bool // Old is deleted, and CC is another one
		left func(*server) func(*Options)
	}{
		"the name is excluded": {left: func(*server) func(*Options) { return excluded }},
		"nothing is told of the name": {left: func(s *server) func(*Options) {
			refused := func(m mail.Mailbox) (mail.Mailbox, bool) {
				if cc(m.Name) {
					m.Status, m.Err = nil, &mail.Fault{Kind: mail.KindNo, Op: "STATUS", Code: "NOPERM", Text: "not now"}
				}
				return m, true
			}
			return func(o *Options) {
				o.Dial = func(ctx context.Context) (Session, error) {
					d, err := s.dial(ctx)
					if err != nil {
						return Session{}, err
					}
					return sessionOf(&partial{d.Opener.(*session), refused}, d.Greeting), nil
				}
			}
		}},
		"another one is excluded": {gone: true, left: func(*server) func(*Options) { return excluded }},
	} {
		for _, wire := range []string{"all", "bare"} {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := renaming(t, wire)
				has := func(want map[string]string) {
					t.Helper()
					for box, mails := range want {
						if got := strings.Join(s.box(box).subjects(), " "); strings.ReplaceAll(got, "mail ", "") != mails {
							t.Errorf("%s has %q, want %q", box, got, mails)
						}
					}
				}
				if s.rename("Old", "CC"); tc.gone {
					s.box("CC").validity, s.box("CC/Sub").validity = 77, 78
				}
				left := tc.left(s)
				before := s.writes
				h.sync(s, keepsTodo, left, func(o *Options) { o.DryRun = true })
				said := h.said("as work/CC")
				for range 3 {
					if rep := h.sync(s, keepsTodo, left); rep.Held+rep.Deleted+rep.Removed > 0 || rep.Uploaded > 0 && !tc.gone {
						t.Errorf("%+v %v", rep, h.events)
					}
					said += h.said("as work/CC")
				}
				there := map[string]string{"INBOX": "20", "Keep": "21", "Trash": "", "CC": "1 2 3 4 5 6 7", "CC/Sub": "11 12"}
				if tc.gone {
					there["Keep"] = "21 4"
					has(there)
					return
				}
				if has(there); said != 4 || s.writes != before {
					t.Errorf("said %d times, in the dry run and once, of two mailboxes: %v", said, h.events)
				}
				for i := range 2 { // at first one that is left out for a while is asked again
					if rep := h.sync(s, keepsTodo, func(o *Options) { o.Full = i == 0 }); !rep.Clean() || rep.Held > 0 {
						t.Errorf("%+v %v", rep, h.events)
					}
				}
				h.has(s, map[string]string{"INBOX": "", "CC": "1 2 20 30 5 6 7", "CC/Sub": "12", "Keep": "21 4", "Trash": "11 3"})
				h.named()
				h.quiet(s, keepsTodo)
				if names := s.names(); slices.Contains(names, "Old") {
					t.Errorf("there are %q", names)
				}
			})
		}
	}
}

// A folder that is gone here, as one on a disk that is not mounted, is gone also where its mailbox has
// another name since: no mail of it is deleted, however little there was.
func TestAFolderIsGoneAndItsMailboxRenamed(t *testing.T) {
	for name, tc := range map[string]struct {
		names []string
		is    string
	}{
		"anew":           {[]string{"Old", "New"}, "New"},
		"exchanged":      {[]string{"Old", "Keep", "Keep", "Old"}, "Keep"},
		"below another":  {[]string{"Old", "Keep/Old"}, "Keep/Old"},
		"not renamed":    {nil, "Old"},
		"one after one":  {[]string{"Old", "Keep", "Keep", "Kept"}, "Keep"},
		"to a folder's":  {[]string{"Old", "Here"}, "Here"},
		"and as another": {[]string{"Old", "Keep", "Keep", "Keep/Sub"}, "Keep"},
	} {
		for _, wire := range []string{"all", "bare"} {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(wires()[wire]...), newHome(t)
				s.box("INBOX").add(plainMail(20))
				s.box("Keep").validity = 17
				s.box("Keep").add(plainMail(21))
				s.box("Trash")
				for i := range 3 {
					s.box("Old").add(plainMail(i + 1))
				}
				h.sync(s)
				h.sync(s)
				h.do(os.RemoveAll(h.path("Old", "")))
				s.rename(tc.names...)
				for i := range 2 {
					// An empty one in its place is the same directory where the file system gives its number again.
					if rep := h.sync(s); rep.Deleted+rep.Moved > 0 || i == 0 && h.said("its folder is gone") != 1 {
						t.Errorf("%+v %v", rep, h.events)
					}
				}
				if got := s.box(tc.is).subjects(); len(got) != 3 {
					t.Errorf("%q", got)
				}
				h.sync(s, func(o *Options) { o.Restore = true })
				if files := h.files(tc.is); len(files) != 3 {
					t.Errorf("%q, and %v", files, h.events)
				}
			})
		}
	}
}
