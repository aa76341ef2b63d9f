package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestHandle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db, err := w.x.open(notmuch.DBReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	if uuid, _ := revisionOf(handle(db)); uuid != w.x.UUID() || len(uuid) != 36 {
		t.Errorf("the first field of a DB is no database: uuid %q, want %q", uuid, w.x.UUID())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := func(name string, settings ...string) string {
		path := filepath.Join(dir, name+".conf")
		if err := os.WriteFile(path, []byte(configText(filepath.Join(dir, "mail"), settings...)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := func(config string) (*Index, error) { return Open(t.Context(), Options{Config: config}) }

	if _, err := open(filepath.Join(dir, "none")); !errors.Is(err, ErrNoConfig) || !strings.Contains(err.Error(), "notmuch setup") {
		t.Errorf("no configuration: %v", err)
	}
	plain := config("plain", "maildir.synchronize_flags=false", "new.tags=new;x y;")
	if _, err := open(plain); !errors.Is(err, ErrNoDatabase) || !strings.Contains(err.Error(), "notmuch new") || !strings.Contains(err.Error(), filepath.Join(dir, "mail")) {
		t.Errorf("no directory: %v", err)
	}
	for _, d := range []string{"mail", "split", "odd"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	x, err := open(plain)
	if err != nil {
		t.Fatal("no database, which is made:", err)
	}
	if x.MailRoot() != filepath.Join(dir, "mail") || x.DatabasePath() != filepath.Join(dir, "mail/.notmuch/xapian") ||
		x.SyncFlags() || !slices.Equal(x.NewTags(), []string{"new", "x y"}) || x.HookDir() != filepath.Join(dir, "mail/.notmuch/hooks") || x.UUID() == "" {
		t.Errorf("%+v", x.conf)
	}
	if y, err := open(plain); err != nil || y.UUID() != x.UUID() {
		t.Error("another one was made", err)
	}
	// Paths are as the caller makes them of MailRoot, though it is written oddly.
	if x, err = open(config("slash", "database.path="+dir+"/odd/")); err != nil || x.MailRoot() != filepath.Join(dir, "odd") {
		t.Error(x.MailRoot(), err)
	}
	w := &world{TB: t, root: x.MailRoot(), x: x}
	p := w.deliver("box/new/a", "a@example.org")
	w.apply(mail.Change{Op: mail.OpAdd, Path: p, New: usual()}, mail.Change{Op: mail.OpFlag, Path: p, ID: "a@example.org", Set: "S", Remove: []string{"unread"}})
	w.files("a@example.org", "box/cur/a:2,S")

	if x, err = open(config("split", "database.path="+dir+"/split", "database.mail_root="+dir+"/mail")); err != nil {
		t.Fatal(err)
	}
	if x.MailRoot() != filepath.Join(dir, "mail") || x.DatabasePath() != filepath.Join(dir, "split/xapian") {
		t.Error(x.MailRoot(), x.DatabasePath())
	}
	w = &world{TB: t, root: x.MailRoot(), x: x}
	w.apply(mail.Change{Op: mail.OpAdd, Path: w.deliver("box/new/s", "s@example.org"), New: usual()})
	w.files("s@example.org", "box/new/s")

	broken := filepath.Join(dir, "odd/.notmuch/xapian/postlist.glass")
	if err := os.WriteFile(broken, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "odd/.notmuch/xapian/iamglass")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(filepath.Join(dir, "slash.conf")); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "cannot be opened: ") {
		t.Errorf("a broken database: %v", err)
	}
	// What a full disk leaves of a database that was to be made is none.
	if err := os.RemoveAll(filepath.Join(dir, "odd/.notmuch/xapian")); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"flintlock", "v.tmp"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "odd/.notmuch/xapian"), 0o700), os.WriteFile(filepath.Join(dir, "odd/.notmuch/xapian", file), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if x, err := Open(t.Context(), Options{Config: filepath.Join(dir, "slash.conf"), Existing: true}); err != nil || !x.Missing() {
		t.Errorf("a database that was about to be made: %v", err)
	}
	if _, err := open(filepath.Join(dir, "slash.conf")); err != nil {
		t.Errorf("a database in the place of one that was about to be made: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Options{Config: plain}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestOpenFromTheEnvironment is in processes of their own, which have one.
func TestOpenFromTheEnvironment(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config string // path below HOME
		text   string // of the configuration, HOME filled in
		make   []string
		env    []string
		want   string
	}{
		"NOTMUCH_CONFIG": {config: "c", text: "[database]\npath=HOME/mail\n", make: []string{"mail"}, env: []string{"NOTMUCH_CONFIG=HOME/c"},
			want: "root: HOME/mail\ndatabase: HOME/mail/.notmuch/xapian\ncount: 1\n"},
		"HOME": {config: ".notmuch-config", text: "[database]\npath=mail\n", make: []string{"mail"},
			want: "root: HOME/mail\ndatabase: HOME/mail/.notmuch/xapian\ncount: 1\n"},
		"NOTMUCH_PROFILE": {config: ".config/notmuch/job/config", text: "[database]\nmail_root=HOME/mail\n", make: []string{"mail", ".local/share/notmuch/job"}, env: []string{"NOTMUCH_PROFILE=job"},
			want: "root: HOME/mail\ndatabase: HOME/.local/share/notmuch/job/xapian\ncount: 1\n"},
		"XDG": {config: "xdg/notmuch/default/config", text: "[database]\nmail_root=HOME/mail\n", make: []string{"mail", "data/notmuch/default"}, env: []string{"XDG_CONFIG_HOME=HOME/xdg", "XDG_DATA_HOME=HOME/data"},
			want: "root: HOME/mail\ndatabase: HOME/data/notmuch/default/xapian\ncount: 1\n"},
		"NOTMUCH_DATABASE": {config: ".notmuch-config", text: "[database]\npath=HOME/mail\n", make: []string{"mail", "other"}, env: []string{"NOTMUCH_DATABASE=HOME/other"},
			want: "note: NOTMUCH_DATABASE is HOME/other, but mail is kept below HOME/mail, as the configuration says\nroot: HOME/mail\ndatabase: HOME/other/.notmuch/xapian\ncount: 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			fill := func(s string) string { return strings.ReplaceAll(s, "HOME", home) }
			w := &world{TB: t, root: filepath.Join(home, "mail")}
			w.write(filepath.Join(home, tc.config), fill(tc.text))
			for _, d := range tc.make {
				if err := os.MkdirAll(filepath.Join(home, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			w.deliver("new/1", "a@example.org")
			env := []string{"HOME=" + home}
			for _, v := range tc.env {
				k, v, _ := strings.Cut(v, "=")
				env = append(env, k+"="+fill(v))
			}
			cmd, stdin, lines := start(t, "where", env)
			var got strings.Builder
			for lines.Scan() {
				got.WriteString(lines.Text() + "\n")
			}
			if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
				t.Error(err)
			}
			if want := fill(tc.want); got.String() != want {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
			if name == "NOTMUCH_DATABASE" {
				if _, err := os.Stat(filepath.Join(home, "other/.notmuch/xapian/flintlock")); err != nil {
					t.Error("that is not where the database is:", err)
				}
			}
		})
	}
}

func TestReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "search.exclude_tags=deleted;")
	ctx := t.Context()
	_, before, err := w.x.Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		id := fmt.Sprintf("m%d@example.org", i)
		path := w.deliver("box/new/"+id, id)
		w.write(path, strings.Replace(mailText(id), "2015", fmt.Sprint(2010+i), 1))
		w.apply(mail.Change{Op: mail.OpAdd, Path: path, New: usual(), Add: []string{"deleted"}})
	}
	ids, err := w.x.Search(ctx, "tag:inbox", 3)
	if want := []string{"m4@example.org", "m3@example.org", "m2@example.org"}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("%q %v, want %q", ids, err, want)
	}
	if ids, err = w.x.Search(ctx, "*", 0); err != nil || len(ids) != 5 {
		t.Errorf("%q %v", ids, err)
	}
	uuid, after, err := w.x.Revision(ctx)
	if err != nil || uuid != w.x.UUID() || after <= before {
		t.Errorf("%s %d after %d: %v", uuid, after, before, err)
	}
	w.count(fmt.Sprintf("lastmod:%d..", before+1), 5)
	w.count(fmt.Sprintf("lastmod:%d..", after+1), 0)
	w.tags("none@example.org", "none")
	w.files("none@example.org")
	if _, err := w.x.Count(ctx, "date:nonsense.."); err == nil {
		t.Error("a query that is none was counted")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := w.x.Count(gone, "*"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTheWriteLockIsWaitedForButNotForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	changes := []mail.Change{{Op: mail.OpAdd, Path: w.deliver("box/new/a", "a@example.org")}}
	cmd, stdin, lines := start(t, "hold", []string{"HOME=" + w.dir}, w.config)
	if !lines.Scan() || lines.Text() != "held" {
		t.Fatal("the lock was not taken")
	}
	const wait = 3 * time.Second // a tenth of a second is told of: both must not be over at once
	var said []string
	short := w.open(Options{LockWait: wait, Waits: func(text string) { said = append(said, text) }})
	begin := time.Now()
	_, err := short.Apply(waitFor(t), changes)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "run this again later") {
		t.Errorf("the lock is held: %v", err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "waiting for it, for 3s at most") {
		t.Errorf("%q", said)
	}
	if d := time.Since(begin); d < wait {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.x.Apply(ctx, changes); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrLocked) {
		t.Errorf("ctx ended: %v", err)
	}
	if n, err := w.x.Count(waitFor(t), "*"); n != 0 || err != nil {
		t.Errorf("a reader beside a writer: %d %v", n, err)
	}
	// One waits for the lock, another for the first.
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := w.x.Apply(waitFor(t), changes); err != nil {
				t.Errorf("the lock was let go in time: %v", err)
			}
		})
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = stdin.Close() })
	wg.Wait()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	w.count("*", 1)
}

func TestBesideOtherProgramsThatWriteAndRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, size = 240, 20
	var changes []mail.Change
	for i := range n {
		id := fmt.Sprintf("m%d@example.org", i)
		changes = append(changes, mail.Change{Op: mail.OpAdd, Path: w.deliver(fmt.Sprintf("box/new/k%d", i), id), New: usual()})
	}
	w.apply(changes[:size]...)
	ctx, cancel := context.WithCancel(waitFor(t))
	var wg sync.WaitGroup
	tagged := 0
	wg.Go(func() { // a user's `notmuch tag`
		for ; ctx.Err() == nil; tagged++ {
			w.notmuch("tag", fmt.Sprintf("+t%d", tagged), "--", "id:m0@example.org")
		}
	})
	wg.Go(func() { // our own readers, on a handle of their own
		x := w.open(Options{})
		for ctx.Err() == nil {
			if _, err := x.Search(context.WithoutCancel(ctx), "*", 0); err != nil {
				t.Error(err)
			}
			if _, known, err := x.Tags(context.WithoutCancel(ctx), "m0@example.org"); err != nil || !known {
				t.Error(known, err)
			}
		}
	})
	for batch := range slices.Chunk(changes[size:], size) {
		w.apply(batch...)
	}
	for batch := range slices.Chunk(changes, size) {
		flags := slices.Clone(batch)
		for i := range flags {
			flags[i] = mail.Change{Op: mail.OpFlag, Path: batch[i].Path, Set: "S", Remove: []string{"unread"}}
		}
		w.apply(flags...)
	}
	cancel()
	wg.Wait()
	if tagged < 3 {
		t.Errorf("`notmuch tag` came through %d times", tagged)
	}
	w.count("*", n)
	w.count("tag:unread", 0)
	for i := range tagged {
		w.count(fmt.Sprintf("tag:t%d", i), 1)
	}
	w.quiet()
}

