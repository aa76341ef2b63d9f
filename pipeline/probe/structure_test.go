package probe

import (
	"reflect"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestStructuresOfRealServers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		raw  string
		want []mail.Part
	}{
		"the seed's": {`("text" "plain" ("charset" "iso-8859-1") NIL NIL "quoted-printable" 1 1)`, []mail.Part{
			{Path: "1", Type: "text", Subtype: "plain", Params: map[string]string{"charset": "iso-8859-1"}, Encoding: "quoted-printable", Size: 1},
		}},
		"nested": {`((("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 5 1 NIL NIL NIL NIL)("TEXT" "HTML" NIL NIL NIL "BASE64" 9 1 NIL NIL NIL NIL) "ALTERNATIVE" ("BOUNDARY" "b") NIL NIL NIL)` +
			`("APPLICATION" "PDF" ("NAME" "a b.pdf") "<id>" "a description" "BASE64" 12345 NIL ("ATTACHMENT" ("FILENAME" "a \"b\".pdf" "SIZE" "9000")) NIL NIL) "MIXED" ("BOUNDARY" "c") NIL NIL NIL)`, []mail.Part{
			{Path: "1.1", Type: "text", Subtype: "plain", Params: map[string]string{"charset": "utf-8"}, Encoding: "7bit", Size: 5},
			{Path: "1.2", Type: "text", Subtype: "html", Encoding: "base64", Size: 9},
			{Path: "2", Type: "application", Subtype: "pdf", Params: map[string]string{"name": "a b.pdf"}, Encoding: "base64", Size: 12345, Disposition: "attachment", Filename: `a "b".pdf`},
		}},
		"a message within": {`(("text" "plain" NIL NIL NIL "7bit" 1 1)("message" "rfc822" NIL NIL NIL "8bit" 100 ("date" "s" NIL NIL NIL NIL NIL NIL NIL "id") ("text" "plain" NIL NIL NIL "7bit" 2 1) 5) "mixed")`, []mail.Part{
			{Path: "1", Type: "text", Subtype: "plain", Encoding: "7bit", Size: 1},
			{Path: "2", Type: "message", Subtype: "rfc822", Encoding: "8bit", Size: 100},
		}},
		"NIL for the encoding (MS KB 975918)": {`("text" "plain" NIL NIL NIL NIL 7 1)`, []mail.Part{{Path: "1", Type: "text", Subtype: "plain", Size: 7}}},
		"atoms, and little of it":             {`(text plain)`, []mail.Part{{Path: "1", Type: "text", Subtype: "plain"}}},
		"NIL for the type":                    {`(NIL NIL NIL NIL NIL NIL NIL)`, []mail.Part{{Path: "1"}}},
	} {
		got, err := ParseStructure([]byte(tc.raw))
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", name, err, got, tc.want)
		}
	}
}

func TestWhatComesBeforeAnUnreadablePlaceIsGiven(t *testing.T) {
	t.Parallel()
	got, err := ParseStructure([]byte(`(("text" "plain" NIL NIL NIL "7bit" 1 1)("application" "pdf" ("name" "a`))
	if err == nil || len(got) != 2 || got[0].Type != "text" || got[1].Subtype != "pdf" {
		t.Errorf("%v, %+v", err, got)
	}
	for _, raw := range []string{"", "NIL", `"x"`, ")", "()", strings.Repeat("(", 100_000)} {
		if got, err := ParseStructure([]byte(raw)); err == nil || len(got) > 0 {
			t.Errorf("%.20q: %v, %+v", raw, err, got)
		}
	}
}

func FuzzStructure(f *testing.F) {
	f.Add([]byte(`((("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 5 1)("TEXT" "HTML" NIL NIL NIL "BASE64" 9 1) "ALTERNATIVE")("A" "B" ("NAME" "a\"") NIL NIL "BASE64" 1 NIL ("ATTACHMENT" ("FILENAME" "a"))) "MIXED")`))
	f.Add([]byte(`("a" "b" NIL NIL "\x`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		parts, _ := ParseStructure(raw)
		if len(parts) > maxStructureParts {
			t.Fatalf("%d parts", len(parts))
		}
		paths := make(map[string]bool)
		for _, p := range parts {
			if p.Path == "" || paths[p.Path] {
				t.Fatalf("path %q twice, or none", p.Path)
			}
			paths[p.Path] = true
		}
	})
}
