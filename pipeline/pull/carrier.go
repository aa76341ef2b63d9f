package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// parcel is what is known of a message that is too large to be waited for.
type parcel struct {
	Parcel
	size    int64
	came    int64
	begun   time.Time // zero: nobody is at it
	carried time.Time // that it is here; zero: it is not
	gained  bool      // more of it is here than when it was begun, though not all
	failed  int
	wanted  bool // since it was tried last
}

// awaited tells whether a run waits for it that nobody has carried.
func (o *parcel) awaited() bool { return o.carried.IsZero() && o.wanted }

// Carrier brings large messages beside the runs of an account, over a connection of its own,
// so that no run waits for them: a run that meets one orders it, leaves it, and takes it when
// it is here. What it carries lies in a directory of its own, and is no mail yet: the next
// connection, or the next process, goes on with what is half here. The nil Carrier carries
// nothing. Its methods may be called from several goroutines.
type Carrier struct {
	dir   string
	now   func() time.Time
	takes bool // it orders nothing, but takes what another process carries

	mu      sync.Mutex
	parcels []*parcel // in the order in which they were ordered
	ordered chan struct{}
}

const (
	// carrierTries is how often it is tried: then the run asks for the message itself, by
	// whatever way there is.
	carrierTries = 2
	// keptFor is how long what nobody takes is kept: the run that takes it follows at once.
	keptFor = 15 * time.Minute
	// alive is how long ago somebody has written to what is being carried.
	alive = time.Minute
	// halfFor is how long what is half here is kept, with nobody at it.
	halfFor = 24 * time.Hour
	// again is how many bytes before its end of what is half here come again: these a machine
	// that stopped may not have kept.
	again = 1 << 20
)

// NewCarrier gives a carrier that keeps what it carries below this directory of the account's.
// What an earlier one has carried it has, too.
func NewCarrier(dir string, now func() time.Time) *Carrier {
	c := &Carrier{dir: filepath.Join(dir, "large"), now: now, ordered: make(chan struct{}, 1)}
	files, _ := os.ReadDir(c.dir) // none is as good
	for _, f := range files {
		name, half := strings.CutSuffix(f.Name(), part)
		p, ok := parcelOf(name)
		fi, err := f.Info()
		if !ok || err != nil || !fi.Mode().IsRegular() || half && now().Sub(fi.ModTime()) > halfFor {
			_ = os.RemoveAll(filepath.Join(c.dir, f.Name())) // it is in nobody's way
			continue
		}
		if half {
			continue // it is gone on with when it is ordered
		}
		c.parcels = append(c.parcels, &parcel{Parcel: p, size: fi.Size(), carried: now()})
	}
	return c
}

// NewTaker gives one that carries nothing, and takes what the carrier of another process has, or
// leaves to that what it is at; nil if there is nothing of that.
func NewTaker(dir string, now func() time.Time) *Carrier {
	c := &Carrier{dir: filepath.Join(dir, "large"), now: now, takes: true}
	files, _ := os.ReadDir(c.dir) // none is as good
	for _, f := range files {
		kept := keptFor
		if strings.HasSuffix(f.Name(), part) {
			kept = halfFor
		}
		if fi, err := f.Info(); err == nil && now().Sub(fi.ModTime()) > kept {
			_ = os.Remove(filepath.Join(c.dir, f.Name())) // of one that was killed; it is in nobody's way
		}
	}
	if len(files) == 0 {
		return nil
	}
	return c
}

// part is the end of the name of what is being carried.
const part = ".part"

// of tells what a process that takes does with a message.
func (c *Carrier) of(p Parcel) (file string, waits bool) {
	if fi, err := os.Stat(c.path(p)); err == nil && fi.Mode().IsRegular() {
		return c.path(p), false
	}
	fi, err := os.Stat(c.path(p) + part)
	if err != nil {
		return "", false
	}
	if waits = c.now().Sub(fi.ModTime()) < alive; !waits {
		_ = os.Remove(c.path(p) + part) // it comes as a whole
	}
	return "", waits
}

// sweep removes what was carried and nobody took. c.mu is held.
func (c *Carrier) sweep() {
	c.parcels = slices.DeleteFunc(c.parcels, func(o *parcel) bool {
		old := !o.carried.IsZero() && c.now().Sub(o.carried) > keptFor
		if old {
			_ = os.Remove(c.path(o.Parcel)) // the next carrier finds what stays
		}
		return old
	})
}

