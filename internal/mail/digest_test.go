package mail

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
)

func TestWhatOthersAddDoesNotChangeTheDigest(t *testing.T) {
	t.Parallel()
	const mail = "From: a@example.org\nSubject: status: lines\n of two\nX-Mine: 1\n\nStatus: body\n\nNUL \x80\n"
	want, err := DigestOf(strings.NewReader(mail))
	if err != nil {
		t.Fatal(err)
	}
	for name, same := range map[string]string{
		"line ends":          strings.ReplaceAll(mail, "\n", "\r\n"),
		"some line ends":     strings.Replace(mail, "\n", "\r\n", 2),
		"twice CR":           strings.ReplaceAll(mail, "\n", "\r\r\n"),
		"a newline":          mail + "\n",
		"many newlines":      mail + strings.Repeat("\r\n", 1000),
		"no newline":         strings.TrimSuffix(mail, "\n"),
		"NUL":                strings.ReplaceAll(mail, "\x80", "\x00"),
		"on top":             "X-TUID: abc\nX-OfflineIMAP: 1-2\r\n" + mail,
		"folded":             "x-keywords:\n a\n\tb\n" + mail,
		"blank before colon": "Status \t: RO\n" + mail,
		"at the end":         strings.Replace(mail, "\n\n", "\nstatus: O\nX-Status: A\nContent-Length: 12\nLines: 3\nX-UID: 7\nX-Keywords:\n\n", 1),
	} {
		if got, err := DigestOf(strings.NewReader(same)); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, other := range map[string]string{
		"another field":    "X-Other: 1\n" + mail,
		"another body":     mail + "x",
		"a field less":     strings.Replace(mail, "X-Mine: 1\n", "", 1),
		"a lone CR":        strings.Replace(mail, "body", "bo\rdy", 1),
		"newlines between": strings.Replace(mail, "body\n", "body\n\n", 1),
		"blanks":           mail + " ",
		"in the body":      strings.Replace(mail, "Status: body\n", "", 1),
		"no field":         "Status RO\n" + mail,
	} {
		if got, err := DigestOf(strings.NewReader(other)); err != nil || got == want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := DigestOf(iotest.ErrReader(iotest.ErrTimeout)); err == nil {
		t.Error("an error is not told")
	}
}

// FuzzDigest: a digest is the same however the mail is cut, whichever its line
// ends, and with what others add to it.
func FuzzDigest(f *testing.F) {
	for _, raw := range samples(f) {
		f.Add(raw, uint64(1))
	}
	f.Add([]byte("Status: a\r\r\n c\r\r\rX-UID\t : <x\r\n \ty@z>\r\n\r\r\nbody\r\r\n\n\x00\n\n"), uint64(2))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		want, _ := DigestOf(bytes.NewReader(raw))
		d := NewDigester()
		for _, p := range cut(raw, seed) {
			_, _ = d.Write(p)
		}
		if got := d.Sum(); got != want {
			t.Fatalf("cut: %v\nwhole: %v", got, want)
		}
		for name, same := range map[string][]byte{
			"with LF":   bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")),
			"with CRLF": bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n")),
			"newlines":  append(bytes.Clone(raw), "\r\n\n"...),
			"NUL":       bytes.ReplaceAll(raw, []byte{0}, []byte{0x80}),
		} {
			if got, _ := DigestOf(bytes.NewReader(same)); got != want {
				t.Fatalf("%s: %v\nwhole: %v", name, got, want)
			}
		}
		// A line that begins with a blank would continue the field.
		if len(raw) > 0 && raw[0] != ' ' && raw[0] != '\t' {
			if got, _ := DigestOf(strings.NewReader("X-TUID: a\r\n b\r\n" + string(raw))); got != want {
				t.Fatalf("with X-TUID: %v\nwhole: %v", got, want)
			}
		}
	})
}
