package pipeline

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// What a user does to files, and what notmuch makes of it.

func (h *home) path(mailbox, name string) string { return filepath.Join(h.dir, "mail", mailbox, name) }

func (h *home) do(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) remove(mailbox string, uid imap.UID) {
	h.t.Helper()
	h.do(os.Remove(h.path(mailbox, h.file(mailbox, uid))))
}

// put delivers a mail into a folder, as an Fcc does.
func (h *home) put(mailbox, raw, letters string) {
	h.t.Helper()
	var keys maildir.Keys
	name := "cur/" + strings.ReplaceAll(keys.New(h.now), "nmimap", "mutt") + ":2," + letters
	h.do(os.MkdirAll(h.path(mailbox, "cur"), 0o700))
	h.do(os.WriteFile(h.path(mailbox, name), []byte(strings.ReplaceAll(raw, "\r\n", "\n")), 0o600))
}

// move puts a mail into another folder, as `mv` does, or as Mutt does, which
// gives it a new name.
func (h *home) move(mailbox string, uid imap.UID, to string, renamed bool) {
	h.t.Helper()
	from := h.file(mailbox, uid)
	key, letters := maildir.ParseName(from)
	if renamed {
		key = strings.ReplaceAll(key, ".M", ".R") + "mutt"
	}
	h.do(os.MkdirAll(h.path(to, "cur"), 0o700))
	h.do(os.Rename(h.path(mailbox, from), h.path(to, "cur/"+filepath.Base(key)+":2,"+letters)))
}

// notmuchNew tells the index of files that are new and, behind them, that are gone.
func (h *home) notmuchNew() {
	h.t.Helper()
	db, err := h.index.load()
	h.do(err)
	known := make(map[string]bool)
	for _, m := range db {
		for _, f := range m.Files {
			known[f] = true
		}
	}
	h.do(filepath.WalkDir(filepath.Join(h.dir, "mail"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || known[path] || filepath.Base(filepath.Dir(path)) == "tmp" {
			return err
		}
		raw, err := os.ReadFile(path)
		id := notmuchID(raw)
		if db[id] == nil {
			db[id] = &indexed{Tags: []string{"inbox", "unread"}}
		}
		db[id].Files = append(db[id].Files, path)
		db[id].read(path, raw)
		return err
	}))
	for id, m := range db {
		m.Files = slices.DeleteFunc(m.Files, func(f string) bool { _, err := os.Lstat(f); return err != nil })
		if len(m.Files) == 0 {
			delete(db, id)
		}
	}
	h.do(h.index.save(db))
}

// plainMail is a mail that comes back from its file as it was sent: rawMail has
// a line that does not end in CRLF.
func plainMail(n int) string { return strings.Replace(rawMail(n), "bare\n", "bare\r\n", 1) }

// subjects gives the subjects of a mailbox's messages on the server.
func (b *serverBox) subjects() (out []string) {
	for _, u := range b.uids() {
		out = append(out, parseHeader([]byte(b.msgs[u].raw)).subject)
	}
	slices.Sort(out)
	return out
}

// quiet asserts that a sync has nothing to do.
func (h *home) quiet(s *server, change ...func(*Options)) {
	h.t.Helper()
	rep := h.sync(s, change...)
	if rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0 || !rep.Clean() {
		h.t.Errorf("not quiet: %+v", rep)
	}
}

// wires are the sets of extensions on which the way out depends.
func wires() map[string][]string {
	return map[string][]string{
		"bare": nil, "UIDPLUS": {"UIDPLUS"}, "MOVE": {"MOVE", "UIDPLUS", "CONDSTORE"}, "all": {"MOVE", "UIDPLUS", "CONDSTORE", "QRESYNC"},
	}
}