// TestEveryChangeUnderThePressureOfTheCollector would show an object that is
// used after its Go half is gone. It cannot prove that no finalizer is left:
// what is closed in time survives one, mostly.
func TestEveryChangeUnderThePressureOfTheCollector(t *testing.T) { //nolint:paralleltest // it sets the pace of the garbage collector
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	w := newWorld(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	for i := range 40 {
		id, old := fmt.Sprintf("m%d@example.org", i), fmt.Sprintf("s%d@example.org", i)
		p, s := w.deliver("box/new/"+id, id), w.deliver("box/new/"+old, old)
		w.apply(mail.Change{Op: mail.OpAdd, Path: s, New: usual()},
			mail.Change{Op: mail.OpReplace, Path: p, OldPath: s, New: usual()},
			mail.Change{Op: mail.OpAdd, Path: p, New: usual()},
			mail.Change{Op: mail.OpFlag, Path: p, ID: id, Set: "S", Remove: []string{"unread"}},
			mail.Change{Op: mail.OpFlag, Path: p, Set: "T"},
			mail.Change{Op: mail.OpRemove, Path: filepath.Join(w.root, "box/new/none")})
		w.tags(id, "inbox")
		w.files(id, "box/cur/"+id+":2,ST")
		w.count("*", i+1)
	}
	close(stop)
	wg.Wait()
}

func TestAKillInsideApplyLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range crashMails {
		w.deliver(fmt.Sprintf("work/new/k%d", i), fmt.Sprintf("m%d@example.org", i))
	}
	for seed := range uint64(8) {
		cmd, _, lines := start(t, "apply", []string{"HOME=" + w.dir, "TMPDIR=" + w.dir}, w.config)
		// Into the batch: somewhere within what one takes.
		for range 1 + seed*2 {
			if !lines.Scan() {
				t.Fatal("the child ended by itself")
			}
		}
		late := time.NewTimer(time.Duration(rand.New(rand.NewPCG(seed, 1)).IntN(6000)) * time.Microsecond)
		<-late.C
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		x := w.open(Options{})
		if _, err := x.Count(t.Context(), "*"); err != nil {
			t.Fatal(err)
		}
	}
	changes := arrivals(w.root, crashMails)
	w.apply(changes...)
	w.count("*", crashMails)
	w.count("tag:inbox and not tag:unread", crashMails)
	files, err := os.ReadDir(filepath.Join(w.root, "work/cur"))
	if err != nil || len(files) != crashMails {
		t.Errorf("%d files, %v", len(files), err)
	}
	w.quiet()
	// And Xapian finds it whole.
	out, err := exec.Command("notmuch", "--config="+w.config, "count", "--output=files", "*").Output()
	if err != nil || string(bytes.TrimSpace(out)) != fmt.Sprint(crashMails) {
		t.Errorf("%s %v", out, err)
	}
}

func TestChangesSinceARevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := waitFor(t)
	var changes []mail.Change
	for _, path := range []string{"work/a b/new/m0", "work/a b/new/m1", "other/new/m2", "workshop/new/m3"} {
		changes = append(changes, mail.Change{Op: mail.OpAdd, Path: w.deliver(path, filepath.Base(path)+"@example.org"), New: usual()})
	}
	// One mail in two folders, of which one is asked for.
	changes = append(changes, mail.Change{Op: mail.OpAdd, Path: w.deliver("other/new/m1b", "m1@example.org"), New: usual()})
	w.apply(changes...)
	under := filepath.Join(w.root, "work")
	look := func(since mail.Revision) (mail.Revision, []string, bool) {
		t.Helper()
		now, tagged, whole, err := w.x.Changes(ctx, since, under)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range tagged {
			for i, p := range m.Paths {
				m.Paths[i], _ = filepath.Rel(w.root, p)
			}
			if (len(m.Others) > 0) != (m.ID == "m1@example.org") || len(m.Others) > 0 && m.Others[0] != filepath.Join(w.root, "other/new/m1b") {
				t.Errorf("%s has the other files %q", m.ID, m.Others)
			}
			out = append(out, fmt.Sprint(m.ID, m.Paths, m.Tags))
		}
		slices.Sort(out)
		return now, out, whole
	}
	all := []string{"m0@example.org[work/a b/new/m0] [inbox unread]", "m1@example.org[work/a b/new/m1] [inbox unread]"}
	now, got, whole := look(mail.Revision{})
	if !slices.Equal(got, all) || !whole {
		t.Errorf("at first: %q, whole %v", got, whole)
	}
	if _, got, whole := look(now); len(got) > 0 || whole {
		t.Errorf("nothing changed: %q, whole %v", got, whole)
	}
	w.apply(mail.Change{Op: mail.OpFlag, Path: changes[1].Path, Add: []string{"todo"}}, mail.Change{Op: mail.OpFlag, Path: changes[2].Path, Add: []string{"todo"}})
	then, got, whole := look(now)
	if want := []string{"m1@example.org[work/a b/new/m1] [inbox todo unread]"}; !slices.Equal(got, want) || whole {
		t.Errorf("after a change: %q, whole %v, want %q", got, whole, want)
	}
	for _, since := range []mail.Revision{{UUID: "another", N: 1}, {UUID: then.UUID, N: then.N + 1}} {
		if _, got, whole := look(since); len(got) != 2 || !whole {
			t.Errorf("since %v: %q, whole %v", since, got, whole)
		}
	}
}