// Sweep removes what was carried and nobody took, and gives the mailboxes of what still lies here.
func (c *Carrier) Sweep() (mailboxes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep()
	for _, o := range c.parcels {
		if !o.carried.IsZero() {
			mailboxes = append(mailboxes, o.Mailbox)
		}
	}
	return mailboxes
}

func (c *Carrier) path(p Parcel) string {
	return filepath.Join(c.dir, p.file())
}

// order gives the file with a message that is carried. Without one it orders it, and waits
// tells whether that is worth waiting for; first, whether it was not ordered before.
func (c *Carrier) order(p Parcel, size int64) (file string, waits, first bool) {
	if c == nil || size < plan.Huge {
		return "", false, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.takes {
		file, waits = c.of(p)
		return file, waits, false
	}
	c.sweep()
	i := slices.IndexFunc(c.parcels, func(o *parcel) bool { return o.Parcel == p })
	switch {
	case i < 0:
		c.parcels = append(c.parcels, &parcel{Parcel: p, size: size, wanted: true})
	case !c.parcels[i].carried.IsZero():
		return c.path(p), false, false
	case c.parcels[i].failed >= carrierTries:
		_ = os.Remove(c.path(p) + part) // it comes as a whole
		return "", false, false
	default:
		c.parcels[i].wanted = true
	}
	select {
	case c.ordered <- struct{}{}:
	default:
	}
	return "", true, i < 0
}

// taken forgets a message: its run has it, or cannot use what was carried.
func (c *Carrier) taken(p Parcel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parcels = slices.DeleteFunc(c.parcels, func(o *parcel) bool { return o.Parcel == p })
	_ = os.Remove(c.path(p)) // the next carrier finds what stays
}

// keep keeps a message that its run could not take.
func (c *Carrier) keep(p Parcel) { c.change(p, func(o *parcel) { o.carried = c.now() }) }

// underWay tells whether a message was ordered, and is neither here nor given up.
func (c *Carrier) underWay(p Parcel) bool {
	if c == nil {
		return false
	}
	if c.takes {
		_, waits := c.of(p)
		return waits
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.parcels, func(o *parcel) bool { return o.Parcel == p && o.awaited() })
}

// Ordered gets a value when something is ordered.
func (c *Carrier) Ordered() <-chan struct{} { return c.ordered }

// Next gives the oldest order that nobody has carried; ok is false if there is none.
func (c *Carrier) Next() (p Parcel, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.parcels {
		if o.awaited() {
			return o.Parcel, true
		}
	}
	return p, false
}

// Carry brings a message that is ordered, or the rest of it, over a session on which its mailbox
// is open. Any error has it fail: what is wrong with the server the next run meets, and tells.
func (c *Carrier) Carry(ctx context.Context, s interface {
	Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error
	FetchRest(ctx context.Context, uid imap.UID, from int64, sink mail.Sink) error
}, p Parcel) error {
	half := c.path(p) + part
	var from int64
	if fi, err := os.Stat(half); err == nil && fi.Mode().IsRegular() {
		from = max(0, fi.Size()-again)
	}
	c.change(p, func(o *parcel) { o.begun, o.came = c.now(), from })
	whole, odd := false, false
	sink := mail.Sink{
		Open: func(int64) (mail.Spool, error) {
			if err := os.MkdirAll(c.dir, 0o700); err != nil {
				return nil, err
			}
			f, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				return nil, err
			}
			_, err = f.Seek(from, io.SeekStart)
			if err = errors.Join(err, f.Truncate(from)); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return &load{File: f, wrote: func(n int) { c.change(p, func(o *parcel) { o.came += int64(n) }) }}, nil
		},
		Done: func(m mail.Message, s mail.Spool) error {
			l, ok := s.(*load)
			if !ok || m.UID != p.UID {
				odd = true
				s.Discard()
				return nil
			}
			// Under its name it is whole, also after the machine stopped: another process takes it then.
			size, err := l.Seek(0, io.SeekCurrent)
			if err = errors.Join(err, l.Sync(), l.Close()); err != nil {
				return err
			}
			if odd = from > 0 && size != m.Size; odd {
				return nil
			}
			whole = true
			return os.Rename(half, c.path(p))
		},
	}
	var err error
	if from > 0 {
		err = s.FetchRest(ctx, p.UID, from, sink)
	} else {
		err = s.Fetch(ctx, mail.UIDSet([]imap.UID{p.UID}), sink)
	}
	if _, refused := mail.Refused(err); refused || err == nil && !whole {
		odd = true
	}
	if err == nil && !whole {
		err = &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", Mailbox: p.Mailbox, UID: p.UID}
	}
	c.change(p, func(o *parcel) {
		o.gained = !odd && o.came > from+again
		if o.begun = (time.Time{}); err == nil {
			o.carried = c.now()
		}
		if odd {
			_ = os.Remove(half) // it is begun anew
		}
	})
	return err
}

