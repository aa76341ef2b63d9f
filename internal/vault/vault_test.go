package vault

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAskWaitsNoLongerThanItIsTold(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	silent := func() (string, error) { <-ended; return "late", nil }
	if _, err := Ask(t.Context(), time.Millisecond, silent); err == nil || !strings.Contains(err.Error(), "is it unlocked?") {
		t.Errorf("a keyring that does not answer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ask(ctx, time.Minute, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	refused := errors.New("refused")
	if got, err := Ask(t.Context(), time.Minute, func() (string, error) { return "", refused }); got != "" || !errors.Is(err, refused) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Ask(t.Context(), time.Minute, func() (string, error) { return "secret", nil }); got != "secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
