package index

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	notmuch "github.com/zenhack/go.notmuch"
	"go.uber.org/goleak"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// The test binary is also the other program of the tests about other programs.
const childEnv = "INDEX_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := child(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func child(role string, args []string) error {
	ctx := context.Background()
	if role == "shard" {
		return BuildShard(ctx, args[0], args[1], os.Stdin, os.Stdout)
	}
	o := Options{Note: func(s string) { fmt.Println("note:", s) }}
	if len(args) > 0 {
		o.Config = args[0]
	}
	x, err := Open(ctx, o)
	if err != nil {
		return err
	}
	switch role {
	case "where":
		fmt.Println("root:", x.MailRoot())
		fmt.Println("database:", x.DatabasePath())
		results, err := x.Apply(ctx, []mail.Change{{Op: mail.OpAdd, Path: filepath.Join(x.MailRoot(), "new", "1")}})
		if err != nil {
			return err
		}
		if err := results[0].Err; err != nil {
			return err
		}
		n, err := x.Count(ctx, "*")
		fmt.Println("count:", n)
		return err
	case "hold": // the write lock, until standard input ends
		db, err := x.open(notmuch.DBReadWrite)
		if err != nil {
			return err
		}
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return db.Close()
	case "rebuild":
		return rebuildChild(ctx, x, args[1:])
	case "ahead":
		return aheadChild(ctx, x, args[1:])
	case "full":
		return fullChild(ctx, x, args[1])
	case "faulty":
		return faultyChild(ctx, x, args[1])
	case "apply": // everything, in batches, again and again
		changes := arrivals(x.MailRoot(), crashMails)
		for at := 0; ; at = (at + 7) % (len(changes) - 7) {
			fmt.Println("batch", at)
			if _, err := x.Apply(ctx, changes[at:at+7]); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("no such child: %s", role)
}

// start runs this binary in a role. lines are those it prints.
func start(t testing.TB, role string, env []string, args ...string) (cmd *exec.Cmd, stdin io.Closer, lines *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(cleanEnv(), append(env, childEnv+"="+role)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(out)
}

// cleanEnv is the environment without what leads to anybody's own mail.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "NOTMUCH") && !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	return env
}

// world is a notmuch database of its own.
type world struct {
	testing.TB
	dir, root, config string
	x                 *Index
}

// newWorld makes an empty database. settings are lines "section.key=value" that
// go over the usual ones.
func newWorld(t testing.TB, settings ...string) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir()}
	w.root, w.config = filepath.Join(w.dir, "mail"), filepath.Join(w.dir, "config")
	if err := os.Mkdir(w.root, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write(w.config, configText(w.root, settings...))
	w.x = w.open(Options{})
	return w
}

func configText(root string, settings ...string) string {
	values := map[string]string{"database.path": root, "user.name": "a", "user.primary_email": "a@example.org", "new.tags": "unread;inbox;"}
	for _, s := range settings {
		k, v, _ := strings.Cut(s, "=")
		values[k] = v
	}
	var b strings.Builder
	for k, v := range values {
		section, key, _ := strings.Cut(k, ".")
		fmt.Fprintf(&b, "[%s]\n%s=%s\n", section, key, v)
	}
	return b.String()
}

func (w *world) open(o Options) *Index {
	w.Helper()
	o.Config = w.config
	x, err := Open(context.Background(), o)
	if err != nil {
		w.Fatal(err)
	}
	return x
}

func (w *world) write(path, text string) {
	w.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

func mailText(id string) string {
	return fmt.Sprintf("From: a@example.org\nTo: b@example.org\nSubject: about %s\nMessage-ID: <%s>\nDate: Fri, 02 Jan 2015 10:00:00 +0000\n\nThe body of %s.\n", id, id, id)
}

// deliver writes a mail with this id to a path below the mail root.
func (w *world) deliver(path, id string) string {
	w.Helper()
	full := filepath.Join(w.root, path)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(filepath.Dir(full)), sub), 0o700); err != nil {
			w.Fatal(err)
		}
	}
	w.write(full, mailText(id))
	return full
}

