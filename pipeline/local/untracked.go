package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// newFiles finds the files that are neither of a row of the ledger nor a stub, and may be
// such as notmuch knows by another name. That one was ruled out holds for this folder, and
// that it is a twin only while the other file is there.
func (r *Reader) newFiles(ctx context.Context, m *Mailbox, rows []ledger.Row, files *maildir.Listing) (out []plan.Untracked, renamed []Renamed, err error) {
	all, err := r.Untracked(ctx, m.Name, m.Dir, rows, files)
	if err != nil || len(all) == 0 {
		return nil, nil, err
	}
	for _, f := range all {
		renamed = append(renamed, Renamed{Name: f.Name, id: f.ID})
	}
	old, err := r.Ledger.OtherValidity(ctx, m.Name, m.Known.UIDValidity)
	if err != nil {
		return nil, nil, err
	}
	sent, err := r.Journal.NeverUpload.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	twins, err := r.Journal.TwinSaid.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	before, err := r.Journal.HereBefore.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	stood, err := r.Journal.Stood.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	held := make(map[plan.Held]int)
	for _, f := range all {
		if f.Size == 0 || slices.ContainsFunc(old, func(o ledger.Message) bool { return o.Key == f.Key }) {
			continue
		}
		f.Stood = string(stood[f.Key]) == m.Name
		wasHere := string(before[f.Key]) == m.Name || slices.Contains(r.released, m.Known.Folder)
		if wasHere && r.UploadHere && (len(r.UploadIn) == 0 || slices.Contains(r.UploadIn, m.Name)) {
			why, _, err := r.HeldBack(ctx, m.Name, m.Dir, &f, nil)
			if err != nil {
				return nil, nil, err
			}
			wasHere = why != plan.NotHeld
			held[why]++
		}
		if f.RuledOut = f.RuledOut || string(sent[f.Key]) == m.Name || wasHere; !f.RuledOut && !f.Own {
			if f.Twin, err = r.twin(ctx, m, f, files); err != nil {
				return nil, nil, err
			}
			in, _ := twins[f.Key].Said()
			f.Stayed = f.Twin && (string(in) == m.Name || in == journal.SaidOnce)
		}
		out = append(out, f)
	}
	r.SayHeld(m.Name, held)
	return out, renamed, nil
}

// SayHeld says, once of each mailbox, how many files that were here before no upload sends.
func (r *Reader) SayHeld(mailbox string, held map[plan.Held]int) {
	if n := held[plan.HeldElsewhere]; n > 0 {
		r.Report.NoteOnce(mailbox, "%s here of mail that the server has in another mailbox alone: no upload sends one more of it; `notmuch imap verify` says where it is", mail.Number(n, "file is", "files are"))
	}
	if n := held[plan.HeldUnsure]; n > 0 {
		r.Report.NoteOnce(mailbox, "%s, and another text or its beginning alone: no upload sends that; `notmuch imap verify` says which", mail.Number(n, "file has the Message-ID of a mail of the server", "files have Message-IDs of mails of the server"))
	}
}

// twin tells whether another file of the folder is the server's message with the
// same Message-ID: uploading this one would make the mail twice there. One that
// is marked for deletion does not count, since Mutt leaves that of a mail that was
// edited.
func (r *Reader) twin(ctx context.Context, m *Mailbox, f plan.Untracked, files *maildir.Listing) (bool, error) {
	if f.ID == "" {
		return false, nil
	}
	copies, err := r.Ledger.Like(ctx, f.Message)
	return slices.ContainsFunc(copies, func(c ledger.Message) bool {
		name, here := files.Find(c.Key)
		_, letters := maildir.ParseName(name)
		return here && !strings.Contains(letters, "T") && c.Mailbox == m.Name && c.UIDValidity == m.Known.UIDValidity && c.State == ledger.Present &&
			(c.Digest.IsZero() || f.SameContent(&c))
	}), err
}