// Scenarios of what the user did here and what happened on the server, and what
// both sides are to have afterwards: subjects by mailbox.
func TestWhatTheUserDidReachesTheServer(t *testing.T) {
	type boxes map[string]string
	for name, tc := range map[string]struct {
		local, remote func(h *home, s *server)
		options       func(*Options)
		want          boxes
		rep           Report // some counts
	}{
		"a deleted file": {
			local: func(h *home, _ *server) { h.remove("INBOX", 1) },
			want:  boxes{"INBOX": "2 3 4", "Trash": "1"}, rep: Report{Deleted: 1, New: 1},
		},
		"the letter T": {
			local: func(h *home, _ *server) { h.flag("INBOX", 2, "FST") },
			want:  boxes{"INBOX": "1 3 4", "Trash": "2"}, rep: Report{Deleted: 1, Pushed: 1, New: 1},
		},
		"a deleted file, to be expunged": {
			local:   func(h *home, _ *server) { h.remove("INBOX", 1) },
			options: func(o *Options) { o.Deletions = DeletionsExpunge },
			want:    boxes{"INBOX": "2 3 4"}, rep: Report{Deleted: 1},
		},
		"a deleted file, to be kept": {
			local:   func(h *home, _ *server) { h.remove("INBOX", 1) },
			options: func(o *Options) { o.Deletions = DeletionsKeep },
			want:    boxes{"INBOX": "1 2 3 4"},
		},
		"deleted in the Trash": {
			remote: func(_ *home, s *server) { s.box("Trash").add(plainMail(9)); s.box("Trash").add(plainMail(8)) },
			local:  func(h *home, _ *server) { h.remove("Trash", 1) },
			want:   boxes{"INBOX": "1 2 3 4", "Trash": "8"}, rep: Report{Deleted: 1},
		},
		"moved with mv": {
			local: func(h *home, _ *server) { h.move("INBOX", 1, "Archive", false) },
			want:  boxes{"INBOX": "2 3 4", "Archive": "1"}, rep: Report{Moved: 1, Removed: 1},
		},
		"moved as Mutt does": {
			local: func(h *home, _ *server) { h.flag("INBOX", 3, "FS"); h.move("INBOX", 3, "Archive", true) },
			want:  boxes{"INBOX": "1 2 4", "Archive": "3"}, rep: Report{Moved: 1, Pushed: 1, Removed: 1},
		},
		"new mail": {
			local: func(h *home, _ *server) { h.put("Archive", plainMail(7), "S") },
			want:  boxes{"INBOX": "1 2 3 4", "Archive": "7"}, rep: Report{Uploaded: 1},
		},
		"a file renamed in its folder": {
			local: func(h *home, _ *server) { h.move("INBOX", 2, "INBOX", true) },
			want:  boxes{"INBOX": "1 2 3 4"},
		},
		"deleted on both sides": {
			local:  func(h *home, _ *server) { h.remove("INBOX", 1) },
			remote: func(_ *home, s *server) { s.box("INBOX").expunge(1) },
			want:   boxes{"INBOX": "2 3 4"}, rep: Report{Removed: 1},
		},
		"deleted here, flagged there": {
			local:  func(h *home, _ *server) { h.remove("INBOX", 1) },
			remote: func(_ *home, s *server) { s.box("INBOX").flag(1, `\Flagged`) },
			want:   boxes{"INBOX": "1 2 3 4"}, rep: Report{New: 1},
		},
		"deleted here, read there": {
			local:  func(h *home, _ *server) { h.remove("INBOX", 1) },
			remote: func(_ *home, s *server) { s.box("INBOX").flag(1, `\Seen`) },
			want:   boxes{"INBOX": "2 3 4", "Trash": "1"}, rep: Report{Deleted: 1, New: 1},
		},
		"moved here, deleted there": {
			local:  func(h *home, _ *server) { h.move("INBOX", 1, "Archive", true) },
			remote: func(_ *home, s *server) { s.box("INBOX").expunge(1) },
			want:   boxes{"INBOX": "2 3 4", "Archive": "1"},
		},
		"edited": {
			local: func(h *home, _ *server) { h.remove("INBOX", 1); h.put("INBOX", plainMail(1)+"more\r\n", "S") },
			want:  boxes{"INBOX": "1 2 3 4", "Trash": "1"}, rep: Report{Deleted: 1, Uploaded: 1, New: 1},
		},
		"the same mail put into a folder on both sides": {
			local: func(h *home, _ *server) { h.put("Archive", plainMail(7), "") },
			remote: func(_ *home, s *server) {
				s.box("Archive").msgs[s.box("Archive").add(plainMail(7))].date = s.box("INBOX").msgs[1].date
			},
			want: boxes{"INBOX": "1 2 3 4", "Archive": "7"},
		},
	} {
		for wire, caps := range wires() {
			for _, mute := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/%v", name, wire, mute), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.mute = mute
					s.box("Trash")
					s.box("Archive")
					for i := range 4 {
						s.box("INBOX").add(plainMail(i + 1))
					}
					if name == "deleted in the Trash" {
						tc.remote(h, s)
					}
					h.sync(s)
					if tc.remote != nil && name != "deleted in the Trash" {
						tc.remote(h, s)
					}
					tc.local(h, s)
					options := tc.options
					if options == nil {
						options = func(*Options) {}
					}
					rep := h.sync(s, options)
					if !rep.Clean() {
						t.Errorf("%+v", rep)
					}
					got := []int{rep.Deleted, rep.Moved, rep.Uploaded, rep.Pushed}
					want := []int{tc.rep.Deleted, tc.rep.Moved, tc.rep.Uploaded, tc.rep.Pushed}
					if name != "moved here, deleted there" && !slices.Equal(got, want) {
						t.Errorf("deleted, moved, uploaded, pushed: %v, want %v", got, want)
					}
					if tc.rep.New != rep.New && !mute {
						t.Errorf("%d came, want %d", rep.New, tc.rep.New)
					}
					h.sync(s, options) // what a crash would leave to the next
					h.quiet(s, options)
					for _, box := range []string{"INBOX", "Archive", "Trash"} {
						var want []string
						for n := range strings.FieldsSeq(tc.want[box]) {
							want = append(want, "mail "+n)
						}
						if got := s.box(box).subjects(); !slices.Equal(got, want) {
							t.Errorf("%s has %q, want %q", box, got, want)
						}
					}
					if name != "a deleted file, to be kept" {
						h.notmuchNew()
						h.check(s)
					}
				})
			}
		}
	}
}

