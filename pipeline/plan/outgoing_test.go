package plan

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

// Script makes what the user did out of a fuzzer's bytes.
type Script struct {
	Bytes []byte
	At    int
}

func (s *Script) N(below int) int {
	if s.At >= len(s.Bytes) {
		return 0
	}
	s.At++
	return int(s.Bytes[s.At-1]) % below
}

func (s *Script) Yes() bool { return s.N(2) == 1 }

// Edits gives what was found in three folders, and a policy. Few Message-IDs, keys
// and sizes make it likely that things look alike.
func (s *Script) Edits() (map[string]*Local, Policy) {
	let := s.N(16)
	let, waits := let%4, let/4 // what waits for an answer from before
	p := Policy{
		Deletions: []Deletions{DeletionsTrash, DeletionsExpunge, DeletionsKeep}[s.N(3)],
		Yes:       func(name string) bool { return let == 1 || let == 2 && name == "INBOX" },
		Held:      map[string]bool{"INBOX": waits&1 != 0, "Trash": waits&2 != 0},
		Daily:     map[string]bool{"Trash": true}, Restore: s.N(4) == 1, Whole: s.N(4) != 1, Unread: s.N(4) == 1,
	}
	ids := []string{"", "a", "b", "c", "notmuch-sha1-x"}
	sizes := []int64{100, 101, 1000, 5000}
	locals := make(map[string]*Local)
	for _, name := range []string{"Archive", "INBOX", "Trash"} {
		l := &Local{Flags: make(map[imap.UID]Delta), Closed: s.N(4) == 1, Have: s.N(256), Files: s.N(3)}
		if s.N(4) == 1 {
			l.Doubt = []string{DoubtGone, DoubtEmpty, DoubtReplaced, DoubtPart}[s.N(4)]
		}
		many := s.N(4) == 3
		message := func(u imap.UID) ledger.Message {
			if s.N(3) == 1 && !l.Closed {
				l.Flags[u] = [...]Delta{{Add: []string{`\Seen`}}, {Remove: []string{`\Seen`}}, {[]string{`\Flagged`}, []string{`\Seen`}}}[s.N(3)]
			}
			return ledger.Message{Mailbox: name, UID: u, State: ledger.Present, ID: ids[s.N(len(ids))], Size: sizes[s.N(4)], WireSize: sizes[s.N(4)],
				Key: fmt.Sprint("k", name, u), Flags: []string{`\Seen`}, Digest: mail.Digest{byte(s.N(3))}}
		}
		for range s.N(6) {
			l.Missing = append(l.Missing, message(imap.UID(len(l.Missing)+1)))
		}
		for many && len(l.Missing) < 70 {
			u := imap.UID(len(l.Missing) + 1)
			l.Missing = append(l.Missing, ledger.Message{Mailbox: name, UID: u, Key: fmt.Sprint("k", name, u), Size: 7777})
		}
		if !l.Closed {
			for i := range s.N(4) {
				l.Marked = append(l.Marked, message(imap.UID(1000+i)))
			}
		}
		l.Have = max(l.Have, len(l.Missing)+len(l.Marked))
		locals[name] = l
	}
	keys := 0
	for _, name := range []string{"Archive", "INBOX", "Trash"} {
		for range s.N(6) {
			keys++
			key := fmt.Sprint("new", keys)
			if from := locals[[]string{"Archive", "INBOX", "Trash"}[s.N(3)]]; s.Yes() && len(from.Missing) > 0 {
				m := from.Missing[s.N(len(from.Missing))]
				if m.Mailbox != name && !slices.ContainsFunc(locals[name].Untracked, func(o Untracked) bool { return o.Key == m.Key }) {
					key = m.Key // as mv leaves it
				}
			}
			locals[name].Untracked = append(locals[name].Untracked, Untracked{
				Message:  ledger.Message{Mailbox: name, Key: key, Name: "cur/" + key + ":2," + []string{"", "S", "FS"}[s.N(3)], ID: RealID(ids[s.N(len(ids))]), Size: sizes[s.N(4)], Digest: mail.Digest{byte(s.N(3))}},
				RuledOut: s.N(5) == 1, Twin: s.N(5) == 1, Added: int64(s.N(2)),
			})
		}
	}
	return locals, p
}

