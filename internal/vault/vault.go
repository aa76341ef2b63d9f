// Package vault has the ways to what several programs may want at once: the system's
// keyring and locks on files. It waits no longer than it is told.
package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Ask lets the system's keyring do something. Its client cannot be interrupted: if
// it outlasts patience or the context, the goroutine is given up with it. The error is
// do's, the context's, or says that there was no answer.
func Ask(ctx context.Context, patience time.Duration, do func() (string, error)) (string, error) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct {
		secret string
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		s, err := do()
		got <- answer{s, err}
	}()
	select {
	case <-within.Done():
		if errors.Is(within.Err(), context.DeadlineExceeded) {
			return "", fmt.Errorf("no answer within %v; is it unlocked?", patience)
		}
		return "", within.Err()
	case a := <-got:
		return a.secret, a.err
	}
}