// Random edits on both sides, with any extensions, answers that are lost and
// connections that die: in the end both sides are equal, no mail is lost or
// doubled, and there is nothing left to do.
func TestRandomEditsConverge(t *testing.T) {
	t.Parallel()
	names := []string{"INBOX", "Archive", "Trash"}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		var caps []string
		for _, c := range []string{"MOVE", "UIDPLUS", "CONDSTORE"} {
			if r.IntN(2) == 0 {
				caps = append(caps, c)
			}
		}
		if slices.Contains(caps, "CONDSTORE") && r.IntN(2) == 0 {
			caps = append(caps, "QRESYNC")
		}
		s, h := newServer(caps...), newHome(t)
		s.mute = r.IntN(2) == 0
		many := func(o *Options) { o.YesDelete = true } // a few of few are many, too
		next := 0
		fresh := func() string { next++; return plainMail(next) }
		for _, name := range names {
			for range 4 {
				s.box(name).add(fresh(), [][]string{nil, {`\Seen`}}[r.IntN(2)]...)
			}
		}
		h.sync(s)
		alive := make(map[string]bool) // by subject; nobody deleted it for good
		both := make(map[string]bool)  // both sides did something to it
		for _, name := range names {
			for _, sub := range s.box(name).subjects() {
				alive[sub] = true
			}
		}
		for range 3 {
			here := make(map[string][]imap.UID)
			for _, name := range names {
				here[name] = s.box(name).uids()
			}
			for _, name := range names {
				b := s.box(name)
				for _, u := range here[name] {
					sub := parseHeader([]byte(b.msgs[u].raw)).subject
					to := names[r.IntN(3)]
					here := true
					switch k := r.IntN(20); {
					case k == 0:
						h.remove(name, u)
						if name == "Trash" {
							delete(alive, sub)
						}
					case k == 1 && to != name:
						h.move(name, u, to, r.IntN(2) == 0)
					case k < 4:
						h.flag(name, u, []string{"", "S", "FS", "R", "T"}[r.IntN(5)])
						if name == "Trash" && strings.HasSuffix(h.file(name, u), "T") {
							delete(alive, sub)
						}
					default:
						here = false
					}
					// Every other time both sides may do something to one message.
					if here && seed%2 == 0 {
						continue
					}
					there := true
					switch k := r.IntN(20); {
					case k == 0:
						delete(alive, sub)
						b.expunge(u)
					case k == 1 && to != name:
						m := b.expunge(u)
						s.box(to).msgs[s.box(to).add(m.raw, m.flags...)].date = m.date
					case k < 4:
						b.flag(u, [][]string{nil, {`\Seen`}, {`\Answered`}}[r.IntN(3)]...)
					default:
						there = false
					}
					both[sub] = both[sub] || here && there
				}
				if r.IntN(3) == 0 {
					raw := fresh()
					alive[parseHeader([]byte(raw)).subject] = true
					if r.IntN(2) == 0 {
						b.add(raw)
					} else {
						h.put(name, raw, []string{"", "S"}[r.IntN(2)])
					}
				}
			}
			for range r.IntN(3) {
				s.cutAt = s.writes + 1 + r.IntN(6)
				h.sync(s, many)
			}
			s.cutAt = 0
			for range 3 {
				h.sync(s, many)
			}
			h.notmuchNew()
			h.check(s)
			h.quiet(s, many)
			have := make(map[string]int)
			for _, name := range names {
				for _, sub := range s.box(name).subjects() {
					have[sub]++
				}
			}
			for sub := range alive {
				if have[sub] == 0 {
					t.Errorf("seed %d: %s is lost", seed, sub)
				}
			}
			for sub, n := range have {
				if n > 1 && !both[sub] { // moved apart, it is in both places
					t.Errorf("seed %d: %s is there %d times", seed, sub, n)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d, %v, mute %v", seed, caps, s.mute)
			}
		}
	}
}

