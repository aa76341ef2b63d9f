package index

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	notmuch "github.com/zenhack/go.notmuch"
)

// shardProcess has this binary make a shard.
func shardProcess(ctx context.Context, dir, shard string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], dir, shard)
	cmd.Env = append(cleanEnv(), childEnv+"=shard", "HOME="+dir)
	return cmd
}

// rebuild rebuilds the world's database in this many processes.
func (w *world) rebuild(workers int) Rebuilt {
	w.Helper()
	r, err := w.x.Rebuild(context.Background(), RebuildOptions{Workers: workers, Worker: shardProcess})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// run runs one of Xapian's programs.
func (w *world) run(name string, args ...string) string {
	w.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		w.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// threads gives the threads of the database as sets of messages.
func (w *world) threads() []string {
	w.Helper()
	ids, err := w.x.Search(context.Background(), "*", 0)
	if err != nil {
		w.Fatal(err)
	}
	of := make(map[string][]string)
	err = w.x.records(context.Background(), ids, func(r record) error {
		of[r.Thread] = append(of[r.Thread], r.ID)
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for ids := range maps.Values(of) {
		slices.Sort(ids)
		out = append(out, strings.Join(ids, " "))
	}
	slices.Sort(out)
	return out
}

var (
	threadName    = regexp.MustCompile(`thread:[0-9a-f]{16} `)
	threadTerm    = regexp.MustCompile(`^G[0-9a-f]{16} `)
	directoryTerm = regexp.MustCompile(`^X(F|D)DIRENTRY[0-9]+:`)
)

// holds is all that a database holds, in lines: each term with how often it is there, those with numbers of
// threads and directories without them; what `notmuch dump` says, and the threads.
func (w *world) holds() string {
	w.Helper()
	var out []string
	for line := range strings.Lines(w.run("xapian-delve", "-a", "-v", "-1", w.x.DatabasePath())) {
		line = threadTerm.ReplaceAllString(line, "G* ")
		out = append(out, directoryTerm.ReplaceAllString(line, "X${1}DIRENTRY*:"))
	}
	out = append(out, strings.SplitAfter(w.notmuch("dump")+"\n", "\n")...)
	summaries := w.notmuch("search", "--exclude=false", "--sort=oldest-first", "*") + "\n"
	out = append(out, strings.SplitAfter(threadName.ReplaceAllString(summaries, ""), "\n")...)
	slices.Sort(out)
	return strings.Join(out, "") + "\n" + strings.Join(w.threads(), "\n")
}

// equals asserts that a database is what it was.
func (w *world) equals(before string) {
	w.Helper()
	if got := w.holds(); got != before {
		w.Errorf("the database is another one:\n%s", difference(before, got))
	}
}

// difference gives the lines that are in one of them alone.
func difference(a, b string) string {
	count := make(map[string]int)
	for l := range strings.SplitSeq(a, "\n") {
		count[l]--
	}
	for l := range strings.SplitSeq(b, "\n") {
		count[l]++
	}
	var out []string
	for l, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d %s", n, l))
		}
	}
	slices.Sort(out)
	return strings.Join(out[:min(len(out), 40)], "\n")
}

// whole asserts that Xapian and notmuch find nothing amiss with the database.
func (w *world) whole() {
	w.Helper()
	w.quiet()
	w.sound()
}

// sound asserts that Xapian finds nothing amiss.
func (w *world) sound() {
	w.Helper()
	if out := w.run("xapian-check", w.x.DatabasePath()); !strings.Contains(out, "No errors found") {
		w.Errorf("xapian-check: %s", out)
	}
}

// generate writes n messages with threads, some of whose mails are not here, several files to
// a message, duplicates of ids with other words, and mails without any id.
func (w *world) generate(n int, seed uint64) {
	w.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega")
	folders := []string{"work", "work/lists", "home", "home/a/deep/one", "old ü", "caf\xe9"}
	for i := range n {
		var b strings.Builder
		fmt.Fprintf(&b, "From: %s <%s@example.org>\nTo: b@example.org\nDate: %s, %02d Jan 2015 10:%02d:00 +0000\n", words[rnd.IntN(24)], words[rnd.IntN(24)],
			[]string{"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"}[(i/60)%7], 1+(i/60)%28, i%60)
		if rnd.IntN(40) > 0 {
			fmt.Fprintf(&b, "Message-ID: <m%d@example.org>\n", i)
		}
		subject := words[rnd.IntN(24)]
		if i > 0 && rnd.IntN(3) > 0 { // a reply, at times to what is not here
			to := fmt.Sprintf("m%d@example.org", max(0, i-1-rnd.IntN(60)))
			if rnd.IntN(6) == 0 {
				to = fmt.Sprintf("gone%d@example.org", rnd.IntN(n/10+1))
			}
			subject = "Re: " + subject
			if rnd.IntN(2) == 0 {
				fmt.Fprintf(&b, "References: <gone%d@example.org>\n\t<%s>\n", rnd.IntN(n), to)
			}
			fmt.Fprintf(&b, "In-Reply-To: <%s>\n", to)
		}
		fmt.Fprintf(&b, "Subject: %s\n\n", subject)
		for range 20 {
			b.WriteString(words[rnd.IntN(24)] + " ")
		}
		b.WriteString("\n")
		for copies := 1; copies < 4; copies++ {
			folder := folders[rnd.IntN(len(folders))]
			name := fmt.Sprintf("cur/%d.%d:2,%s", i, copies, []string{"", "S", "FS", "RS"}[rnd.IntN(4)])
			if rnd.IntN(8) == 0 {
				name = fmt.Sprintf("new/%d.%d", i, copies)
			}
			w.write(filepath.Join(w.root, folder, name), b.String())
			if rnd.IntN(8) > 0 {
				break
			}
			b.WriteString("Another copy, of a list.\n")
		}
	}
}

// A rebuilt database is the one that libnotmuch has made of the same files, term by term.
func TestARebuiltDatabaseIsTheOneThatWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.generate(600, 7)
	w.write(filepath.Join(w.root, "no", "cur", "mail"), "not\na mail")
	w.write(filepath.Join(w.root, "loose"), mailText("loose@x"))
	w.notmuch("new", "--quiet")
	w.notmuch("config", "set", "--database", "index.header.Again", "X-Again")
	w.notmuch("tag", "+to do", "+a%b", "-inbox", "--", "from:alpha")
	w.notmuch("tag", "--remove-all", "--", "from:beta")
	w.property("m1@example.org", "mine", "a b=c")
	w.property("m2@example.org", sessionKey, "9:AA")
	before := w.holds()
	w.rebuild(3)
	w.equals(before)
	w.whole()
}

// realMail writes the mails that are read by the tests of internal/mail, with all that is odd
// about them.
func (w *world) realMail() {
	w.Helper()
	files, err := filepath.Glob("../mail/testdata/mail/*")
	if err != nil || len(files) == 0 {
		w.Fatal("no mail", err)
	}
	for i, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			w.Fatal(err)
		}
		w.write(filepath.Join(w.root, fmt.Sprintf("box%d", i%3), "cur", fmt.Sprintf("%d:2,S", i)), string(text))
	}
}