// Messages gives what notmuch has of some messages, and not what it only has heard of: by id, also
// by one that looks like a path, as gateways from X.400 make them, and by the path of a file.
func TestMessagesByID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := waitFor(t)
	mine, other := w.deliver("work/new/m0", "m0@example.org"), w.deliver("workshop/new/m0", "m0@example.org")
	reply := filepath.Join(w.root, "work/new/m1")
	w.write(reply, "From: a@example.org\nMessage-ID: <m1@example.org>\nIn-Reply-To: <ghost@example.org>\nSubject: re\n\ntext\n")
	w.apply(mail.Change{Op: mail.OpAdd, Path: mine, New: []string{"inbox"}}, mail.Change{Op: mail.OpAdd, Path: other, Add: []string{"todo"}}, mail.Change{Op: mail.OpAdd, Path: reply})
	const x400 = "/C=DE/A=X@example.org"
	gated, none := w.deliver("work/new/m2", x400), filepath.Join(w.root, "work/new/none")
	w.apply(mail.Change{Op: mail.OpAdd, Path: gated})
	got, err := w.x.Messages(ctx, []string{"m0@example.org", "ghost@example.org", "unknown@example.org", "m0@example.org", x400, reply, none}, filepath.Join(w.root, "work"))
	want := map[string]mail.Tagged{
		"m0@example.org": {ID: "m0@example.org", Paths: []string{mine}, Others: []string{other}, Tags: []string{"inbox", "todo", "unread"}, From: "a@example.org", Subject: "about m0@example.org"},
		x400:             {ID: x400, Paths: []string{gated}, Tags: []string{"unread"}, From: "a@example.org", Subject: "about " + x400},
		reply:            {ID: "m1@example.org", Paths: []string{reply}, Tags: []string{"unread"}, From: "a@example.org", Subject: "re"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %+v, want %+v", err, got, want)
	}
}
