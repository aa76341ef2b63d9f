package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestBytesStayAsSentLineEndsApart(t *testing.T) {
	d := newDir(t)
	mails := map[string]string{
		"empty":          "",
		"plain":          "Subject: x\r\n\r\nhello\r\n",
		"no last end":    "Subject: x\r\n\r\nhello",
		"NUL and 8-bit":  "Subject: \xe9\x00\r\n\r\n\x00\xff\xfe\r\n",
		"lone CR and LF": "a\rb\nc\r\nd\r",
		"many CR":        "a\r\r\r\n\r\r\n\r",
		"LF CR":          "a\n\r\n\rb",
		"one CR":         "\r",
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		b := make([]byte, rnd.IntN(200<<10))
		for j := range b {
			b[j] = "\r\n\x00a"[rnd.IntN(4)]
		}
		mails[fmt.Sprint("random ", i)] = string(b)
	}
	n := 0
	for name, mail := range mails {
		want := strings.ReplaceAll(mail, "\r\n", "\n")
		for range 8 {
			n++
			s, err := d.Spool(fmt.Sprint("key", n))
			if err != nil {
				t.Fatal(err)
			}
			rest := []byte(mail)
			most := []int{1, 2, 7, 1000, 16 << 10, 1 << 20}[n%6]
			if len(rest) > 10_000 {
				most += 500
			}
			for len(rest) > 0 {
				k := min(1+rnd.IntN(most), len(rest))
				if got, err := s.Write(rest[:k]); err != nil || got != k {
					t.Fatal(got, err)
				}
				rest = rest[k:]
			}
			head := bytes.Clone(s.Head())
			if err := s.Finish(); err != nil {
				t.Fatal(err)
			}
			if s.Size() != int64(len(want)) || s.WireSize() != int64(len(mail)) {
				t.Errorf("%s: size %d, on the wire %d; want %d, %d", name, s.Size(), s.WireSize(), len(want), len(mail))
			}
			// A CR that came last is still held back.
			if !strings.HasPrefix(want, string(head)) || len(head) < min(len(want)-1, headSize) {
				t.Errorf("%s: the head is %d bytes of %d", name, len(head), len(want))
			}
			if err := SyncAll([]*Spool{s}); err != nil {
				t.Fatal(err)
			}
			file, err := s.Commit("")
			if err != nil {
				t.Fatal(err)
			}
			if got := d.bytes(t, file); got != want {
				t.Errorf("%s: %d bytes differ from %d", name, len(got), len(want))
			}
		}
	}
}

