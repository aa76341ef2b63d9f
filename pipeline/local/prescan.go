package local

import (
	"context"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// Prescan is what the folders held when the server was not yet heard of. A nil one has
// found nothing.
type Prescan struct {
	cancel context.CancelFunc
	done   chan struct{}
	found  map[string]*Found // by mailbox; not to be read before done
}

// Prescan looks into the folders of those mailboxes that the ledger knows and wanted takes,
// while the server is connected to and asked for its list. It only reads. What it cannot
// read Scan meets again, and tells.
func (r *Reader) Prescan(ctx context.Context, wanted func(ledger.Mailbox) bool) *Prescan {
	ctx, cancel := context.WithCancel(ctx)
	p := &Prescan{cancel: cancel, done: make(chan struct{}), found: make(map[string]*Found)}
	go func() {
		defer close(p.done)
		if r.ReadOnly && !r.Restore {
			return
		}
		rows, err := r.Ledger.Mailboxes(ctx)
		if err != nil {
			return
		}
		last, err := r.Journal.Scanned.All(ctx)
		if err != nil {
			return
		}
		for _, k := range rows {
			if !k.Complete || k.UIDValidity == 0 || !wanted(k) {
				continue
			}
			if f, err := r.Compare(ctx, r.of(k), last[k.Name]); err == nil {
				p.found[k.Name] = f
			}
		}
	}()
	return p
}

// Discard ends it, waits until nothing of it is at work any more, and forgets what it found:
// that was compared with rows, or with folders, that will be others.
func (p *Prescan) Discard() {
	if p == nil {
		return
	}
	p.cancel()
	<-p.done
	p.found = nil
}

// of gives what was found in the mailbox's folder, if that still holds; nil otherwise.
// changed is how the folder is now.
func (p *Prescan) of(m *Mailbox, changed [4]time.Time) *Found {
	if p == nil {
		return nil
	}
	<-p.done
	f := p.found[m.Name]
	if f == nil || f.known != m.Known || f.changed != changed {
		return nil
	}
	return f
}
