package pipeline

import (
	"context"
	"crypto/rand"
	"io"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Tags of ours on messages.
const (
	TagFailed   = stub.LabelFailed  // on a stub
	TagSalvaged = plan.TagSalvaged  // on a mail that came by another road
	TagSkipped  = stub.LabelSkipped // on a stub of a message that a hook left on the server
	TagUnsent   = plan.TagUnsent    // on new mail that the server refused
)

// KeyOf gives the key of a row's message.
func KeyOf(account string, row ledger.Message) stub.Key {
	return stub.NewKey(account, row.Mailbox, row.UIDValidity, row.UID)
}

// secret is what an account's stubs are signed by.
type secret struct {
	journal *journal.Journal
	dryRun  bool
	step    func(effect string)
	text    string
}

// read gives it, and makes one if there is none.
func (s *secret) read(ctx context.Context) (string, error) {
	if s.text != "" {
		return s.text, nil
	}
	noted, ok, err := s.journal.Secret.Get(ctx)
	if s.text = string(noted); err != nil || ok {
		return s.text, err
	}
	s.text = rand.Text()
	if s.dryRun {
		return s.text, nil
	}
	if err := s.journal.Secret.Set(ctx, journal.Text(s.text)); err != nil {
		return "", err
	}
	s.step("secret recorded")
	return s.text, nil
}

// VerifyStub tells whether r, a mail from its beginning, can be a stub of the ledger's
// account: it is signed, or has no sign of having come by mail, as those of before
// signatures. That there is such a message, the ledger's rows say.
func VerifyStub(ctx context.Context, l *ledger.Ledger, r io.Reader) (bool, error) {
	c, err := stub.ReadClaim(r)
	if err != nil {
		return false, nil //nolint:nilerr // then it is none
	}
	secret, _, err := journal.Of(l).Secret.Get(ctx)
	return err == nil && (c.SignedBy(string(secret)) || !c.Mailed), err
}
