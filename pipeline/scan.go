package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// scan finds what the user changed in a mailbox's files, by Mutt or by notmuch,
// which renames files for its tags (maildir.synchronize_flags). A folder in which
// no name changed since the last scan is not read. Nothing is asked of the
// server.
func (r *run) scan(ctx context.Context, b *box) error {
	b.local, b.scanned, b.lacks = plan.Local{}, "", nil
	// The time before the listing: what changes while it is made shows in the
	// next run.
	var err error
	if b.changed, err = b.dir.Changed(); err != nil {
		return err
	}
	if r.ReadOnly && !r.Restore {
		return r.sayUnsent(ctx, b)
	}
	if !b.agreed() {
		return r.scanClosed(ctx, b)
	}
	f := r.foundEarly(b)
	if f == nil {
		last, _, err := r.notes().Scanned.Get(ctx, b.Name)
		if err != nil {
			return err
		}
		if f, err = r.find(ctx, b, last); err != nil {
			return err
		}
	}
	b.changed, b.local, b.scanned = f.changed, f.local, f.scanned
	if !f.unchanged {
		if err := r.forgetUnsent(ctx, b, func(key string) bool {
			return !slices.ContainsFunc(b.local.Untracked, func(s plan.Untracked) bool { return s.Key == key })
		}); err != nil {
			return err
		}
		if err := r.forgetFiles(ctx, b); err != nil {
			return err
		}
	}
	for _, s := range b.local.Untracked {
		if !s.Twin {
			continue
		}
		what := "the Message-ID"
		if plan.RealID(s.ID) == "" {
			what = "the content"
		}
		if err := r.noteOnce(ctx, b, r.notes().TwinSaid, s.Key,
			"%s has %s of a mail that is in this mailbox already, as after a change from another program; it is not uploaded", s.Name, what); err != nil {
			return err
		}
	}
	switch {
	case f.unchanged || r.DryRun:
		return nil
	case b.local.Doubt != "" && len(b.local.Missing) > 0:
		// The mail that comes now makes the folder look well again.
		return r.notes().Scanned.Set(ctx, b.Name, journal.ScanDoubted(b.local.Doubt))
	case !b.local.Nothing() || f.gone:
		return nil
	}
	return r.markScanned(ctx, b)
}

// forgetFiles forgets what was decided and said of files that are in the folder no more.
// One that is missed because it gets a new name this moment must not be uploaded then:
// so they are looked for once more, and not in a folder that is not believed.
func (r *run) forgetFiles(ctx context.Context, b *box) error {
	if r.DryRun || b.local.Doubt != "" {
		return nil
	}
	var failed error
	gone := func(key string) bool {
		if slices.ContainsFunc(b.local.Untracked, func(s plan.Untracked) bool { return s.Key == key }) {
			return false
		}
		_, here, err := b.find(key, "")
		failed = errors.Join(failed, err)
		return err == nil && !here
	}
	err := r.notes().NeverUpload.DropWhere(ctx, func(key string, in journal.Text) bool { return string(in) == b.Name && gone(key) })
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	err = r.notes().TwinSaid.DropWhere(ctx, func(key string, in journal.Text) bool {
		return (string(in) == b.Name || in == journal.SaidOnce) && gone(key)
	})
	return errors.Join(err, failed)
}

// sayUnsent tells what of the changes in a folder a run that only reads leaves here.
func (r *run) sayUnsent(ctx context.Context, b *box) error {
	if !b.agreed() {
		return nil
	}
	last, _, err := r.notes().Scanned.Get(ctx, b.Name)
	if err != nil {
		return err
	}
	f, err := r.find(ctx, b, last)
	if err != nil {
		return err
	}
	n := len(f.local.Flags) + len(f.local.Marked) + len(f.local.Missing)
	for _, s := range f.local.Untracked {
		if s.New() {
			n++
		}
	}
	if n > 0 {
		r.note(b, "%s here not sent to the server, since read_only is set", mail.Number(n, "change is", "changes are"))
	}
	return nil
}

