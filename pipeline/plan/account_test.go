package plan

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// accounts is how many random accounts are reconciled: 1000, or as many as the
// environment says in ACCOUNTS.
func accounts() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("ACCOUNTS"), 10, 64); err == nil {
		return n
	}
	if testing.Short() {
		return 100
	}
	return 1000
}

// account is a whole account as plan sees it, without wires and disks. Each mail has a
// number: two that follow each other may have all headers in common.
type account struct {
	*rand.Rand
	log    []string
	server map[string]map[imap.UID]*copied
	next   map[string]imap.UID
	here   map[string]map[string]*copied // by key
	rows   map[string]map[imap.UID]ledger.Message
	told   map[string]map[imap.UID]string // this run's APPENDUID and COPYUID, to keys
	keys   int
	mails  int
	want   map[int]int                            // how many copies there are to be of a mail
	edited [2]map[int]bool                        // here and there: its flags changed
	moved  map[int]bool                           // more than that did, on one side: two such edits of one mail are for the pipeline's own tests
	old    map[string]map[imap.UID]ledger.Message // rows of the UIDVALIDITY before
	left   []ledger.Message
	ruled  map[string]bool // keys of files that the server was given, and did not list
	fat    int64           // by how much the server's sizes are wrong
	lie    string
	gentle bool // nothing is deleted

	fresh, deleted map[int]bool // of this round, by what the headers are
}

// copied is one copy of a mail.
type copied struct {
	mail  int
	flags []string
}

func boxNames() []string { return []string{"Archive", "INBOX", "Trash"} }

// lies are what servers have said that was not so.
func lies() []string {
	return []string{"", "omits", "omits and counts less", "vanished too much", "new left out", "uid twice", "uid 0", "flags untold", "numbers mixed up", "no Message-ID", "no date"}
}

func newAccount(seed uint64) *account {
	a := &account{Rand: rand.New(rand.NewPCG(seed, 7)), server: make(map[string]map[imap.UID]*copied), next: make(map[string]imap.UID),
		here: make(map[string]map[string]*copied), rows: make(map[string]map[imap.UID]ledger.Message), want: make(map[int]int), ruled: make(map[string]bool)}
	a.round()
	for _, b := range boxNames() {
		a.server[b], a.here[b], a.rows[b], a.next[b] = make(map[imap.UID]*copied), make(map[string]*copied), make(map[imap.UID]ledger.Message), 1
	}
	if a.IntN(4) == 0 {
		a.fat = 3
	}
	for range a.IntN(9) {
		a.append(boxNames()[a.IntN(3)], &copied{a.mails, a.someFlags()})
		a.want[a.mails]++
		a.mails++
	}
	return a
}

func (a *account) someFlags() []string {
	flags := slices.Clone([][]string{{}, {`\Seen`}, {`\Flagged`, `\Seen`}}[a.IntN(3)])
	if a.IntN(3) == 0 {
		flags = append(flags, "todo")
	}
	return flags
}

// round begins another one.
func (a *account) round() {
	a.edited = [2]map[int]bool{make(map[int]bool), make(map[int]bool)}
	a.moved, a.fresh, a.deleted, a.old = make(map[int]bool), make(map[int]bool), make(map[int]bool), make(map[string]map[imap.UID]ledger.Message)
}

// renumber gives a mailbox another UIDVALIDITY. Nothing else happens in it then.
func (a *account) renumber(box string) {
	was := a.server[box]
	a.server[box], a.old[box], a.rows[box] = make(map[imap.UID]*copied), a.rows[box], make(map[imap.UID]ledger.Message)
	for _, i := range a.Perm(len(was)) {
		a.append(box, was[byMail(was)[i]])
	}
	a.say("%s has another UIDVALIDITY", box)
}