// Alike tells whether all that is known of a file and of a row speaks for one mail.
func Alike(s Untracked, m ledger.Message) bool {
	sizes := []int64{m.Size, m.WireSize}
	switch {
	case m.Digest != mail.Digest{} && s.Digest != mail.Digest{}:
		return m.Digest == s.Digest
	case s.Key == m.Key:
		return slices.ContainsFunc(sizes, func(n int64) bool { return near(n, s.Size) })
	}
	return slices.Contains(sizes, s.Size) || slices.Contains(sizes, s.Size-s.Added)
}

// FuzzPlanOut checks plans of what a fuzzer makes of four beginnings.
func FuzzPlanOut(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 0, 2, 1, 0, 0, 2, 0, 1, 1, 1, 0, 0, 3, 0, 2, 1, 1, 1})
	f.Add([]byte{1, 1, 0, 2, 1, 200, 1, 2, 1, 3, 5, 1, 1, 2, 3, 3, 1, 0, 2, 2, 1, 4, 4, 4, 1, 2, 3, 1, 0, 1, 5, 3, 2, 1, 0, 1, 1, 1, 2, 2, 2})
	f.Add([]byte{2, 3, 3, 0, 0, 9, 9, 9, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3})
	f.Fuzz(CheckPlanOut)
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
		CheckPlanOut(t, folders)
	}
}

