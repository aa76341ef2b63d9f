package push

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// pushUploads gives the server the files that are new here, but for those that
// it has already from a run that was interrupted. sel is nil if there can be none.
func (p *Pusher) pushUploads(ctx context.Context, b *Mailbox, sel *mail.Selected, files []plan.Untracked) error {
	sel, err := p.lingering(ctx, b, sel, files)
	if err != nil {
		return err
	}
	var refusals []refusedUpload
	for alone := false; len(files) > 0; alone = true {
		unvisited := sel == nil
		absent, err := p.absent(ctx, b, sel, files)
		if err != nil {
			return err
		}
		if !alone {
			if err := p.sayUploads(ctx, b, absent); err != nil {
				return err
			}
		}
		var then *mail.Known
		if unvisited && b.next {
			// What the list told bounds how much that can be.
			if then = plan.Offer(b.Known, p.Full || !p.conn.Session().Has("QRESYNC")); then != nil {
				then.Identify = mail.UIDsFrom(b.Known.UIDNext)
			}
		}
		again, refused, err := p.upload(ctx, b, absent, alone, then)
		if err != nil {
			return err
		}
		refusals = append(refusals, refused...)
		if len(again) == 0 && (len(refused) == 0 || !unvisited) {
			break
		}
		// One of these is not wanted, and alone each shows whether it is that. The
		// server may have stored none of them (RFC 3502); if it did, it shows now, and
		// so does that it wants none.
		if sel, err = p.openFor(ctx, b); err != nil {
			return err
		}
		if unvisited && sel.ReadOnly {
			p.staysReadOnly(b)
			return p.Journal.Uploading.Set(ctx, b.Name, journal.Since{ReadOnly: true})
		}
		files = again
	}
	if len(refusals) > 0 {
		return p.refusedUploads(ctx, b, refusals)
	}
	return nil
}

// lingering waits for those of the files that were sent by this run over a connection that is
// lost, as long as the server may be at them, and opens the mailbox again.
func (p *Pusher) lingering(ctx context.Context, b *Mailbox, sel *mail.Selected, files []plan.Untracked) (*mail.Selected, error) {
	var sent []plan.Untracked
	for _, f := range files {
		if p.Arrivals.NotedIn(b.Name, f.Key) {
			sent = append(sent, f)
		}
	}
	if len(sent) == 0 {
		return sel, nil
	}
	return sel, p.linger(ctx, b.Name, len(sent), func() (done int, err error) {
		if sel, err = p.openFor(ctx, b); err != nil {
			return 0, err
		}
		absent, err := p.absent(ctx, b, sel, sent)
		return len(sent) - len(absent), err
	})
}

// maxListAge is how old STATUS may be to be believed where mail must not be uploaded
// that has come by itself, as to Sent from a server that keeps what it sends. A look
// before the upload is as old as a round trip.
const maxListAge = 500 * time.Millisecond

// unvisited tells whether a mailbox need not be opened before the push, which saves
// a round trip: there is nothing but uploads, and nothing has come into it since the
// last agreement. Neither does its status of this moment tell of anything, nor has
// an earlier run begun to put mail there.
func (p *Pusher) unvisited(ctx context.Context, b *Mailbox, o *plan.Outgoing) (bool, error) {
	if len(b.Local.Flags)+o.Moved()+len(o.Deleted)+len(b.copied) > 0 || b.uncertain || !b.only || p.Now().Sub(p.listedAt) > maxListAge ||
		b.Listed.Status.UIDValidity != b.Known.UIDValidity || b.Listed.Status.UIDNext == 0 || b.Listed.Status.UIDNext != b.Known.UIDNext {
		return false, nil
	}
	begun, _, err := p.Journal.Uploading.Get(ctx, b.Name)
	return begun != b.since() && !begun.ReadOnly, err
}

// intendUploads records which files are about to be given to the server. Where the
// run ends before they are found there, the next one looks for them first, wherever
// the user has moved or deleted the files meanwhile.
func (p *Pusher) intendUploads(ctx context.Context, b *Mailbox, files []plan.Untracked, uploads []mail.Upload) error {
	var c journal.Change
	p.Journal.Uploading.Put(&c, b.Name, b.since())
	for i := range files {
		p.Arrivals.Note(&c, p.uploading(b, files[i], uploads[i]))
	}
	begin(&c, p.sending(ctx, b, files))
	return p.commit(ctx, c, "arrivals noted")
}

// uploading is the arrival of a file that is given to the server.
func (p *Pusher) uploading(b *Mailbox, f plan.Untracked, u mail.Upload) journal.Arrival {
	row := f.Message
	row.Mailbox, row.UIDValidity, row.UID, row.Flags = b.Name, b.Known.UIDValidity, 0, u.Flags
	row.Date = u.InternalDate.UTC().Truncate(time.Second)
	return journal.Arrival{Row: row, Next: max(b.Known.UIDNext, 1), At: p.Now().UTC(), Here: p.stood(f)}
}

