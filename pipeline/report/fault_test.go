package report

import (
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestRetrySchedule(t *testing.T) {
	now := time.Unix(0, 0)
	for attempts, want := range map[int]time.Duration{1: 15 * time.Minute, 2: time.Hour, 3: 24 * time.Hour, 4: 168 * time.Hour, 50: 168 * time.Hour} {
		if got := RetryAt(now, attempts).Sub(now); got != want {
			t.Errorf("after %d attempts: %v, want %v", attempts, got, want)
		}
	}
}

func TestEveryKindHasItsConsequence(t *testing.T) {
	for k := mail.KindDial; k <= mail.KindTooLarge; k++ {
		if _, ok := consequences()[k]; !ok {
			t.Errorf("%v has none", k)
		}
	}
}