// What is missing because a folder is, or many at once, is not deleted on the
// server until somebody says so; and can be had back.
func TestWhatIsMissingInDoubtIsNotDeleted(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(h *home)
		held int
		bad  bool // the whole run is refused
	}{
		"the folder is gone": {do: func(h *home) { h.do(os.RemoveAll(h.path("INBOX", ""))) }, held: 60},
		"the folder is empty": {do: func(h *home) {
			h.do(os.RemoveAll(h.path("INBOX", "cur")))
			h.do(os.RemoveAll(h.path("INBOX", "new")))
			h.do(os.MkdirAll(h.path("INBOX", "cur"), 0o700))
			h.do(os.MkdirAll(h.path("INBOX", "new"), 0o700))
		}, held: 60},
		"many are gone": {do: func(h *home) {
			for u := range imap.UID(55) {
				h.remove("INBOX", u+1)
			}
		}, held: 55},
		"all folders are gone": {do: func(h *home) {
			h.do(os.RemoveAll(filepath.Join(h.dir, "mail")))
			h.do(os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700))
		}, bad: true},
	} {
		for _, answer := range []string{"restore", "delete"} {
			t.Run(name+"/"+answer, func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				for i := range 60 {
					s.box("INBOX").add(plainMail(i))
				}
				s.box("Other").add(plainMail(100))
				s.box("Trash").add(plainMail(101))
				h.sync(s)
				tc.do(h)
				if tc.bad {
					if _, err := h.try(s); err == nil || !strings.Contains(err.Error(), "mounted") || s.writes > 0 {
						t.Errorf("%v, %d writes", err, s.writes)
					}
					return
				}
				for range 2 {
					if rep := h.sync(s); rep.Held != tc.held || len(rep.Faults) != 1 || s.writes > 0 {
						t.Errorf("%+v, %d writes", rep, s.writes)
					}
				}
				left := 60
				if answer == "restore" {
					if rep := h.sync(s, func(o *Options) { o.Restore = true }); rep.New != tc.held || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				} else {
					left -= tc.held
					if rep := h.sync(s, func(o *Options) { o.YesDelete = true }); rep.Deleted != tc.held || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				if n := len(s.box("INBOX").msgs); n != left {
					t.Errorf("%d left on the server", n)
				}
				h.notmuchNew()
				h.check(s)
				h.sync(s)
				h.quiet(s)
			})
		}
	}
}

// A folder that was restored from a backup has flags and mails as they were: it
// does not undo what was done since.
func TestARestoredBackupUndoesNothing(t *testing.T) {
	for _, answer := range []string{"restore", "yes"} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			in := s.box("INBOX")
			for i := range 6 {
				in.add(plainMail(i))
			}
			s.box("Trash")
			h.sync(s)
			backup := filepath.Join(h.dir, "backup")
			h.do(os.CopyFS(backup, os.DirFS(h.path("INBOX", ""))))
			in.flag(1, `\Seen`, `\Flagged`)
			in.expunge(2)
			in.add(plainMail(10))
			h.sync(s)
			h.sync(s)
			h.do(os.RemoveAll(h.path("INBOX", "")))
			h.do(os.Rename(backup, h.path("INBOX", "")))
			h.notmuchNew()
			for range 2 {
				rep := h.sync(s)
				if len(rep.Faults) != 2 || s.writes > 0 || rep.Held != 1 {
					t.Errorf("%+v, %d writes", rep, s.writes)
				}
			}
			if answer == "restore" {
				h.sync(s, func(o *Options) { o.Restore = true })
				if !sameFlags(in.msgs[1].flags, []string{`\Seen`, `\Flagged`}) {
					t.Errorf("flags %v", in.msgs[1].flags)
				}
			} else {
				h.sync(s, func(o *Options) { o.YesDelete = true })
				if !sameFlags(in.msgs[1].flags, nil) {
					t.Errorf("flags %v", in.msgs[1].flags)
				}
			}
			h.sync(s)
			h.sync(s)
			h.notmuchNew()
			h.check(s)
			h.quiet(s)
		})
	}
}

