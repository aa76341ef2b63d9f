package push

import (
	"context"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// A server may say that it has changed flags, and not have done it. What it says is done when
// the look that follows has seen it: until then the scan and the tags that ordered it are not
// dealt with, and what is not seen is remembered as if it had been refused.

// notKept is the reason that is remembered of flags which are not as the server said.
const notKept = "the server said that it has changed them, and has not"

// awaits tells whether there are flags that the look is yet to see.
func (p *Pusher) awaits() bool {
	for _, b := range p.boxes {
		if len(b.awaited) > 0 {
			return true
		}
	}
	return false
}

// markScanned notes that nothing is left to tell of what the scan of a mailbox's folder saw, as
// soon as it is seen on the server.
func (p *Pusher) markScanned(ctx context.Context, b *Mailbox) error {
	if b.scanned = len(b.awaited) > 0; b.scanned {
		return nil
	}
	return p.Here.MarkScanned(ctx, b.Name, b.Scanned)
}

// Seen ends the push of flags, when the mailboxes have been looked into. not gives those
// messages of one whose flags are not as the server said; looked is false if that is not known,
// so that the next run tells them again.
func (p *Pusher) Seen(ctx context.Context, not func(mailbox string) (uids []imap.UID, looked bool)) error {
	if !p.awaits() {
		return nil
	}
	all := p.all
	for _, b := range p.boxes {
		if len(b.awaited) == 0 {
			continue
		}
		uids, looked := not(b.Name)
		if !looked {
			all = false
			continue
		}
		all = all && len(uids) == 0
		p.Report.Tally(func(r *report.Report) { r.Pushed -= len(uids) }) // they were counted when the server said so
		if err := p.remember(ctx, b, uids, func(u imap.UID) string { return b.awaited[u] }, notKept); err != nil {
			return err
		}
		b.awaited = nil
		if err := p.forgetDone(ctx, b); err != nil {
			return err
		}
		if err := p.tellRefused(ctx, b); err != nil {
			return err
		}
		if b.scanned && len(uids) == 0 {
			if err := p.Here.MarkScanned(ctx, b.Name, b.Scanned); err != nil {
				return err
			}
		}
	}
	if !all {
		return nil
	}
	return p.Here.MarkTags(ctx, p.tags)
}