// rematch gives messages with other numbers than before their files.
func (a *account) rematch(box string, listed []mail.Message) (rest []mail.Message) {
	var here []Untracked
	for _, u := range slices.Sorted(maps.Keys(a.old[box])) {
		here = append(here, Untracked{Message: a.old[box][u]})
	}
	delete(a.old, box)
	var e Evidence
	pairs, ask := Pair(listed, here, e)
	for len(ask) > 0 {
		a.texts(box, &e, ask)
		pairs, ask = Pair(listed, here, e)
	}
	for _, m := range listed {
		s, ok := pairs[m.UID]
		if !ok {
			rest = append(rest, m)
			continue
		}
		row := s.Message
		row.UID = m.UID
		a.rows[box][m.UID] = row
	}
	return rest
}

// keywords are the tags that stand for them.
func keywords(flags []string) []string {
	return slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f[0] == '\\' })
}

// words are all flags of a copy in one text.
func (c *copied) words() string { return fmt.Sprint(c.mail, foldFlags(c.flags)) }

func (a *account) append(box string, c *copied) imap.UID {
	u := a.next[box]
	a.next[box]++
	a.server[box][u] = &copied{c.mail, slices.Clone(c.flags)}
	return u
}

func (a *account) newKey() string {
	a.keys++
	return fmt.Sprint("k", a.keys)
}

// message is what the server lists of a mail.
func (a *account) message(u imap.UID, c *copied) mail.Message {
	m := mail.Message{UID: u, Flags: slices.Clone(c.flags), Size: 1000 + a.fat, MessageID: fmt.Sprintf("m%d@x", c.mail/2),
		InternalDate: time.Date(2020, 1, 1+c.mail/4, 0, 0, 0, 0, time.UTC)}
	switch a.lie {
	case "no Message-ID":
		m.MessageID = ""
	case "no date":
		m.InternalDate = time.Time{}
	}
	return m
}

// file is what is known of a file.
func (a *account) file(box, key string, c *copied) Untracked {
	at := time.Date(2020, 1, 1+c.mail/4, 0, 0, 0, 0, time.UTC)
	return Untracked{RuledOut: a.ruled[box+key], Tags: append([]string{}, keywords(c.flags)...), Message: ledger.Message{Mailbox: box, Key: key, Name: "cur/" + key + ":2," + Letters(c.flags), ID: fmt.Sprintf("m%d@x", c.mail/2),
		Size: 1000, WireSize: 1000, Digest: mail.Digest{1, byte(c.mail), byte(c.mail >> 8)}, Date: at}, Sent: at}
}

func (a *account) say(format string, args ...any) {
	a.log = append(a.log, fmt.Sprintf(format, args...))
}

// byMail gives the names of copies by what they are.
func byMail[K cmp.Ordered](m map[K]*copied) []K {
	return slices.SortedFunc(maps.Keys(m), func(x, y K) int {
		return cmp.Or(cmp.Compare(m[x].mail, m[y].mail), cmp.Compare(m[x].words(), m[y].words()), cmp.Compare(x, y))
	})
}

// sentTags are those that go to the server.
func sentTags() *Tags { return &Tags{Keywords: []string{"*"}} }

// scan gives what changed here.
func (a *account) scan() map[string]*Local {
	locals := make(map[string]*Local)
	for _, box := range boxNames() {
		l := &Local{Flags: make(map[imap.UID]Delta), Have: len(a.rows[box]), Files: len(a.here[box])}
		known := make(map[string]bool)
		for _, u := range slices.Sorted(maps.Keys(a.rows[box])) {
			row := a.rows[box][u]
			c := a.here[box][row.Key]
			if c == nil {
				l.Missing = append(l.Missing, row)
				continue
			}
			known[row.Key] = true
			l.AddFlags(u, DeltaOf(row.Flags, Letters(c.flags)))
			l.AddFlags(u, sentTags().TagDelta(row.Flags, keywords(c.flags)))
		}
		for _, key := range slices.Sorted(maps.Keys(a.here[box])) {
			if !known[key] {
				l.Untracked = append(l.Untracked, a.file(box, key, a.here[box][key]))
			}
		}
		if locals[box] = l; a.old[box] != nil {
			locals[box] = &Local{Closed: true}
		}
	}
	return locals
}