func TestWhatTheServerRefusesStaysHere(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	h.sync(s)
	h.put("INBOX", plainMail(7), "S")
	s.refuses = map[string]*mail.Fault{"APPEND": {Kind: mail.KindNo, Code: "TOOBIG", Text: "too big"}}
	in.add(plainMail(8))
	for range 2 {
		rep := h.sync(s)
		if len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "too big") || rep.Uploaded != 0 {
			t.Errorf("%+v", rep)
		}
	}
	if n := len(h.files("INBOX")); n != 5 {
		t.Errorf("%d files", n)
	}
	// No Trash to move to: nothing is deleted.
	s.refuses = nil
	h.remove("INBOX", 1)
	if rep := h.sync(s); len(rep.Faults) != 1 || len(in.msgs) != 5 || rep.Uploaded != 1 || rep.Deleted != 0 {
		t.Errorf("%+v", rep)
	}
	if rep := h.sync(s, func(o *Options) { o.Trash = "Bin" }); rep.Deleted != 1 || rep.Uploaded != 0 || !rep.Clean() || len(s.box("Bin").msgs) != 1 {
		t.Errorf("%+v", rep)
	}
	h.sync(s)
	h.notmuchNew()
	h.check(s)
}

// A mail that is refused costs no other one that went with it, and makes none
// twice, even on a server that stores half of a command.
func TestAMailThatIsRefusedTogetherWithOthers(t *testing.T) {
	t.Parallel()
	for _, partly := range []bool{false, true} {
		for _, mute := range []bool{false, true} {
			s, h := newServer("UIDPLUS", "CONDSTORE", "MULTIAPPEND"), newHome(t)
			in := s.box("INBOX")
			in.add(plainMail(0))
			h.sync(s)
			s.picky, s.partly, s.mute = "mail 13", partly, mute
			for i := range 6 {
				h.put("INBOX", plainMail(10+i), "S")
			}
			h.put("INBOX", plainMail(15), "F") // a second copy is a second mail
			rep := h.sync(s)
			if len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "too big") || rep.New != 0 {
				t.Errorf("partly: %v, mute: %v: %+v", partly, mute, rep)
			}
			want := []string{"mail 0", "mail 10", "mail 11", "mail 12", "mail 14", "mail 15", "mail 15"}
			if got := in.subjects(); !slices.Equal(got, want) {
				t.Errorf("partly: %v, mute: %v: the server has %q", partly, mute, got)
			}
			if n := strings.Count(strings.Join(s.asked, "\n"), "APPEND"); n != 2 {
				t.Errorf("partly: %v, mute: %v: %d times", partly, mute, n)
			}
			s.picky = ""
			h.sync(s)
			h.notmuchNew()
			h.quiet(s)
			h.check(s)
		}
	}
}

// countedIndex counts how often notmuch is told of a file, by its key.
type countedIndex struct {
	Index
	adds map[string]int
}

func (x countedIndex) Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error) {
	for _, c := range changes {
		if c.Op == mail.OpAdd {
			key, _ := maildir.ParseName(c.Path)
			x.adds[key]++
		}
	}
	return x.Index.Apply(ctx, changes)
}

// An uploaded mail is read by notmuch once, on its way up; and again where the
// server gives it other flags.
func TestAnUploadedMailIsIndexedOnce(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{0, 1} { // all in one commit, and each in its own
		s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
		in := s.box("INBOX")
		in.add(plainMail(0))
		h.sync(s)
		for i := range 4 {
			h.put("INBOX", plainMail(1+i), "S")
		}
		adds := make(map[string]int)
		counted := func(o *Options) {
			o.Index, o.Batch = countedIndex{o.Index, adds}, batch
			o.Step = func(effect string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if effect == "message uploaded" && len(in.msgs) == 5 {
					in.flag(in.next-1, `\Seen`, `\Flagged`)
				}
			}
		}
		if rep := h.sync(s, counted); rep.Uploaded != 4 || rep.New != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
		once, twice := 0, 0
		for _, n := range adds {
			switch n {
			case 1:
				once++
			case 2:
				twice++
			}
		}
		if once != 3 || twice != 1 {
			t.Errorf("batches of %d: notmuch was told %v", batch, adds)
		}
		h.quiet(s)
		h.check(s)
	}
}

