package pipeline

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// script makes what the user did out of a fuzzer's bytes.
type script struct {
	bytes []byte
	at    int
}

func (s *script) n(below int) int {
	if s.at >= len(s.bytes) {
		return 0
	}
	s.at++
	return int(s.bytes[s.at-1]) % below
}

func (s *script) yes() bool { return s.n(2) == 1 }

// edits gives what was found in three folders, and a policy. Few Message-IDs, keys
// and sizes make it likely that things look alike.
func (s *script) edits() (map[string]*local, policy) {
	let := s.n(4)
	p := policy{
		deletions: []Deletions{DeletionsTrash, DeletionsExpunge, DeletionsKeep}[s.n(3)],
		yes:       func(name string) bool { return let == 1 || let == 2 && name == "INBOX" },
		daily:     map[string]bool{"Trash": true}, restore: s.n(4) == 1, whole: s.n(4) != 1, unread: s.n(4) == 1,
	}
	ids := []string{"", "a", "b", "c", "notmuch-sha1-x"}
	sizes := []int64{100, 101, 1000, 5000}
	locals := make(map[string]*local)
	for _, name := range []string{"Archive", "INBOX", "Trash"} {
		l := &local{flags: make(map[imap.UID]delta), closed: s.n(4) == 1, have: s.n(256), files: s.n(3)}
		if s.n(4) == 1 {
			l.doubt = []string{doubtGone, doubtEmpty, doubtReplaced, doubtPart}[s.n(4)]
		}
		many := s.n(4) == 3
		message := func(u imap.UID) ledger.Message {
			if s.n(3) == 1 && !l.closed {
				l.flags[u] = [...]delta{{add: []string{`\Seen`}}, {remove: []string{`\Seen`}}, {[]string{`\Flagged`}, []string{`\Seen`}}}[s.n(3)]
			}
			return ledger.Message{Mailbox: name, UID: u, State: ledger.Present, ID: ids[s.n(len(ids))], Size: sizes[s.n(4)], WireSize: sizes[s.n(4)],
				Key: fmt.Sprint("k", name, u), Flags: []string{`\Seen`}, Digest: mail.Digest{byte(s.n(3))}}
		}
		for range s.n(6) {
			l.missing = append(l.missing, message(imap.UID(len(l.missing)+1)))
		}
		for many && len(l.missing) < 70 {
			u := imap.UID(len(l.missing) + 1)
			l.missing = append(l.missing, ledger.Message{Mailbox: name, UID: u, Key: fmt.Sprint("k", name, u), Size: 7777})
		}
		if !l.closed {
			for i := range s.n(4) {
				l.marked = append(l.marked, message(imap.UID(1000+i)))
			}
		}
		l.have = max(l.have, len(l.missing)+len(l.marked))
		locals[name] = l
	}
	keys := 0
	for _, name := range []string{"Archive", "INBOX", "Trash"} {
		for range s.n(6) {
			keys++
			key := fmt.Sprint("new", keys)
			if from := locals[[]string{"Archive", "INBOX", "Trash"}[s.n(3)]]; s.yes() && len(from.missing) > 0 {
				m := from.missing[s.n(len(from.missing))]
				if m.Mailbox != name && !slices.ContainsFunc(locals[name].strangers, func(o stranger) bool { return o.Key == m.Key }) {
					key = m.Key // as mv leaves it
				}
			}
			locals[name].strangers = append(locals[name].strangers, stranger{
				Message:  ledger.Message{Mailbox: name, Key: key, Name: "cur/" + key + ":2," + []string{"", "S", "FS"}[s.n(3)], ID: realID(ids[s.n(len(ids))]), Size: sizes[s.n(4)], Digest: mail.Digest{byte(s.n(3))}},
				ruledOut: s.n(5) == 1, twin: s.n(5) == 1, added: int64(s.n(2)),
			})
		}
	}
	return locals, p
}

// alike tells whether all that is known of a file and of a row speaks for one mail.
func alike(s stranger, m ledger.Message) bool {
	sizes := []int64{m.Size, m.WireSize}
	switch {
	case m.Digest != mail.Digest{} && s.Digest != mail.Digest{}:
		return m.Digest == s.Digest
	case s.Key == m.Key:
		return slices.ContainsFunc(sizes, func(n int64) bool { return near(n, s.Size) })
	}
	return slices.Contains(sizes, s.Size) || slices.Contains(sizes, s.Size-s.added)
}

// FuzzPlanOut checks plans of what a fuzzer makes of four beginnings.
func FuzzPlanOut(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 0, 2, 1, 0, 0, 2, 0, 1, 1, 1, 0, 0, 3, 0, 2, 1, 1, 1})
	f.Add([]byte{1, 1, 0, 2, 1, 200, 1, 2, 1, 3, 5, 1, 1, 2, 3, 3, 1, 0, 2, 2, 1, 4, 4, 4, 1, 2, 3, 1, 0, 1, 5, 3, 2, 1, 0, 1, 1, 1, 2, 2, 2})
	f.Add([]byte{2, 3, 3, 0, 0, 9, 9, 9, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3})
	f.Fuzz(checkPlanOut)
}

// TestPlanOutOfRandomFolders checks plans of folders that no fuzzer needs to find.
func TestPlanOutOfRandomFolders(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		folders := make([]byte, r.IntN(160))
		for i := range folders {
			folders[i] = byte(r.Uint32())
		}
		checkPlanOut(t, folders)
	}
}

