package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// BenchmarkReconcile is of an account with 300,000 rows in one mailbox, of which 1,000
// changed on either side: 250 are flagged, 250 gone, 250 new, and 250 moved. The bound is
// 100 ms and 50 MB beyond the rows.
func BenchmarkReconcile(b *testing.B) {
	const all, part = 300_000, 250
	date := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	message := func(box string, n int) ledger.Message {
		return ledger.Message{Mailbox: box, UID: imap.UID(n), State: ledger.Present, Key: fmt.Sprint("k", n), ID: fmt.Sprintf("m%d@example.org", n), Size: 1000,
			Date: date, Flags: []string{`\Seen`}, Digest: mail.Digest{byte(n), byte(n >> 8), byte(n >> 16)}}
	}
	rows := make([]ledger.Row, all)
	flags := []string{`\Seen`}
	for i := range rows {
		rows[i] = ledger.Row{UID: imap.UID(i + 1), State: ledger.Present, Key: fmt.Sprint("k", i+1), Flags: flags}
	}
	for _, complete := range []bool{false, true} {
		b.Run(fmt.Sprintf("complete=%v", complete), func(b *testing.B) {
			v := View{Complete: complete}
			var listed []mail.Message
			var originals []ledger.Message
			for i := range all {
				u := imap.UID(i + 1)
				gone := i%(all/(2*part)) == 0
				switch {
				case gone && !complete:
					v.Vanished.AddNum(u)
				case complete && !gone:
					v.UIDs = append(v.UIDs, u)
					v.Messages = append(v.Messages, mail.Message{UID: u, Flags: flags})
				}
				if gone {
					originals = append(originals, message("INBOX", i+1))
				}
				if i%(all/part) == 1 {
					v.Messages = append(v.Messages, mail.Message{UID: u, Flags: []string{`\Flagged`}})
				}
			}
			for n := range 2 * part { // half of them moved
				u := imap.UID(all + n + 1)
				v.Messages = append(v.Messages, mail.Message{UID: u, Flags: flags})
				if complete {
					v.UIDs = append(v.UIDs, u)
				}
				m := mail.Message{UID: u, Size: 1000, InternalDate: date, MessageID: fmt.Sprintf("new%d@example.org", n)}
				if n < part {
					m.MessageID = originals[n].ID
				}
				listed = append(listed, m)
			}
			b.ReportAllocs()
			for b.Loop() {
				local := &Local{Flags: make(map[imap.UID]Delta), Have: all, Files: all}
				moved := &Local{Flags: make(map[imap.UID]Delta), Have: 1000, Files: 1000}
				for n := range part {
					local.Flags[imap.UID(n+1)] = Delta{Add: []string{`\Flagged`}}
					m := message("INBOX", 1000+n)
					local.Missing = append(local.Missing, m)
					moved.Untracked = append(moved.Untracked, Untracked{Message: m})
				}
				out := OfFolders(map[string]*Local{"INBOX": local, "Archive": moved}, Policy{Deletions: DeletionsTrash, Yes: func(string) bool { return false }, Whole: true})
				if out["INBOX"].Moved() != part {
					b.Fatalf("%d are moved", out["INBOX"].Moved())
				}
				if !complete && !AddsUp(rows, v, all) {
					b.Fatal("it does not add up")
				}
				todo := OfServer(rows, v)
				if len(todo.Fetch) != 2*part || len(todo.Gone) != 2*part || len(todo.Flags) < part/2 {
					b.Fatalf("%d new, %d gone, %d flagged", len(todo.Fetch), len(todo.Gone), len(todo.Flags))
				}
				if copies, ask := Copies(listed, originals, Evidence{}); len(copies) != part || len(ask) > 0 {
					b.Fatalf("%d are copies, %d texts are wanted", len(copies), len(ask))
				}
			}
		})
	}
}
