package probe

import (
	"context"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// renewed is a session whose mailbox was made anew since it was examined.
type renewed struct {
	name string
	said []string
	dead bool
}

func (s *renewed) Mailbox() string { return s.name }
func (s *renewed) Alive() bool     { return !s.dead }
func (s *renewed) Close() error    { s.dead = true; return nil }

func (s *renewed) Examine(_ context.Context, name string, _ *mail.Known) (*mail.Selected, error) {
	s.name = name
	return &mail.Selected{Status: mail.Status{UIDValidity: 15}}, nil
}

func (s *renewed) Select(ctx context.Context, name string) (*mail.Selected, error) {
	return s.Examine(ctx, name, nil)
}

func (s *renewed) Exchange(_ context.Context, command string) (*mail.Exchange, error) {
	s.said = append(s.said, command)
	return &mail.Exchange{Command: command, Status: "OK"}, nil
}

// A mailbox that is made anew while \Seen is put back is not worked on: its UIDs
// are other messages'.
func TestPuttingSeenBackLeavesNoOtherMailboxOpen(t *testing.T) {
	t.Parallel()
	s := &renewed{name: "INBOX"}
	salvager := &Salvager{Salvaged: &stub.Salvaged{UID: 1}, UIDValidity: 14, Each: time.Second}
	if err := salvager.clearSeen(t.Context(), s); err == nil || s.Alive() || len(s.said) > 0 {
		t.Errorf("%v, alive %v, said %q", err, s.Alive(), s.said)
	}
}