// push does what OfFolders wants, and tells how much that was.
func (a *account) push() (did int, err error) {
	locals := a.scan()
	out := OfFolders(locals, Policy{Deletions: DeletionsTrash, Yes: func(string) bool { return false }, Daily: map[string]bool{"Trash": true}, Whole: true, Tags: sentTags()})
	a.told = map[string]map[imap.UID]string{"Archive": {}, "INBOX": {}, "Trash": {}}
	if err := reasons(locals, out); err != nil {
		return 0, err
	}
	for _, box := range boxNames() {
		o := out[box]
		if o.Held+o.Doubted > 0 {
			return 0, fmt.Errorf("%s: held: %s", box, o.Why)
		}
		for u, d := range locals[box].Flags {
			did++
			if c := a.server[box][u]; c != nil {
				c.flags = d.Merged(c.flags)
			}
			row := a.rows[box][u]
			row.Flags = d.Merged(row.Flags)
			a.rows[box][u] = row
		}
		for to, ms := range o.Moves {
			for _, m := range ms {
				did++
				if c := a.server[box][m.Row.UID]; c != nil {
					delete(a.server[box], m.Row.UID)
					a.told[to][a.append(to, c)] = m.Key
				}
				delete(a.rows[box], m.Row.UID)
			}
		}
		for _, m := range o.Deleted {
			did++
			if c := a.server[box][m.UID]; c != nil {
				delete(a.server[box], m.UID)
				if box != "Trash" {
					a.told["Trash"][a.append("Trash", c)] = m.Key
				}
			}
			a.left = append(a.left, m)
			delete(a.rows[box], m.UID)
		}
		for _, s := range o.Uploads {
			did++
			a.told[box][a.append(box, a.here[box][s.Key])] = s.Key
		}
		for _, m := range o.Renamed {
			did++
			a.rows[box][m.UID] = m
		}
	}
	if a.lie == "numbers mixed up" {
		for _, told := range a.told {
			if uids := slices.Sorted(maps.Keys(told)); len(uids) > 1 {
				told[uids[0]], told[uids[1]] = told[uids[1]], told[uids[0]]
			}
		}
	}
	return did, nil
}

// view is what the server tells of a mailbox, with how many messages it says it has.
func (a *account) view(box string, rows []ledger.Row, complete bool) (v View, messages uint32) {
	v.Complete, messages = complete, uint32(len(a.server[box]))
	for _, u := range slices.Sorted(maps.Keys(a.server[box])) {
		m := mail.Message{UID: u, Flags: a.server[box][u].flags}
		if a.lie == "flags untold" && a.IntN(3) == 0 {
			m.Flags = nil
		}
		omitted := a.IntN(4) == 0
		switch {
		case complete && strings.HasPrefix(a.lie, "omits") && omitted:
			if a.lie != "omits" {
				messages--
			}
			continue
		case !complete && a.lie == "new left out" && omitted:
			continue
		}
		v.Messages = append(v.Messages, m)
		if a.lie == "uid twice" {
			v.Messages = append(v.Messages, m)
		}
		if complete {
			v.UIDs = append(v.UIDs, u)
		}
	}
	if a.lie == "uid 0" {
		v.Messages = append(v.Messages, mail.Message{Flags: []string{`\Seen`}})
	}
	if !complete {
		for _, r := range rows {
			if a.server[box][r.UID] == nil || a.lie == "vanished too much" && a.IntN(3) == 0 {
				v.Vanished.AddNum(r.UID)
			}
		}
	}
	return v, messages
}

// texts gives the digests of a mailbox's messages.
func (a *account) texts(box string, e *Evidence, ask []imap.UID) {
	if e.Text == nil {
		e.Text = make(map[imap.UID]mail.Digest)
	}
	for _, u := range ask {
		e.Text[u] = a.file(box, "", a.server[box][u]).Digest
	}
}

