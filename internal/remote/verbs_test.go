package remote

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// TestVerbsOnTheWire: each verb is said as the RFCs have it, and a refusal says of what.
func TestVerbsOnTheWire(t *testing.T) {
	t.Parallel()
	uids := mail.UIDSet([]imap.UID{3, 4, 7})
	for line, c := range map[string]struct {
		do          func(context.Context, *Session) error
		op, mailbox string
	}{
		`UID STORE 3:4,7 +FLAGS.SILENT (\Deleted)`: {func(ctx context.Context, s *Session) error { return s.Store(ctx, uids, true, `\Deleted`) }, "UID STORE", "INBOX"},
		`UID STORE 3:4,7 -FLAGS.SILENT (work)`:     {func(ctx context.Context, s *Session) error { return s.Store(ctx, uids, false, "work") }, "UID STORE", "INBOX"},
		`UID MOVE 3:4,7 "A &- B"`: {func(ctx context.Context, s *Session) error {
			_, err := s.Move(ctx, uids, "A & B")
			return err
		}, "UID MOVE", "INBOX"},
		`UID COPY 3:4,7 "A \"B"`: {func(ctx context.Context, s *Session) error {
			_, err := s.Copy(ctx, uids, `A "B`)
			return err
		}, "UID COPY", "INBOX"},
		`UID EXPUNGE 3:4,7`: {func(ctx context.Context, s *Session) error { return s.ExpungeUIDs(ctx, uids) }, "UID EXPUNGE", "INBOX"},
		`EXPUNGE`:           {(func(ctx context.Context, s *Session) error { return s.ExpungeMarked(ctx) }), "EXPUNGE", "INBOX"},
		`CREATE "A"`:        {func(ctx context.Context, s *Session) error { return s.Create(ctx, "A") }, "CREATE", "A"},
		`DELETE "A"`:        {func(ctx context.Context, s *Session) error { return s.Delete(ctx, "A") }, "DELETE", "A"},
		`SUBSCRIBE "A"`:     {func(ctx context.Context, s *Session) error { return s.Subscribe(ctx, "A") }, "SUBSCRIBE", "A"},
		`UNSUBSCRIBE "A"`:   {func(ctx context.Context, s *Session) error { return s.Unsubscribe(ctx, "A") }, "UNSUBSCRIBE", "A"},
		`UID FETCH 3:4,7 (UID BODY.PEEK[HEADER.FIELDS (DATE FROM)])`: {func(ctx context.Context, s *Session) error {
			_, err := s.Headers(ctx, uids, "DATE", "FROM")
			return err
		}, "UID FETCH", "INBOX"},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			// What is not this line to the letter is answered with BAD.
			if err := c.do(t.Context(), examined(t, "IMAP4rev1", [2]string{line, "* OK still here\r\n"})); err != nil {
				t.Errorf("said otherwise: %v", err)
			}
			err := c.do(t.Context(), examined(t, "IMAP4rev1", [2]string{line, "{tag} NO [TRYCREATE] not there\r\n"}))
			f, ok := errors.AsType[*mail.Fault](err)
			if !ok || f.Kind != mail.KindNo || f.Op != c.op || f.Mailbox != c.mailbox || f.Code != "TRYCREATE" || f.Text != "not there" {
				t.Errorf("refused: %#v", err)
			}
			s := examined(t, "IMAP4rev1", [2]string{line, ""})
			if err := c.do(t.Context(), s); err == nil || s.Alive() {
				t.Errorf("hung up: %v", err)
			}
		})
	}
}

// TestCopied: where messages went is taken from the answer and from untagged lines, and
// only if it adds up.
func TestCopied(t *testing.T) {
	t.Parallel()
	two := map[imap.UID]imap.UID{3: 30, 4: 31}
	for name, c := range map[string]struct {
		answer   string
		validity uint64
		want     map[imap.UID]imap.UID
	}{
		"in the answer":       {"{tag} OK [COPYUID 7 3:4 30:31] done\r\n", 7, two},
		"in a line before":    {"* OK [COPYUID 7 3,4 30,31] moved\r\n", 7, two},
		"in pieces":           {"* OK [COPYUID 7 3 30] a\r\n* OK [COPYUID 7 4 31] b\r\n", 7, two},
		"backwards":           {"* OK [COPYUID 7 4,3 31,30] a\r\n", 7, two},
		"not told":            {"{tag} OK done\r\n", 0, nil},
		"one short":           {"{tag} OK [COPYUID 7 3:4 30] done\r\n", 0, nil},
		"four billion":        {"{tag} OK [COPYUID 7 1:4294967295 1:4294967295] done\r\n", 0, nil},
		"no numbers":          {"{tag} OK [COPYUID 7 a:b c:d] done\r\n", 0, nil},
		"no UIDVALIDITY":      {"{tag} OK [COPYUID x 3 30] done\r\n", 0, nil},
		"of two UIDVALIDITYs": {"* OK [COPYUID 7 3 30] a\r\n* OK [COPYUID 8 4 31] b\r\n", 7, map[imap.UID]imap.UID{3: 30}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := examined(t, "IMAP4rev1 MOVE", [2]string{"UID MOVE", c.answer}).Move(t.Context(), mail.UIDSet([]imap.UID{3, 4}), "A")
			if err != nil || got.UIDValidity != c.validity || !maps.Equal(got.UIDs, c.want) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestNamespace: the first of the user's own counts; a server that says nothing is none
// that has no prefix.
func TestNamespace(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]struct {
		prefix string
		told   bool
	}{
		"* NAMESPACE ((\"INBOX.\" \".\")) NIL NIL\r\n":                    {"INBOX.", true},
		"* NAMESPACE ((\"\" \"/\")(\"x\" \"/\")) NIL ((\"s\" \"/\"))\r\n": {"", true},
		"* NAMESPACE NIL NIL NIL\r\n":                                     {"", false},
		"{tag} NO not here\r\n":                                           {"", false},
	} {
		prefix, told, err := answering(t, "IMAP4rev1 NAMESPACE", [2]string{"NAMESPACE", answer}).Namespace(t.Context())
		if err != nil || prefix != want.prefix || told != want.told {
			t.Errorf("%q: %q %v %v", answer, prefix, told, err)
		}
	}
}
