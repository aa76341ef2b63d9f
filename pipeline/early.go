package pipeline

import "context"

// early is what the folders held when the server was not yet heard of.
type early struct {
	stop  func() // waits until nothing is at work any more
	done  chan struct{}
	found map[string]*found // by mailbox; not to be read before done
}

// findEarly looks into the folders of the mailboxes that the ledger knows while the
// server is connected to and asked for its list. It only reads. What it cannot read
// the scan meets again, and tells.
func (r *run) findEarly(ctx context.Context) *early {
	ctx, cancel := context.WithCancel(ctx)
	e := &early{done: make(chan struct{}), found: make(map[string]*found)}
	e.stop = func() { cancel(); <-e.done }
	go func() {
		defer close(e.done)
		if r.ReadOnly && !r.Restore {
			return
		}
		rows, err := r.Ledger.Mailboxes(ctx)
		if err != nil {
			return
		}
		last, err := r.notes().Scanned.All(ctx)
		if err != nil {
			return
		}
		for _, k := range rows {
			b := r.knownBox(k)
			if !k.Complete || k.UIDValidity == 0 || !r.selects(b.Mailbox) {
				continue
			}
			if f, err := r.find(ctx, b, last[k.Name]); err == nil {
				e.found[k.Name] = f
			}
		}
	}()
	return e
}

// foundEarly gives what was found in the mailbox's folder, if that still holds.
func (r *run) foundEarly(b *box) *found {
	if r.early == nil {
		return nil
	}
	<-r.early.done
	f := r.early.found[b.Name]
	if f == nil || f.known != b.known || f.changed != b.changed {
		return nil
	}
	return f
}
