package remote

import (
	"testing"
	"unicode/utf8"
)

func FuzzDisplayName(f *testing.F) {
	for _, s := range []string{"INBOX", "Entw\xfcrfe", "Entwürfe", "\x00&\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if shown := displayName(s); !utf8.ValidString(shown) {
			t.Errorf("displayName(%q) = %q", s, shown)
		}
	})
}