// pull takes over what the server tells, and tells how much that was.
func (a *account) pull() (did int, err error) {
	gone := make(map[string][]imap.UID)
	for _, box := range boxNames() {
		var rows []ledger.Row
		for _, u := range slices.Sorted(maps.Keys(a.rows[box])) {
			rows = append(rows, ledger.Row{UID: u, State: ledger.Present, Flags: a.rows[box][u].Flags, Key: a.rows[box][u].Key})
		}
		v, messages := a.view(box, rows, a.IntN(2) == 0)
		if !v.Complete && !AddsUp(rows, v, messages) {
			v, messages = a.view(box, rows, true)
		}
		todo := OfServer(rows, v)
		status := &mail.Status{UIDValidity: 1, Messages: uint32(len(a.server[box]))}
		if DoubtOf(ledger.Mailbox{}, status, mail.Status{UIDValidity: 1, Messages: messages}, v, len(todo.Gone), 0, false) == "" {
			gone[box] = todo.Gone
		}
		did += len(todo.Fetch) + len(todo.Flags) + len(gone[box])
		if err := a.reasonsThere(box, todo, gone[box]); err != nil {
			return 0, err
		}
		for _, f := range todo.Flags {
			row := a.rows[box][f.UID]
			if SameFlags(f.Before, f.After) {
				return 0, fmt.Errorf("%s UID %d has its flags already", box, f.UID)
			}
			row.Flags = slices.Clone(f.After)
			a.rows[box][f.UID] = row
			if c := a.here[box][row.Key]; c != nil {
				c.flags = slices.Clone(f.After)
			}
		}
		for u, key := range a.told[box] {
			if !slices.Contains(todo.Fetch, u) {
				a.ruled[box+key] = true
			}
		}
		var listed []mail.Message
		for _, u := range todo.Fetch {
			if _, ok := a.rows[box][u]; ok {
				return 0, fmt.Errorf("%s UID %d is here already", box, u)
			}
			listed = append(listed, a.message(u, a.server[box][u]))
		}
		if a.old[box] != nil {
			listed = a.rematch(box, listed)
		}
		a.take(box, listed)
	}
	for box, uids := range gone {
		for _, u := range uids {
			delete(a.here[box], a.rows[box][u].Key)
			delete(a.rows[box], u)
		}
	}
	return did, nil
}

// take gives new messages their files: those that are here already, links, or their mail.
func (a *account) take(box string, listed []mail.Message) {
	e := Evidence{Told: a.told[box]}
	pairs, ask := Pair(listed, a.scan()[box].Untracked, e)
	for len(ask) > 0 {
		a.texts(box, &e, ask)
		pairs, ask = Pair(listed, a.scan()[box].Untracked, e)
	}
	rest := slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { _, ok := pairs[m.UID]; return ok })
	rows := slices.Clone(a.left)
	for _, b := range boxNames() {
		for _, u := range slices.Sorted(maps.Keys(a.rows[b])) {
			rows = append(rows, a.rows[b][u])
		}
	}
	e = Evidence{Stays: make(map[string]bool), Told: a.told[box]}
	for _, row := range rows {
		e.Stays[row.Key] = row.Mailbox == box || a.server[row.Mailbox][row.UID] != nil
	}
	copies, ask := Copies(rest, rows, e)
	for len(ask) > 0 {
		a.texts(box, &e, ask)
		copies, ask = Copies(rest, rows, e)
	}
	for _, m := range listed {
		c := a.server[box][m.UID]
		s, adopted := pairs[m.UID]
		if !adopted {
			is := c.mail
			if o := a.here[copies[m.UID].Mailbox][copies[m.UID].Key]; o != nil {
				is = o.mail
			}
			s = a.file(box, a.newKey(), &copied{is, c.flags})
			a.here[box][s.Key] = &copied{mail: is}
		}
		a.here[box][s.Key].flags = slices.Clone(c.flags)
		row := s.Message
		delete(a.ruled, box+s.Key)
		row.UID, row.UIDValidity, row.State, row.Size, row.Date, row.Flags = m.UID, 1, ledger.Present, m.Size, m.InternalDate, slices.Clone(c.flags)
		a.rows[box][m.UID] = row
	}
}

// sync is one run.
func (a *account) sync(lie string) (did int, err error) {
	a.lie, a.left = lie, nil
	n, err := a.push()
	if err != nil {
		return 0, err
	}
	m, err := a.pull()
	a.say("sync with the lie %q did %d, %d", lie, n, m)
	return n + m, err
}

