package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// leastAhead is for how many messages processes of their own are worth it.
const leastAhead = 2000

// errOthersIndex says that the database got mail meanwhile.
var errOthersIndex = errors.New("another program indexes mail at the same time")

// Ahead indexes files that are new, as a rebuild does it, in several processes and with the tags
// that Apply would give them, and puts the database with them in the place of the one in use. Apply is
// to be told of them all the same: it finds them there, which takes no time, and sees to what is
// left out here: what is no plain mail, further files of a message, files that were renamed.
//
// It does nothing, and gives false, where that does not pay, or where the database has more
// messages than these of its caller's: a new database says nothing of when tags were changed.
// An error leaves the database that was there, unless true comes with it.
func (x *Index) Ahead(ctx context.Context, changes []mail.Change, own int, o RebuildOptions) (renewed bool, err error) {
	least := cmp.Or(o.least, leastAhead)
	if o.Workers < 2 || len(changes) < least {
		return false, nil
	}
	n, err := x.Count(ctx, "*")
	if err != nil || n > own || 2*n > len(changes) {
		return false, err
	}
	if told := o.Progress; told != nil {
		o.Progress = func(done, total int) { told(max(0, done-n), total-n) }
	}
	r, err := x.rebuilding(o)
	if err != nil {
		return false, err
	}
	r.ahead = &ahead{ids: make(map[string]bool)}
	if err := r.lookAhead(ctx, changes); err != nil || len(r.ahead.coming) < least {
		return false, err
	}
	if err := r.all(ctx); err != nil {
		return r.ahead.swapped, fmt.Errorf("several processes cannot index at once: %w", err)
	}
	return r.ahead.swapped, nil
}

// ahead is mail that the database in use has not. Of a nil one there is none.
type ahead struct {
	coming  []record
	ids     map[string]bool // of coming
	bytes   int64           // that may be words of them
	had     map[string]bool // ids that the database in use had
	made    int             // how many of coming are in the new one
	swapped bool
}

// lookAhead looks at the files of changes.
func (r *rebuilding) lookAhead(ctx context.Context, changes []mail.Change) error {
	a, b := r.ahead, &batch{root: r.conf.mailRoot, syncFlags: r.conf.syncFlags}
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.Op != mail.OpAdd || b.fits(c.Path) != nil {
			continue
		}
		l, err := lookAt(c.Path, "")
		if err != nil || l.odd || l.id != mail.NotmuchID(l.id) || a.ids[l.id] {
			continue
		}
		file, err := filepath.Rel(b.root, c.Path)
		if err != nil {
			continue
		}
		add, remove := b.tagsFor(c, c.Path, nil, false)
		a.coming = append(a.coming, record{ID: l.id, Files: []string{file}, Tags: with(nil, add, remove)})
		a.ids[l.id] = true
		a.bytes += min(l.size, wordsOf)
		r.grove.file(l.id, l.refs, l.size)
	}
	return nil
}

// wordsOf is how much of a mail is words, in bytes, at most: a large one has files with it.
const wordsOf = 64 << 10

// besides takes the ids that the database in use has, and gives what comes beside them.
func (a *ahead) besides(ids []string) []record {
	if a == nil {
		return nil
	}
	a.had = make(map[string]bool, len(ids))
	for _, id := range ids {
		a.had[id] = true
	}
	a.coming = slices.DeleteFunc(a.coming, func(r record) bool { return a.had[r.ID] })
	return a.coming
}

// room is what databases of it take on the disk, in bytes: the shards about twice its words,
// and the new one once.
func (a *ahead) room() int64 {
	if a == nil {
		return 0
	}
	return 3 * a.bytes
}

// lacked tells of a message that the database in use had not.
func (a *ahead) lacked(id string) bool { return a != nil && !a.had[id] }

// are takes what comes out of the messages of the new database that the one in use has not, and
// counts it.
func (a *ahead) are(others map[string]bool) {
	if a == nil {
		return
	}
	a.made = 0
	for _, r := range a.coming {
		if others[r.ID] {
			delete(others, r.ID)
			a.made++
		}
	}
}

func (a *ahead) count() int {
	if a == nil {
		return 0
	}
	return a.made
}
