// Package local is what is here: what the folders of an account hold, and what notmuch has
// of their mail, against the rows of the ledger that were agreed on with the server. What it
// finds are values. It asks no server, and changes neither mail, nor notmuch, nor rows; in the
// journal it notes up to where it has read, and what it has said.
package local

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Ledger is what was agreed on. Errors are of this machine.
type Ledger interface {
	Mailboxes(ctx context.Context) ([]ledger.Mailbox, error)
	// Rows gives a mailbox's messages, by UID.
	Rows(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Row, error)
	GetMany(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) ([]ledger.Message, error)
	// OtherValidity gives a mailbox's messages of all other UIDVALIDITYs.
	OtherValidity(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Message, error)
	InState(ctx context.Context, states ...ledger.State) ([]ledger.Message, error)
	// Like gives the messages that may be the mail of a row, or of a file.
	Like(ctx context.Context, m ledger.Message) ([]ledger.Message, error)
	// Count gives how many of a mailbox's messages are in these states.
	Count(ctx context.Context, mailbox string, uidValidity uint64, states ...ledger.State) (int, error)
}

// Reader reads what is here of one account.
type Reader struct {
	Account string // its name
	Root    string // absolute path of its folder
	Ledger  Ledger
	Index   Index
	Journal *journal.Journal
	Old     *journal.OldTags
	Report  *report.Reporter
	Secret  string // by which its stubs are signed
	// Told are the flags of messages that earlier runs have told the server of, and have not
	// seen there, by mailbox: of these what is here is news, whatever was agreed.
	Told map[string]map[imap.UID][]string

	Tags      plan.Tags
	Deletions plan.Deletions
	Believed  func(mailbox string) bool // a person has said of its folder that it is right
	// Selects tells whether a mailbox is to be synchronised; nil means all.
	Selects func(mailbox string, delim rune) bool

	Layout maildir.Layout // what the folder of a mailbox is called that the ledger does not know
	// Layouts gives the folders in which another program may have a mailbox; nil: there is none.
	Layouts func(mailbox string, delim rune) []string
	// Were are mailboxes of another server, by the folders that were theirs.
	Were map[string]mail.Mailbox
	// Own are the keys of files each of which was a message of its own there.
	Own map[string]bool

	ReadOnly bool // nothing of it goes to the server
	Restore  bool // the server is right; ReadOnly is no matter then
	DryRun   bool // nothing is noted
	// UploadHere: what was here before the first sync is new mail as any other.
	UploadHere bool
	// UploadIn are the mailboxes in which that is so; nil: it is in all.
	UploadIn []string
	// UploadNext: the run after this one has UploadHere.
	UploadNext bool
	// Rules: tags move also the files of which they were said before they were there.
	Rules bool

	// Placed are files, by key, of which this run knows that the mail of what they were is nowhere else.
	Placed map[string]bool

	judged *database       // what this run knows of notmuch's
	before map[string]bool // folders that are here before the first sync, which this is
	// released are those that were, and of which a dry run would make mailboxes.
	released []string

	marking sync.Mutex
	older   bool      // tags are to be compared that are older than this run has seen
	renewed [2]string // the database that was, and the one that took its place, if one did
}

// Mailbox is a mailbox whose folder is read.
type Mailbox struct {
	Name   string
	Known  ledger.Mailbox // what was agreed on; zero if nothing was
	Status *mail.Status   // as the server has it; nil if it cannot be had now
	Dir    maildir.Dir
}

// Agreed tells whether the ledger's rows are of the mailbox as it is, and of all
// that was in it. Of one that cannot be had now nobody knows, and where the
// server's counters went back, a UID may be another message's by now.
func (m *Mailbox) Agreed() bool {
	return m.Status != nil && m.Known.UIDValidity != 0 && plan.Current(m.Known, *m.Status) && !plan.WentBack(m.Known, *m.Status)
}

// path is where a file of the mailbox lies.
func (m *Mailbox) path(name string) string { return m.Dir.Path(name) }

// of is a mailbox of the ledger of which the server was not heard.
func (r *Reader) of(k ledger.Mailbox) Mailbox {
	return Mailbox{Name: k.Name, Known: k, Dir: maildir.Dir(filepath.Join(r.Root, k.Folder))}
}

// Folder is what is here of a mailbox.
type Folder struct {
	plan.Local // what its owner changed
	// Renamed are files that notmuch may know by another name.
	Renamed []Renamed
	// MissingUnconfirmed are messages without a file, of a mailbox that is not agreed upon.
	MissingUnconfirmed []ledger.Message
	// Scanned is what the journal is to remember of the scan, once all that it found is dealt
	// with; "" if that is nothing. Changed is how the folder was before it.
	Scanned journal.Scan
	Changed [4]time.Time
	// Unread: what is here is not known, so that what is missing elsewhere may be here. Err
	// says why, if the folder could not be read.
	Unread bool
	Err    error
}

// unread makes of an error of the folder alone one of its values. Any other one is of this
// machine. What else was found does not count then.
func (f *Folder) unread(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); !ok {
		return err
	}
	f.Local, f.Renamed, f.Scanned, f.Unread, f.Err = plan.Local{}, nil, "", true, err
	return nil
}

// View is a mailbox with what is here of it.
type View struct {
	Mailbox
	*Folder
	// Unasked: what goes on in it is not to be told the server in this run.
	Unasked bool
	// Unsettled are messages of which it is not known whether an interrupted run has put them
	// there.
	Unsettled []ledger.Message
}

