package cmd

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// simulated is a copy of a mail as it is to be in the end.
type simulated struct {
	*letter
	box           string
	touched       bool // since all was at rest
	seen, flagged bool
	twice         bool // a machine has it in two files
}

// letter is a mail, which may be there in several copies. One actor at a time changes it, and
// moves one of its copies, so that what is right is never a matter of opinion.
type letter struct {
	raw, id, actor string
	moves          *simulated
	todo           bool // it has that tag, which is a keyword there
}

// simulation is two machines and a phone on one account.
type simulation struct {
	t        *testing.T
	r        *rand.Rand
	s        *imaptest.DovecotServer
	machines map[string]*world
	mails    []*simulated
	made     int // so many mails
	log      []string
	stops    map[string]int
	mu       sync.Mutex
	conns    []net.Conn
}

var simulatedBoxes = [...]string{"INBOX", "Work", "Archive", "Trash"} //nolint:gochecknoglobals // a constant, which Go has none of

// elsewhere gives a mailbox that has no copy of the mail.
func (s *simulation) elsewhere(m *simulated) (box string, ok bool) {
	copies := s.copies(m)
	others := slices.DeleteFunc(slices.Clone(simulatedBoxes[:3]), func(b string) bool {
		return slices.ContainsFunc(copies, func(c *simulated) bool { return c.box == b })
	})
	if len(others) == 0 {
		return "", false
	}
	return others[s.r.IntN(len(others))], true
}

// copies are all that there are of the mail.
func (s *simulation) copies(m *simulated) []*simulated {
	return slices.DeleteFunc(slices.Clone(s.mails), func(c *simulated) bool { return c.letter != m.letter })
}

// edit lets one of them change something. It tells whether it did.
func (s *simulation) edit() bool {
	actor := []string{"one", "two", "phone"}[s.r.IntN(3)]
	if s.r.IntN(5) == 0 || len(s.mails) < 6 {
		s.create(actor)
		return true
	}
	m, what := s.mails[s.r.IntN(len(s.mails))], s.r.IntN(toCount)
	if m.actor != "" && m.actor != actor || m.box == "Trash" {
		return false
	}
	to, ok := s.elsewhere(m)
	w := s.machines[actor]
	switch what {
	case toFlag, toSeen, toKeyword:
		to, ok = m.box, true
	case toTrash, toFlagAndTrash:
		to, ok = "Trash", true
	case toRule:
		to, ok = "Archive", w != nil && m.box == "INBOX"
	case toExpunge:
		to, ok = "", w == nil
	}
	single := len(s.copies(m)) == 1 // what is tagged are all copies of a mail
	switch what {
	case toKeyword:
		ok = ok && single
	case toRule:
		ok = ok && single && m.actor == ""
	case toTrash, toFlagAndTrash, toCopy, toExpunge:
		ok = ok && !m.touched // what was done to a file that is deleted at once nobody can know
	}
	from, moves := m.box, to != m.box
	if !ok || moves && m.moves != nil && m.moves != m {
		return false
	}
	switch {
	case w == nil:
		ok = s.editThere(m, what, to)
	case what == toRule:
		ok = s.orders(w, m)
	case what == toKeyword:
		ok = s.keyword(w, m)
	default:
		ok = s.editFile(w, m, what, to)
	}
	if !ok {
		return false
	}
	if m.actor, m.touched = actor, true; moves {
		m.moves = m
	}
	switch what {
	case toFlag:
		m.flagged = !m.flagged
	case toSeen:
		m.seen = !m.seen
	case toKeyword:
		m.todo = !m.todo
	case toCopy:
		c := *m
		c.box, c.twice = to, false
		s.mails = append(s.mails, &c)
	case toExpunge:
		s.mails = slices.DeleteFunc(s.mails, func(c *simulated) bool { return c == m })
	default:
		m.box = to
	}
	s.note("%s: %s of %s in %s to %s", actor, editNames[what], m.id, from, to)
	return true
}

// What is done with a mail.
const (
	toFlag         = iota // or to take its flag off
	toSeen                // or unseen
	toKeyword             // or to take it off
	toMove                // to another mailbox
	toMoveAnew            // and under a new name
	toTrash               // by deletion
	toFlagAndTrash        // before anybody saw the flag
	toCopy                // into another mailbox
	toRule                // to where a tag sends it
	toExpunge             // by the phone
	toCount
)