// found is what a folder holds, against the rows of the ledger.
type found struct {
	changed   [2]time.Time // of the folder
	known     ledger.Mailbox
	scanned   journal.Scan // as the ledger is to remember it
	unchanged bool         // since the last scan: local is empty
	gone      bool         // there is no folder
	local     plan.Local
}

// find is the part of scan that only reads. last is what the ledger remembers of the
// last scan.
func (r *run) find(ctx context.Context, b *box, last journal.Scan) (*found, error) {
	now, err := b.dir.Changed()
	if err != nil {
		return nil, err
	}
	f := &found{changed: now, known: b.known, scanned: journal.ScanOf(b.known.UIDValidity, now, b.dir.Identity())}
	if f.unchanged = last == f.scanned; f.unchanged {
		return f, nil
	}
	files, err := b.dir.Scan()
	f.gone = errors.Is(err, fs.ErrNotExist)
	if err != nil && !f.gone {
		return nil, err
	}
	rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return nil, err
	}
	if f.gone {
		files = &maildir.Listing{}
	}
	replaced := last != "" && !maildir.SameIdentity(last.Identity(), f.scanned.Identity())
	if f.local, err = r.compare(ctx, b, rows, files, replaced); err != nil {
		return nil, err
	}
	why, doubted := last.Doubt()
	switch {
	case f.gone:
		f.local.Doubt = plan.DoubtGone
	case doubted:
		switch lacked := slices.Contains([]string{plan.DoubtGone, plan.DoubtEmpty, plan.DoubtPart}, why); {
		case !lacked:
			f.local.Doubt = plan.DoubtReplaced // of an earlier version's ledger, too
		case len(f.local.Missing) > 0:
			f.local.Doubt = why
		}
	case replaced:
		f.local.Doubt = plan.DoubtReplaced
	case len(f.local.Missing) > 0 && (now[0].IsZero() || now[1].IsZero()):
		f.local.Doubt = plan.DoubtPart
	case f.local.Have > 0 && f.local.Files == 0:
		f.local.Doubt = plan.DoubtEmpty
	}
	return f, nil
}

// scanClosed finds what is missing in the folder of a mailbox whose rows are not
// all there is: that is for later, but what the server did to it meanwhile is no
// more agreed than elsewhere.
func (r *run) scanClosed(ctx context.Context, b *box) error {
	files, err := b.dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return err
	}
	var missing, marked []imap.UID
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" || plan.HasFlag(row.Flags, `\Deleted`) {
			continue
		}
		name, ok := files.Find(row.Key)
		if _, letters := maildir.ParseName(name); !ok {
			missing = append(missing, row.UID)
		} else if strings.Contains(letters, "T") {
			marked = append(marked, row.UID)
		}
	}
	if b.lacks, err = r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, missing); err != nil {
		return err
	}
	if b.Status == nil || b.known.UIDValidity != b.Status.UIDValidity || plan.WentBack(b.known, *b.Status) {
		return nil // its numbers are no more those of the server
	}
	b.local.Missing = slices.Clone(b.lacks)
	b.local.Marked, err = r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, marked)
	return err
}

