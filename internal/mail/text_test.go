package mail

import (
	"strings"
	"testing"
)

// What a server says is escaped once, however often it is passed on.
func TestAServersWordsAreEscapedOnce(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"in use":                         `"in use"`,
		"\x1b[31mred\x07\r\n\x00":        `"\x1b[31mred\x07\x0d\x0a\x00"`,
		"he said \"no\" \\ \u202e\u0085": `"he said "no" \ \u202e\x85"`,
		"no UTF-8: \xff\xc3":             `"no UTF-8: \xff\xc3"`,
		"Übergröße\t日本":                  "\"Übergröße\t日本\"",
	} {
		for _, text := range []string{raw, Visible(raw), Visible(Visible(raw))} {
			f := &Fault{Kind: KindBye, Op: "SELECT", Text: text}
			if got := f.Error(); got != "SELECT: the server ended the session: "+want {
				t.Errorf("%q is told as %s", raw, got)
			}
		}
		if strings.ContainsAny(Visible(raw), "\x1b\r\n\x00\u202e") {
			t.Errorf("%q is not escaped: %q", raw, Visible(raw))
		}
	}
}

// What is printed to be typed is one word of a shell, whatever it is called.
func TestTyped(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{"work/A & B": "'work/A & B'", "[Gmail]/All Mail": "'[Gmail]/All Mail'", "it's": `'it'\''s'`, "work/Archive-1.2": "work/Archive-1.2", "Entwürfe": "Entwürfe", "": "''"} {
		if got := Typed(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}
