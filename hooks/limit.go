package hooks

import (
	"context"
	"fmt"
	"time"
)

// Limits are what a message may have to be downloaded; 0 is no limit.
type Limits struct {
	Mailboxes Mailboxes
	Size      int64 // bytes
	Age       time.Duration
	Tags      Tags // of the placeholder
	// Silent: no placeholder stands for it.
	Silent bool
	Now    func() time.Time // nil: time.Now
}

// Limit leaves messages on the server that are too large or too old. What the
// server does not tell of a message does not keep it away.
func Limit(name string, l Limits) Hook {
	if l.Now == nil {
		l.Now = time.Now
	}
	return Hook{
		Name: name, Doc: "leaves large or old mail on the server", Points: []Point{PreFetch},
		Run: l.Mailboxes.only(func(_ context.Context, e *Event) (Verdict, error) {
			why := l.exceeded(e)
			if why == "" {
				return Verdict{}, nil
			}
			v := l.Tags.verdict()
			v.Action, v.Reason, v.Placeholder = Skip, why, !l.Silent
			return v, nil
		}),
	}
}

func (l Limits) exceeded(e *Event) string {
	if l.Size > 0 && e.Size > l.Size {
		return fmt.Sprintf("it has %s, more than %s", bytesOf(e.Size), bytesOf(l.Size))
	}
	received, err := time.Parse(time.RFC3339, e.Received)
	if l.Age > 0 && err == nil && l.Now().Sub(received) > l.Age {
		return fmt.Sprintf("it came on %s, more than %d days ago", received.Format(time.DateOnly), l.Age/(24*time.Hour))
	}
	return ""
}