// Untracked reads those files of a mailbox's folder that have no row: mail
// that may be the server's, after the ledger was lost, or that the user put
// there.
func (r *Reader) Untracked(ctx context.Context, mailbox string, dir maildir.Dir, rows []ledger.Row, l *maildir.Listing) ([]plan.Untracked, error) {
	known := make(map[string]bool, len(rows))
	for _, row := range rows {
		known[row.Key], known[row.StubKey] = true, true
	}
	var out []plan.Untracked
	left := 0
	buf := make([]byte, 64<<10)
	some, err := l.Some(func(key string) bool { return !known[key] })
	if err != nil {
		return nil, err
	}
	for _, f := range some {
		path := dir.Path(f.Name)
		head := mail.NewHeaderReader(append(stub.ClaimFields(), "Date", "Subject", "X-TUID")...)
		sum := mail.NewDigester()
		size, err := maildir.Read(path, buf, io.MultiWriter(head, sum))
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed or taken away this moment: the next run sees it
		}
		if err != nil {
			return nil, err
		}
		h := mail.EnvelopeOf(head.Header())
		is, whole, err := r.isStub(ctx, h.Fields, path)
		if err == nil && (is || whole) {
			var ours bool
			ours, err = r.isOurs(ctx, h.MessageID, sum.Sum())
			is, whole = is && ours, whole && ours
		}
		if err != nil {
			return nil, err
		}
		if is {
			continue
		}
		if whole {
			left++
		}
		if h.MessageID == "" {
			if h.MessageID, err = maildir.MadeUpID(path); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		out = append(out, plan.Untracked{RuledOut: whole || h.Fields.IsPlaceholder(), Message: ledger.Message{
			Mailbox: mailbox, Key: f.Key, Name: f.Name, ID: h.MessageID, Size: size, WireSize: size, Digest: sum.Sum(), Date: f.ModTime.UTC().Truncate(time.Second),
		}, Sent: h.Date.UTC().Truncate(time.Second), Added: sum.Left(), Own: r.Own[f.Key]})
	}
	r.sayLeft(mailbox, left)
	return out, nil
}

// sayLeft says in an upload, once of each mailbox, how many stubs of which the ledger knows
// nothing are in its folder, as of an account that has another name now.
func (r *Reader) sayLeft(mailbox string, n int) {
	if n > 0 && r.UploadHere {
		r.Report.NoteOnce(mailbox, "%s here for mail that stayed on another server, or that this account has not heard of: no upload sends that", mail.Number(n, "stub stands", "stubs stand"))
	}
}

// isStub tells whether the mail at path, of whose header there are the fields of a
// claim, is one of our stubs, also if it was moved or copied. We signed it; or the
// secret of then is lost, or it is older than signatures, and the ledger has a stub of
// this key that is not at its place, or that this is a copy of. Else whole tells whether
// it may be the stub of an account of which nothing is known.
func (r *Reader) isStub(ctx context.Context, h mail.Header, path string) (is, whole bool, err error) {
	c, err := stub.ClaimOf(h)
	if err == nil && c.SignedBy(r.Secret) {
		return true, false, nil
	}
	if err != nil || c.Mailed {
		return false, false, nil //nolint:nilerr // then it is none
	}
	is, err = r.hasStub(ctx, c, path)
	return is, !is && c.Whole(), err
}

// hasStub tells whether the ledger has a stub as the mail at path claims to be.
func (r *Reader) hasStub(ctx context.Context, c stub.Claim, path string) (bool, error) {
	rows, err := r.Ledger.InState(ctx, ledger.Stub, ledger.GivenUp, ledger.Skipped, ledger.Deferred)
	if err != nil {
		return false, err
	}
	for _, m := range rows {
		if stub.NewKey(r.Account, m.Mailbox, m.UIDValidity, m.UID) != c.Key || m.StubKey == "" {
			continue
		}
		place, here, err := r.FileOf(ctx, ledger.Message{Mailbox: m.Mailbox, Key: m.StubKey, Name: m.StubName})
		if err != nil || !here {
			return err == nil, err
		}
		same, err := sameBeginning(place, path)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil // renamed this moment: the next run tells
		}
		return same, err
	}
	return false, nil
}

// isOurs tells whether a file that looks like one of our stubs is no mail that the server
// has as one of its own, as of somebody who was sent a copy of the note, and whose file
// went from its place: that was moved.
func (r *Reader) isOurs(ctx context.Context, id string, content mail.Digest) (bool, error) {
	mails, err := r.Ledger.Like(ctx, ledger.Message{ID: id})
	for _, m := range mails {
		if err != nil || m.State != ledger.Present || m.Digest != content {
			continue
		}
		if _, here, err := r.FileOf(ctx, m); err != nil || !here {
			return false, err
		}
	}
	return true, err
}

// sameBeginning tells whether two files are the same as far as stub.MaxHeader.
func sameBeginning(a, b string) (bool, error) {
	var text [2][]byte
	for i, path := range []string{a, b} {
		f, err := maildir.Open(path)
		if err != nil {
			return false, err
		}
		text[i], err = io.ReadAll(io.LimitReader(f, stub.MaxHeader))
		if err := errors.Join(err, f.Close()); err != nil {
			return false, err
		}
	}
	return bytes.Equal(text[0], text[1]), nil
}

// untrackedOf gives the files in a folder of which the ledger knows nothing.
func (r *Reader) untrackedOf(ctx context.Context, m *Mailbox) ([]plan.Untracked, error) {
	rows, err := r.Ledger.Rows(ctx, m.Name, m.Known.UIDValidity)
	if err != nil {
		return nil, err
	}
	files, err := m.Dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.Untracked(ctx, m.Name, m.Dir, rows, files)
}
