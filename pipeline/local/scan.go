package local

import (
	"context"
	"errors"
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

// Scan finds what the user changed in a mailbox's files, by Mutt or by notmuch,
// which renames files for its tags (maildir.synchronize_flags). A folder in which
// no name changed since the last scan is not read. before is what was found there
// already, nil if nothing was.
func (r *Reader) Scan(ctx context.Context, m Mailbox, before *Prescan) (f Folder, err error) {
	err = f.unread(r.scan(ctx, &m, before, &f))
	return f, err
}

func (r *Reader) scan(ctx context.Context, m *Mailbox, before *Prescan, out *Folder) (err error) {
	// The time before the listing: what changes while it is made shows in the
	// next run.
	if out.Changed, err = m.Dir.Changed(); err != nil {
		return err
	}
	if r.ReadOnly && !r.Restore {
		return r.scanUnsent(ctx, m, out)
	}
	if !m.Agreed() {
		return r.scanUnagreed(ctx, m, out)
	}
	f := before.of(m, out.Changed)
	if f == nil {
		last, _, err := r.Journal.Scanned.Get(ctx, m.Name)
		if err != nil {
			return err
		}
		if f, err = r.Compare(ctx, *m, last); err != nil {
			return err
		}
	}
	out.Changed, out.Local, out.Renamed, out.Scanned = f.changed, f.Local, f.renamed, f.scanned
	untracked := func(key string) bool {
		return slices.ContainsFunc(f.Untracked, func(s plan.Untracked) bool { return s.Key == key })
	}
	if !f.unchanged {
		if err := r.ForgetUnsent(ctx, m.Name, func(key string) bool { return !untracked(key) }); err != nil {
			return err
		}
		if err := r.forgetFiles(ctx, m, f, untracked); err != nil {
			return err
		}
	}
	switch {
	case f.unchanged || r.DryRun:
		return nil
	case f.Doubt != "" && len(f.Missing) > 0:
		// The mail that comes now makes the folder look well again.
		return r.Journal.Scanned.Set(ctx, m.Name, journal.ScanDoubted(f.Doubt))
	case !f.Nothing() || f.gone || len(f.renamed) > 0:
		return nil
	}
	return r.MarkScanned(ctx, m.Name, f.scanned)
}

// SayTwin says once of a file that it is of a message which the mailbox has already, or is
// about to have.
func (r *Reader) SayTwin(ctx context.Context, mailbox string, s plan.Untracked) error {
	what := "the Message-ID"
	if plan.RealID(s.ID) == "" {
		what = "the content"
	}
	return journal.Once(ctx, r.Journal.TwinSaid, s.Key, journal.Text(mailbox), !r.DryRun, func() bool {
		return r.Report.Note(mailbox, "%s has %s of a mail that is in this mailbox already, as after a change from another program; it is not uploaded", s.Name, what)
	})
}

// forgetFiles forgets what was decided and said of files that are in the folder no more.
// One that is missed because it gets a new name this moment must not be uploaded then:
// so they are looked for once more, and not in a folder that is not believed.
func (r *Reader) forgetFiles(ctx context.Context, m *Mailbox, f *Found, untracked func(key string) bool) error {
	if r.DryRun || f.Doubt != "" {
		return nil
	}
	var failed error
	gone := func(key string) bool {
		if untracked(key) {
			return false
		}
		_, here, err := m.Dir.Locate(key, "")
		failed = errors.Join(failed, err)
		return err == nil && !here
	}
	for _, notes := range []journal.Notes[journal.Text]{r.Journal.NeverUpload, r.Journal.HereBefore, r.Journal.Stood} {
		err := notes.DropWhere(ctx, func(key string, in journal.Text) bool { return string(in) == m.Name && gone(key) })
		if err = errors.Join(err, failed); err != nil {
			return err
		}
	}
	err := r.Journal.TwinSaid.DropWhere(ctx, func(key string, text journal.Text) bool {
		in, _ := text.Said()
		return (string(in) == m.Name || in == journal.SaidOnce) && gone(key)
	})
	return errors.Join(err, failed)
}

// scanUnsent tells what of the changes in a folder a run that only reads leaves here, and finds
// the files that may be of messages which come: another program may have fetched them.
func (r *Reader) scanUnsent(ctx context.Context, m *Mailbox, out *Folder) error {
	if !m.Agreed() {
		return nil
	}
	last, _, err := r.Journal.Scanned.Get(ctx, m.Name)
	if err != nil {
		return err
	}
	f, err := r.Compare(ctx, *m, last)
	if err != nil {
		return err
	}
	out.Renamed = f.renamed
	n := len(f.Flags) + len(f.Marked) + len(f.Missing)
	for _, s := range f.Untracked {
		if s.New() {
			n++
		}
		s.RuledOut = true
		out.Untracked = append(out.Untracked, s)
	}
	if n > 0 {
		r.Report.Note(m.Name, "%s here not sent to the server, since read_only is set", mail.Number(n, "change is", "changes are"))
	}
	return nil
}

// Found is what a folder holds, against the rows of the ledger.
type Found struct {
	plan.Local
	renamed   []Renamed
	changed   [4]time.Time // of the folder
	known     ledger.Mailbox
	scanned   journal.Scan // as the journal is to remember it
	unchanged bool         // since the last scan: Local is empty
	gone      bool         // there is no folder
}

// scanOf is the scan of a folder that changed at these times. Where deletions are kept back the
// server was not told of all, so that a scan of then says nothing under another policy.
func (r *Reader) scanOf(m *Mailbox, changed [4]time.Time) journal.Scan {
	policy := ""
	if r.Deletions == plan.DeletionsKeep {
		policy = string(r.Deletions)
	}
	return journal.ScanOf(m.Known.UIDValidity, changed, m.Dir.Identity()).Under(policy)
}

// Compare is the part of Scan that only reads. last is what the journal has of the
// last scan.
func (r *Reader) Compare(ctx context.Context, m Mailbox, last journal.Scan) (*Found, error) {
	now, err := m.Dir.Changed()
	if err != nil {
		return nil, err
	}
	f := &Found{changed: now, known: m.Known, scanned: r.scanOf(&m, now)}
	if f.unchanged = last == f.scanned && !r.UploadHere; f.unchanged {
		return f, nil
	}
	if maildir.Fresh(now) {
		// What changes from here on may not show in the times.
		f.scanned = journal.ScanAgain(f.scanned.Identity())
	}
	files, err := m.Dir.Scan()
	f.gone = errors.Is(err, fs.ErrNotExist)
	if err != nil && !f.gone {
		return nil, err
	}
	rows, err := r.Ledger.Rows(ctx, m.Name, m.Known.UIDValidity)
	if err != nil {
		return nil, err
	}
	if f.gone {
		files = &maildir.Listing{}
	}
	if f.Local, err = r.compare(ctx, &m, rows, files, replaced(last, f.scanned.Identity())); err != nil {
		return nil, err
	}
	if f.Untracked, f.renamed, err = r.newFiles(ctx, &m, rows, files); err != nil {
		return nil, err
	}
	f.renamed = append(f.renamed, renamedOf(rows, files)...)
	before := DoubtBefore(last, f.scanned.Identity())
	switch {
	case f.gone:
		f.Doubt = plan.DoubtGone
	case before == plan.DoubtReplaced, before != "" && len(f.Missing) > 0:
		f.Doubt = before
	case before != "": // and all is there again
	case len(f.Missing) > 0 && (now[0].IsZero() || now[1].IsZero()):
		f.Doubt = plan.DoubtPart
	case f.Have > 0 && f.Files == 0:
		f.Doubt = plan.DoubtEmpty
	}
	return f, nil
}

// DoubtBefore says why a folder with this identity is not to be believed by what was noted of it last, or "". If
// something lacked then, that holds as long as something does.
func DoubtBefore(last journal.Scan, identity string) string {
	why, doubted := last.Doubt()
	switch lacked := slices.Contains([]string{plan.DoubtGone, plan.DoubtEmpty, plan.DoubtPart}, why); {
	case doubted && lacked:
		return why
	case doubted, replaced(last, identity):
		return plan.DoubtReplaced // of an earlier version's ledger, too
	}
	return ""
}

// replaced tells whether a folder with this identity is another one than that of which something was noted last.
func replaced(last journal.Scan, identity string) bool {
	return last != "" && !maildir.SameIdentity(last.Identity(), identity)
}

// scanUnagreed finds what is missing in the folder of a mailbox whose rows are not
// all there is: that is for later, but what the server did to it meanwhile is no
// more agreed than elsewhere.
func (r *Reader) scanUnagreed(ctx context.Context, m *Mailbox, out *Folder) error {
	files, err := m.Dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := r.Ledger.Rows(ctx, m.Name, m.Known.UIDValidity)
	if err != nil {
		return err
	}
	out.Renamed = renamedOf(rows, files)
	var missing, marked []imap.UID
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		name, ok := files.Find(row.Key)
		if _, letters := maildir.ParseName(name); !ok {
			missing = append(missing, row.UID)
		} else if strings.Contains(letters, "T") && !plan.HasFlag(row.Flags, `\Deleted`) {
			marked = append(marked, row.UID)
		}
	}
	if out.MissingUnconfirmed, err = r.Ledger.GetMany(ctx, m.Name, m.Known.UIDValidity, missing); err != nil {
		return err
	}
	if m.Status == nil || m.Known.UIDValidity != m.Status.UIDValidity || plan.WentBack(m.Known, *m.Status) {
		return nil // its numbers are no more those of the server
	}
	out.Missing = slices.Clone(out.MissingUnconfirmed)
	out.Marked, err = r.Ledger.GetMany(ctx, m.Name, m.Known.UIDValidity, marked)
	return err
}

