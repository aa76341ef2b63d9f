package push

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// prePush asks the hooks about flags that the user changed, and takes out of
// them what the server is not to be told: for now, or until they change again.
// They stay in the files in both cases. A mail that was moved as well is where its
// file is; put off, it is moved with the run that tells of its flags, since from
// the other mailbox on the server's flags are what was agreed.
func (p *Pusher) prePush(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	if !p.Hooks.At(hooks.PrePush) || len(b.Local.Flags) == 0 {
		return nil
	}
	went := make(map[imap.UID]fileAt)
	for to, moves := range o.Moves {
		for _, m := range moves {
			went[m.Row.UID] = fileAt{p.boxes[to], m.Key}
		}
	}
	rows, err := p.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(b.Local.Flags)))
	if err != nil {
		return err
	}
	deferred := make(map[imap.UID]bool)
	var changes []mail.Change
	for _, row := range rows {
		at := fileAt{b, row.Key}
		if to, ok := went[row.UID]; ok {
			at = to
		}
		name, ok, err := at.box.Dir.Locate(at.key, row.Name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		path := at.box.Dir.Path(name)
		e := ask.EventOf(hooks.PrePush, row)
		d := b.Local.Flags[row.UID]
		e.ID, e.Set, e.Clear = row.ID, d.Add, d.Remove
		out, err := p.Hooks.JudgeFile(ctx, e, path, time.Time{})
		if err != nil {
			return err
		}
		if len(out.Add)+len(out.Remove) > 0 {
			changes = append(changes, mail.Change{Op: mail.OpFlag, Path: path, ID: row.ID, Add: out.Add, Remove: out.Remove})
		}
		if out.Action == hooks.Pass {
			continue
		}
		delete(b.Local.Flags, row.UID)
		switch {
		case out.Action == hooks.Defer:
			deferred[row.UID] = true
		case at.box != b:
			at.box.withhold(at.key, d)
		}
	}
	if len(changes) > 0 {
		if err := p.Line.Tell(ctx, changes); err != nil {
			return err
		}
		p.Report.Step("tags of hooks given")
	}
	if len(deferred) == 0 {
		return nil
	}
	o.Wait(func(m plan.Move, _ string) bool { return deferred[m.Row.UID] })
	b.Scanned, p.tags = "", mail.Revision{} // the next run looks at them again
	return nil
}

// fileAt is where a mail's file is after its user moved it.
type fileAt struct {
	box *Mailbox
	key string
}
