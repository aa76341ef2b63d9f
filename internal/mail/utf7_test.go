package mail

import (
	"testing"
	"unicode/utf8"
)

func TestModifiedUTF7(t *testing.T) {
	t.Parallel()
	for name, wire := range map[string]string{
		"INBOX":              "INBOX",
		"Entwürfe":           "Entw&APw-rfe",
		"R&D":                "R&-D",
		"~peter/mail/台北/日本語": "~peter/mail/&U,BTFw-/&ZeVnLIqe-", // RFC 3501 5.1.3
		"😀":                  "&2D3eAA-",
		"Gelöschte Elemente": "Gel&APY-schte Elemente",
		"&&":                 "&-&-",
		"":                   "",
		"tab\there":          "tab&AAk-here",
		"Отправленные":       "&BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1-",
	} {
		if got := EncodeName(name); got != wire {
			t.Errorf("EncodeName(%q) = %q, want %q", name, got, wire)
		}
		if got, err := DecodeName(wire); err != nil || got != name {
			t.Errorf("DecodeName(%q) = %q, %v, want %q", wire, got, err, name)
		}
	}
	for _, wire := range []string{"A&b", "&", "&AP-", "&A-", "Entw\xfcrfe", "Entwürfe", "a\x00", "&2D0-", "&!-", "&APw=-"} {
		if got, err := DecodeName(wire); err == nil {
			t.Errorf("DecodeName(%q) = %q", wire, got)
		}
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"INBOX", "Entw&APw-rfe", "R&-D", "A&b", "&2D3eAA-", "&2D0-", "Entw\xfcrfe", "Entwürfe", "&AGE-", "\x00&\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := DecodeName(s); err == nil {
			if !utf8.ValidString(name) {
				t.Errorf("DecodeName(%q) = %q, not UTF-8", s, name)
			}
			// Other spellings are kept by the session; the usual one is stable.
			if again, err := DecodeName(EncodeName(name)); err != nil || again != name {
				t.Errorf("%q is %q, and comes back as %q, %v", s, name, again, err)
			}
		}
		wire := EncodeName(s)
		for _, c := range []byte(wire) {
			if c < ' ' || c > '~' {
				t.Fatalf("EncodeName(%q) = %q", s, wire)
			}
		}
		if utf8.ValidString(s) {
			if name, err := DecodeName(wire); err != nil && !containsReplacement(s) || err == nil && name != s {
				t.Errorf("%q goes as %q, and comes back as %q, %v", s, wire, name, err)
			}
		}
	})
}

// containsReplacement: U+FFFD stands for what cannot be read, and is refused.
func containsReplacement(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError {
			return true
		}
	}
	return false
}
