package pull

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Parcel is a message whose bytes are here, or on their way, and that is no mail yet.
type Parcel struct {
	Mailbox     string
	UIDValidity uint64
	UID         imap.UID
}

// file is the name of a parcel's file.
func (p Parcel) file() string { return fmt.Sprintf("%d.%d.%x", p.UIDValidity, p.UID, p.Mailbox) }

// parcelOf gives the parcel whose file has this name; ok is false if none has.
func parcelOf(name string) (p Parcel, ok bool) {
	_, err := fmt.Sscanf(name, "%d.%d.%x", &p.UIDValidity, &p.UID, &p.Mailbox)
	return p, err == nil && p.file() == name
}

// Shelf keeps the bytes of messages that hooks have put off, so that they are not downloaded for
// each time that the hooks are asked. They lie in a directory of their own, as a mail is stored,
// and what they must be the rows of the messages say.
type Shelf struct{ dir string }

// NewShelf gives the shelf of an account whose state lies in this directory.
func NewShelf(dir string) Shelf { return Shelf{filepath.Join(dir, "deferred")} }

func (s Shelf) path(p Parcel) string { return filepath.Join(s.dir, p.file()) }

// Put takes the file of a message onto the shelf. If it cannot, the message is downloaded again.
func (s Shelf) Put(row ledger.Message, file string) {
	p := Parcel{row.Mailbox, row.UIDValidity, row.UID}
	if os.MkdirAll(s.dir, 0o700) != nil || os.Rename(file, s.path(p)) == nil {
		return
	}
	s.remove(p)
	_ = maildir.Copy(file, s.path(p)) // it lies on another file system
}

// Sweep removes what is not to stay.
func (s Shelf) Sweep(stays func(Parcel) bool) {
	files, _ := os.ReadDir(s.dir) // none is as good
	for _, f := range files {
		if p, ok := parcelOf(f.Name()); !ok || !stays(p) {
			_ = os.RemoveAll(filepath.Join(s.dir, f.Name())) // the next run tries again
		}
	}
}

func (s Shelf) remove(p Parcel) { _ = os.Remove(s.path(p)) } // Sweep finds what stays

// unshelve sends those of the messages down the line that are on the shelf, with the flags that
// they have now, and gives the others.
func (w *Worker) unshelve(ctx context.Context, b *Mailbox, uids []imap.UID) (rest []imap.UID, err error) {
	var here imap.UIDSet
	for _, uid := range uids {
		if b.Stubs[uid].State != ledger.Deferred {
			continue
		}
		if fi, err := os.Stat(w.Shelf.path(b.parcel(uid))); err == nil && fi.Mode().IsRegular() {
			here.AddNum(uid)
		}
	}
	if len(here) == 0 {
		return uids, nil
	}
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return nil, err
	}
	told, err := s.Identify(ctx, here)
	if err != nil {
		return uids, ctx.Err() // whoever fetches them finds out
	}
	came := make(map[imap.UID]bool)
	for _, m := range told {
		if !here.Contains(m.UID) {
			continue
		}
		if err := w.takeDown(ctx, b, m, came); err != nil {
			return nil, err
		}
	}
	for _, uid := range uids {
		if !came[uid] {
			rest = append(rest, uid)
		}
	}
	return rest, nil
}

// takeDown sends one message from the shelf down the line, if what is there is what was put there.
func (w *Worker) takeDown(ctx context.Context, b *Mailbox, m mail.Message, came map[imap.UID]bool) error {
	row, p := b.Stubs[m.UID], b.parcel(m.UID)
	f, err := os.Open(w.Shelf.path(p))
	if err != nil {
		return nil // it comes as all others do
	}
	defer f.Close() //nolint:errcheck // only read
	spool, err := w.spool(b)
	if err != nil {
		return err
	}
	sum := mail.NewDigester()
	if err := spool.Restore(io.TeeReader(f, sum), row.WireSize); err != nil {
		spool.Discard()
		return err
	}
	if sum.Sum() != row.Digest {
		spool.Discard()
		w.Shelf.remove(p)
		return nil
	}
	return w.sink(ctx, b, came, nil).Done(m, spool)
}
