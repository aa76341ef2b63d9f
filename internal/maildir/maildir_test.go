package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// day is when all mail here was received.
func day() time.Time { return time.Date(2024, 2, 29, 12, 30, 1, 0, time.UTC) }

func newDir(t testing.TB) Dir {
	t.Helper()
	d := Dir(filepath.Join(t.TempDir(), "work", "INBOX"))
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	return d
}

// put delivers one mail and gives its name.
func put(t testing.TB, d Dir, key, mail, flags string) string {
	t.Helper()
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	s, err := d.Spool(key)
	if err != nil {
		t.Fatal(err)
	}
	s.SetTime(day())
	if _, err := io.WriteString(s, mail); err != nil {
		t.Fatal(err)
	}
	if err := SyncAll([]*Spool{s}); err != nil {
		t.Fatal(err)
	}
	name, err := s.Commit(flags)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	return name
}

func (d Dir) bytes(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// files lists all that is in the folder, tmp too.
func (d Dir) files(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(string(d), "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		names[i] = n[len(d)+1:]
	}
	return names
}

func TestKeysAreUniqueAndKnownAsOurs(t *testing.T) {
	var keys Keys
	var mu sync.Mutex
	seen := make(map[string]bool)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				k := keys.New(day())
				mu.Lock()
				seen[k] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 16000 {
		t.Errorf("%d keys of 16000", len(seen))
	}
	for k := range seen {
		if !Ours(k) || strings.ContainsAny(k, "/:, \n") || !strings.HasPrefix(k, "1709209801.M") || len(k) > 160 {
			t.Fatalf("key %q", k)
		}
	}
	for _, k := range []string{"", "1709209801.M1P2Q3.host", "1709209801.1234_1.nmimap", "nmimap", "x.M"} {
		if Ours(k) {
			t.Errorf("%q is not ours", k)
		}
	}
}

func TestFlagsInNames(t *testing.T) {
	for _, c := range []struct{ name, key, flags string }{
		{"cur/123.x:2,FS", "123.x", "FS"},
		{"new/123.x", "123.x", ""},
		{"cur/123.x:2,", "123.x", ""},
		{"cur/123.x,U=77,FMD5=abc:2,Sab", "123.x,U=77,FMD5=abc", "Sab"},
		{"123.x:2,S", "123.x", "S"},
		{"cur/123.x:1,S", "123.x:1,S", ""},
	} {
		if key, flags := ParseName(c.name); key != c.key || flags != c.flags {
			t.Errorf("ParseName(%q) = %q, %q", c.name, key, flags)
		}
	}
	for _, c := range []struct{ name, set, clear, want string }{
		{"new/k", "", "", "new/k"},
		{"new/k", "", "S", "new/k"},
		{"new/k", "S", "", "cur/k:2,S"},
		{"cur/k:2,S", "F", "", "cur/k:2,FS"},
		{"cur/k:2,FS", "", "SF", "cur/k:2,"},
		{"cur/k:2,Sab", "RR", "S", "cur/k:2,Rab"},
		{"cur/k:2,S", "S", "S", "cur/k:2,S"},
		{"cur/k", "S", "", "cur/k:2,S"},
		{"cur/k,U=1:2,\xff", "S", "", "cur/k,U=1:2,S\xff"},
	} {
		if got := WithFlags(c.name, c.set, c.clear); got != c.want {
			t.Errorf("WithFlags(%q, %q, %q) = %q, want %q", c.name, c.set, c.clear, got, c.want)
		}
	}
}

func TestAFileIsFoundWhereverItsFlagsMovedIt(t *testing.T) {
	d := newDir(t)
	name := put(t, d, "k", "x\r\n", "")
	put(t, d, "k2", "x\r\n", "S")
	for _, to := range []string{"new/k", "cur/k", "cur/k:2,", "cur/k:2,S", "cur/k:2,DFPRST", "cur/k:2,RS", "cur/k:2,Sabc", "cur/k:2,SF", "new/k:2,S"} {
		if err := d.Rename(name, to); err != nil {
			t.Fatal(err)
		}
		name = to
		if got, ok, err := d.Find("k"); got != to || !ok || err != nil {
			t.Errorf("Find = %q, %v, %v; want %q", got, ok, err, to)
		}
		l, err := d.Scan()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := l.Find("k"); got != to || !ok {
			t.Errorf("Listing.Find = %q, %v; want %q", got, ok, to)
		}
	}
	if err := d.Rename(name, "cur/k2:2,S"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Rename onto a file: %v", err)
	}
	if got, ok, err := d.Find("K"); ok || err != nil {
		t.Errorf("Find of an unknown key = %q, %v", got, err)
	}
	if _, ok, err := Dir(string(d) + "x").Find("k"); ok || err != nil {
		t.Errorf("Find without a folder: %v, %v", ok, err)
	}
	for range 2 {
		if err := d.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if _, ok, err := d.Find("k"); ok || err != nil {
		t.Error("a removed file is found", err)
	}
}

func TestScanListsMailOnly(t *testing.T) {
	d := newDir(t)
	put(t, d, "b", "xx\r\n", "F")
	put(t, d, "a", "x\r\n", "")
	if err := os.WriteFile(filepath.Join(string(d), "cur", ".hidden"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(string(d), "cur", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := []File{{Key: "b", Name: "cur/b:2,F", Flags: "F", ModTime: day(), Size: 3}, {Key: "a", Name: "new/a", ModTime: day(), Size: 2}}
	l, err := d.Scan()
	if err != nil {
		t.Fatal(err)
	}
	got := files(t, l)
	for i := range got {
		got[i].ModTime = got[i].ModTime.UTC()
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	// Some tools remove what is empty.
	if err := os.RemoveAll(filepath.Join(string(d), "new")); err != nil {
		t.Fatal(err)
	}
	if l, err := d.Scan(); err != nil || len(files(t, l)) != 1 {
		t.Errorf("without new: %v, %v", l, err)
	}
	if err := os.RemoveAll(filepath.Join(string(d), "cur")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Scan(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without both: %v", err)
	}
	if err := os.WriteFile(filepath.Join(string(d), "cur"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Scan(); err == nil {
		t.Error("a file in place of cur is no error")
	}
}

// A mail reader marks mail while the folder is read: nothing may seem gone.
func TestScanSeesFilesThatAreRenamedMeanwhile(t *testing.T) {
	d := newDir(t)
	const mails = 1000
	names := make([]string, mails)
	for i := range names {
		names[i] = fmt.Sprintf("new/%d", i)
		if err := os.WriteFile(filepath.Join(string(d), names[i]), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 3 * mails {
			i := rnd.IntN(mails)
			to := WithFlags(names[i], "S", "")
			if to == names[i] {
				to = WithFlags(names[i], "F", "S")
			}
			if err := d.Rename(names[i], to); err != nil {
				done <- err
				return
			}
			names[i] = to
		}
		done <- nil
	}()
	for scans := 0; ; scans++ {
		l, err := d.Scan()
		if err != nil {
			t.Fatal(err)
		}
		for i := range mails {
			if _, ok := l.Find(fmt.Sprint(i)); !ok {
				t.Fatalf("scan %d: %d seems gone", scans, i)
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestLinkSharesOrCopies(t *testing.T) {
	from, to := newDir(t), newDir(t)
	src := filepath.Join(string(from), put(t, from, "a", "one\r\ntwo", "S"))
	name, err := to.Link(src, "b", "FS")
	if err != nil || name != "cur/b:2,FS" {
		t.Fatal(name, err)
	}
	a, _ := os.Stat(src)
	b, err := os.Stat(filepath.Join(string(to), name))
	if err != nil || !os.SameFile(a, b) {
		t.Errorf("the file was not linked: %v", err)
	}
	if name, err := to.Link(src, "b", "FS"); !errors.Is(err, fs.ErrExist) || name != "" {
		t.Errorf("Link onto a file: %q, %v", name, err)
	}
	if _, err := to.Link(src+"x", "c", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Link of nothing: %v", err)
	}
	// As on another file system.
	tmp := filepath.Join(string(to), "tmp", "c")
	if err := Copy(src, tmp); err != nil {
		t.Fatal(err)
	}
	c, err := os.Stat(tmp)
	if err != nil || os.SameFile(a, c) || to.bytes(t, "tmp/c") != "one\ntwo" || !c.ModTime().Equal(day()) || c.Mode() != 0o600 {
		t.Errorf("the copy: %v %v", c, err)
	}
	if err := Copy(src, tmp); !errors.Is(err, fs.ErrExist) || to.bytes(t, "tmp/c") != "one\ntwo" {
		t.Errorf("a copy onto a file: %v", err)
	}
	if err := Copy(src+"x", tmp+"x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of nothing: %v", err)
	}
}

func TestWireSizeCountsLineEndsAsCRLF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail")
	edge := strings.Repeat("x", 64<<10-1)
	for _, c := range []struct {
		disk string
		want int
	}{{"", 0}, {"\n", 2}, {"a\nb\n", 6}, {"a\r\nb", 4}, {"a\rb\r", 4}, {"\n\n", 4}, {edge + "\r\n", len(edge) + 2}, {edge + "\n\n", len(edge) + 4}, {edge + "x\n", len(edge) + 3}} {
		if err := os.WriteFile(path, []byte(c.disk), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := WireSize(path); err != nil || got != int64(c.want) {
			t.Errorf("WireSize of %d bytes = %d, %v; want %d", len(c.disk), got, err, c.want)
		}
	}
	if _, err := WireSize(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func BenchmarkFind(b *testing.B) {
	d := newDir(b)
	for i := range 20_000 {
		if err := os.WriteFile(filepath.Join(string(d), FileName(fmt.Sprintf("1700000000.M%dP1Q%dR0123456789abcdefnmimap.host", i, i), "S")), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct{ name, flags string }{{"seen", "S"}, {"all", "DFPRST"}, {"scan", "Sa"}} {
		key := "other" + c.name
		if err := os.WriteFile(filepath.Join(string(d), FileName(key, c.flags)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, ok, err := d.Find(key); !ok || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestFoldersBelowARoot(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, f := range []string{"INBOX", "INBOX/Sub", "A/B/é", ".hidden", "A/new/tmp"} {
		if err := Dir(filepath.Join(root, f)).Create(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"plain", "half/cur", "half/new", "cur"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(root, filepath.Join(root, "loop")), os.Symlink(filepath.Join(root, "INBOX"), filepath.Join(root, "other")),
		os.WriteFile(filepath.Join(root, "half", "tmp"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	// What holds mail is a folder, whatever is missing.
	for _, f := range []string{"only/cur/1:2,S", "fresh/new/1", "root/cur/.hidden", "cur/1:2,S", "none/tmp/1", "deep/cur/sub/1"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o700), os.WriteFile(filepath.Join(root, f), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{".hidden", "A/B/é", "INBOX", "INBOX/Sub", "fresh", "only"}
	if got, err := Folders(root); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for f, is := range map[string]bool{"INBOX": true, "fresh": true, "only": true, "half": false, "root": false, "none": false, "deep": false, "plain": false} {
		if Dir(filepath.Join(root, f)).Exists() != is {
			t.Errorf("%s exists: %v", f, !is)
		}
	}
	if err := Dir(filepath.Join(root, "only")).Create(); err != nil || !Dir(filepath.Join(root, "only")).whole() {
		t.Errorf("the rest of a folder is not made: %v", err)
	}
	if got, err := Folders(filepath.Join(root, "none")); err != nil || len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestOnlyAnEmptyFolderIsRemoved(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	d, sub := Dir(filepath.Join(root, "A")), Dir(filepath.Join(root, "A", "B"))
	var keys Keys
	if err := errors.Join(d.Create(), sub.Create(), os.WriteFile(filepath.Join(string(d), "tmp", keys.New(time.Now())), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	mail := filepath.Join(string(d), "cur", "x:2,")
	if err := errors.Join(os.WriteFile(mail, nil, 0o600), d.RemoveEmpty()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mail); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Remove(mail), d.RemoveEmpty()); err != nil {
		t.Fatal(err)
	}
	if d.Exists() || !sub.Exists() {
		t.Error("the folder is there, or the one in it is not")
	}
	if err := errors.Join(sub.RemoveEmpty(), d.RemoveEmpty(), d.RemoveEmpty()); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestReadAndSize(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail")
	for _, n := range []int{0, 1, 9, 10, 11, 25, 64<<10 + 11} {
		text := strings.Repeat("a\r\nb\n\r\r", 1+n)[:n]
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want := int64(n + strings.Count(text, "\n") - strings.Count(text, "\r\n"))
		var all strings.Builder
		size, err := Read(path, make([]byte, 10), &all)
		if err != nil || all.String() != text || size != want {
			t.Errorf("%d bytes: %q, %d, %v; want %d", n, all.String(), size, err, want)
		}
		if size, err := WireSize(path); err != nil || size != want {
			t.Errorf("%d bytes: %d, %v; want %d", n, size, err, want)
		}
	}
	if _, err := Read(path+"x", nil, io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	d := Dir(t.TempDir())
	cur := filepath.Join(string(d), "cur")
	if got := d.Identity(); got != "0" {
		t.Errorf("no cur has the identity %s", got)
	}
	seen := map[string]bool{"0": true}
	for range 50 { // a directory often gets the number of the one before
		if err := os.Mkdir(cur, 0o700); err != nil {
			t.Fatal(err)
		}
		id := d.Identity()
		if seen[id] {
			t.Errorf("%s was another directory's", id)
		}
		seen[id] = true
		if err := os.WriteFile(filepath.Join(cur, "a"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if again := d.Identity(); again != id {
			t.Errorf("%s became %s", id, again)
		}
		if err := os.RemoveAll(cur); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSameIdentity(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"7.100", "7.100", true},
		{"7.100", "7.200", false},
		{"7.100", "8.100", false},
		{"7", "7.100", true}, // as an earlier version wrote it
		{"7.100", "7", true},
		{"7", "8", false},
		{"0", "7.100", false},
		{"0", "0", true},
	} {
		if got := SameIdentity(tc.a, tc.b); got != tc.want {
			t.Errorf("%s and %s: %v", tc.a, tc.b, got)
		}
	}
}

// files gives a listing's files.
func files(t *testing.T, l *Listing) []File {
	t.Helper()
	out, err := l.Files()
	if err != nil {
		t.Fatal(err)
	}
	return out
}
