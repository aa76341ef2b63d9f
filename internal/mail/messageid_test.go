package mail

import (
	"strings"
	"testing"
)

// What libnotmuch and Dovecot say of the same is in real_test.go.
func TestIDsHaveOneForm(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                                     "",
		" \t ":                                 "",
		"<a@b>":                                "a@b",
		" <a@b> (comment)":                     "a@b",
		"(c (d\\)) e) <a@b>":                   "a@b",
		"some text <a@b> <c@d>":                "a@b",
		"< (c) a@b>":                           "a@b",
		"<with blank@x y>":                     "withblank@xy",
		"<two  blanks@x>":                      "two blanks@x", // every second stays
		"a@b":                                  "a@b",
		"a b c@d":                              "a b c@d",
		"(c) a@b":                              "(c) a@b",
		"<>":                                   "<>",
		"<a>":                                  "<a>",
		"<open@x":                              "open@x",
		"(open <a@b>":                          "(open <a@b>",
		"<nul\x00inside@x>":                    "nul",
		"<nul\x80inside@x>":                    "nul",
		"\x00<a@b>":                            "",
		"<caf\xe9@x>":                          "café@x",
		"<café@x>":                             "café@x",
		"<=?utf-8?q?a=62?=@x>":                 "ab@x",
		"<" + strings.Repeat("a", 187) + "@x>": strings.Repeat("a", 187) + "@x",
		"<" + strings.Repeat("a", 188) + "@x>": "notmuch-sha1-11c9e3e6a211c883a44bbfac83e7e925b3d49792",
	} {
		if got := MessageID(value); got != want {
			t.Errorf("%q: %q, not %q", value, got, want)
		}
	}
	if got := NotmuchID("nul\u0080inside@x"); got != "nul" {
		t.Errorf("%q", got)
	}
}
