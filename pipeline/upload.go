package pipeline

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
func (w *worker) pushUploads(ctx context.Context, b *box, sel *mail.Selected, files []plan.Untracked) error {
	var refusals []refusedUpload
	for alone := false; len(files) > 0; alone = true {
		unvisited := sel == nil
		absent, err := w.absent(ctx, b, sel, files)
		if err != nil {
			return err
		}
		if !alone {
			w.doing(b, len(absent), "upload %s")
		}
		var then *mail.Known
		if unvisited && b.next {
			// What the list told bounds how much that can be.
			if then = b.offer(w.conn.Session(), w.Full); then != nil {
				then.Identify = mail.UIDsFrom(b.known.UIDNext)
			}
		}
		again, refused, err := w.upload(ctx, b, absent, alone, then)
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
		if sel, err = w.openFor(ctx, b); err != nil {
			return err
		}
		if unvisited && sel.ReadOnly {
			w.staysReadOnly(b)
			return w.notes().Uploading.Set(ctx, b.Name, journal.Since{ReadOnly: true})
		}
		files = again
	}
	if len(refusals) > 0 {
		return w.refusedUploads(ctx, b, refusals)
	}
	return nil
}

// maxListAge is how old STATUS may be to be believed where mail must not be uploaded
// that has come by itself, as to Sent from a server that keeps what it sends. A look
// before the upload is as old as a round trip.
const maxListAge = 500 * time.Millisecond

// unvisited tells whether a mailbox need not be opened before the push, which saves
// a round trip: there is nothing but uploads, and nothing has come into it since the
// last agreement. Neither does its status of this moment tell of anything, nor has
// an earlier run begun to put mail there.
func (w *worker) unvisited(ctx context.Context, b *box, o *plan.Outgoing) (bool, error) {
	if len(b.local.Flags)+o.Moved()+len(o.Deleted) > 0 || b.unknown || !b.only || w.Now().Sub(w.listedAt) > maxListAge ||
		b.Status.UIDValidity != b.known.UIDValidity || b.Status.UIDNext == 0 || b.Status.UIDNext != b.known.UIDNext {
		return false, nil
	}
	begun, _, err := w.notes().Uploading.Get(ctx, b.Name)
	return begun != b.since() && !begun.ReadOnly, err
}

// intendUploads records which files are about to be given to the server. Where the
// run ends before they are found there, the next one looks for them first, wherever
// the user has moved or deleted the files meanwhile.
func (w *worker) intendUploads(ctx context.Context, b *box, files []plan.Untracked, uploads []mail.Upload) error {
	var c journal.Change
	w.notes().Uploading.Put(&c, b.Name, b.since())
	for i := range files {
		w.arrivals.Note(&c, b.uploading(files[i], uploads[i]))
	}
	return w.commit(ctx, c, "arrivals noted")
}

// uploading is the arrival of a file that is given to the server.
func (b *box) uploading(f plan.Untracked, u mail.Upload) journal.Arrival {
	row := f.Message
	row.Mailbox, row.UIDValidity, row.UID, row.Flags = b.Name, b.known.UIDValidity, 0, u.Flags
	row.Date = u.InternalDate.UTC().Truncate(time.Second)
	return journal.Arrival{Row: row, Next: max(b.known.UIDNext, 1)}
}

// uploadStored records that the server has taken a file. From then on it was there,
// whatever others do with it before it is looked for.
func (w *worker) uploadStored(ctx context.Context, a journal.Arrival, as mail.Appended) error {
	a.Stored = true
	if as.UIDValidity == a.Row.UIDValidity {
		a.Row.UID = as.UID
	}
	var c journal.Change
	w.arrivals.Note(&c, a)
	return w.commit(ctx, c, "upload noted")
}

// absent takes out of the files those that are in the mailbox already.
func (w *worker) absent(ctx context.Context, b *box, sel *mail.Selected, files []plan.Untracked) ([]plan.Untracked, error) {
	if sel == nil {
		return files, nil
	}
	there, err := w.arrived(ctx, b, sel, files)
	if err != nil {
		return nil, err
	}
	has := make(map[string]bool, len(there))
	for uid, f := range there {
		if b.expected[uid] == "" { // else it is known whose it is
			has[f.Key] = true
		}
	}
	for _, key := range b.expected {
		has[key] = true
	}
	for _, s := range b.uploaded {
		has[s.Key] = true
	}
	return slices.DeleteFunc(slices.Clone(files), func(s plan.Untracked) bool { return has[s.Key] }), nil
}

// since is the last agreement with the server.
func (b *box) since() journal.Since {
	return journal.Since{UIDValidity: b.known.UIDValidity, UIDNext: b.known.UIDNext}
}

// upload gives the server files. It gives those that the server refused together
// with others, and why it refused others. then is what the look will ask.
func (w *worker) upload(ctx context.Context, b *box, files []plan.Untracked, alone bool, then *mail.Known) (again []plan.Untracked, refused []refusedUpload, err error) {
	uploads := make([]mail.Upload, len(files))
	for i, f := range files {
		_, letters := maildir.ParseName(f.Name)
		uploads[i] = mail.Upload{Path: b.path(f.Name), Size: f.Size, Flags: plan.FlagsOf(letters + plan.Letters(plan.OwnFlags(b.Mailbox))), InternalDate: plan.When(f.Sent, f.Date, w.Now()), Alone: alone}
	}
	if len(uploads) > 0 {
		if err := w.intendUploads(ctx, b, files, uploads); err != nil {
			return nil, nil, err
		}
	}
	var noted error
	results, err := w.conn.Session().Append(ctx, b.Name, uploads, func(i int, as mail.Appended) {
		noted = errors.Join(noted, w.uploadStored(ctx, b.uploading(files[i], uploads[i]), as))
		w.tally(func(r *report.Report) { r.Uploaded++ })
		w.step("message uploaded")
		// Its flags are those that it was sent with; if the server has others,
		// notmuch is told again.
		row := files[i].Message
		row.Flags = uploads[i].Flags
		it := &deliver.Item{Box: b.line, Op: deliver.OpPreindex, Row: row, ID: row.ID}
		it.Add, it.Remove = w.arriving(b, row.Flags, plan.ByHand)
		w.line.Announce(ctx, it)
		if as.UID != 0 && as.UIDValidity == b.known.UIDValidity {
			b.expect(as.UID, files[i].Key)
			return
		}
		b.uploaded = append(b.uploaded, files[i])
	}, then)
	if b.only {
		w.line.Flush(ctx) // of several mailboxes, each would be a commit
	}
	if err := errors.Join(noted, err); err != nil {
		return nil, nil, err
	}
	var kept journal.Change
	for i, res := range results {
		if res.Err != nil {
			w.notes().Arriving.Forget(&kept, files[i].Key)
		}
	}
	if !kept.Empty() {
		if err := w.commit(ctx, kept, "uploads refused"); err != nil {
			return nil, nil, err
		}
	}
	if err := w.here.ForgetUnsent(ctx, b.Name, func(key string) bool {
		i := slices.IndexFunc(files, func(s plan.Untracked) bool { return s.Key == key })
		return i >= 0 && results[i].Err == nil
	}); err != nil {
		return nil, nil, err
	}
	for i, res := range results {
		switch {
		case res.Err == nil, errors.Is(res.Err, fs.ErrNotExist): // renamed or taken away this moment: the next run sees it
		case report.Own(res.Err):
			return nil, nil, report.OfMailbox(b.Name, res.Err)
		case res.Together && !alone:
			again = append(again, files[i])
		default:
			refused = append(refused, refusedUpload{files[i], res.Err})
		}
	}
	return again, refused, nil
}
