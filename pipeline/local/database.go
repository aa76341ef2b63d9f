package local

import (
	"context"
	"crypto/rand"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// database is what a run knows of notmuch's database: whether its tags are those that were
// agreed on, and what changed since. Of one that is new, or an older state of the one that there
// was, nobody knows who said what its tags say. They order nothing; only what changes after it
// was first seen is its owner's doing.
type database struct {
	now   mail.Revision    // when the run began
	named journal.Revision // up to where files have the letters of tags; of another one from its beginning
	told  journal.Revision // up to where the server was told of tags; likewise
	// another: it is not the one in which tags were last agreed on, and that was found now.
	another bool
	// notSeen are the messages that were agreed on before, and not yet seen in it, by mailbox.
	notSeen map[string]journal.Unseen
}

// unseen tells whether what a message is tagged with is not yet known to be its owner's doing.
func (d *database) unseen(v *View, uid imap.UID) bool {
	return d.notSeen[v.Name].Has(v.Known.UIDValidity, uid)
}

// database gives what JudgeDatabase found.
func (r *Reader) database(ctx context.Context) (*database, error) {
	if r.judged == nil {
		if err := r.JudgeDatabase(ctx); err != nil {
			return nil, err
		}
	}
	return r.judged, nil
}

// JudgeDatabase finds out whether the notmuch database is the one in which tags were last agreed
// on. It says so if it is not, and notes what is to be seen anew in it. A database bears the stamp
// that it got with the last agreement, and the one before: a run that was stopped between the two
// notes is no matter. One without it was put back from a backup, however much was changed in it
// since. One with another uuid that has it was made of the one that there was: by a rebuild, or by
// notmuch compact, which keeps the stamp as it is, and the revisions.
func (r *Reader) JudgeDatabase(ctx context.Context) error {
	d := new(database)
	var stamp journal.Text
	err := errorsOf(
		func() (err error) { d.named, _, err = r.Journal.TagNames.Get(ctx); return },
		func() (err error) { d.told, _, err = r.Journal.Tags.Get(ctx); return },
		func() (err error) { stamp, _, err = r.Journal.TagStamp.Get(ctx); return },
		func() (err error) { d.notSeen, err = r.Journal.Unseen.All(ctx); return },
	)
	if err != nil {
		return err
	}
	var of string
	var stamps []string
	if d.now, of, stamps, err = r.Index.Stamped(ctx, r.Account); err != nil {
		return err
	}
	r.judged = d
	before := d.named.UUID
	if before == "" {
		before = d.told.UUID
	}
	if before == "" || d.now.UUID == "" {
		return nil // none was known, or there is none
	}
	same := before == d.now.UUID
	later := d.now.N >= d.named.N && d.now.N >= d.told.N
	bears := slices.Contains(stamps, string(stamp)) && (of == d.now.UUID || of == before && later)
	if same && later && (stamp == "" || bears) {
		return nil
	}
	begin := mail.Revision{UUID: d.now.UUID}
	if d.named.Revision = begin; d.told.UUID != "" {
		d.told.Revision = begin
	}
	d.another = same || !bears
	var c journal.Change
	if d.another {
		if err := r.allUnseen(ctx, d, &c); err != nil {
			return err
		}
	}
	if r.DryRun {
		return nil
	}
	r.Journal.TagNames.Put(&c, d.named)
	if d.another {
		r.Journal.TagStamp.Forget(&c)
	}
	if d.told.UUID != "" {
		r.Journal.Tags.Put(&c, d.told)
	}
	if err := r.record(ctx, c, "another notmuch database noted"); err != nil || !d.another {
		return err
	}
	r.Report.Note("", "the notmuch database is another one than at the last sync, or an older state of it: its tags move, delete and flag nothing "+
		"until you change them, and mail gets those tags back that were agreed on with the server")
	return nil
}

// allUnseen has all messages that were agreed on be seen anew.
func (r *Reader) allUnseen(ctx context.Context, d *database, c *journal.Change) error {
	mailboxes, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	d.notSeen = make(map[string]journal.Unseen, len(mailboxes))
	for _, b := range mailboxes {
		rows, err := r.Ledger.Rows(ctx, b.Name, b.UIDValidity)
		if err != nil {
			return err
		}
		u := journal.Unseen{UIDValidity: b.UIDValidity}
		for _, row := range rows {
			if row.State == ledger.Present && row.Key != "" {
				u.UIDs.AddNum(row.UID)
			}
		}
		if d.notSeen[b.Name] = u; len(u.UIDs) > 0 {
			r.Journal.Unseen.Put(c, b.Name, u)
		} else {
			r.Journal.Unseen.Forget(c, b.Name)
		}
	}
	return nil
}

// MarkNames notes up to where files have the letters of tags, and gives the database the stamp
// by which that is known. Where another program writes to that, both wait for a later run.
func (r *Reader) MarkNames(ctx context.Context, at mail.Revision) error {
	last, _, err := r.Journal.TagNames.Get(ctx)
	if err != nil || at == last.Revision || at.UUID == "" {
		return err
	}
	stamp, _, err := r.Journal.TagStamp.Get(ctx)
	if err != nil {
		return err
	}
	next := rand.Text()
	if done, err := r.Index.Stamp(ctx, r.Account, next, string(stamp)); err != nil || !done {
		return err
	}
	r.Report.Step("notmuch database stamped")
	var c journal.Change
	r.Journal.TagNames.Put(&c, journal.Revision{Revision: at})
	r.Journal.TagStamp.Put(&c, journal.Text(next))
	return r.record(ctx, c, "names of tags recorded")
}

// TagsTold gives up to where the server was told of tags, and whether what notmuch has of a
// message was not yet seen in its database.
func (r *Reader) TagsTold(ctx context.Context) (at journal.Revision, unseen func(known ledger.Mailbox, uid imap.UID) bool, err error) {
	d, err := r.database(ctx)
	if err != nil {
		return at, nil, err
	}
	return d.told, func(known ledger.Mailbox, uid imap.UID) bool {
		return d.notSeen[known.Name].Has(known.UIDValidity, uid)
	}, nil
}

// errorsOf does these until one fails.
func errorsOf(all ...func() error) error {
	for _, f := range all {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