// An Exchange that changes what it is given, and tells no UID, makes no mail
// twice.
func TestAnUploadThatComesBackChangedIsNotRepeated(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.footer, s.mute = strings.Repeat("footer\r\n", 200), true
	s.box("INBOX").add(plainMail(1))
	h.sync(s)
	h.put("INBOX", plainMail(7), "S")
	h.put("INBOX", strings.Replace(plainMail(8), "Message-ID", "X-ID", 1), "S")
	for range 4 {
		h.sync(s)
	}
	if n := len(s.box("INBOX").msgs); n != 3 {
		t.Errorf("the server has %d messages", n)
	}
	h.quiet(s)
}

func TestAStubIsNeverUploaded(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS"), newHome(t)
	u := s.box("INBOX").add(plainMail(1))
	s.box("INBOX").msgs[u].fault = &serverFault{}
	s.box("Archive").add(plainMail(2))
	h.sync(s)
	stub, err := os.ReadFile(h.path("INBOX", h.file("INBOX", u)))
	h.do(err)
	h.put("Archive", string(stub), "S")
	h.move("INBOX", u, "Archive", true)
	if rep := h.sync(s); rep.Uploaded+rep.Moved+rep.Deleted != 0 || s.writes != 0 {
		t.Errorf("%+v", rep)
	}
}

// What the server has already is not uploaded: files that another program left,
// and mail that a server like Gmail does not take twice.
func TestWhatTheServerHasAlreadyIsNotUploaded(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	h.sync(s)
	h.put("INBOX", strings.Repeat("X-OfflineIMAP: x\r\n", 100)+plainMail(1), "S")
	for range 3 {
		if rep := h.sync(s); rep.Uploaded != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	s.dedup = true
	h.put("INBOX", strings.Replace(plainMail(2), "<m2@", "<M2@", 1), "S")
	sum := 0
	for range 3 {
		sum += h.sync(s).Uploaded
	}
	if sum != 1 || len(in.msgs) != 3 {
		t.Errorf("uploaded %d times, the server has %d", sum, len(in.msgs))
	}
	h.quiet(s)
}

// Mutt saves what it sends, and so does the server, with headers of its own.
func TestSentMailThatTheServerSavesToo(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	s.box("Sent").add(plainMail(0))
	h.sync(s)
	h.put("Sent", plainMail(1), "S")
	u := s.box("Sent").add(strings.Repeat("Received: by us\r\n", 60)+plainMail(1), `\Seen`)
	s.box("Sent").msgs[u].date = time.Now().Add(-time.Minute)
	for range 2 {
		if rep := h.sync(s); rep.Uploaded+rep.New != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	h.quiet(s)
}

// Without MOVE, only a copy in every respect is taken for one that a run left
// behind: what is taken for copied is expunged.
func TestAnotherCopyInTheTrashIsNotTheOneThatWasDeleted(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	in.add(plainMail(1))
	in.add(plainMail(3))
	trash.add(plainMail(2))
	h.sync(s)
	h.remove("INBOX", 1)
	trash.add(plainMail(1) + "-- list\r\n") // the list's copy, which somebody else deletes now
	if rep := h.sync(s); rep.Deleted != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	if len(trash.msgs) != 3 || len(in.msgs) != 1 {
		t.Errorf("the Trash has %d, INBOX %d", len(trash.msgs), len(in.msgs))
	}
}

// What a run with --mailbox leaves for later is not forgotten because flags went.
func TestWhatOneMailboxAloneLeavesComesWithTheNextRun(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	s.box("Trash")
	h.sync(s)
	h.flag("INBOX", 1, "F")
	h.remove("INBOX", 2)
	h.put("INBOX", plainMail(7), "S")
	if rep := h.sync(s, func(o *Options) { o.Only = []string{"INBOX"} }); rep.Pushed != 1 || rep.Uploaded+rep.Deleted != 0 {
		t.Errorf("%+v", rep)
	}
	if rep := h.sync(s); rep.Uploaded != 1 || rep.Deleted != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
}

// Without UIDPLUS nothing is expunged on the word of a server that does not even
// list what it was told to mark: others may be marked there, too.
func TestAnAnswerThatCannotBeTrueExpungesNothing(t *testing.T) {
	for name, blind := range map[string]imap.UIDSet{"empty": {}, "without an end": {{Start: 1, Stop: 0}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(), newHome(t)
			in := s.box("INBOX")
			for i := range 3 {
				in.add(plainMail(i))
			}
			h.sync(s)
			h.remove("INBOX", 1)
			in.flag(2, `\Deleted`)
			s.blind = blind
			h.sync(s, func(o *Options) { o.Deletions = DeletionsExpunge })
			if slices.Contains(s.asked, "EXPUNGE") || len(in.msgs) != 3 {
				t.Errorf("the server has %d messages", len(in.msgs))
			}
		})
	}
}

// A file that is not uploaded, because the server has its mail, is that mail's
// file when the other one is gone.
func TestOneOfTwoFilesOfAMailMayGo(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	s.box("Trash")
	h.sync(s)
	h.put("INBOX", plainMail(1), "S")
	h.sync(s)
	h.quiet(s)
	h.remove("INBOX", 2)
	if rep := h.sync(s); rep.Deleted+rep.Uploaded != 0 || len(in.msgs) != 3 || len(s.box("Trash").msgs) != 0 || !rep.Clean() {
		t.Errorf("%+v, the server has %d", rep, len(in.msgs))
	}
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A mail that is edited in Mutt is a new file beside the old one, which gets the
// letter T, or goes later.
func TestAnEditedMailTakesThePlaceOfTheOld(t *testing.T) {
	for _, how := range []string{"marked", "removed at once", "removed later"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			in := s.box("INBOX")
			for i := range 3 {
				in.add(plainMail(i))
			}
			s.box("Trash")
			h.sync(s)
			h.put("INBOX", plainMail(1)+strings.Repeat("edited\r\n", 200), "")
			switch how {
			case "marked":
				h.flag("INBOX", 2, "T")
			case "removed later":
				h.sync(s)
				fallthrough
			default:
				h.remove("INBOX", 2)
			}
			for range 2 {
				h.sync(s)
			}
			if len(in.msgs) != 3 || in.msgs[4] == nil || in.msgs[2] != nil || len(s.box("Trash").msgs) != 1 {
				t.Errorf("INBOX has %v, the Trash %d", in.uids(), len(s.box("Trash").msgs))
			}
			h.quiet(s)
			h.notmuchNew()
			h.check(s)
		})
	}
}