// Locals gives what the user changed, by mailbox, of those where it can be told.
// The others, and detached, which are folders whose mail the server cannot have now, are
// there as far as mail may have gone between them and these.
func (r *Reader) Locals(ctx context.Context, all, detached []View) (map[string]*plan.Local, error) {
	if err := r.leftBehind(ctx, all, detached); err != nil {
		return nil, err
	}
	out := make(map[string]*plan.Local, len(all))
	missing, untracked := false, false
	for _, b := range all {
		missing = missing || !b.Agreed() && len(b.MissingUnconfirmed) > 0
		if b.Agreed() && (!b.Nothing() || len(b.Left) > 0) {
			l := b.Local
			l.Closed = b.Unasked
			out[b.Name] = &l
			missing = missing || len(b.Missing) > 0
			untracked = untracked || slices.ContainsFunc(b.Untracked, plan.Untracked.MayHaveCome)
		}
	}
	for _, b := range all {
		l := &plan.Local{Closed: true, Missing: b.MissingUnconfirmed, Left: b.Left}
		var err error
		switch {
		case b.Unread && untracked:
			l.Missing, err = r.present(ctx, &b.Mailbox)
			l.Missing = append(l.Missing, b.Unsettled...)
		case !b.Unread && !b.Agreed() && missing:
			l.Untracked, err = r.untrackedOf(ctx, &b.Mailbox)
		case b.Unread || b.Agreed():
			continue
		}
		if err := b.unread(err); err != nil {
			return nil, err
		}
		out[b.Name] = l
	}
	for _, b := range detached {
		alone := len(b.MissingUnconfirmed)+len(b.Left) == 0
		if !missing && alone || b.Unread {
			continue
		}
		l := &plan.Local{Closed: true, Missing: b.MissingUnconfirmed, Left: b.Left}
		var err error
		l.Untracked, err = r.untrackedOf(ctx, &b.Mailbox)
		if err := b.unread(err); err != nil {
			return nil, err
		}
		name := b.Name
		if alone {
			name = "\xff" + b.Known.Folder // no mailbox is called so
		}
		out[name] = l
	}
	return out, nil
}

// leftBehind adds to what is here of mailboxes the messages by whose UIDs the server can be asked no
// more, and of which files that are new in other folders are: of mailboxes that it has no more, and of
// UIDVALIDITYs that these had before. It may have their mail elsewhere by now.
func (r *Reader) leftBehind(ctx context.Context, all, detached []View) error {
	said := make(map[string]bool) // messages
	validity := make(map[string]uint64, len(all))
	for _, b := range slices.Concat(all, detached) {
		for _, m := range slices.Concat(b.Missing, b.MissingUnconfirmed) {
			said[journal.About(m)] = true
		}
	}
	for _, b := range all {
		validity[b.Name] = b.Known.UIDValidity
	}
	for _, in := range all {
		if !in.Agreed() {
			continue
		}
		for _, s := range in.Untracked {
			if !s.New() || s.ID == "" || r.Placed[s.Key] {
				continue
			}
			rows, err := r.Ledger.Like(ctx, s.Message)
			if err != nil {
				return err
			}
			for _, m := range rows {
				v, listed := validity[m.Mailbox]
				over := m.State == ledger.Kept || m.State == ledger.Present && (!listed || m.UIDValidity != v)
				if !over || m.Key == "" || m.Mailbox == in.Name || said[journal.About(m)] || !s.SameContent(&m) {
					continue
				}
				if _, here, err := r.FileOf(ctx, m); err != nil {
					return err
				} else if here {
					continue
				}
				of := func(v View) bool { return v.Name == m.Mailbox }
				if i := slices.IndexFunc(all, of); i >= 0 {
					all[i].Left = append(all[i].Left, m)
				} else if i := slices.IndexFunc(detached, of); i >= 0 {
					detached[i].Left = append(detached[i].Left, m)
				} else {
					continue
				}
				said[journal.About(m)] = true
			}
		}
	}
	return nil
}

// present gives all messages of a mailbox that are here.
func (r *Reader) present(ctx context.Context, m *Mailbox) ([]ledger.Message, error) {
	rows, err := r.Ledger.Rows(ctx, m.Name, m.Known.UIDValidity)
	if err != nil {
		return nil, err
	}
	var uids []imap.UID
	for _, row := range rows {
		if row.State == ledger.Present {
			uids = append(uids, row.UID)
		}
	}
	return r.Ledger.GetMany(ctx, m.Name, m.Known.UIDValidity, uids)
}

// FileOf gives the path of a recorded message's file.
func (r *Reader) FileOf(ctx context.Context, m ledger.Message) (string, bool, error) {
	boxes, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return "", false, err
	}
	for _, k := range boxes {
		if k.Name != m.Mailbox {
			continue
		}
		dir := r.of(k).Dir
		name, ok, err := dir.Locate(m.Key, m.Name)
		if errors.Is(err, fs.ErrNotExist) {
			return "", false, nil
		}
		return dir.Path(name), ok, err
	}
	return "", false, nil
}

// record records a change of notes, also when the run is told to end in this moment.
func (r *Reader) record(ctx context.Context, c journal.Change, step string) error {
	if err := r.Journal.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	r.Report.Step(step)
	return nil
}
