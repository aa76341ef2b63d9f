package mail

import (
	"strings"
	"testing"
)

// TestExtends: what stands below a whole text makes no other mail, and what was cut off is one.
func TestExtends(t *testing.T) {
	t.Parallel()
	const head = "Message-ID: <a@example.org>\r\nSubject: x\r\n\r\n"
	const parts = "Content-Type: multipart/mixed;\r\n\tboundary=\"b b\"\r\n" + head
	const footer = "-- \r\na list\r\n"
	for name, c := range map[string]struct {
		shorter, longer string
		want            bool
	}{
		"a footer":                      {head + "text\r\n", head + "text\r\n" + footer, true},
		"other line ends":               {head + "text\n", head + "text\r\n" + footer, true},
		"the same":                      {head + "text\r\n", head + "text\r\n", true},
		"other headers":                 {head + "text\r\n", "X-Server: y\r\n" + head + "text\r\n" + footer, true},
		"another text":                  {head + "test\r\n", head + "text\r\n" + footer, false},
		"cut within a line":             {head + "text, to", head + "text, to the end\r\n", false},
		"cut behind the header":         {head, head + "text\r\n", false},
		"cut within the header":         {head[:20], head + "text\r\n", false},
		"nothing":                       {"", head + "text\r\n", false},
		"much cut at the end of a line": {head + "text\r\n", head + strings.Repeat("text\r\n", 1000), false},
		"below parts":                   {parts + "--b b\r\n\r\ntext\r\n--b b--\r\n", parts + "--b b\r\n\r\ntext\r\n--b b--\r\n" + footer, true},
		"cut between parts":             {parts + "--b b\r\n\r\ntext\r\n", parts + "--b b\r\n\r\ntext\r\n--b b--\r\n", false},
		"cut within the last boundary":  {parts + "--b b\r\n\r\ntext\r\n--b b-", parts + "--b b\r\n\r\ntext\r\n--b b--\r\n", false},
	} {
		for _, swap := range []bool{false, true} {
			a, b := c.shorter, c.longer
			if swap {
				a, b = b, a
			}
			if got, err := Extends(strings.NewReader(a), strings.NewReader(b)); err != nil || got != c.want {
				t.Errorf("%s, swapped %v: %v, %v", name, swap, got, err)
			}
			cut := !c.want && !swap && name != "another text"
			if got, err := IsCut(strings.NewReader(a), strings.NewReader(b)); err != nil || got != cut {
				t.Errorf("%s, swapped %v: cut is %v, %v", name, swap, got, err)
			}
		}
	}
}