func (w *world) rename(from, to string) string {
	w.Helper()
	to = filepath.Join(w.root, to)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		w.Fatal(err)
	}
	return to
}

// notmuch runs the program, as the user would.
func (w *world) notmuch(args ...string) string {
	w.Helper()
	for tries := 1; ; tries++ {
		cmd := exec.Command("notmuch", args...)
		cmd.Env = append(cleanEnv(), "NOTMUCH_CONFIG="+w.config, "HOME="+w.dir)
		out, err := cmd.CombinedOutput()
		// It opens no database that is written to twice meanwhile (notmuch 0.37), and whoever sees that
		// gives the command again.
		if err != nil && tries < 20 && bytes.Contains(out, []byte("has been discarded")) {
			continue
		}
		if err != nil {
			w.Fatalf("notmuch %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
}

// quiet asserts that notmuch has nothing to learn from the disk.
func (w *world) quiet() {
	w.Helper()
	if out := w.notmuch("new", "--full-scan"); !strings.HasSuffix(out, "No new mail.") {
		w.Errorf("`notmuch new` found something to do: %s", out)
	}
}

// apply does changes, none of which may fail.
func (w *world) apply(changes ...mail.Change) []mail.Result {
	w.Helper()
	results := w.try(changes...)
	for i, r := range results {
		if r.Err != nil {
			w.Fatalf("change %d: %v", i, r.Err)
		}
	}
	return results
}

func (w *world) try(changes ...mail.Change) []mail.Result {
	w.Helper()
	results, err := w.x.Apply(context.Background(), changes)
	if err != nil {
		w.Fatal(err)
	}
	if len(results) != len(changes) {
		w.Fatalf("%d changes, %d results", len(changes), len(results))
	}
	return results
}

// tags asserts the tags of a message; "none" stands for no message.
func (w *world) tags(id, want string) {
	w.Helper()
	tags, known, err := w.x.Tags(context.Background(), id)
	if err != nil {
		w.Fatal(err)
	}
	got := strings.Join(tags, " ")
	if !known {
		got = "none"
	}
	if got != want {
		w.Errorf("%s has tags %q, want %q", id, got, want)
	}
}

// files asserts where notmuch says a message's files are, below the mail root,
// and that they are there.
func (w *world) files(id string, want ...string) {
	w.Helper()
	files, err := w.x.Files(context.Background(), id)
	if err != nil {
		w.Fatal(err)
	}
	var got []string
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			w.Error(err)
		}
		rel, err := filepath.Rel(w.root, f)
		if err != nil {
			w.Fatal(err)
		}
		got = append(got, rel)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		w.Errorf("%s has files %q, want %q", id, got, want)
	}
}

func (w *world) count(query string, want int) {
	w.Helper()
	n, err := w.x.Count(context.Background(), query)
	if err != nil {
		w.Fatal(err)
	}
	if n != want {
		w.Errorf("%d messages match %q, want %d", n, query, want)
	}
}

const crashMails = 70

// arrivals are the changes for n mails with every third flagged, and then each
// one's flags changing. Files are wherever they have got to.
func arrivals(root string, n int) []mail.Change {
	var out []mail.Change
	for i := range n {
		out = append(out, mail.Change{Op: mail.OpAdd, Path: filepath.Join(root, "work", "new", fmt.Sprintf("k%d", i)), New: []string{"unread", "inbox"}})
	}
	for i := range n {
		out = append(out, mail.Change{Op: mail.OpFlag, ID: fmt.Sprintf("m%d@example.org", i), Path: out[i].Path, Remove: []string{"unread"}, Set: "S"})
	}
	return out
}

// waitFor gives a context for a test that ends at all.
func waitFor(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("too slow"))
	t.Cleanup(cancel)
	return ctx
}
