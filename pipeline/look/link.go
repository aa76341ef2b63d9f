package look

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// link finds those of the new messages that are here already, in another
// mailbox: moved or copied on the server. They are linked, not downloaded. It
// gives the UIDs that remain to be fetched.
func (l *Looker) link(ctx context.Context, b *Mailbox, uids []imap.UID) ([]imap.UID, error) {
	if !l.MayHaveMoved || len(uids) == 0 {
		return uids, nil
	}
	listed, err := l.conn.Session().Identify(ctx, mail.UIDSet(uids))
	if err != nil {
		// It would only have saved a download.
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return uids, nil
	}
	b.sized(listed)
	copies, err := l.copies(ctx, b, listed)
	if err != nil || len(copies.of) == 0 {
		return uids, err
	}
	here := make(map[imap.UID][]string) // the flags that the file says
	by := make(map[imap.UID]plan.Arrival)
	var intents []ledger.Message
	var c journal.Change
	for _, m := range listed {
		from, ok := copies.of[m.UID]
		if !ok {
			continue
		}
		_, letters := maildir.ParseName(copies.files[from.Key])
		here[m.UID] = l.flagsHere(from, copies.files[from.Key], m)
		by[m.UID] = plan.ByOther
		if _, ours := b.MovedFrom[m.UID]; ours || l.Ruled.Into(b.Name, from) {
			by[m.UID] = plan.ByTags
		}
		row := ledger.Message{
			Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: m.UID, State: ledger.Intended, Key: l.Keys.New(l.Now()), ID: from.ID,
			Size: from.Size, WireSize: from.WireSize, Digest: from.Digest, Date: from.Date, Flags: plan.StoredFlags(m.Flags),
		}
		if err := l.Old.Follow(ctx, &c, from, row); err != nil {
			return nil, err
		}
		l.Links.Note(&c, from, row, by[m.UID] == plan.ByTags, copies.gone[from.Key])
		l.Links.Linked(from, letters)
		intents = append(intents, row)
	}
	if len(intents) == 0 {
		return uids, nil
	}
	c.Save = intents
	if err := l.commit(ctx, c, "links intended"); err != nil {
		return nil, err
	}
	linked := make(map[imap.UID]bool)
	for _, row := range intents {
		from, letters := copies.of[row.UID], plan.Letters(here[row.UID])
		row.Name, err = b.Dir.Link(copies.files[from.Key], row.Key, letters)
		if errors.Is(err, fs.ErrNotExist) {
			path, ok, e := l.source(ctx, from, new(*plan.Unrecorded))
			if e != nil {
				return nil, e
			}
			if ok {
				row.Name, err = b.Dir.Link(path, row.Key, letters)
			}
			if !ok || errors.Is(err, fs.ErrNotExist) {
				continue // its user took it away this moment; the intent has no file and is overwritten by the fetch
			}
		}
		if err == nil && letters == "" && plan.Letters(row.Flags) != "" {
			// Without letters it would say nothing of what its owner took off.
			name := row.Name
			row.Name = "cur/" + row.Key + ":2,"
			err = b.Dir.Rename(name, row.Name)
		}
		if err != nil {
			return nil, err
		}
		l.Report.Step("file linked")
		it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpAdd, Row: row, Before: b.Stubs[row.UID], Linked: true, Source: from.Mailbox, Was: from.Flags, Beside: deliver.BesideNone}
		it.Add, it.Remove = l.arriving(b, plan.StoredFlags(here[row.UID]), by[row.UID])
		if b.TakenOver {
			it.IfKnown = deliver.TagsOfFlags(l.Tags, plan.StoredFlags(here[row.UID]), nil)
		}
		if err := l.Line.Send(ctx, it); err != nil {
			return nil, err
		}
		linked[row.UID] = true
		// The server is told of them where the message is now.
		b.found.Paired = b.found.Paired || !plan.SameFlags(row.Flags, plan.StoredFlags(here[row.UID]))
	}
	l.Report.Tally(func(r *report.Report) {
		for uid := range linked {
			if !b.Ours[uid] {
				r.Linked++
			}
		}
	})
	return slices.DeleteFunc(slices.Clone(uids), func(u imap.UID) bool { return linked[u] }), nil
}

// copied is mail that is new in a mailbox, and here already.
type copied struct {
	of    map[imap.UID]ledger.Message // of which other messages
	files map[string]string           // the paths of the files of these, by key
	gone  map[string]bool             // which of them the server was asked for, and has there no more, by key
}

// copies tells which of the messages that are new in the mailbox are here already. It fails of this
// machine or the context alone: it only saves downloads.
func (l *Looker) copies(ctx context.Context, b *Mailbox, listed []mail.Message) (out copied, err error) {
	originals, files, e, err := l.originals(ctx, b, listed)
	if err != nil {
		return out, err
	}
	if out.gone, err = l.askWhetherTheyStay(ctx, b, originals, e); err != nil {
		return copied{}, ctx.Err()
	}
	e.Drafts = plan.ForDrafts(b.Listed)
	if out.of, err = l.Match.Copies(ctx, l.conn.Session(), listed, originals, e); err != nil {
		return copied{}, ctx.Err()
	}
	out.files = files
	maps.DeleteFunc(out.of, func(_ imap.UID, from ledger.Message) bool { return files[from.Key] == "" })
	return out, nil
}

