package imaptest

import (
	"bytes"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCorpusIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	type dated struct {
		date time.Time
		raw  []byte
	}
	var all []dated
	for date, raw := range Corpus(7, 300) {
		all = append(all, dated{date, raw})
	}
	i := 0
	for date, raw := range Corpus(7, 200) {
		if !date.Equal(all[i].date) || !bytes.Equal(raw, all[i].raw) {
			t.Fatalf("mail %d is another one", i)
		}
		i++
	}
	for _, raw := range Corpus(8, 1) {
		if bytes.Equal(raw, all[0].raw) {
			t.Error("seeds 7 and 8 begin alike")
		}
	}
}

func TestCorpusIsLikeRealMail(t *testing.T) {
	t.Parallel()
	const n = 5000
	var sizes []int
	var total, missing, replies, raw8 int
	ids := make(map[string]bool)
	found := make(map[string]int)
	var before time.Time
	for date, raw := range Corpus(1, n) {
		if !date.After(before) {
			t.Fatalf("%v comes after %v", date, before)
		}
		before = date
		if lines := bytes.Count(raw, []byte("\r\n")); lines != bytes.Count(raw, []byte("\n")) || lines != bytes.Count(raw, []byte("\r")) {
			t.Fatalf("not all lines end in CRLF:\n%.2000q", raw)
		}
		for line := range bytes.Lines(raw) {
			if len(line) > 1000 { // RFC 5322, 2.1.1
				t.Fatalf("a line of %d octets: %.200q", len(line), line)
			}
		}
		m, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%v:\n%.2000s", err, raw)
		}
		sizes = append(sizes, len(raw))
		total += len(raw)
		for _, ref := range strings.Fields(m.Header.Get("References")) {
			if !ids[ref] {
				t.Fatalf("a reference to %s, which did not come before", ref)
			}
		}
		if m.Header.Get("In-Reply-To") != "" {
			replies++
		}
		switch id := m.Header.Get("Message-ID"); {
		case id == "":
			missing++
		case ids[id]:
			t.Fatalf("%s comes twice", id)
		default:
			ids[id] = true
		}
		if strings.ContainsFunc(m.Header.Get("Subject"), func(r rune) bool { return r > '~' }) {
			raw8++
		}
		for _, what := range []string{
			"\r\nList-Id: ", "multipart/alternative", "multipart/mixed", "text/html", "Content-Disposition: attachment",
			"charset=us-ascii", "charset=utf-8", "charset=iso-8859-1", "charset=koi8-r",
			"Encoding: 8bit", "Encoding: base64", "Encoding: quoted-printable", "=?utf-8?b?", "=?koi8-r?q?", "=?iso-8859-1?q?",
		} {
			if bytes.Contains(raw, []byte(what)) {
				found[what]++
			}
		}
	}
	slices.Sort(sizes)
	median, large := sizes[n/2], sizes[n-1]
	t.Logf("median %d, 90%% %d, 99%% %d, largest %d, mean %d; %d without Message-ID, %d replies, %d raw subjects", median, sizes[n*9/10], sizes[n*99/100], large, total/n, missing, replies, raw8)
	t.Log(found)
	if len(sizes) != n {
		t.Errorf("%d mails, want %d", len(sizes), n)
	}
	if median < 3000 || median > 5500 {
		t.Errorf("the median size is %d", median)
	}
	if large < 500<<10 || large > 2<<20 || sizes[n*99/100] > 512<<10 {
		t.Errorf("the largest has %d, 99%% are below %d", large, sizes[n*99/100])
	}
	if missing < 3 || missing > n/50 {
		t.Errorf("%d mails have no Message-ID", missing)
	}
	if replies < n/4 || raw8 < 5 {
		t.Errorf("%d replies, %d subjects with raw 8-bit characters", replies, raw8)
	}
	for what, count := range found {
		if count < 20 {
			t.Errorf("%q: %d", what, count)
		}
	}
	if len(found) != 15 {
		t.Errorf("something was never found: %v", found)
	}
}