// differs says how the sides differ from each other, and from what there is to be.
func (a *account) differs() string {
	have := make(map[int]int)
	for _, box := range boxNames() {
		var there, here []string
		for _, c := range a.server[box] {
			have[c.mail]++
			there = append(there, c.words())
		}
		for _, c := range a.here[box] {
			here = append(here, c.words())
		}
		slices.Sort(there)
		slices.Sort(here)
		if !slices.Equal(there, here) {
			return fmt.Sprintf("%s has %v there and %v here", box, there, here)
		}
		if len(a.rows[box]) != len(here) {
			return fmt.Sprintf("%s has %d rows for %v", box, len(a.rows[box]), here)
		}
	}
	for n := range a.mails {
		if have[n] != a.want[n] {
			return fmt.Sprintf("mail %d is there %d times, want %d", n, have[n], a.want[n])
		}
	}
	return ""
}

// Whatever was agreed on, whatever was changed on either side since, and whatever the
// server says that is not so: nothing that nobody deleted is gone, nothing is doubled,
// both sides are the same in the end, and then there is nothing left to do.
func TestReconcileOfRandomAccounts(t *testing.T) {
	t.Parallel()
	for seed := range accounts() {
		a := newAccount(seed)
		if why := func() string {
			for range 3 {
				if _, err := a.sync(""); err != nil {
					return err.Error()
				}
			}
			for range 3 {
				a.round()
				a.lie = lies()[a.IntN(len(lies()))]
				if a.IntN(4) == 0 && !strings.HasPrefix(a.lie, "omits") && !strings.HasPrefix(a.lie, "no ") { // what cannot be matched then is kept, and sent nowhere
					a.renumber(boxNames()[a.IntN(3)])
				}
				for range a.IntN(6) {
					a.edit(a.IntN(2) == 0)
				}
				lie := a.lie
				for range 1 + a.IntN(3) { // some last
					if _, err := a.sync(lie); err != nil {
						return err.Error()
					}
				}
				for range 3 {
					if _, err := a.sync(""); err != nil {
						return err.Error()
					}
				}
				if why := a.differs(); why != "" {
					return why
				}
				if n, err := a.sync(""); n > 0 || err != nil {
					return fmt.Sprintf("nothing changed, and %d things are done, %v", n, err)
				}
			}
			return ""
		}(); why != "" {
			t.Fatalf("account %d: %s\n%s", seed, why, strings.Join(a.log, "\n"))
		}
	}
}

// The same edits make the same account, on whichever side they were made: moves, copies,
// flags and new mail. Only deletions are not the same by design: what is deleted here goes
// to the Trash there, and what is deleted there is gone here.
func TestReconcileIsTheSameBothWays(t *testing.T) {
	t.Parallel()
	for seed := range accounts() {
		var sides [2]*account
		for i := range sides {
			a := newAccount(seed)
			a.fat, a.gentle = 0, true
			sides[i] = a
			for round := range 3 {
				if _, err := a.sync(""); err != nil {
					t.Fatal(err)
				}
				a.Rand = rand.New(rand.NewPCG(seed, uint64(round)))
				a.round()
				for range a.IntN(6) {
					a.edit(i == 0)
				}
				for range 2 {
					if _, err := a.sync(""); err != nil {
						t.Fatal(err)
					}
				}
				if why := a.differs(); why != "" {
					t.Fatalf("account %d, side %d: %s\n%s", seed, i, why, strings.Join(a.log, "\n"))
				}
			}
		}
		for _, box := range boxNames() {
			var got [2][]string
			for i, a := range sides {
				for _, u := range byMail(a.server[box]) {
					c := a.server[box][u]
					got[i] = append(got[i], c.words())
				}
			}
			if !slices.Equal(got[0], got[1]) {
				t.Fatalf("account %d: %s is %v if edited there, and %v if edited here\n%s\n\n%s", seed, box, got[0], got[1], strings.Join(sides[0].log, "\n"), strings.Join(sides[1].log, "\n"))
			}
		}
	}
}