// flagsHere gives the flags that a message has here, whose file was that of another one: those
// that the server has, and what was changed here.
func (l *Looking) flagsHere(from ledger.Message, path string, m mail.Message) []string {
	var d plan.Delta
	if _, letters := maildir.ParseName(path); plan.HasInfo(path) {
		d = plan.DeltaOf(from.Flags, letters)
	}
	if !l.agreed(from) {
		return d.Merged(m.Flags)
	}
	return l.Stored[from.Mailbox][from.UID].Merged(d.Merged(m.Flags))
}

// agreed tells whether a message has the UIDVALIDITY under which its mailbox was agreed on last.
func (l *Looking) agreed(row ledger.Message) bool {
	return l.UIDValidity[row.Mailbox] == row.UIDValidity
}

// source finds the file of a message, also where its owner has moved it since the folders were
// read: what was gone then is nowhere, or a message of its own. files are those that no row has;
// they are read when they are needed.
func (l *Looker) source(ctx context.Context, row ledger.Message, files **plan.Unrecorded) (path string, ok bool, err error) {
	path, ok, err = l.Here.FileOf(ctx, row)
	if err != nil || ok {
		return path, ok, err
	}
	if l.WasMissing(row) {
		return "", false, nil
	}
	if *files == nil {
		if *files, err = l.Here.Unrecorded(ctx); err != nil {
			return "", false, err
		}
	}
	f, ok := (*files).Take(row)
	if !ok {
		return "", false, nil
	}
	return f.Dir.Path(f.Name), true, nil
}

// askWhetherTheyStay asks which originals are still where they were, in mailboxes that
// something has left: that another message went is no evidence that this one did. Where
// that cannot be found out, they stay, and the text decides. A mailbox that the server has
// no more has none. gone are those that the server has there no more, by key.
func (l *Looker) askWhetherTheyStay(ctx context.Context, b *Mailbox, originals []ledger.Message, e plan.Evidence) (gone map[string]bool, err error) {
	said := make(map[string]bool)
	for _, key := range e.Told {
		said[key] = true
	}
	byBox := make(map[string][]ledger.Message)
	for _, row := range originals {
		if !e.Stays[row.Key] && !said[row.Key] && l.Listed[row.Mailbox] && l.agreed(row) {
			byBox[row.Mailbox] = append(byBox[row.Mailbox], row)
		}
	}
	if len(byBox) == 0 {
		return nil, nil
	}
	known, err := l.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	gone = make(map[string]bool)
	for _, k := range known {
		rows := byBox[k.Name]
		there, err := l.conn.StillThere(ctx, k.Name, k.UIDValidity, ledger.UIDs(rows))
		for _, row := range rows {
			e.Stays[row.Key] = err != nil || there.Contains(row.UID)
			gone[row.Key] = !e.Stays[row.Key]
		}
	}
	return gone, l.conn.Enter(ctx, b.Name, b.now.UIDValidity)
}

// originals finds messages that may be those that the server describes, with the paths of
// their files by key, "" if that is gone, and which it said that they are: this run moved
// them there.
func (l *Looker) originals(ctx context.Context, b *Mailbox, listed []mail.Message) (out []ledger.Message, paths map[string]string, e plan.Evidence, err error) {
	paths, e.Told, e.Stays = make(map[string]string), make(map[imap.UID]string), make(map[string]bool)
	var unrecorded *plan.Unrecorded
	add := func(row ledger.Message) error {
		if _, known := paths[row.Key]; known || row.Key == "" {
			return nil
		}
		path, _, err := l.source(ctx, row, &unrecorded)
		out, paths[row.Key] = append(out, row), path
		e.Stays[row.Key] = l.Stays[row.Mailbox] && l.agreed(row) || row.Mailbox == b.Name // a client may have put an edited mail in its place
		return err
	}
	for _, m := range listed {
		if row, ok := b.MovedFrom[m.UID]; ok && b.now.UIDValidity == b.Known.UIDValidity {
			if err := add(row); err != nil {
				return nil, nil, e, err
			}
			if row.Key != "" {
				e.Told[m.UID] = row.Key
			}
		}
		var copies []ledger.Message
		if m.MessageID != "" {
			copies, err = l.Ledger.Like(ctx, ledger.Message{ID: m.MessageID})
		} else {
			copies, err = l.Ledger.WithoutMessageID(ctx, m.Size)
		}
		if err != nil {
			return nil, nil, e, err
		}
		for _, c := range copies {
			if (c.State == ledger.Present || c.State == ledger.Kept) && c.Size == m.Size && (c.Date.IsZero() || c.Date.Equal(m.InternalDate.UTC().Truncate(time.Second))) {
				if err := add(c); err != nil {
					return nil, nil, e, err
				}
			}
		}
	}
	return out, paths, e, nil
}
