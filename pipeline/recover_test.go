package pipeline

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// atRest asserts what holds of the ledger's notes when there is nothing to do: each is of
// a kind that is declared, says nothing of what is under way, and is about a mailbox, a
// folder or a file that there is. Any other one would be left for ever. And a file is that of one
// message.
func (h *home) atRest(s *server) {
	h.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(h.dir, "state", "ledger.db"))
	h.do(err)
	defer func() { h.do(db.Close()) }()
	rows, err := db.QueryContext(h.t.Context(), "SELECT key, value FROM meta")
	h.do(err)
	defer func() { h.do(rows.Close()) }()
	j := journal.Of(nil)
	for rows.Next() {
		var key, value string
		h.do(rows.Scan(&key, &value))
		k, ok := j.KindOf(key)
		about := strings.TrimPrefix(key, k.Key)
		switch {
		case !ok:
			h.t.Errorf("the note %q is of no kind that is declared", key)
			continue
		case k.Life == journal.Intent, value == "":
			h.t.Errorf("the note %q is left: %q", key, value)
			continue
		}
		there := true
		switch box := k.Mailbox(key); {
		case box != "":
			_, err := os.Lstat(filepath.Join(h.dir, "mail", box))
			there = s.boxes[box] != nil || err == nil
		case k.Form == journal.OfFolder && k.Life != journal.Always:
			_, err := os.Lstat(filepath.Join(h.dir, "mail", about))
			there = err == nil
		case k.Form == journal.OfFile, k.Form == journal.OfFileIn:
			names, err := filepath.Glob(filepath.Join(h.dir, "mail", "*", "*", about+"*"))
			h.do(err)
			there = len(names) > 0
		}
		if !there {
			h.t.Errorf("the note %q is left of what is not there any more: %q", key, value)
		}
	}
	h.do(rows.Err())
	var shared int
	h.do(db.QueryRowContext(h.t.Context(), "SELECT count(*) - count(DISTINCT mailbox || '/' || key) FROM message WHERE state = 'present' AND key <> ''").Scan(&shared))
	if shared > 0 {
		h.t.Errorf("%d rows have the file of another one", shared)
	}
}

// The order in which a run ends what an earlier one left is that of the journal, and every
// kind of intent has its place in it.
func TestRecoveryIsInTheJournalsOrder(t *testing.T) {
	t.Parallel()
	var got, want []string
	r := &run{}
	for _, rec := range slices.Concat(r.recoverHere(), (&worker{run: r}).recoverThere(&listing{}), r.recoverListed(nil)) {
		got = append(got, rec.of...)
	}
	for _, k := range journal.Of(nil).Kinds() {
		if k.Life == journal.Intent {
			want = append(want, k.Key)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("they are ended in the order %q, the journal says %q", got, want)
	}
}

// What was noted of what is there no more goes: of a mailbox that came back, of a mailbox
// that is forgotten, of files that were taken away, and of a time that is over.
func TestNotesGoWithWhatTheyAreAbout(t *testing.T) {
	t.Parallel()
	s, h, _ := few(t)
	h.sync(s)
	h.edit(func(l *ledger.Ledger) error {
		for key, text := range map[string]string{
			"gone/14/INBOX": "said", "folder/Nowhere": "said", "odd/x\r\ny": "said", "uploaded/gone": "INBOX", "twin/gone": "said",
			"not_before": "2025-01-01T00:00:00Z", "moving/Nowhere": "{}",
		} {
			if err := l.SetMeta(t.Context(), key, text); err != nil {
				return err
			}
		}
		return nil
	})
	h.put("INBOX", plainMail(77), "S") // so that the folder is read
	h.sync(s)
	h.quiet(s)

	// A mailbox that is forgotten since it is gone on both sides takes along what was
	// refused and what its flags are.
	h.edit(func(l *ledger.Ledger) error {
		for key, text := range map[string]string{
			"unsent/Archive/k": `{"mailbox":"Archive"}`, `stays/\Flagged/Archive`: "said", "uploaded/k": "Archive", "standing/push/Archive": "2026-01-01T00:00:00Z x",
		} {
			if err := l.SetMeta(t.Context(), key, text); err != nil {
				return err
			}
		}
		return nil
	})
	delete(s.boxes, "Archive")
	h.do(os.RemoveAll(filepath.Join(h.dir, "mail", "Archive")))
	h.sync(s)
	h.sync(s)
	h.atRest(s)
}
