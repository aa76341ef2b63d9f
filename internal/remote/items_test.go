package remote

import (
	"testing"
	"time"
)

func TestINTERNALDATEsInOddForms(t *testing.T) {
	t.Parallel()
	want := time.Date(2019, 3, 5, 8, 9, 10, 0, time.UTC)
	for _, s := range []string{
		" 5-Mar-2019 08:09:10 +0000", "05-Mar-2019 09:09:10 +0100", "5-mar-2019 09:09:10 +01:00", "05-Mar-2019 08:09:10 GMT", "05-Mar-2019 08:09:10",
		"05-Mar-2019  08:09:10 +0000", "05-Mar-19 08:09:10 +0000", "5 Mar 2019 08:09:10 +0000", "Tue, 5 Mar 2019 09:09:10 +0100", "Tue, 05 Mar 2019 08:09:10 +0000 (UTC)",
		"2019-03-05T08:09:10Z", "2019-03-05T09:09:10+01:00", "2019-03-05 08:09:10 +0000", "2019-03-05 08:09:10",
	} {
		if got := parseDate(s); !got.Equal(want) {
			t.Errorf("%q: %v", s, got)
		}
	}
	for s, want := range map[string]time.Time{"05-Mar-2019 08:09 +0000": want.Truncate(time.Minute), "05-Mar-2019": want.Truncate(24 * time.Hour)} {
		if got := parseDate(s); !got.Equal(want) {
			t.Errorf("%q: %v", s, got)
		}
	}
	for _, s := range []string{"", "yesterday", "NIL", "32-Mar-2019 08:09:10 +0000", "5-Foo-2019 08:09:10 +0000", "1551773350"} {
		if got := parseDate(s); !got.IsZero() {
			t.Errorf("%q: %v", s, got)
		}
	}
}
