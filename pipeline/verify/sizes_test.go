package verify

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// wrote has another program write the file of a message, before it was taken over; size is what
// the server says.
func (w *world) wrote(t *testing.T, uid int, raw string, size int64) {
	t.Helper()
	raw = strings.ReplaceAll(raw, "\r\n", "\n")
	if err := os.WriteFile(w.file(uid), []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	rows, err := w.ledger.GetMany(t.Context(), "INBOX", 7, []imap.UID{imap.UID(uid)})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%v, %v", rows, err)
	}
	if rows[0].Digest, err = mail.DigestOf(strings.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	rows[0].Size = size
	if err := w.ledger.Save(t.Context(), rows[0]); err != nil {
		t.Fatal(err)
	}
	w.messages[uid-1].Size = size
}

// TestASizeThatIsAnotherHereIsLookedInto: a file that another program left, and that was cut off
// before it was taken over, is found without asking for more than the messages whose sizes differ;
// what others add to a header, and a server that does not count exactly, are no difference.
func TestASizeThatIsAnotherHereIsLookedInto(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		n       int
		change  func(t *testing.T, w *world)
		want    []string
		fetched []imap.UID
		unsized int
	}{
		"cut off": {3, func(t *testing.T, w *world) { w.wrote(t, 2, text(2)[:22], int64(len(text(2)))) },
			[]string{"2 content:  its file, which another program wrote, has 9 bytes less than the mail on the server, as one that was cut off; move that away, and `notmuch imap sync --restore work` brings what the server has"}, []imap.UID{2}, 0},
		"a header alone": {3, func(t *testing.T, w *world) {
			w.wrote(t, 1, "X-TUID: 123456789012\r\n"+text(1)[:len("Message-ID: <1@x>\r\n\r\n")], int64(len(text(1))))
		},
			[]string{"1 content:  its file, which another program wrote, has 10 bytes less than the mail on the server, as one that was cut off; move that away, and `notmuch imap sync --restore work` brings what the server has"}, []imap.UID{1}, 0},
		"more here": {3, func(t *testing.T, w *world) { w.wrote(t, 2, text(2)+"and more\r\n", int64(len(text(2)))) },
			[]string{"2 content:  its text on the server is another than the one that came; move that away, and `notmuch imap sync --restore work` brings what the server has"}, []imap.UID{2}, 0},
		"what others add": {3, func(t *testing.T, w *world) {
			w.wrote(t, 2, "X-TUID: 123456789012\r\nStatus: RO\r\nContent-Length: 10\r\nLines: 1\r\n"+text(2), int64(len(text(2))))
		}, nil, nil, 0},
		"a line end less":        {3, func(t *testing.T, w *world) { w.wrote(t, 2, strings.TrimSuffix(text(2), "\r\n"), int64(len(text(2)))) }, nil, []imap.UID{2}, 0},
		"a server's wrong sizes": {3, func(t *testing.T, w *world) { w.wrote(t, 2, text(2), 99); w.wrote(t, 3, text(3), 12) }, nil, []imap.UID{3, 2}, 0},
		"a server that counts otherwise": {few + 1, func(t *testing.T, w *world) {
			for i := range w.messages {
				w.wrote(t, i+1, text(i+1), int64(len(text(i+1))+100))
			}
		}, nil, nil, few + 1},
		"all texts are compared anyhow": {3, func(t *testing.T, w *world) { w.Deep = true; w.wrote(t, 2, text(2)[:22], int64(len(text(2)))) }, nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.n)
			c.change(t, w)
			result, _ := w.sides(t, c.want...)
			slices.Sort(w.fetched)
			slices.Sort(c.fetched)
			if !slices.Equal(w.fetched, c.fetched) || result.Unsized != c.unsized || result.Messages != c.n {
				t.Errorf("fetched %v, want %v; %+v", w.fetched, c.fetched, result)
			}
		})
	}
}
