package index

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// faultFloor is how many calls of libnotmuch TestEveryCallOfLibnotmuchFails must make
// fail. Fewer mean that some are not counted.
const faultFloor = 60

// answer is what the child that does changes has to say.
type answer struct {
	Err     string   // of Apply
	Results []string // Result.Err of each change
	Reads   []string // of what only reads
	Tagged  []mail.Tagged
}

// faultyChild does the changes in a file and reads what there is then.
func faultyChild(ctx context.Context, x *Index, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var changes []mail.Change
	if err := json.Unmarshal(text, &changes); err != nil {
		return err
	}
	var a answer
	say := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	results, err := x.Apply(ctx, changes)
	a.Err = say(err)
	for _, r := range results {
		a.Results = append(a.Results, say(r.Err))
	}
	_, tagged, _, err := x.Changes(ctx, mail.Revision{}, x.MailRoot())
	a.Tagged, a.Reads = tagged, append(a.Reads, say(err))
	n, err := x.Count(ctx, "*")
	if err == nil && n != len(tagged) && a.Reads[0] == "" {
		err = fmt.Errorf("%d messages, of which %d are told", n, len(tagged))
	}
	a.Reads = append(a.Reads, say(err))
	return json.NewEncoder(os.Stdout).Encode(a)
}

// errors are all that it says failed.
func (a answer) errors() []string {
	return slices.DeleteFunc(slices.Concat([]string{a.Err}, a.Results, a.Reads), func(s string) bool { return s == "" })
}

// left are the changes that are to be done again.
func (a answer) left(changes []mail.Change) []mail.Change {
	if a.Err != "" {
		return changes
	}
	var out []mail.Change
	for i, c := range changes {
		if a.Results[i] != "" {
			out = append(out, c)
		}
	}
	return out
}

// faulty is a database with some mail, and changes of each kind to it.
func faulty(w *world) []mail.Change {
	path := func(name string) string { return filepath.Join(w.root, "work", name) }
	w.deliver("work/cur/a:2,", "a@x")
	w.deliver("work/cur/b:2,S", "b@x")
	w.deliver("work/new/stub", "stub@x")
	w.deliver("work/cur/gone:2,S", "gone@x")
	w.deliver("work/cur/twin:2,S", "b@x")
	w.deliver("work/cur/seen:2,S", "seen@x")
	w.notmuch("new")
	w.notmuch("tag", "+mine", "--", "id:a@x", "or", "id:stub@x", "or", "id:b@x")
	w.deliver("work/new/new", "new@x")
	w.deliver("work/new/real", "real@x")
	w.deliver("work/cur/second:2,F", "a@x")
	for _, err := range []error{os.Remove(path("cur/gone:2,S")), os.Rename(path("cur/seen:2,S"), path("cur/seen:2,FS"))} {
		if err != nil {
			w.Fatal(err)
		}
	}
	return []mail.Change{
		{Op: mail.OpAdd, Path: path("new/new"), ID: "new@x", New: []string{"unread", "inbox"}, Add: []string{"rule"}},
		{Op: mail.OpAdd, Path: path("cur/second:2,F"), ID: "a@x", New: []string{"unread", "inbox"}},
		{Op: mail.OpReplace, Path: path("new/real"), OldPath: path("new/stub"), ID: "real@x", New: []string{"unread", "inbox"}, Remove: []string{"failed"}},
		{Op: mail.OpFlag, Path: path("cur/b:2,S"), ID: "b@x", Add: []string{"flagged"}, Set: "F"},
		{Op: mail.OpFlag, Path: path("cur/seen:2,FS"), ID: "seen@x", Add: []string{"replied"}, Set: "R"},
		{Op: mail.OpRemove, Path: path("cur/gone:2,S"), ID: "gone@x"},
		{Op: mail.OpReindex, Path: path("cur/b:2,S"), ID: "b@x"},
	}
}

// end is what notmuch has in the end, without where.
func (w *world) end() string {
	lines := strings.Split(strings.ReplaceAll(w.notmuch("dump", "--format=sup")+"\n"+w.notmuch("search", "--output=files", "*"), w.root, ""), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// do lets another process do the changes, with the call number at failing.
func (w *world) do(shim string, at, status int, changes []mail.Change) (a answer, calls int, name string) {
	w.Helper()
	text, err := json.Marshal(changes)
	if err != nil {
		w.Fatal(err)
	}
	file, log := filepath.Join(w.dir, "changes"), filepath.Join(w.dir, "log")
	w.write(file, string(text))
	exe, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(exe, w.config, file)
	cmd.Env = append(cleanEnv(), "HOME="+w.dir, childEnv+"=faulty", "LD_PRELOAD="+shim, "FAULT_AT="+strconv.Itoa(at), "FAULT_STATUS="+strconv.Itoa(status), "FAULT_LOG="+log)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	said, e := os.ReadFile(log)
	if e != nil {
		w.Fatal(e)
	}
	if _, err := fmt.Sscan(string(said), &calls, &name); err != nil {
		w.Fatal(err)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return answer{Err: stderr.String()}, calls, name // it could not even be opened
	}
	if err != nil {
		w.Fatalf("%d %s: %v: %s", at, name, err, stderr.String())
	}
	if err := json.Unmarshal(out, &a); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	return a, calls, name
}

// Each call of libnotmuch is made to fail, one at a time, while changes of every kind
// are done and what there is is read. Either that is told of all or of the change that
// it cost, or it cost nothing; and when what was told to have failed is done again, all
// is as if nothing had failed.
func TestEveryCallOfLibnotmuchFails(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	shim := filepath.Join(t.TempDir(), "faults.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", shim, filepath.Join("testdata", "faults.c"), "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := newWorld(t)
	changes := faulty(whole)
	a, calls, _ := whole.do(shim, 0, 0, changes)
	if len(a.errors()) > 0 || calls < faultFloor {
		t.Fatalf("%d calls, %q", calls, a.errors())
	}
	want, told := whole.end(), sansRoot(whole, a.Tagged)
	for at := 1; at <= calls; at += share.Pace() {
		t.Run(strconv.Itoa(at), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			changes := faulty(w)
			status := 1 + at%4 // OUT_OF_MEMORY, READ_ONLY_DATABASE, XAPIAN_EXCEPTION, FILE_ERROR
			a, _, name := w.do(shim, at, status, changes)
			if name == "none" {
				t.Fatal("not met")
			}
			if len(a.errors()) == 0 {
				if got := w.end(); got != want {
					t.Errorf("%d of %s passes for success:\n%s\nis not\n%s", status, name, got, want)
				}
				if got := sansRoot(w, a.Tagged); got != told {
					t.Errorf("%d of %s passes for success: it tells\n%s\nnot\n%s", status, name, got, told)
				}
			}
			if left := a.left(changes); len(left) > 0 {
				if again, _, _ := w.do(shim, 0, 0, left); len(again.errors()) > 0 {
					t.Errorf("after %d of %s: %q", status, name, again.errors())
				}
			}
			if got := w.end(); got != want {
				t.Errorf("after %d of %s, told as %q, there is\n%s\nnot\n%s", status, name, a.errors(), got, want)
			}
		})
	}
}

func sansRoot(w *world, tagged []mail.Tagged) string {
	slices.SortFunc(tagged, func(a, b mail.Tagged) int { return strings.Compare(a.ID, b.ID) })
	return strings.ReplaceAll(fmt.Sprint(tagged), w.root, "")
}