// checkPlanOut checks, whatever was found in the folders, what never may be told
// the server, and that nothing is forgotten.
func checkPlanOut(t *testing.T, bytes []byte) {
	locals, p := (&script{bytes: bytes}).edits()
	before, _ := (&script{bytes: bytes}).edits()
	out := planOut(locals, p)
	again, _ := (&script{bytes: bytes}).edits()
	if other := planOut(again, p); !reflect.DeepEqual(out, other) {
		t.Fatal("the same folders make two plans")
	}
	files := make(map[string]int)     // how often a file is used, by mailbox and key
	rows := make(map[string][]string) // what becomes of a message, by mailbox and UID
	row := func(m ledger.Message) string { return fmt.Sprint(m.Mailbox, " ", m.UID) }
	for name, o := range out {
		l, was := locals[name], before[name]
		if l.closed && !o.nothing() {
			t.Fatalf("%s is closed: %+v", name, o)
		}
		if !p.whole && len(o.moves)+len(o.uploads)+len(o.deleted)+len(o.restore) > 0 {
			t.Fatalf("not all folders are known, and %s has %+v", name, o)
		}
		for to, ms := range o.moves {
			for _, m := range ms {
				rows[row(m.row)] = append(rows[row(m.row)], "moved")
				files[to+" "+m.key]++
				i := slices.IndexFunc(before[to].strangers, func(s stranger) bool { return s.Key == m.key })
				if i < 0 || to == name || m.row.Mailbox != name || locals[to].closed {
					t.Fatalf("%s of %s is moved to %s, which has no such file", m.key, name, to)
				}
				s := before[to].strangers[i]
				if s.ruledOut || s.Key != m.row.Key && (s.ID == "" || s.ID != m.row.ID) || !alike(s, m.row) {
					t.Fatalf("%+v is taken for %+v", s, m.row)
				}
			}
		}
		for _, s := range o.uploads {
			files[name+" "+s.Key]++
			if !s.new() {
				t.Fatalf("%+v is uploaded", s)
			}
		}
		for _, m := range o.renamed {
			rows[row(m)] = append(rows[row(m)], "renamed")
			files[name+" "+m.Key]++
		}
		for _, m := range o.deleted {
			rows[row(m)] = append(rows[row(m)], "deleted")
		}
		for _, m := range o.restore {
			rows[row(m)] = append(rows[row(m)], "restored")
		}
		if p.deletions == DeletionsKeep && len(o.deleted) > 0 || p.restore && len(o.deleted)+len(o.uploads) > 0 || !p.restore && len(o.restore) > 0 {
			t.Fatalf("%s: %+v against the policy %+v", name, o, p)
		}
		missing := func(m ledger.Message) bool {
			return slices.ContainsFunc(was.missing, func(x ledger.Message) bool { return x.UID == m.UID })
		}
		if p.unread && slices.ContainsFunc(o.deleted, missing) {
			t.Fatalf("%s: %d deleted, and not all folders could be read", name, len(o.deleted))
		}
		inDoubt := slices.ContainsFunc(o.deleted, missing) && l.doubt != ""
		if !p.yes(name) && (guarded(len(o.deleted), l.have) || inDoubt) {
			// Only where all else is in order, the folder is empty, and it is little or of daily life.
			inOrder := !slices.ContainsFunc(slices.Collect(maps.Values(out)), func(o *outgoing) bool { return o.held > 0 })
			if !inOrder || inDoubt && (l.doubt != doubtEmpty || !p.daily[name] && o.unexplained > handful) || !inDoubt && !p.daily[name] {
				t.Fatalf("%s, of %d, in doubt %q: %d deleted", name, l.have, l.doubt, len(o.deleted))
			}
		}
		for to, ms := range o.moves {
			for _, n := range []string{name, to} {
				if len(ms) > 0 && !p.restore && !p.yes(n) && locals[n].doubt == doubtReplaced {
					t.Fatalf("%s is of another day, and %d messages are moved %s -> %s", n, len(ms), name, to)
				}
			}
		}
		if o.held+o.doubted > 0 && o.why == "" {
			t.Fatalf("%s: %d held, %d doubted: %q", name, o.held, o.doubted, o.why)
		}
		if p.whole && !p.yes(name) && !p.restore && l.doubt != "" && l.doubt != doubtEmpty && !l.closed {
			if len(o.uploads) > 0 {
				t.Fatalf("%s is doubted, and %d files go up", name, len(o.uploads))
			}
			sure := make(map[imap.UID]bool) // they have their flags from a folder that is believed
			for to, ms := range o.moves {
				for _, m := range ms {
					sure[m.row.UID] = locals[to].doubt == ""
				}
			}
			for u, d := range l.flags {
				if len(d.remove) > 0 && !sure[u] {
					t.Fatalf("%s is doubted, and UID %d loses %v", name, u, d.remove)
				}
			}
		}
	}
	for name, n := range files {
		if n > 1 {
			t.Fatalf("the file %s is used %d times", name, n)
		}
	}
	for name, l := range before {
		o := out[name]
		for _, m := range slices.Concat(l.missing, l.marked) {
			switch what := rows[row(m)]; {
			case len(what) > 1:
				t.Fatalf("%s UID %d is %v", name, m.UID, what)
			case len(what) == 0 && !l.closed && p.deletions != DeletionsKeep && o.held == 0 && !o.later:
				t.Fatalf("%s UID %d is forgotten: %+v", name, m.UID, o)
			}
		}
		for _, s := range l.strangers {
			if files[name+" "+s.Key] == 0 && s.new() && !l.closed && !p.restore && o.doubted == 0 && !o.later {
				t.Fatalf("%s: the file %s is forgotten: %+v", name, s.Key, o)
			}
		}
	}
}
