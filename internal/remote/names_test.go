package remote

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzDisplayName(f *testing.F) {
	for _, s := range []string{"INBOX", "Entw\xfcrfe", "Entwürfe", "\x00&\r\n", "a\u0085b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if shown := displayName(s); !utf8.ValidString(shown) || strings.ContainsFunc(shown, unicode.IsControl) {
			t.Errorf("displayName(%q) = %q", s, shown)
		}
	})
}
