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

// simulated is a mail as it is to be in the end. One actor at a time changes it, so that
// what is right is never a matter of opinion.
type simulated struct {
	raw, id, box, actor string
	seen, flagged       bool
	todo                bool // it has that tag, which is a keyword there
	still               bool // nothing is done with it any more
	twice               bool // a machine has it in two files
}

// simulation is two machines and a phone on one account.
type simulation struct {
	t        *testing.T
	r        *rand.Rand
	s        *imaptest.DovecotServer
	machines map[string]*world
	mails    []*simulated
	log      []string
	stops    map[string]int
	mu       sync.Mutex
	conns    []net.Conn
}

var simulatedBoxes = [...]string{"INBOX", "Work", "Archive", "Trash"} //nolint:gochecknoglobals // a constant, which Go has none of

func (m *simulated) mailbox(r *rand.Rand) string {
	others := slices.DeleteFunc(slices.Clone(simulatedBoxes[:3]), func(b string) bool { return b == m.box })
	return others[r.IntN(len(others))]
}

// edit lets one of them change something. It tells whether it did.
func (s *simulation) edit() bool {
	actor := []string{"one", "two", "phone"}[s.r.IntN(3)]
	if s.r.IntN(5) == 0 || len(s.mails) < 6 {
		s.create(actor)
		return true
	}
	m := s.mails[s.r.IntN(len(s.mails))]
	if m.actor != "" && m.actor != actor || m.box == "Trash" || m.still {
		return false
	}
	to, what := m.mailbox(s.r), s.r.IntN(toCount)
	w := s.machines[actor]
	if m.twice && what == toFlag {
		return false
	}
	switch what {
	case toTrash, toFlagAndTrash:
		to = "Trash"
		fallthrough
	case toCopy, toRule:
		if m.actor != "" {
			return false // what was done to a file that is deleted at once nobody can know
		}
	}
	if what == toRule {
		to = "Archive"
	}
	switch {
	case w == nil && what == toRule:
		return false
	case w == nil && !s.editThere(m, what, to):
		return false
	case w != nil && what == toRule && !s.orders(w, m):
		return false
	case w != nil && what != toRule && !s.editFile(w, m, what, to):
		return false
	}
	switch m.actor = actor; what {
	case toFlag:
		m.flagged = !m.flagged
	case toCopy:
		m.still = true
		c := *m
		c.box = to
		s.mails = append(s.mails, &c)
	default:
		m.box = to
	}
	s.note("%s: %d of %s to %s", actor, what, m.id, to)
	return true
}

// What is done with a mail.
const (
	toFlag         = iota // or to take its flag off
	toMove                // to another mailbox
	toMoveAnew            // and under a new name
	toTrash               // by deletion
	toFlagAndTrash        // before anybody saw the flag
	toCopy                // into another mailbox
	toRule                // to where a tag sends it
	toCount
)

// create lets one of them put a new mail somewhere: a machine once or, as by a key pressed
// twice, twice, and perhaps with a tag before anything of it went to the server.
func (s *simulation) create(actor string) {
	m := &simulated{raw: rawDovecot(len(s.mails)), id: fmt.Sprintf("d%d@example.org", len(s.mails)), box: simulatedBoxes[s.r.IntN(3)], actor: actor}
	s.mails = append(s.mails, m)
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
		if what == toFlag && (m.flagged != strings.Contains(letters, "F") || m.seen != strings.Contains(letters, "S")) {
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
		case what == toFlag:
			if letters = strings.ReplaceAll(letters, "F", ""); !m.flagged {
				letters = "F" + letters
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
			sign := map[bool]string{true: "-", false: "+"}[m.flagged]
			does := "UID MOVE " + uid + " " + to
			switch what {
			case toFlag:
				does = "UID STORE " + uid + " " + sign + `FLAGS (\Flagged)`
			case toCopy:
				does = "UID COPY " + uid + " " + to
			}
			command(s.t, s.s, "SELECT "+m.box, does)
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
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
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
		for _, tag := range []string{"flagged", "unread", "todo"} {
			var want []string
			for _, m := range s.mails {
				if tag == "flagged" && m.flagged || tag == "unread" && !m.seen || tag == "todo" && m.todo {
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
		m.actor = ""
	}
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