// CheckPlanOut checks, whatever was found in the folders, what never may be told
// the server, and that nothing is forgotten.
func CheckPlanOut(t *testing.T, bytes []byte) {
	locals, p := (&Script{Bytes: bytes}).Edits()
	before, _ := (&Script{Bytes: bytes}).Edits()
	out := OfFolders(locals, p)
	again, _ := (&Script{Bytes: bytes}).Edits()
	if other := OfFolders(again, p); !reflect.DeepEqual(out, other) {
		t.Fatal("the same folders make two plans")
	}
	files := make(map[string]int)     // how often a file is used, by mailbox and key
	rows := make(map[string][]string) // what becomes of a message, by mailbox and UID
	row := func(m ledger.Message) string { return fmt.Sprint(m.Mailbox, " ", m.UID) }
	for name, o := range out {
		l, was := locals[name], before[name]
		if l.Closed && !o.Nothing() {
			t.Fatalf("%s is closed: %+v", name, o)
		}
		if !p.Whole && len(o.Moves)+len(o.Uploads)+len(o.Deleted)+len(o.Restore) > 0 {
			t.Fatalf("not all folders are known, and %s has %+v", name, o)
		}
		for to, ms := range o.Moves {
			for _, m := range ms {
				rows[row(m.Row)] = append(rows[row(m.Row)], "moved")
				files[to+" "+m.Key]++
				i := slices.IndexFunc(before[to].Untracked, func(s Untracked) bool { return s.Key == m.Key })
				if i < 0 || to == name || m.Row.Mailbox != name || locals[to].Closed {
					t.Fatalf("%s of %s is moved to %s, which has no such file", m.Key, name, to)
				}
				s := before[to].Untracked[i]
				known := s.ID != "" && s.ID == m.Row.ID || (RealID(s.ID) == "" || RealID(m.Row.ID) == "") && s.Digest == m.Row.Digest && !s.Digest.IsZero()
				if s.RuledOut || s.Key != m.Row.Key && !known || !Alike(s, m.Row) {
					t.Fatalf("%+v is taken for %+v", s, m.Row)
				}
			}
		}
		for _, s := range o.Uploads {
			files[name+" "+s.Key]++
			if !s.New() {
				t.Fatalf("%+v is uploaded", s)
			}
		}
		for _, m := range o.Renamed {
			rows[row(m)] = append(rows[row(m)], "renamed")
			files[name+" "+m.Key]++
		}
		for _, m := range o.Deleted {
			rows[row(m)] = append(rows[row(m)], "deleted")
		}
		for _, m := range o.Restore {
			rows[row(m)] = append(rows[row(m)], "restored")
		}
		if p.Deletions == DeletionsKeep && len(o.Deleted) > 0 || p.Restore && len(o.Deleted)+len(o.Uploads) > 0 || !p.Restore && len(o.Restore) > 0 {
			t.Fatalf("%s: %+v against the policy %+v", name, o, p)
		}
		missing := func(m ledger.Message) bool {
			return slices.ContainsFunc(was.Missing, func(x ledger.Message) bool { return x.UID == m.UID })
		}
		if p.Unread && slices.ContainsFunc(o.Deleted, missing) {
			t.Fatalf("%s: %d deleted, and not all folders could be read", name, len(o.Deleted))
		}
		if p.Held[name] && !p.Yes(name) && len(o.Deleted) > 0 {
			t.Fatalf("%s waits for an answer, and %d are deleted", name, len(o.Deleted))
		}
		inDoubt := slices.ContainsFunc(o.Deleted, missing) && l.Doubt != ""
		if !p.Yes(name) && (guarded(len(o.Deleted), l.Have) || inDoubt) {
			// Only where all else is in order, the folder is empty, and it is little or of daily life.
			inOrder := !slices.ContainsFunc(slices.Collect(maps.Values(out)), func(o *Outgoing) bool { return o.Held > 0 })
			if !inOrder || inDoubt && (l.Doubt != DoubtEmpty || !p.Daily[name] && o.Unexplained > Handful) || !inDoubt && !p.Daily[name] {
				t.Fatalf("%s, of %d, in doubt %q: %d deleted", name, l.Have, l.Doubt, len(o.Deleted))
			}
		}
		for to, ms := range o.Moves {
			for _, n := range []string{name, to} {
				if len(ms) > 0 && !p.Restore && !p.Yes(n) && locals[n].Doubt == DoubtReplaced {
					t.Fatalf("%s is of another day, and %d messages are moved %s -> %s", n, len(ms), name, to)
				}
			}
		}
		if o.Held+o.Doubted > 0 && o.Why == "" {
			t.Fatalf("%s: %d held, %d doubted: %q", name, o.Held, o.Doubted, o.Why)
		}
		if p.Whole && !p.Yes(name) && !p.Restore && l.Doubt != "" && l.Doubt != DoubtEmpty && !l.Closed {
			if len(o.Uploads) > 0 {
				t.Fatalf("%s is doubted, and %d files go up", name, len(o.Uploads))
			}
			sure := make(map[imap.UID]bool) // they have their flags from a folder that is believed
			for to, ms := range o.Moves {
				for _, m := range ms {
					sure[m.Row.UID] = locals[to].Doubt == ""
				}
			}
			for u, d := range l.Flags {
				if len(d.Remove) > 0 && !sure[u] {
					t.Fatalf("%s is doubted, and UID %d loses %v", name, u, d.Remove)
				}
			}
		}
	}
	// What it holds back, it holds back of whatever less is left of that.
	less, after := (&Script{Bytes: bytes}).Edits()
	after.Held = make(map[string]bool)
	for name, l := range less {
		after.Held[name] = p.Held[name] || out[name].Held > 0
		l.Missing, l.Marked, l.Doubt = l.Missing[len(l.Missing)/2:], l.Marked[len(l.Marked)/2:], ""
	}
	for name, o := range OfFolders(less, after) {
		if out[name].Held > 0 && !p.Yes(name) && len(o.Deleted) > 0 {
			t.Fatalf("%s: %d were held back, and then %d of what is left are deleted", name, out[name].Held, len(o.Deleted))
		}
	}
	for name, n := range files {
		if n > 1 {
			t.Fatalf("the file %s is used %d times", name, n)
		}
	}
	for name, l := range before {
		o := out[name]
		for _, m := range slices.Concat(l.Missing, l.Marked) {
			switch what := rows[row(m)]; {
			case len(what) > 1:
				t.Fatalf("%s UID %d is %v", name, m.UID, what)
			case len(what) == 0 && !l.Closed && p.Deletions != DeletionsKeep && o.Held == 0 && !o.Later:
				t.Fatalf("%s UID %d is forgotten: %+v", name, m.UID, o)
			}
		}
		for _, s := range l.Untracked {
			if files[name+" "+s.Key] == 0 && s.New() && !l.Closed && !p.Restore && o.Doubted == 0 && !o.Later {
				t.Fatalf("%s: the file %s is forgotten: %+v", name, s.Key, o)
			}
		}
	}
}
