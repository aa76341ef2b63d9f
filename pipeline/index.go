package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// tell tells notmuch of changes that are no items on the line. What this machine
// could not do for one of them is an error, too: nothing else would do it later. That
// a file is gone by now is none, nor that notmuch never takes it.
func (r *run) tell(ctx context.Context, changes []mail.Change) error {
	results, err := r.Index.Apply(ctx, changes)
	for _, res := range results {
		if res.Err != nil && !res.NotMail && !errors.Is(res.Err, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("notmuch could not be told of %s: %w", res.Path, res.Err))
		}
	}
	return err
}
