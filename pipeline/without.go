package pipeline

import (
	"context"
	"maps"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// withoutFor is how long a server is not asked again for what it has refused.
const withoutFor = 30 * 24 * time.Hour

// Refusals are the optional arguments of commands that the server of an account refuses, as
// its sessions meet them.
type Refusals interface {
	// Recall takes those of earlier runs in place of all else, with what tells the server
	// from another one.
	Recall(server string, arguments []string)
	// Refused gives them all.
	Refused() (server string, arguments []string)
}

// recallWithout tells the sessions to come what the server refused before.
func (r *run) recallWithout(ctx context.Context) error {
	if r.Refusals == nil {
		return nil
	}
	n, _, err := r.notes().Without.Get(ctx)
	if err != nil {
		return err
	}
	var arguments []string
	for a, at := range n.Arguments {
		if now := r.Now(); !at.After(now) && now.Before(at.Add(withoutFor)) {
			arguments = append(arguments, a)
		}
	}
	r.Refusals.Recall(n.Server, arguments)
	return nil
}

// noteWithout remembers what the server has refused until now.
func (r *run) noteWithout(ctx context.Context) error {
	if r.Refusals == nil || r.DryRun {
		return nil
	}
	before, _, err := r.notes().Without.Get(ctx)
	if err != nil {
		return err
	}
	server, arguments := r.Refusals.Refused()
	now := journal.Without{Server: server, Arguments: make(map[string]time.Time, len(arguments))}
	for _, a := range arguments {
		now.Arguments[a] = r.Now().UTC().Truncate(time.Second)
		if at, known := before.Arguments[a]; known && server == before.Server && r.Now().Before(at.Add(withoutFor)) {
			now.Arguments[a] = at
		}
	}
	switch {
	case server == before.Server && maps.Equal(now.Arguments, before.Arguments):
		return nil
	case len(arguments) == 0:
		return r.notes().Without.Drop(ctx)
	}
	return r.notes().Without.Set(ctx, now)
}
