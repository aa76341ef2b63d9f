package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// server is a Session with one mailbox, INBOX, of UIDVALIDITY 7.
type server struct {
	messages []mail.Message
	bodies   map[imap.UID]string
	counts   uint32 // more than there are
	validity uint64
	refuses  error      // Examine
	left     int        // bodies until it hangs up; 0: never
	poison   []imap.UID // it hangs up when something is asked of one of these
	fetched  []imap.UID
	dead     bool
}

func (s *server) List(context.Context, mail.Listing) ([]mail.Mailbox, error) {
	return []mail.Mailbox{{Name: "Other", Attrs: []string{`\NoSelect`}}, {Name: "INBOX"}}, nil
}

func (s *server) Examine(_ context.Context, _ string, _ *mail.Known) (*mail.Selected, error) {
	sel := &mail.Selected{}
	sel.UIDValidity, sel.Messages = s.validity, uint32(len(s.messages))+s.counts
	return sel, s.refuses
}

func (s *server) Search(context.Context, imap.UIDSet) (out imap.UIDSet, err error) {
	for _, m := range s.messages {
		out.AddNum(m.UID)
	}
	return out, nil
}

func (s *server) Identify(_ context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	for _, r := range uids {
		if last := s.messages[len(s.messages)-1].UID; r.Stop == 0 {
			r.Start, r.Stop = min(r.Start, last), last
		}
		if slices.ContainsFunc(s.poison, func(u imap.UID) bool { return r.Start <= u && u <= r.Stop }) {
			s.dead = true
			return nil, &mail.Fault{Kind: mail.KindCut, Op: "UID FETCH"}
		}
	}
	return slices.DeleteFunc(slices.Clone(s.messages), func(m mail.Message) bool { return m.Flags == nil }), nil
}