func TestAHugeMailTakesLittleMemory(t *testing.T) {
	d := newDir(t)
	s, err := d.Spool("huge")
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567890\r\n"), 400)
	var before, now runtime.MemStats
	// What is garbage is none of it, whenever the collector comes by itself.
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak uint64
	const size = 100 << 20
	wrote := 0
	for i := 0; wrote < size; i++ {
		n, err := s.Write(line)
		if err != nil {
			t.Fatal(err)
		}
		wrote += n
		if i%500 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
	if err := SyncAll([]*Spool{s}); err != nil {
		t.Fatal(err)
	}
	name, err := s.Commit("S")
	if err != nil {
		t.Fatal(err)
	}
	if grew := int64(peak) - int64(before.HeapAlloc); grew > 4<<20 {
		t.Errorf("the heap grew by %d bytes", grew)
	}
	if got, err := WireSize(filepath.Join(string(d), name)); err != nil || got != int64(wrote) || got != s.WireSize() {
		t.Errorf("WireSize = %d, %v; %d bytes were written", got, err, wrote)
	}
}

func TestDeliveryGivesNameModeAndTime(t *testing.T) {
	d := newDir(t)
	for flags, want := range map[string]string{"": "new/k0", "S": "cur/k1:2,S", "TSFS": "cur/k2:2,FST", "aS": "cur/k3:2,Sa"} {
		name := put(t, d, want[4:6], "x\r\n", flags)
		if name != want {
			t.Errorf("with flags %q the name is %s, want %s", flags, name, want)
		}
		fi, err := os.Stat(filepath.Join(string(d), name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != 0o600 || !fi.ModTime().Equal(day()) {
			t.Errorf("%s has mode %v and time %v", name, fi.Mode(), fi.ModTime())
		}
	}
	for p := string(d); p != filepath.Dir(filepath.Dir(string(d))); p = filepath.Dir(p) {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", p, fi.Mode(), err)
		}
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	for name, rename := range map[string]func(string, string) error{"rename": rename, "link and remove": linkRename} {
		d := newDir(t)
		from, to := filepath.Join(string(d), "tmp", "a"), filepath.Join(string(d), "cur", "a:2,")
		for _, p := range []string{from, to} {
			if err := os.WriteFile(p, []byte(p), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := rename(from, to); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s onto a file: %v", name, err)
		}
		if d.bytes(t, "cur/a:2,") != to || d.bytes(t, "tmp/a") != from {
			t.Errorf("%s changed a file", name)
		}
		if err := rename(from, to+"S"); err != nil || d.bytes(t, "cur/a:2,S") != from {
			t.Errorf("%s: %v", name, err)
		}
		if err := rename(from, to+"T"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}

	d := newDir(t)
	put(t, d, "k", "one\r\n", "S")
	s, err := d.Spool("k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Spool("k"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second spool under the same key: %v", err)
	}
	if err := SyncAll([]*Spool{s}); err != nil {
		t.Fatal(err)
	}
	if name, err := s.Commit("S"); !errors.Is(err, fs.ErrExist) || name != "" {
		t.Errorf("Commit under a name that is taken: %q, %v", name, err)
	}
	s.Discard()
	if got := d.files(t); !slices.Equal(got, []string{"cur/k:2,S"}) || d.bytes(t, got[0]) != "one\n" {
		t.Errorf("left: %v", got)
	}
}

func TestAnInterruptedDeliveryLeavesOnlyTmp(t *testing.T) {
	d := newDir(t)
	var keys Keys
	for i := range 3 { // open, finished, synced
		s, err := d.Spool(keys.New(day()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(s, "x\r\n"); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := s.Finish(); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			defer s.Discard()
		}
		if i == 2 {
			if err := SyncAll([]*Spool{s}); err != nil {
				t.Fatal(err)
			}
		}
	}
	others := filepath.Join(string(d), "tmp", "1700000000.M1P2.elsewhere")
	if err := os.WriteFile(others, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := d.Scan()
	if err != nil || len(files(t, l)) != 0 || len(d.files(t)) != 4 {
		t.Fatalf("%v, %v, %v", d.files(t), l, err)
	}
	if err := d.CleanTmp(); err != nil {
		t.Fatal(err)
	}
	if got := d.files(t); !slices.Equal(got, []string{"tmp/1700000000.M1P2.elsewhere"}) {
		t.Errorf("left: %v", got)
	}
}

func TestDiscardLeavesNothing(t *testing.T) {
	d := newDir(t)
	s, err := d.Spool("k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	s.Discard()
	if got := d.files(t); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestAFullDiskIsTold(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Spool{dir: newDir(t), key: "k", file: f}
	defer s.Discard()
	_, first := s.Write(make([]byte, 2*bufSize))
	_, second := s.Write([]byte("x"))
	for _, err := range []error{first, second, s.Finish(), SyncAll([]*Spool{s})} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("err = %v", err)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	d := newDir(b)
	var keys Keys
	mail := bytes.Repeat([]byte("a line of mail that is as long as most lines of mail are, more or less\r\n"), 55)
	for b.Loop() {
		spools := make([]*Spool, 100)
		for i := range spools {
			s, err := d.Spool(keys.New(day()))
			if err != nil {
				b.Fatal(err)
			}
			spools[i] = s
			if _, err := s.Write(mail); err != nil {
				b.Fatal(err)
			}
		}
		if err := SyncAll(spools); err != nil {
			b.Fatal(err)
		}
		for _, s := range spools {
			if _, err := s.Commit("S"); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100, "µs/mail")
}

func BenchmarkWrite(b *testing.B) {
	d := newDir(b)
	s, err := d.Spool("k")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Discard()
	s.file, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	p := bytes.Repeat([]byte("a line of mail that is as long as most lines of mail are, more or less\r\n"), 450)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := s.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