// locals gives what the user changed, by mailbox, of those where it can be told.
// The others, and folders that are of no mailbox, are there as far as mail may have
// gone between them and these.
func (r *run) locals(ctx context.Context, boxes []*box) (map[string]*plan.Local, error) {
	out := make(map[string]*plan.Local, len(boxes))
	missing, strangers := false, false
	for _, b := range boxes {
		missing = missing || !b.agreed() && len(b.lacks) > 0
		if b.agreed() && !b.local.Nothing() {
			l := b.local
			// What is not asked for is not told the server either.
			l.Closed = len(r.Only) > 0 && !r.Restore && slices.Contains(r.beside, b)
			out[b.Name] = &l
			missing = missing || len(b.local.Missing) > 0
			strangers = strangers || slices.ContainsFunc(b.local.Untracked, plan.Untracked.MayHaveCome)
		}
	}
	for _, b := range boxes {
		l := &plan.Local{Closed: true, Missing: b.lacks}
		var err error
		switch {
		case b.unread && strangers:
			l.Missing, err = r.present(ctx, b)
			l.Missing = append(l.Missing, r.unsettled[b.Name]...)
		case !b.unread && !b.agreed() && missing:
			l.Untracked, err = r.unknown(ctx, b)
		case b.unread || b.agreed():
			continue
		}
		if err := r.unreadable(b, err); err != nil {
			return nil, err
		}
		out[b.Name] = l
	}
	for _, b := range r.closed {
		if !missing && len(b.lacks) == 0 || b.unread {
			continue
		}
		l := &plan.Local{Closed: true, Missing: b.lacks}
		var err error
		l.Untracked, err = r.unknown(ctx, b)
		if err := r.unreadable(b, err); err != nil {
			return nil, err
		}
		name := b.Name
		if len(b.lacks) == 0 {
			name = "\xff" + b.known.Folder // no mailbox is called so
		}
		out[name] = l
	}
	return out, nil
}

// present gives all messages of a mailbox that are here.
func (r *run) present(ctx context.Context, b *box) ([]ledger.Message, error) {
	rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return nil, err
	}
	var uids []imap.UID
	for _, row := range rows {
		if row.State == ledger.Present {
			uids = append(uids, row.UID)
		}
	}
	return r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, uids)
}

// unknown gives the files in a folder of which the ledger knows nothing.
func (r *run) unknown(ctx context.Context, b *box) ([]plan.Untracked, error) {
	rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return nil, err
	}
	files, err := b.dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.strangers(ctx, b, rows, files)
}

// rescans bounds how often folders are read again that change meanwhile.
const rescans = 3

// scanAgain makes the scans those of one moment: a file that went from one folder
// to another between them was in neither, or in both. It tells whether they are.
func (r *run) scanAgain(ctx context.Context, boxes []*box) (bool, error) {
	for range rescans {
		still := true
		for _, b := range boxes {
			if b.unread {
				continue
			}
			now, err := b.dir.Changed()
			if err := r.unreadable(b, err); err != nil {
				return false, err
			}
			if b.changed == now || b.unread {
				continue
			}
			still = false
			if err := r.scanBox(ctx, b); err != nil {
				return false, err
			}
		}
		if still {
			return true, nil
		}
	}
	return false, nil
}

// scanBox is scan; that a folder cannot be read costs only its mailbox.
func (r *run) scanBox(ctx context.Context, b *box) error {
	return r.unreadable(b, r.scan(ctx, b))
}

func (r *run) unreadable(b *box, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); !ok {
		return err
	}
	// What else was found does not count, and what is missing elsewhere may be here.
	b.local, b.scanned, b.unread = plan.Local{}, "", true
	r.mailboxFault(b, fmt.Errorf("its folder cannot be read, so that nothing of it goes to the server, "+
		"and what is gone from other folders waits, since it may be here: %w", err))
	b.barred = true
	return nil
}

// agreed tells whether the ledger's rows are of the mailbox as it is, and of all
// that was in it. Of one that cannot be had now nobody knows, and where the
// server's counters went back, a UID may be another message's by now.
func (b *box) agreed() bool {
	return b.Status != nil && b.known.Complete && b.known.UIDValidity != 0 && b.known.UIDValidity == b.Status.UIDValidity && !plan.WentBack(b.known, *b.Status)
}

