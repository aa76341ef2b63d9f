package pipeline

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
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
	was, err := h.index.load()
	h.do(err)
	for id, m := range db {
		m.Files = slices.DeleteFunc(m.Files, func(f string) bool { _, err := os.Lstat(f); return err != nil })
		switch old := was[id]; {
		case len(m.Files) == 0:
			delete(db, id)
		case old == nil || !slices.Equal(old.Files, m.Files):
			m.asFiles(nil, "") // whatever its owner has tagged it with
		}
	}
	h.do(h.index.save(db))
}

// named wants notmuch to name files that are there.
func (h *home) named() {
	h.t.Helper()
	db, err := h.index.load()
	h.do(err)
	for id, m := range db {
		for _, f := range m.Files {
			if _, err := os.Lstat(f); err != nil {
				h.t.Errorf("notmuch has %s of %s, which is not there", f, id)
			}
		}
	}
}

// plainMail is a mail that comes back from its file as it was sent: rawMail has
// a line that does not end in CRLF.
func plainMail(n int) string { return strings.Replace(rawMail(n), "bare\n", "bare\r\n", 1) }

// subjects gives the subjects of a mailbox's messages on the server.
func (b *serverBox) subjects() (out []string) {
	for _, u := range b.uids() {
		out = append(out, mail.ParseEnvelope([]byte(b.msgs[u].raw)).Subject)
	}
	slices.Sort(out)
	return out
}

// quiet asserts that a sync has nothing to do, and that the log says of nothing that it may have been done.
func (h *home) quiet(s *server, change ...func(*Options)) {
	h.t.Helper()
	rep := h.sync(s, change...)
	if rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0 || !rep.Clean() {
		h.t.Errorf("not quiet: %+v", rep)
	}
	if open := h.log(mail.IsBegun); len(open) > 0 {
		h.t.Errorf("begun: %q", open)
	}
	h.atRest(s)
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
		rep           report.Report // some counts
	}{
		"a deleted file": {
			local: func(h *home, _ *server) { h.remove("INBOX", 1) },
			want:  boxes{"INBOX": "2 3 4", "Trash": "1"}, rep: report.Report{Deleted: 1, New: 1},
		},
		"the letter T": {
			local: func(h *home, _ *server) { h.flag("INBOX", 2, "FST") },
			want:  boxes{"INBOX": "1 3 4", "Trash": "2"}, rep: report.Report{Deleted: 1, Pushed: 1, New: 1},
		},
		"a deleted file, to be expunged": {
			local:   func(h *home, _ *server) { h.remove("INBOX", 1) },
			options: func(o *Options) { o.Deletions = DeletionsExpunge },
			want:    boxes{"INBOX": "2 3 4"}, rep: report.Report{Deleted: 1},
		},
		"a deleted file, to be kept": {
			local:   func(h *home, _ *server) { h.remove("INBOX", 1) },
			options: func(o *Options) { o.Deletions = DeletionsKeep },
			want:    boxes{"INBOX": "1 2 3 4"},
		},
		"deleted in the Trash": {
			remote: func(_ *home, s *server) { s.box("Trash").add(plainMail(9)); s.box("Trash").add(plainMail(8)) },
			local:  func(h *home, _ *server) { h.remove("Trash", 1) },
			want:   boxes{"INBOX": "1 2 3 4", "Trash": "8"}, rep: report.Report{Deleted: 1},
		},
		"moved with mv": {
			local: func(h *home, _ *server) { h.move("INBOX", 1, "Archive", false) },
			want:  boxes{"INBOX": "2 3 4", "Archive": "1"}, rep: report.Report{Moved: 1, Removed: 1},
		},
		"moved as Mutt does": {
			local: func(h *home, _ *server) { h.flag("INBOX", 3, "FS"); h.move("INBOX", 3, "Archive", true) },
			want:  boxes{"INBOX": "1 2 4", "Archive": "3"}, rep: report.Report{Moved: 1, Pushed: 1, Removed: 1},
		},
		"new mail": {
			local: func(h *home, _ *server) { h.put("Archive", plainMail(7), "S") },
			want:  boxes{"INBOX": "1 2 3 4", "Archive": "7"}, rep: report.Report{Uploaded: 1},
		},
		"a file renamed in its folder": {
			local: func(h *home, _ *server) { h.move("INBOX", 2, "INBOX", true) },
			want:  boxes{"INBOX": "1 2 3 4"},
		},
		"deleted on both sides": {
			local:  func(h *home, _ *server) { h.remove("INBOX", 1) },
			remote: func(_ *home, s *server) { s.box("INBOX").expunge(1) },
			want:   boxes{"INBOX": "2 3 4"}, rep: report.Report{Removed: 1},
		},
		"deleted here, flagged there": {
			local:  func(h *home, _ *server) { h.remove("INBOX", 1) },
			remote: func(_ *home, s *server) { s.box("INBOX").flag(1, `\Flagged`) },
			want:   boxes{"INBOX": "1 2 3 4"}, rep: report.Report{New: 1},
		},
		"deleted here, read there": {
			local:  func(h *home, _ *server) { h.remove("INBOX", 1) },
			remote: func(_ *home, s *server) { s.box("INBOX").flag(1, `\Seen`) },
			want:   boxes{"INBOX": "2 3 4", "Trash": "1"}, rep: report.Report{Deleted: 1, New: 1},
		},
		"moved here, deleted there": {
			local:  func(h *home, _ *server) { h.move("INBOX", 1, "Archive", true) },
			remote: func(_ *home, s *server) { s.box("INBOX").expunge(1) },
			want:   boxes{"INBOX": "2 3 4", "Archive": "1"}, rep: report.Report{Uploaded: 1},
		},
		"edited": {
			local: func(h *home, _ *server) { h.remove("INBOX", 1); h.put("INBOX", plainMail(1)+"more\r\n", "S") },
			want:  boxes{"INBOX": "1 2 3 4", "Trash": "1"}, rep: report.Report{Deleted: 1, Uploaded: 1, New: 1},
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
				if spared(fmt.Sprintf("%s/%s/%v", name, wire, mute)) {
					continue
				}
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
					if !slices.Equal(got, want) {
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
		if spared(seed) {
			continue
		}
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
					sub := mail.ParseEnvelope([]byte(b.msgs[u].raw)).Subject
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
					alive[mail.ParseEnvelope([]byte(raw)).Subject] = true
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