// stood tells whether a file was here before the first sync.
func (p *Pusher) stood(f plan.Untracked) bool { return p.UploadHere || f.Stood }

// uploadStored records as which message the server has taken a file, as far as it says so.
func (p *Pusher) uploadStored(ctx context.Context, a journal.Arrival, as mail.Appended) error {
	if as.UIDValidity != a.Row.UIDValidity || as.UID == 0 {
		return nil
	}
	a.Row.UID = as.UID
	var c journal.Change
	p.Arrivals.Note(&c, a)
	sent(&c, mail.IsDone, "", a.Row.Mailbox, a.Row.Key)
	return p.commit(ctx, c, "upload noted")
}

// absent takes out of the files those that are in the mailbox already.
func (p *Pusher) absent(ctx context.Context, b *Mailbox, sel *mail.Selected, files []plan.Untracked) ([]plan.Untracked, error) {
	if sel == nil {
		return files, nil
	}
	there, err := p.arrived(ctx, b, sel, files)
	if err != nil {
		return nil, err
	}
	has := make(map[string]bool, len(there))
	for uid, f := range there {
		if b.Expected[uid] == "" { // else it is known whose it is
			has[f.Key] = true
		}
	}
	for _, key := range b.Expected {
		has[key] = true
	}
	for _, s := range b.Uploaded {
		has[s.Key] = true
	}
	return slices.DeleteFunc(slices.Clone(files), func(s plan.Untracked) bool { return has[s.Key] }), nil
}

// upload gives the server files. It gives those that the server refused together
// with others, and why it refused others. then is what the look will ask.
func (p *Pusher) upload(ctx context.Context, b *Mailbox, files []plan.Untracked, alone bool, then *mail.Known) (again []plan.Untracked, refused []refusedUpload, err error) {
	uploads := make([]mail.Upload, len(files))
	own := plan.Letters(plan.OwnFlags(b.Listed))
	for i, f := range files {
		_, letters := maildir.ParseName(f.Name)
		if !p.stood(f) { // else it is not known whether its owner has just written it
			letters += own
		}
		uploads[i] = mail.Upload{Path: b.Dir.Path(f.Name), Size: f.Size, Flags: plan.FlagsOf(letters), InternalDate: plan.When(f.Sent, f.Date, p.Now()), Alone: alone}
	}
	if len(uploads) > 0 {
		if err := p.intendUploads(ctx, b, files, uploads); err != nil {
			return nil, nil, err
		}
	}
	var noted error
	results, err := p.conn.Session().Append(ctx, b.Name, uploads, func(i int, as mail.Appended) {
		noted = errors.Join(noted, p.uploadStored(ctx, p.uploading(b, files[i], uploads[i]), as))
		p.Report.Tally(func(r *report.Report) { r.Uploaded++ })
		p.Report.Step("message uploaded")
		// Its flags are those that it was sent with; if the server has others,
		// notmuch is told again.
		row := files[i].Message
		row.Flags = uploads[i].Flags
		it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpPreindex, Row: row, ID: row.ID, Beside: deliver.BesideRecorded}
		it.Add, it.Remove = p.arriving(b, row.Flags)
		if p.stood(files[i]) {
			it.IfKnown = deliver.TagsOfFlags(p.Tags, row.Flags, nil)
		}
		p.Line.Announce(ctx, it)
		if as.UID != 0 && as.UIDValidity == b.Known.UIDValidity {
			b.expect(as.UID, files[i].Key)
			return
		}
		b.Uploaded = append(b.Uploaded, files[i])
	}, then)
	if b.only {
		p.Line.Flush(ctx) // of several mailboxes, each would be a commit
	}
	if err := errors.Join(noted, err); err != nil {
		return nil, nil, err
	}
	var kept journal.Change
	for i, res := range results {
		if res.Err != nil {
			p.Journal.Arriving.Forget(&kept, files[i].Key)
			if own := report.Own(res.Err); own || errors.Is(res.Err, fs.ErrNotExist) { // else the server has refused it
				sent(&kept, mail.IsUndone, res.Err.Error(), b.Name, files[i].Key)
			}
		}
	}
	if !kept.Empty() {
		if err := p.commit(ctx, kept, "uploads refused"); err != nil {
			return nil, nil, err
		}
	}
	for i, res := range results {
		switch {
		case res.Err == nil, errors.Is(res.Err, fs.ErrNotExist): // renamed or taken away this moment: the next run sees it
		case report.Own(res.Err):
			return nil, nil, report.OfMailbox(b.Name, res.Err)
		case res.Together && !alone:
			again = append(again, files[i])
		default:
			refused = append(refused, refusedUpload{files[i], res.Err, false})
		}
	}
	return again, refused, nil
}