var editNames = [...]string{"flag", "seen", "keyword", "move", "move anew", "trash", "flag and trash", "copy", "rule", "expunge"} //nolint:gochecknoglobals // a constant, as above

// create lets one of them put a new mail somewhere: a machine once or, as by a key pressed
// twice, twice, and perhaps with a tag before anything of it went to the server.
func (s *simulation) create(actor string) {
	m := &simulated{letter: &letter{raw: rawDovecot(s.made), id: fmt.Sprintf("d%d@example.org", s.made), actor: actor}, box: simulatedBoxes[s.r.IntN(3)], touched: true}
	s.mails, s.made, m.moves = append(s.mails, m), s.made+1, m
	w := s.machines[actor]
	if w == nil {
		appendAll(s.t, s.s, m.box, m.raw)
		s.note("phone: %s is new in %s", m.id, m.box)
		return
	}
	m.seen = true
	cur := filepath.Join(w.index.MailRoot(), "work", m.box, "cur")
	if err := os.MkdirAll(cur, 0o700); err != nil {
		s.t.Fatal(err)
	}
	w.put(m.box, m.raw, "S")
	if m.twice = s.r.IntN(4) == 0; m.twice {
		name := fmt.Sprintf("1700000002.R%d.mutt:2,S", s.r.Uint64())
		if err := os.WriteFile(filepath.Join(cur, name), []byte(strings.ReplaceAll(m.raw, "\r\n", "\n")), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	if m.todo = s.r.IntN(3) == 0; m.todo {
		w.notmuch("new")
		w.notmuch("tag", "+todo", "--", "id:"+m.id)
	}
	s.note("%s: %s is new in %s, twice: %v, todo: %v", actor, m.id, m.box, m.twice, m.todo)
}

// orders tags a mail so that the rule moves it.
func (s *simulation) orders(w *world, m *simulated) bool {
	if m.box != "INBOX" {
		return false
	}
	w.notmuch("new")
	path := filepath.Join(w.index.MailRoot(), "work", "INBOX") + "/"
	if !strings.Contains(w.notmuch("search", "--output=files", "--exclude=false", "id:"+m.id), path) {
		return false // it is not here yet
	}
	w.notmuch("tag", "+file", "--", "id:"+m.id)
	return true
}

// keyword tags a mail, or takes the tag off, if it is here with its tag as it is.
func (s *simulation) keyword(w *world, m *simulated) bool {
	w.notmuch("new")
	here := func(query string) bool {
		return strings.TrimSpace(w.notmuch("count", "--exclude=false", "id:"+m.id+query)) == "1"
	}
	if !here("") || here(" and tag:todo") != m.todo {
		return false
	}
	sign := map[bool]string{true: "-", false: "+"}[m.todo]
	w.notmuch("tag", sign+"todo", "--", "id:"+m.id)
	return true
}

// policy is what the machines' configuration wants.
func simulatedPolicy(o *pipeline.Options) {
	o.Keywords = []string{"todo"}
	o.Moves = []pipeline.Move{{From: "INBOX", To: "Archive", With: "file"}}
}

func (s *simulation) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// editFile does it to the files of a mail on a machine.
func (s *simulation) editFile(w *world, m *simulated, what int, to string) bool {
	files, _ := w.mails(m.box)
	var paths []string
	for _, path := range slices.Sorted(maps.Keys(files)) {
		_, letters, _ := strings.Cut(filepath.Base(path), ":2,")
		if files[path] != strings.ReplaceAll(m.raw, "\r\n", "\n") {
			continue
		}
		if what <= toSeen && (m.flagged != strings.Contains(letters, "F") || m.seen != strings.Contains(letters, "S")) {
			return false // it was changed elsewhere, and is not here yet
		}
		paths = append(paths, path)
	}
	if what == toCopy && len(paths) > 0 {
		paths = paths[:1]
	}
	for _, path := range paths {
		key, letters, _ := strings.Cut(filepath.Base(path), ":2,")
		dir := filepath.Dir(filepath.Dir(path))
		cur := filepath.Join(filepath.Dir(dir), to, "cur")
		err := os.MkdirAll(cur, 0o700)
		switch {
		case err != nil:
		case what == toFlag, what == toSeen:
			letter, has := "F", m.flagged
			if what == toSeen {
				letter, has = "S", m.seen
			}
			if letters = strings.ReplaceAll(letters, letter, ""); !has {
				sorted := []byte(letters + letter)
				slices.Sort(sorted)
				letters = string(sorted)
			}
			err = os.Rename(path, filepath.Join(dir, "cur", key+":2,"+letters))
		case what == toTrash:
			err = os.Remove(path)
		case what == toFlagAndTrash:
			flagged := filepath.Join(dir, "cur", key+":2,F"+strings.ReplaceAll(letters, "F", ""))
			if err = os.Rename(path, flagged); err == nil {
				err = os.Remove(flagged)
			}
		case what == toCopy:
			err = os.WriteFile(filepath.Join(cur, fmt.Sprintf("1700000003.R%d.mutt:2,%s", s.r.Uint64(), letters)), []byte(files[path]), 0o600)
		default:
			if what == toMoveAnew {
				key = fmt.Sprintf("1700000000.R%d.mutt", s.r.Uint64())
			}
			err = os.Rename(path, filepath.Join(cur, key+":2,"+letters))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return len(paths) > 0
}

// editThere does it to the message on the server.
func (s *simulation) editThere(m *simulated, what int, to string) bool {
	out, err := s.s.Command("SELECT "+m.box, "UID SEARCH HEADER Message-ID "+m.id)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range out {
		if uid, ok := strings.CutPrefix(line, "* SEARCH "); ok && len(strings.Fields(uid)) == 1 {
			store := func(has bool, flag string) string {
				return "UID STORE " + uid + " " + map[bool]string{true: "-", false: "+"}[has] + "FLAGS (" + flag + ")"
			}
			does := []string{"SELECT " + m.box, "UID MOVE " + uid + " " + to}
			switch what {
			case toFlag:
				does[1] = store(m.flagged, `\Flagged`)
			case toSeen:
				does[1] = store(m.seen, `\Seen`)
			case toKeyword:
				does[1] = store(m.todo, "todo")
			case toCopy:
				does[1] = "UID COPY " + uid + " " + to
			case toExpunge:
				does = append(does[:1], store(false, `\Deleted`), "UID EXPUNGE "+uid)
			}
			command(s.t, s.s, does...)
			return true
		}
	}
	return false
}

// run syncs a machine, whole or disturbed.
func (s *simulation) run(name string) {
	w := s.machines[name]
	how, at := []string{"whole", "killed", "stopped", "box", "cut"}[s.r.IntN(5)], 1+s.r.IntN(30)
	s.note("%s: %s %d", name, how, at)
	s.stops[how]++
	if how == "killed" {
		killedAt(s.t, w, s.s.Addr(), at, 0)
		return
	}
	if how == "stopped" {
		stoppedAt(w, at)
		return
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), tooLong)
	if how == "box" {
		ctx, cancel = context.WithTimeout(s.t.Context(), time.Duration(at)*5*time.Millisecond)
	}
	defer cancel()
	l, err := ledger.Open(s.t.Context(), w.state())
	if err != nil {
		s.t.Fatal(err)
	}
	o, n := w.options(l), 0
	s.conns = nil
	o.Step = func(string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n++; how == "cut" && n == at {
			for _, c := range s.conns {
				_ = c.Close()
			}
		}
	}
	if _, err := pipeline.Sync(ctx, o); err != nil && ctx.Err() == nil {
		s.t.Error(err)
	}
	if err := l.Close(); err != nil {
		s.t.Error(err)
	}
}

// settle brings all to rest, and compares.
func (s *simulation) settle() {
	for quiet, round := 0, 0; quiet < 2 && round < 10; round++ {
		for _, name := range []string{"one", "two"} {
			w := s.machines[name]
			rep := w.sync()
			w.notmuch("new")
			if quiet++; !rep.Clean() || rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed > 0 {
				quiet = 0
			}
			if round == 9 {
				s.t.Errorf("%s does not come to rest: %+v", name, rep)
			}
		}
	}
	for _, w := range s.machines {
		for _, box := range simulatedBoxes {
			var want []string
			for _, m := range s.mails {
				if m.box == box {
					want = append(want, m.raw)
				}
			}
			s.holds(w, box, want)
		}
		for _, m := range s.mails {
			s.lettered(w, m)
		}
		for _, tag := range []string{"flagged", "unread", "todo"} {
			var want []string
			for _, m := range s.mails { // as notmuch has it of the files: a flag of any of them counts
				copies := s.copies(m)
				flagged := slices.ContainsFunc(copies, func(c *simulated) bool { return c.flagged })
				seen := slices.ContainsFunc(copies, func(c *simulated) bool { return c.seen })
				if tag == "flagged" && flagged || tag == "unread" && !seen || tag == "todo" && m.todo {
					want = append(want, "id:"+m.id)
				}
			}
			got := strings.Fields(w.notmuch("search", "--output=messages", "--exclude=false", "tag:"+tag))
			slices.Sort(got)
			if slices.Sort(want); !slices.Equal(got, slices.Compact(want)) {
				s.t.Errorf("%s: %q, want %q", tag, got, want)
			}
		}
		if r := w.verified(); r.Compared != len(s.mails) {
			s.t.Errorf("%d messages were compared, there are %d", r.Compared, len(s.mails))
		}
	}
	for _, m := range s.mails {
		m.actor, m.moves, m.touched = "", nil, false
	}
}

// lettered wants a file of a mail to have its flags.
func (s *simulation) lettered(w *world, m *simulated) {
	var has []string
	mails, _ := w.mails(m.box)
	for path, raw := range mails {
		if raw == strings.ReplaceAll(m.raw, "\r\n", "\n") {
			_, letters, _ := strings.Cut(filepath.Base(path), ":2,")
			has = append(has, letters)
			if m.flagged == strings.Contains(letters, "F") && m.seen == strings.Contains(letters, "S") {
				return
			}
		}
	}
	s.t.Errorf("%s: %s in %s has the letters %q, flagged %v, seen %v", w.dir, m.id, m.box, has, m.flagged, m.seen)
}

// holds wants a folder to have these mails, each of them in at least one file.
func (s *simulation) holds(w *world, box string, want []string) {
	has := make(map[string]bool)
	mails, _ := w.mails(box)
	for path, raw := range mails {
		if has[raw] = true; !slices.Contains(want, strings.ReplaceAll(raw, "\n", "\r\n")) {
			s.t.Errorf("%s is one too many: %.60q", path, raw)
		}
	}
	for _, raw := range want {
		if !has[strings.ReplaceAll(raw, "\r\n", "\n")] {
			s.t.Errorf("%s: %s lacks %.60q", w.dir, box, raw)
		}
	}
}

// Two machines and a phone change the mail of one account at random, and the machines'
// syncs are killed, stopped, cut off from the server and ended by a time box, while the
// changes go on: nothing is lost, nothing is doubled, and no tag is wrong. EDITS says how
// many changes there are.
func TestTwoMachinesAndAPhoneAtRandom(t *testing.T) {
	t.Parallel()
	s := &simulation{t: t, s: dovecot(t), machines: make(map[string]*world), stops: make(map[string]int)}
	edits := 60
	if n, err := strconv.Atoi(os.Getenv("EDITS")); err == nil {
		edits = n
	}
	seed, _ := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	s.r = rand.New(rand.NewPCG(seed, 12))
	for _, box := range simulatedBoxes[1:] {
		_, _ = s.s.Command("CREATE " + box) // it may be there
	}
	for _, name := range []string{"one", "two"} {
		w := newWorld(t, s.s.Addr(), s.s.User, s.s.Password)
		w.remote.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			s.mu.Lock()
			defer s.mu.Unlock()
			if err == nil {
				s.conns = append(s.conns, c)
			}
			return c, err
		}
		w.policy = simulatedPolicy
		w.sync() // what is here before the first sync stays here
		s.machines[name] = w
	}
	done, epochs := 0, 0
	for done < edits && !t.Failed() {
		for range 20 {
			if s.r.IntN(5) < 4 {
				if s.edit() {
					done++
				}
			} else {
				s.run([]string{"one", "two"}[s.r.IntN(2)])
			}
		}
		epochs++
		s.settle()
	}
	t.Logf("%d changes of %d mails in %d epochs, runs %v, seed %d", done, len(s.mails), epochs, s.stops, seed)
	if t.Failed() {
		t.Log(strings.Join(s.log, "\n"))
	}
}
