package ledger

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
)

// SQLite reads each text once, as long as there are not too many of them, and all are answered
// whether they are kept or not, also over a connection that replaces one that was interrupted.
func TestAStatementIsReadOnce(t *testing.T) {
	t.Parallel()
	read := make(map[string]int)
	l, err := OpenThrough(t.Context(), t.TempDir(), &ledgertest.Driver{Fault: func(what string) error {
		if text, is := strings.CutPrefix(what, "PREPARE "); is {
			read[text]++
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	use := func(lengths int) {
		t.Helper()
		if err := l.SaveMailbox(t.Context(), Mailbox{Name: "INBOX"}); err != nil {
			t.Fatal(err)
		}
		for n := range lengths {
			uids := make([]imap.UID, n+1) // of which one is there
			for i := range uids {
				uids[i] = imap.UID(i + 1)
			}
			if err := l.Record(t.Context(), Change{Metas: map[string]string{"a": "1", "b": ""}, Save: []Message{present(1)}}); err != nil {
				t.Fatal(err)
			}
			ms, err := l.GetMany(t.Context(), "INBOX", present(1).UIDValidity, uids)
			v, err2 := l.Meta(t.Context(), "a")
			if err := errors.Join(err, err2); err != nil || len(ms) != 1 || v != "1" {
				t.Fatalf("%d messages, %q, %v", len(ms), v, err)
			}
		}
	}
	use(10)
	use(10)
	for text, n := range read {
		if n != 1 {
			t.Errorf("%d times: %s", n, text)
		}
	}
	few := len(read)
	use(2 * mostReady)
	for text, n := range read {
		if n != 1 && !strings.Contains(text, " uid IN (") {
			t.Errorf("%d times among many: %s", n, text)
		}
	}
	if len(read) < few+mostReady {
		t.Errorf("%d texts, to be more than are kept", len(read))
	}

	ctx, cancel := context.WithCancel(t.Context())
	rows, err := l.db.QueryContext(ctx, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	cancel()
	for rows.Next() { // it has no end
	}
	if err := rows.Close(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	use(10)
}