func (s *server) Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error {
	list, _ := mail.UIDList(uids, 1000)
	for _, uid := range list {
		if _, err := s.FetchOne(ctx, uid, sink); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) FetchOne(_ context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error) {
	if s.left--; s.left == 0 {
		s.dead = true
		return nil, &mail.Fault{Kind: mail.KindCut, Op: "UID FETCH"}
	}
	body, ok := s.bodies[uid]
	if !ok {
		return nil, &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", UID: uid}
	}
	s.fetched = append(s.fetched, uid)
	spool, err := sink.Open(int64(len(body)))
	if err != nil {
		return nil, err
	}
	if _, err := spool.Write([]byte(body)); err != nil {
		return nil, err
	}
	return nil, sink.Done(mail.Message{UID: uid}, spool)
}

func (s *server) Alive() bool { return !s.dead }

// tagged is an Index.
type tagged []mail.Tagged

func (x tagged) Changes(context.Context, mail.Revision, string) (mail.Revision, []mail.Tagged, bool, error) {
	return mail.Revision{}, x, true, nil
}

// world is an account with n messages on both sides.
type world struct {
	*server
	Account
	ledger *ledger.Ledger
	tags   tagged
	told   []string
}

func text(n int) string {
	return fmt.Sprintf("Message-ID: <%d@x>\r\n\r\nnumber %d\r\n", n, n)
}

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	l, err := ledger.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{server: &server{validity: 7, bodies: make(map[imap.UID]string)}, ledger: l}
	w.Account = Account{Name: "work", Root: t.TempDir(), Ledger: l,
		Tags: &plan.Tags{Keywords: []string{"todo"}},
		Tell: func(d Difference) {
			w.told = append(w.told, strings.TrimSpace(fmt.Sprintf("%d %s: %s %s", d.UID, d.Kind, d.File, d.Text)))
		}}
	if err := l.SaveMailbox(t.Context(), ledger.Mailbox{Name: "INBOX", Folder: "INBOX", UIDValidity: 7, Complete: true}); err != nil {
		t.Fatal(err)
	}
	cur := filepath.Join(w.Root, "INBOX", "cur")
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(w.Root, "INBOX", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i <= n; i++ {
		raw := strings.ReplaceAll(text(i), "\r\n", "\n")
		name, id := fmt.Sprintf("key%d:2,S", i), fmt.Sprintf("%d@x", i)
		if err := os.WriteFile(filepath.Join(cur, name), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		digest, err := mail.DigestOf(strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		size := int64(len(text(i)))
		if err := l.Save(t.Context(), ledger.Message{Mailbox: "INBOX", UIDValidity: 7, UID: imap.UID(i), State: ledger.Present, Key: fmt.Sprintf("key%d", i),
			Name: "cur/" + name, ID: id, Size: size, WireSize: size, Digest: digest, Flags: []string{`\Seen`}}); err != nil {
			t.Fatal(err)
		}
		w.messages = append(w.messages, mail.Message{UID: imap.UID(i), Flags: []string{`\Seen`}, Size: size, MessageID: id})
		w.bodies[imap.UID(i)] = text(i)
		w.tags = append(w.tags, mail.Tagged{ID: id, Paths: []string{filepath.Join(cur, name)}})
	}
	return w
}

// file is the path of a message's file.
func (w *world) file(uid int) string {
	return filepath.Join(w.Root, "INBOX", "cur", fmt.Sprintf("key%d:2,S", uid))
}

// sides compares, and wants these differences.
func (w *world) sides(t *testing.T, want ...string) (*Result, []Body) {
	t.Helper()
	w.told, w.Index = nil, w.tags
	result, bodies, err := Sides(t.Context(), w.Account, w.server)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(w.told, want) {
		t.Errorf("%q, want %q", w.told, want)
	}
	if result.Equal() != (len(want) == 0) {
		t.Errorf("%+v", result)
	}
	return result, bodies
}

// mark gives the file of UID 2 the letter T.
func mark(t *testing.T, w *world) {
	t.Helper()
	if err := os.Rename(w.file(2), w.file(2)+"T"); err != nil {
		t.Fatal(err)
	}
	w.tags[1].Paths = []string{w.file(2) + "T"}
}

func TestWhatDiffers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(t *testing.T, w *world)
		want   []string
	}{
		"nothing": {func(*testing.T, *world) {}, nil},
		"the mailbox": {func(_ *testing.T, w *world) {
			w.refuses = &mail.Fault{Kind: mail.KindNo, Op: "EXAMINE", Text: "no right"}
		}, []string{"0 mailbox:  it cannot be looked into: EXAMINE: refused (NO): \"no right\""}},
		"its UIDVALIDITY":         {func(_ *testing.T, w *world) { w.validity = 8 }, []string{"0 mailbox:  the server renumbered it since the last sync; the next one finds out which is which"}},
		"the number":              {func(_ *testing.T, w *world) { w.counts = 1 }, []string{"0 mailbox:  the server counts 4 messages in it, and lists 3"}},
		"a Message-ID":            {func(_ *testing.T, w *world) { w.messages[1].MessageID = "other@x" }, []string{"2 identity:  its Message-ID is other@x on the server, and 2@x here; move that away, and `notmuch imap sync --restore work` brings what the server has"}},
		"a size":                  {func(_ *testing.T, w *world) { w.messages[1].Size = 99 }, []string{"2 size:  it has 99 bytes on the server; when it came it had 31; move that away, and `notmuch imap sync --restore work` brings what the server has"}},
		"a size that is told not": {func(_ *testing.T, w *world) { w.messages[1].Size = 0 }, nil},
		"flags there":             {func(_ *testing.T, w *world) { w.messages[1].Flags = []string{"Todo", `\Flagged`} }, []string{`2 flags:  \Seen here alone, Todo \Flagged on the server alone; a sync brings that here`}},
		"the case of a keyword":   {func(_ *testing.T, w *world) { w.messages[1].Flags = []string{`\SEEN`} }, nil},
		"both": {func(_ *testing.T, w *world) {
			w.tags[2].Tags, w.messages[2].Flags = []string{"todo"}, []string{`\Seen`, `\Flagged`}
		},
			[]string{`3 flags:  todo here alone, \Flagged on the server alone; a sync takes each to the other side`}},
		"a tag of an account that is only read": {func(_ *testing.T, w *world) { w.tags[2].Tags, w.ReadOnly = []string{"todo"}, true },
			[]string{"3 flags:  todo here alone; what was changed here stays here (read_only)"}},
		"a tag here": {func(_ *testing.T, w *world) { w.tags[2].Tags = []string{"todo"} }, []string{"3 flags:  todo here alone; a sync sends that"}},
		"a tag and a name": {func(_ *testing.T, w *world) {
			w.NamesHaveFlags, w.tags[2].Tags, w.tags[1].Tags = true, []string{"flagged"}, []string{"unread"}
		},
			[]string{"3 flags:  its tags in notmuch are not those of its file's name: flagged in notmuch alone; as its name says it is after `notmuch tag '-flagged' -- 'id:3@x'`", "2 flags:  its tags in notmuch are not those of its file's name: unread in notmuch alone; as its name says it is after `notmuch tag '-unread' -- 'id:2@x'`"}},
		"notmuch": {func(_ *testing.T, w *world) { w.tags = w.tags[1:] }, []string{"1 not in notmuch:  notmuch does not know its file INBOX/cur/key1:2,S; `notmuch new` finds it, unless its new.ignore has that"}},
		"a file marked as deleted": {func(t *testing.T, w *world) { mark(t, w); w.Deletions = plan.DeletionsExpunge },
			[]string{"2 leaving:  the name of its file marks it as deleted (T), and a sync deletes it on the server"}},
		"one for the Trash":              {mark, []string{"2 leaving:  the name of its file marks it as deleted (T), and a sync moves it to the Trash on the server"}},
		"a mark that counts for nothing": {func(t *testing.T, w *world) { mark(t, w); w.Deletions = plan.DeletionsKeep }, nil},
		"a mark that is only here":       {func(t *testing.T, w *world) { mark(t, w); w.ReadOnly = true }, nil},
		"a tag that deletes":             {func(_ *testing.T, w *world) { w.Tags.DeletedTag, w.tags[1].Tags = "zap", []string{"zap"} }, []string{"2 leaving:  it has the tag zap, and a sync moves it to the Trash on the server"}},
		"a tag that deletes no other file": {func(_ *testing.T, w *world) {
			w.Tags.DeletedTag, w.tags[1].Tags = "zap", []string{"zap"}
			w.OldTags = func(_, key string) plan.OldTags { return plan.OldTags{"zap": key == "key2"} }
		}, nil},
		"a tag that moves": {func(_ *testing.T, w *world) {
			w.Tags.Moves, w.tags[1].Tags = []plan.MoveRule{{From: "INBOX", To: "Arch", With: "old"}}, []string{"old"}
		}, []string{"2 leaving:  a sync moves it to Arch, where its tags want it"}},
		"a silent server":   {func(_ *testing.T, w *world) { w.messages[0] = mail.Message{UID: 1} }, []string{"1 not fetched:  the server lists it, and tells nothing of it; its mail is here"}},
		"one is gone there": {func(_ *testing.T, w *world) { w.messages = w.messages[1:] }, []string{"1 not there:  the server has it no more; its file is in the folder, from where a sync removes it"}},
		"a file that is kept": {func(t *testing.T, w *world) {
			w.Deletions = plan.DeletionsKeep
			if err := os.Remove(w.file(1)); err != nil {
				t.Fatal(err)
			}
		}, []string{"1 not here:  its file is gone from the folder; the server has the message, and keeps it; `notmuch imap sync --restore work` brings it back"}},
		"a file that was cut off": {func(t *testing.T, w *world) {
			if err := os.Truncate(w.file(2), 10); err != nil {
				t.Fatal(err)
			}
		}, []string{"2 content:  its file was changed since it came; move that away, and `notmuch imap sync --restore work` brings what the server has"}},
		"a file that is none": {func(t *testing.T, w *world) {
			if err := errors.Join(os.Remove(w.file(2)), os.Mkdir(w.file(2), 0o700)); err != nil {
				t.Fatal(err)
			}
		}, []string{"2 not here:  its file cannot be read: open KEY2: it is no regular file; move that away, and `notmuch imap sync --restore work` brings what the server has"}},
		"a fifo": {func(t *testing.T, w *world) {
			if err := errors.Join(os.Remove(w.file(2)), syscall.Mkfifo(w.file(2), 0o600)); err != nil {
				t.Fatal(err)
			}
		}, []string{"2 not here:  its file cannot be read: open KEY2: it is no regular file; move that away, and `notmuch imap sync --restore work` brings what the server has"}},
		"a link under the name of a mail": {func(t *testing.T, w *world) {
			if err := os.Symlink(w.file(1), filepath.Join(w.Root, "INBOX", "cur", "link:2,S")); err != nil {
				t.Fatal(err)
			}
		}, []string{"0 not there: INBOX/cur/link:2,S it is no regular file, and nothing sends it; put the mail itself there"}},
		"a link to nothing": {func(t *testing.T, w *world) {
			if err := errors.Join(os.Remove(w.file(2)), os.Symlink("nowhere", w.file(2))); err != nil {
				t.Fatal(err)
			}
		}, []string{"2 not here:  its file cannot be read: it is a link to nothing; move that away, and `notmuch imap sync --restore work` brings what the server has"}},
		"an interrupted sync": {func(t *testing.T, w *world) {
			if err := w.ledger.Save(t.Context(), ledger.Message{Mailbox: "INBOX", UIDValidity: 7, UID: 1, State: ledger.Intended, Key: "key1"}); err != nil {
				t.Fatal(err)
			}
		}, []string{"1 not here:  a sync that was interrupted was about to write it; the next one does"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			c.change(t, w)
			for i := range c.want {
				c.want[i] = strings.ReplaceAll(c.want[i], "KEY2", w.file(2))
			}
			w.sides(t, c.want...)
		})
	}
}

// A message that did not come, and of which the server tells nothing, keeps no other from being compared.
func TestWhatDidNotComeIsNotAskedForAgain(t *testing.T) {
	for _, state := range []ledger.State{ledger.Stub, ledger.GivenUp} {
		for _, poison := range [][]imap.UID{{1}, {3}, {5}, {1, 2}, {4, 5}, {2, 4}, {1, 2, 3, 4, 5}} {
			w := newWorld(t, 5)
			w.poison = poison
			var want []string
			for _, u := range poison {
				row := ledger.Message{Mailbox: "INBOX", UIDValidity: 7, UID: u, State: state}
				if state == ledger.Stub {
					row.StubKey = fmt.Sprintf("key%d", u)
					want = append(want, fmt.Sprintf("%d not fetched:  a note stands for it here, since the server did not hand it over; `notmuch imap retry work/INBOX/%d` asks again", u, u))
				} else if err := os.Remove(w.file(int(u))); err != nil {
					t.Fatal(err)
				}
				if err := w.ledger.Save(t.Context(), row); err != nil {
					t.Fatal(err)
				}
			}
			if r, _ := w.sides(t, want...); r.Messages != 5-len(poison) {
				t.Errorf("%v: %+v", poison, r)
			}
		}
	}
}

// TestWhatIsSaidOfWhatWasHereBefore, and of folders that are of no mailbox, can be done.
func TestWhatIsSaidOfWhatWasHereBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	folder := func(name string) {
		dir := filepath.Join(w.Root, name)
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "cur"), 0o700), os.Mkdir(filepath.Join(dir, "new"), 0o700), os.Mkdir(filepath.Join(dir, "tmp"), 0o700),
			os.WriteFile(filepath.Join(dir, "cur", "own:2,S"), []byte(text(77)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	folder("Inbox")
	folder("Old")
	folder("Takes no part")
	if err := os.WriteFile(filepath.Join(w.Root, "INBOX", "cur", "own:2,S"), []byte(text(78)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.HereBefore = map[string]string{"own": "INBOX"}
	w.Strays = func(list []mail.Mailbox) func(context.Context, string) (string, error) {
		if len(list) != 2 {
			t.Errorf("%+v", list)
		}
		return func(_ context.Context, folder string) (string, error) {
			return map[string]string{"Inbox": "give it another name", "Old": "an upload makes it one"}[folder], nil
		}
	}
	w.sides(t, "0 not there: INBOX/cur/own:2,S no message on the server is this file, which was here before the first sync; `notmuch imap upload work/INBOX` sends it",
		"0 not there: Inbox the folder is of no mailbox of the server; 1 mail is in it; give it another name",
		"0 not there: Old the folder is of no mailbox of the server; 1 mail is in it; an upload makes it one")
	w.ReadOnly = true
	w.sides(t, "0 not there: INBOX/cur/own:2,S no message on the server is this file, which was here before the first sync, and stays here (read_only)",
		"0 not there: Inbox the folder is of no mailbox of the server; 1 mail is in it, and stays here (read_only)",
		"0 not there: Old the folder is of no mailbox of the server; 1 mail is in it, and stays here (read_only)")
}

// TestWhatWasMovedToWhereNoMailboxIs any more no sync deletes or moves on the server. One more copy
// that was there before is another matter.
func TestWhatWasMovedToWhereNoMailboxIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	cur := filepath.Join(w.Root, "Gone", "cur")
	if err := errors.Join(w.ledger.SaveMailbox(t.Context(), ledger.Mailbox{Name: "Gone", Folder: "Gone", UIDValidity: 7, Complete: true}),
		w.ledger.Save(t.Context(), ledger.Message{Mailbox: "Gone", UIDValidity: 7, UID: 1, State: ledger.Present, Key: "before", ID: "2@x"}),
		os.MkdirAll(cur, 0o700), os.Mkdir(filepath.Join(w.Root, "Gone", "new"), 0o700), os.Mkdir(filepath.Join(w.Root, "Gone", "tmp"), 0o700),
		os.WriteFile(filepath.Join(cur, "before:2,S"), []byte(text(2)), 0o600),
		os.Rename(w.file(1), filepath.Join(cur, "other:2,S")), os.Remove(w.file(2))); err != nil {
		t.Fatal(err)
	}
	w.sides(t, "1 not here:  its file is in Gone now, a folder of no mailbox of the server: a sync leaves both where they are",
		"2 not here:  its file is gone from the folder; the server has the message, and a sync deletes it there, or moves it where it is here now",
		"0 not there: Gone the folder is of no mailbox of the server; 2 mails are in it")
}

// TestTextsAreComparedFromWhereItWasStopped: what was equal is not fetched again, what
// differs is.
func TestTextsAreComparedFromWhereItWasStopped(t *testing.T) {
	t.Parallel()
	const n = atOnce + 20
	w := newWorld(t, n)
	w.bodies[n] = strings.Replace(text(n), "number", "Number", 1)
	delete(w.bodies, 5)
	result, bodies := w.sides(t)
	if len(bodies) != n || bodies[0].UID != n {
		t.Fatalf("%d, first %+v: the newest is to come first", len(bodies), bodies[0])
	}
	path := filepath.Join(t.TempDir(), "verified")
	done, err := OpenDone(path)
	if err != nil {
		t.Fatal(err)
	}
	w.left = atOnce + 10
	err = Bytes(t.Context(), w.Account, w.server, bodies, done, result)
	if f, ok := errors.AsType[*mail.Fault](err); !ok || f.Kind != mail.KindCut {
		t.Fatal(err)
	}
	// The machine stopped in the middle of a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("7 12"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if done, err = OpenDone(path); err != nil || done.Len() != atOnce-1 {
		t.Fatalf("%d, %v", done.Len(), err)
	}
	w.dead, w.fetched = false, nil
	result, bodies = w.sides(t)
	if err := Bytes(t.Context(), w.Account, w.server, bodies, done, result); err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprintf("%d content:  its text on the server is another than the one that came; move that away, and `notmuch imap sync --restore work` brings what the server has", n), "5 not fetched:  its bytes are not to be had now: UID FETCH: the server says OK but sends no data"}
	if len(w.fetched) != 20 || !slices.Equal(w.told, want) || result.Compared != n-2 {
		t.Errorf("%d fetched, %q, %+v", len(w.fetched), w.told, result)
	}
	// What is moved or changed here meanwhile is no difference, a changed file is one.
	w.told = nil
	cur := filepath.Join(w.Root, "INBOX", "cur")
	if err := errors.Join(os.Remove(filepath.Join(cur, "key8:2,S")), os.WriteFile(filepath.Join(cur, "key9:2,S"), []byte("\nother"), 0o600), done.Forget()); err != nil {
		t.Fatal(err)
	}
	if err := Bytes(t.Context(), w.Account, w.server, bodies, done, result); err != nil {
		t.Fatal(err)
	}
	if want = append(want, "9 content:  its file was changed since it came; move that away, and `notmuch imap sync --restore work` brings what the server has"); !slices.Equal(slices.Sorted(slices.Values(w.told)), slices.Sorted(slices.Values(want))) {
		t.Errorf("%q", w.told)
	}
}