// compare sorts out what is in the folder and what is not. A file without
// letters, as in new, says nothing about flags, unless the folder was replaced.
func (r *run) compare(ctx context.Context, b *box, rows []ledger.Row, files *maildir.Listing, replaced bool) (l plan.Local, err error) {
	var marked, missing []imap.UID
	l = plan.Local{Flags: make(map[imap.UID]plan.Delta), Files: files.Len()}
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		l.Have++
		name, ok := files.Find(row.Key)
		// What was agreed to be \Deleted is deleted already, as far as the
		// server lets us.
		settled := plan.HasFlag(row.Flags, `\Deleted`)
		switch {
		case !ok && !settled:
			missing = append(missing, row.UID)
		case ok && (replaced || plan.HasInfo(name)):
			_, letters := maildir.ParseName(name)
			if strings.Contains(letters, "T") && !settled {
				marked = append(marked, row.UID)
			}
			d := plan.ToldAgain(plan.DeltaOf(row.Flags, letters), plan.InName(r.toldBefore[b.Name][row.UID]), func(f string) bool { return plan.HasFlag(plan.FlagsOf(letters), f) })
			if len(d.Add)+len(d.Remove) > 0 {
				l.Flags[row.UID] = d
			}
		}
	}
	if l.Marked, err = r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, marked); err != nil {
		return l, err
	}
	if l.Missing, err = r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, missing); err != nil {
		return l, err
	}
	l.Untracked, err = r.strangersOf(ctx, b, rows, files)
	return l, err
}

// strangersOf finds the files that are neither of a row of the ledger nor a stub.
// That one was ruled out holds for this folder, and that it is a twin only while
// the other file is there.
func (r *run) strangersOf(ctx context.Context, b *box, rows []ledger.Row, files *maildir.Listing) (out []plan.Untracked, err error) {
	all, err := r.strangers(ctx, b, rows, files)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	old, err := r.Ledger.OtherValidity(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return nil, err
	}
	sent, err := r.notes().NeverUpload.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Size == 0 || slices.ContainsFunc(old, func(m ledger.Message) bool { return m.Key == f.Key }) {
			continue
		}
		if f.RuledOut = string(sent[f.Key]) == b.Name; !f.RuledOut {
			if f.Twin, err = r.twin(ctx, b, f, files); err != nil {
				return nil, err
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// twin tells whether another file of the folder is the server's message with the
// same Message-ID: uploading this one would make the mail twice there. One that
// is marked for deletion does not count, since Mutt leaves that of a mail that was
// edited.
func (r *run) twin(ctx context.Context, b *box, f plan.Untracked, files *maildir.Listing) (bool, error) {
	if f.ID == "" {
		return false, nil
	}
	copies, err := r.Ledger.ByMessageID(ctx, f.ID)
	return slices.ContainsFunc(copies, func(m ledger.Message) bool {
		name, here := files.Find(m.Key)
		_, letters := maildir.ParseName(name)
		return here && !strings.Contains(letters, "T") && m.Mailbox == b.Name && m.UIDValidity == b.known.UIDValidity && m.State == ledger.Present &&
			(m.Digest.IsZero() || f.SameContent(&m))
	}), err
}

// neverUpload remembers a file that the server is not to be given.
func (r *run) neverUpload(ctx context.Context, b *box, key string) error {
	if r.DryRun {
		return nil
	}
	var c journal.Change
	r.notes().NeverUpload.Put(&c, key, journal.Text(b.Name))
	r.notes().Arriving.Forget(&c, key)
	return r.commit(ctx, c, "upload ruled out")
}

// markScanned records that nothing is left to tell the server of what the scan
// saw.
func (r *run) markScanned(ctx context.Context, b *box) error {
	if b.scanned == "" {
		return nil
	}
	if err := r.notes().Scanned.Set(ctx, b.Name, b.scanned); err != nil {
		return err
	}
	r.step("scan recorded")
	return nil
}

// believe records that the folder is the right one, to be scanned again.
func (r *run) believe(ctx context.Context, b *box) error {
	return r.notes().Scanned.Set(ctx, b.Name, journal.ScanAgain(b.dir.Identity()))
}