// Failed says that a message could not be carried. Where more of it is here than before, that is
// no failure of its own.
func (c *Carrier) Failed(p Parcel) {
	c.change(p, func(o *parcel) {
		if !o.gained {
			o.failed++
		}
		o.gained, o.wanted = false, false
	})
}

func (c *Carrier) change(p Parcel, f func(*parcel)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.parcels {
		if o.Parcel == p {
			f(o)
		}
	}
}

// Carried is what is being carried.
type Carried struct {
	Mailbox string
	Size    int64
	Came    int64 // of these
	Begun   time.Time
}

func (c Carried) String() string {
	return fmt.Sprintf("a message of %s in %s is on its way since %s, beside all else: %s are here",
		megabytes(c.Size), c.Mailbox, c.Begun.Local().Format("15:04:05"), megabytes(c.Came))
}

// UnderWay tells what is being carried; ok is false if nothing is.
func (c *Carrier) UnderWay() (what Carried, ok bool) {
	if c == nil {
		return what, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.parcels {
		if !o.begun.IsZero() {
			return Carried{o.Mailbox, o.size, o.came, o.begun}, true
		}
	}
	return what, false
}

// load is the file of a message that is being carried, with the bytes of the wire.
type load struct {
	*os.File
	wrote func(int)
}

func (l *load) Write(p []byte) (int, error) {
	l.wrote(len(p))
	return l.File.Write(p)
}

// Discard leaves what is here to be gone on with.
func (l *load) Discard() { _ = l.Close() } // what is lost of it comes again

// carried gives those of the messages that are to be fetched now: not those that are carried,
// which it delivers if they are here, and leaves for another run if they are not.
func (w *Worker) carried(ctx context.Context, b *Mailbox, uids []imap.UID) (now []imap.UID, err error) {
	for _, uid := range uids {
		p := b.parcel(uid)
		file, waits, first := "", false, false
		size := max(b.Sizes[uid], b.Stubs[uid].Size) // of a stub's message, no list has told it
		// What a hook puts off is asked for by each run: it would be carried without end.
		if b.Stubs[uid].State != ledger.Deferred {
			file, waits, first = w.Carrier.order(p, size)
		}
		if first {
			w.Report.Note(b.Name, "a message of %s is fetched beside all else, and comes when it is here", megabytes(size))
		}
		came := false
		if file != "" {
			if came, err = w.unload(ctx, b, p, file); err != nil {
				w.Carrier.keep(p) // there may be room for it later
				return nil, err
			}
			w.Carrier.taken(p)
		}
		switch {
		case waits:
			w.await(b, uid)
		case !came:
			now = append(now, uid)
		}
	}
	return now, nil
}

// await leaves a message that is carried.
func (w *Worker) await(b *Mailbox, uid imap.UID) {
	w.dealt[uid] = true
	b.KeepMarks()
	w.Report.Came(b.Sizes[uid], 0)
}

// unload sends a message that was carried down the line, with the flags that it has now.
func (w *Worker) unload(ctx context.Context, b *Mailbox, p Parcel, file string) (came bool, err error) {
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return false, err
	}
	told, err := s.Identify(ctx, mail.UIDSet([]imap.UID{p.UID}))
	i := slices.IndexFunc(told, func(m mail.Message) bool { return m.UID == p.UID })
	if err != nil || i < 0 {
		return false, ctx.Err() // whoever fetches it finds out
	}
	f, err := os.Open(file)
	if err != nil {
		return false, nil // it comes as all others do
	}
	defer f.Close() //nolint:errcheck // nothing was written
	is := make(map[imap.UID]bool, 1)
	sink := w.sink(ctx, b, is, nil)
	spool, err := sink.Open(b.Sizes[p.UID])
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(spool, f); err != nil {
		spool.Discard()
		return false, err
	}
	err = sink.Done(told[i], spool)
	return is[p.UID], err
}

// megabytes is a size for people.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