// The same of real mails.
func TestADatabaseOfRealMailIsRebuilt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.realMail()
	w.notmuch("new", "--quiet")
	before := w.holds()
	w.rebuild(3)
	w.equals(before)
	w.whole()
}

// What comes after a rebuild is what would have come before: a mail joins the threads of two
// processes, files get other names and go, and all can be read again and compacted.
func TestARebuiltDatabaseGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "maildir.synchronize_flags=false")
	w.generate(250, 12)
	w.notmuch("new", "--quiet")
	w.rebuild(2)
	var two []string // of two threads, numbered in two processes
	err := w.x.records(t.Context(), strings.Fields(strings.ReplaceAll(w.notmuch("search", "--output=messages", "*"), "id:", "")), func(r record) error {
		if len(two) == 0 || len(two) == 1 && r.Thread[:8] != thread(w, two[0])[:8] {
			two = append(two, r.ID)
		}
		return nil
	})
	if err != nil || len(two) != 2 {
		t.Fatal("no threads of two processes", two, err)
	}
	w.write(filepath.Join(w.root, "work", "new", "joins"), fmt.Sprintf("From: a\nSubject: joins\nMessage-ID: <joins@x>\nReferences: <%s> <%s>\n\nboth\n", two[0], two[1]))
	w.write(filepath.Join(w.root, "work", "new", "alone"), mailText("alone@x"))
	others := fmt.Sprintf(" not (id:%s or id:%s)", two[0], two[1])
	w.rename(w.notmuch("search", "--output=files", "--limit=1", "folder:work"+others), "home/cur/renamed:2,S")
	if err := os.Remove(w.notmuch("search", "--output=files", "--limit=1", "folder:home"+others)); err != nil {
		t.Fatal(err)
	}
	w.notmuch("new", "--quiet")
	if a, b := thread(w, two[0]), thread(w, two[1]); a != b {
		t.Errorf("the threads %s and %s are not one", a, b)
	}
	w.count("thread:"+thread(w, "alone@x"), 1)
	w.whole()
	before := w.holds()
	w.notmuch("reindex", "*")
	w.notmuch("compact", "--quiet")
	w.equals(before)
	w.whole()
}

// thread gives the thread of a message.
func thread(w *world, id string) (name string) {
	w.Helper()
	err := w.x.records(context.Background(), []string{id}, func(r record) error {
		name = r.Thread
		return nil
	})
	if err != nil || name == "" {
		w.Fatal("no thread of", id, err)
	}
	return name
}

// property gives a message a property.
func (w *world) property(id, key, value string) {
	w.Helper()
	err := w.x.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		m, err := find(db.FindMessage(id))
		if err != nil {
			return err
		}
		defer func() { _ = m.Close() }()
		return m.AddProperty(key, value)
	})
	if err != nil {
		w.Fatal(err)
	}
}
