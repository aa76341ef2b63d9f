package pipeline

import (
	"context"
	"maps"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Unsent is mail that is new here and that the server refused.
type Unsent = journal.Unsent

// UnsentOf gives the mail that an account's server refused.
func UnsentOf(ctx context.Context, l *ledger.Ledger) ([]Unsent, error) {
	all, err := journal.Of(l).Unsent.All(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Values(all)), nil
}