// rescans bounds how often folders are read again that change meanwhile.
const rescans = 3

// ScanAgain makes the scans those of one moment: a file that went from one folder
// to another between them was in neither, or in both. It tells whether they are.
func (r *Reader) ScanAgain(ctx context.Context, all []View) (bool, error) {
	for range rescans {
		changed, err := r.changed(all)
		if err != nil || len(changed) == 0 {
			return err == nil, err
		}
		for _, b := range changed {
			if b.Unread {
				continue
			}
			if *b.Folder, err = r.Scan(ctx, b.Mailbox, nil); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// Unchanged tells whether all folders are as they were scanned.
func (r *Reader) Unchanged(all []View) (bool, error) {
	changed, err := r.changed(all)
	return len(changed) == 0, err
}

// changed gives those whose folders have changed since they were scanned, or cannot be read
// any more.
func (r *Reader) changed(all []View) (out []View, err error) {
	for _, b := range all {
		if b.Unread {
			continue
		}
		now, err := b.Dir.Changed()
		if err := b.unread(err); err != nil {
			return nil, err
		}
		if b.Unread || b.Changed != now {
			out = append(out, b)
		}
	}
	return out, nil
}

// compare sorts out what of the rows is in the folder and what is not. A file without
// letters, as in new, says nothing about flags, unless the folder was replaced.
func (r *Reader) compare(ctx context.Context, m *Mailbox, rows []ledger.Row, files *maildir.Listing, replaced bool) (l plan.Local, err error) {
	var marked, missing []imap.UID
	l = plan.Local{Flags: make(map[imap.UID]plan.Delta), Files: files.Len()}
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		l.Have++
		name, ok := files.Find(row.Key)
		switch {
		case !ok:
			missing = append(missing, row.UID)
		case replaced || plan.HasInfo(name):
			_, letters := maildir.ParseName(name)
			if strings.Contains(letters, "T") && !plan.HasFlag(row.Flags, `\Deleted`) {
				marked = append(marked, row.UID)
			}
			d := r.Tags.LetterDelta(row.Flags, letters, r.Told[m.Name][row.UID])
			if len(d.Add)+len(d.Remove) > 0 {
				l.Flags[row.UID] = d
			}
		}
	}
	if l.Marked, err = r.Ledger.GetMany(ctx, m.Name, m.Known.UIDValidity, marked); err != nil {
		return l, err
	}
	l.Missing, err = r.Ledger.GetMany(ctx, m.Name, m.Known.UIDValidity, missing)
	return l, err
}

// MarkScanned notes that nothing is left to tell the server of what a scan of the
// mailbox saw.
func (r *Reader) MarkScanned(ctx context.Context, mailbox string, scanned journal.Scan) error {
	if scanned == "" {
		return nil
	}
	if err := r.Journal.Scanned.Set(ctx, mailbox, scanned); err != nil {
		return err
	}
	r.Report.Step("scan recorded")
	return nil
}

// Believe notes that a mailbox's folder is the right one, to be scanned again.
func (r *Reader) Believe(ctx context.Context, mailbox string, dir maildir.Dir) error {
	return r.Journal.Scanned.Set(ctx, mailbox, journal.ScanAgain(dir.Identity()))
}

// ForgetUnsent forgets that the server refused a mailbox's files that it has taken since,
// or that are in the folder no more.
func (r *Reader) ForgetUnsent(ctx context.Context, mailbox string, gone func(key string) bool) error {
	notes, err := r.Journal.Unsent.All(ctx)
	if err != nil || len(notes) == 0 || r.DryRun {
		return err
	}
	var c journal.Change
	for about, u := range notes {
		if u.Mailbox == mailbox && gone(strings.TrimPrefix(about, journal.AboutFile(mailbox, ""))) {
			r.Journal.Unsent.Forget(&c, about)
		}
	}
	if c.Empty() {
		return nil
	}
	return r.record(ctx, c, "refused uploads forgotten")
}
