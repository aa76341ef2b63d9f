package pipeline

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// unsent gives what is remembered of refused uploads.
func (h *home) unsent() (all []journal.Unsent) {
	h.t.Helper()
	h.edit(func(l *ledger.Ledger) (err error) {
		notes, err := journal.Of(l).Unsent.All(h.t.Context())
		all = slices.Collect(maps.Values(notes))
		return err
	})
	return all
}

// What the server refused is forgotten when the file is gone, goes elsewhere, or is
// another mail by now, and is no reason to hold anything else back.
func TestARefusedUploadIsRememberedByItsFile(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "MOVE", "CONDSTORE"), newHome(t)
	s.box("INBOX").add(plainMail(1))
	s.box("Archive").add(plainMail(2))
	s.box("Trash").add(plainMail(3))
	h.sync(s)
	for i := range 4 {
		h.put("INBOX", plainMail(10+i), "S")
	}
	s.refuses = map[string]*mail.Fault{"APPEND": {Kind: mail.KindNo, Code: "TOOBIG", Text: "too big"}}
	if rep := h.sync(s); len(rep.Faults) != 1 || len(h.unsent()) != 4 {
		t.Fatalf("%+v, %+v", rep, h.unsent())
	}
	s.refuses = nil
	names := make(map[string]string)
	for _, u := range h.unsent() {
		names[u.ID] = u.Name
	}
	h.do(os.Remove(h.path("INBOX", names["m10@example.org"])))
	h.do(os.Rename(h.path("INBOX", names["m11@example.org"]), h.path("Archive", names["m11@example.org"])))
	h.do(os.WriteFile(h.path("INBOX", names["m12@example.org"]), []byte("Subject: mail 12\nMessage-ID: <m12@example.org>\n\nanother text\n"), 0o600))
	h.remove("INBOX", 1)
	rep := h.sync(s)
	if rep.Uploaded != 2 || rep.Deleted != 1 || rep.Unsent != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	if left := h.unsent(); len(left) != 1 || left[0].ID != "m13@example.org" {
		t.Errorf("%+v", left)
	}
	if rep := h.sync(s, func(o *Options) { o.Full = true }); rep.Uploaded != 1 || len(h.unsent()) != 0 {
		t.Errorf("%+v, %+v", rep, h.unsent())
	}
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}