// What is not to be uploaded into one folder is a new file in another.
func TestAFileThatIsNotUploadedMayMoveElsewhere(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, archive := s.box("INBOX"), s.box("Archive")
	in.add(plainMail(1))
	archive.add(plainMail(2))
	h.sync(s)
	h.put("INBOX", plainMail(1), "S")
	h.sync(s)
	for name := range h.files("INBOX") {
		if strings.Contains(name, "mutt") {
			h.do(os.Rename(h.path("INBOX", name), h.path("Archive", name)))
		}
	}
	if rep := h.sync(s); rep.Uploaded != 1 || len(archive.msgs) != 2 || len(in.msgs) != 1 {
		t.Errorf("%+v, the Archive has %d", rep, len(archive.msgs))
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A server that shows late what it was given does not make the mail twice here.
func TestAnUploadThatShowsLateIsNotFetched(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	h.sync(s)
	h.put("INBOX", plainMail(7), "S")
	s.dedup = true // it says that it has it, and lists nothing new
	h.sync(s)
	in.add(plainMail(7), `\Seen`)
	if rep := h.sync(s); rep.New != 0 || !rep.Clean() || len(h.files("INBOX")) != 2 {
		t.Errorf("%+v, %d files", rep, len(h.files("INBOX")))
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A file that got another name is not taken for a mail that came since.
func TestARenamedFileIsNoOthersMail(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(2))
	s.box("Trash")
	h.sync(s)
	h.move("INBOX", 1, "INBOX", true)
	in.add(plainMail(1) + "-- list\r\n")
	if rep := h.sync(s); rep.New != 1 || rep.Uploaded+rep.Deleted != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// The user deletes and flags one mail, and the connection dies in between: what
// this run told the server is not what somebody else changed.
func TestAFlagOfOursIsNoReasonToKeepAMail(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(2))
	s.box("Trash")
	h.sync(s)
	h.flag("INBOX", 1, "FT")
	s.box("Trash").add(plainMail(3))
	s.cutExamine = 2 // of the Trash, to see whether a copy is there
	if rep := h.sync(s); rep.Deleted != 1 || len(in.msgs) != 1 || len(s.box("Trash").msgs) != 2 {
		t.Errorf("%+v, INBOX has %d", rep, len(in.msgs))
	}
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// Servers lie about sizes (Exchange): a mail is known by that of its file, too.
func TestAMoveWhereTheServerLiesAboutSizes(t *testing.T) {
	t.Parallel()
	for _, renamed := range []bool{false, true} {
		s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
		in, archive := s.box("INBOX"), s.box("Archive")
		s.fat = 5000
		for i := range 3 {
			in.add(plainMail(i))
		}
		s.box("Trash")
		h.sync(s)
		h.move("INBOX", 1, "Archive", renamed)
		h.move("INBOX", 2, "INBOX", true)
		if rep := h.sync(s); rep.Moved != 1 || rep.Uploaded+rep.Deleted+rep.New != 0 || len(in.msgs) != 2 || len(archive.msgs) != 1 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
		h.quiet(s)
	}
}

// What number an upload got means nothing once the server gives other numbers.
func TestNewNumbersBehindAnUpload(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(2))
	h.sync(s)
	h.put("INBOX", plainMail(7), "")
	h.sync(s, func(o *Options) {
		o.Step = func(effect string) {
			if effect == "message uploaded" {
				s.mu.Lock()
				in.validity++
				in.msgs[4], in.next = in.msgs[3], 5
				in.msgs[3] = &serverMail{raw: plainMail(9), flags: []string{}, date: h.now, modseq: in.modseq}
				s.mu.Unlock()
			}
		}
	})
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
	for u, want := range map[imap.UID]string{3: "mail 9", 4: "mail 7"} {
		l, err := ledger.OpenReadOnly(t.Context(), filepath.Join(h.dir, "state"))
		h.do(err)
		row, ok, err := l.Get(t.Context(), "INBOX", in.validity, u)
		h.do(err)
		h.do(l.Close())
		if raw := h.files("INBOX")[row.Name]; !ok || !strings.Contains(raw, want) {
			t.Errorf("UID %d is the file %s: %q", u, row.Name, raw)
		}
	}
}

// A copy that a killed run left in a Trash that is not synchronised is found.
func TestACopyThatWasLeftInATrashThatIsNotSynchronised(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	for i := range 3 {
		in.add(plainMail(i))
	}
	for i := range 2000 {
		trash.add(plainMail(100 + i))
	}
	noTrash := func(o *Options) { o.Selects = func(name string, _ rune) bool { return name != "Trash" } }
	h.sync(s, noTrash)
	h.remove("INBOX", 1)
	s.refuses = map[string]*mail.Fault{"UID STORE": {Kind: mail.KindCut}}
	h.sync(s, noTrash)
	s.refuses = nil
	if rep := h.sync(s, noTrash); rep.Deleted != 1 || len(in.msgs) != 2 || len(trash.msgs) != 2001 {
		t.Errorf("%+v, the Trash has %d", rep, len(trash.msgs))
	}
	h.quiet(s, noTrash)
}

// A folder that cannot be read costs the other mailboxes nothing, and what is
// missing in them may be in it.
func TestAFolderThatCannotBeReadCostsOnlyItself(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, archive := s.box("INBOX"), s.box("Archive")
	for i := range 3 {
		in.add(plainMail(i))
	}
	archive.add(plainMail(5))
	s.box("Trash")
	h.sync(s)
	h.move("INBOX", 1, "Archive", false)
	h.do(os.Rename(h.path("Archive", "cur"), h.path("Archive", "away")))
	h.do(os.WriteFile(h.path("Archive", "cur"), nil, 0o600))
	h.flag("INBOX", 2, "S")
	in.add(plainMail(6))
	rep, err := h.try(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Faults) != 1 || rep.Faults[0].Mailbox != "Archive" || rep.New != 1 || rep.Pushed != 1 || rep.Deleted+rep.Moved != 0 {
		t.Errorf("%+v", rep)
	}
	h.do(os.Remove(h.path("Archive", "cur")))
	h.do(os.Rename(h.path("Archive", "away"), h.path("Archive", "cur")))
	if rep := h.sync(s); rep.Moved != 1 || rep.Deleted != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A folder that came back with --restore is the right one from then on.
func TestAFolderThatCameBackIsBelieved(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	s.box("Trash").add(plainMail(9))
	h.sync(s)
	h.do(os.RemoveAll(h.path("INBOX", "")))
	h.sync(s, func(o *Options) { o.Restore = true })
	h.remove("INBOX", 1)
	if rep := h.sync(s); rep.Deleted != 1 || rep.Held != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
}
