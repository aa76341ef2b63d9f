package pipeline

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// TestAMailWhoseINTERNALDATECannotBeReadHasItsOwn: the date of its file is that of its
// header, unless that cannot be, either.
func TestAMailWhoseINTERNALDATECannotBeReadHasItsOwn(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	inbox := s.box("INBOX")
	dated := func(date string) string {
		return strings.Replace(rawMail(len(inbox.msgs)+1), "Subject:", date+"Subject:", 1)
	}
	good := inbox.add(dated("Date: Tue, 5 Mar 2019 08:09:10 +0100\r\n"))
	bad := inbox.add(dated("Date: Tue, 5 Mar 2190 08:09:10 +0100\r\n"))
	none := inbox.add(dated(""))
	for _, m := range inbox.msgs {
		m.date = time.Time{}
	}
	h.sync(s)
	for uid, want := range map[imap.UID]time.Time{good: time.Date(2019, 3, 5, 7, 9, 10, 0, time.UTC), bad: h.now, none: h.now} {
		fi, err := os.Stat(h.path("INBOX", h.file("INBOX", uid)))
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.ModTime(); !got.Equal(want.Truncate(time.Second)) {
			t.Errorf("UID %d: %v, want %v", uid, got, want)
		}
	}
}
