package mail

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFieldsStandWhereTheyStandWhateverIsBetween(t *testing.T) {
	t.Parallel()
	raw := "From someone Tue Dec  1 10:00:00 2015\r\nSubject: one\r\n\ttwo\r\n \r\nno field here\n continued\nX Y: z\n:\nTo : a\r\nSUBJECT:again\r\n\r\nSubject: body\r\n"
	want := Header{{"From someone Tue Dec  1 10", "00:00 2015"}, {"Subject", "one\ttwo"}, {"X Y", "z"}, {"To", "a"}, {"SUBJECT", "again"}}
	got := ParseHeader([]byte(raw))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	if got := ParseHeader([]byte(raw), "subject", "to"); len(got) != 3 || got.Get("subject") != "one\ttwo" || got.Get("TO") != "a" || got.Get("From") != "" {
		t.Errorf("%q", got)
	}
}

func TestAHeaderOfAnyLengthIsReadInBoundedMemory(t *testing.T) {
	t.Parallel()
	const n = 40_000
	raw := strings.Repeat("X-Long: "+strings.Repeat("x", 998)+"\r\n", n/100) + strings.Repeat("Message-ID:\r\n", 10) +
		strings.Repeat(" "+strings.Repeat("y", 998)+"\r\n", n/100) + strings.Repeat("N", 100_000) + ": v\r\nSubject: " + strings.Repeat("s", 100_000) + "\r\n" +
		strings.Repeat("Subject: again\r\n", n) + "\r\n"
	h := NewHeaderReader("Message-ID", "Subject")
	for p := range bytes.Lines([]byte(raw)) {
		_, _ = h.Write(p)
		if cap(h.value) > 2*maxValue || h.kept > maxHeader {
			t.Fatalf("keeps %d and %d bytes", cap(h.value), h.kept)
		}
	}
	got := h.Header()
	if len(got) < 12 || len(got) > maxHeader/fieldCost || len(got[10].Value) != maxValue-len(" ") || got[10].Name != "Subject" || len(got[9].Value) != maxValue-len(" ") || got[11].Value != "again" {
		t.Errorf("%d fields, %q %d %d", len(got), got[10].Name, len(got[9].Value), len(got[10].Value))
	}
}

func TestReadHeaderReadsNoFurtherThanItNeeds(t *testing.T) {
	t.Parallel()
	r := strings.NewReader("Subject: s\n\n" + strings.Repeat("body\n", 100_000))
	if h, err := ReadHeader(r); err != nil || h.Get("subject") != "s" || r.Len() < 490_000 {
		t.Errorf("%q, %v, %d bytes left", h, err, r.Len())
	}
	h, err := ReadHeader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("Subject: s\n\n"))))
	if err == nil || len(h) > 0 {
		t.Errorf("%q, %v", h, err)
	}
	if h, err := ReadHeader(iotest.DataErrReader(strings.NewReader("Subject: s"))); err != nil || h.Get("Subject") != "s" {
		t.Errorf("%q, %v", h, err)
	}
}

// samples are the mails in testdata, for fuzzing.
func samples(tb testing.TB) (all [][]byte) {
	tb.Helper()
	names, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil || len(names) == 0 {
		tb.Fatal(names, err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, raw)
	}
	return all
}

// cut gives a mail in pieces.
func cut(raw []byte, seed uint64) (pieces [][]byte) {
	r := rand.New(rand.NewPCG(seed, 0))
	for len(raw) > 0 {
		n := 1 + r.IntN(min(len(raw), 1+r.IntN(100)))
		pieces = append(pieces, raw[:n])
		raw = raw[n:]
	}
	return pieces
}

// FuzzHeader: a header is the same however it is cut and whichever its line ends,
// and is kept in bounds.
func FuzzHeader(f *testing.F) {
	for _, raw := range samples(f) {
		f.Add(raw, uint64(1))
	}
	f.Add([]byte("A: b\r\r\n c\r\r\rMessage-ID\t : <x\r\n \ty@z>\r\n\r\r\nbody"), uint64(2))
	f.Add([]byte(strings.Repeat("n", maxName-1)+":v\n"+strings.Repeat("n", maxName)+":v\nA"+strings.Repeat(" ", maxName)+":v"), uint64(3))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		for _, names := range [][]string{nil, {"Message-ID", "subject"}} {
			want := ParseHeader(raw, names...)
			h := NewHeaderReader(names...)
			for _, p := range cut(raw, seed) {
				_, _ = h.Write(p)
			}
			if h.kept > maxHeader || cap(h.value) > 2*maxValue {
				t.Fatalf("keeps %d and %d bytes", h.kept, cap(h.value))
			}
			if got := h.Header(); !reflect.DeepEqual(got, want) {
				t.Fatalf("cut: %q\nwhole: %q", got, want)
			}
			if got := ParseHeader(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), names...); !reflect.DeepEqual(got, want) {
				t.Fatalf("with LF: %q\nas it is: %q", got, want)
			}
			for _, f := range want {
				if f.Name == "" || strings.ContainsAny(f.Name, ":\n") || strings.Contains(f.Value, "\n") || len(f.Value) > maxValue {
					t.Fatalf("%q", f)
				}
			}
		}
		if id := MessageID(string(raw)); len(id) > maxMessageID || NotmuchID(id) != id {
			t.Fatalf("%q", id)
		}
	})
}
