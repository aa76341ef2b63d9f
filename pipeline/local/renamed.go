package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Renamed is a file of a folder that notmuch may know by another name, as when a mail reader
// has put it from new into cur.
type Renamed struct {
	Name string // below the folder
	uid  imap.UID
	stub bool   // it is the message's stub
	id   string // of a file without a row: its Message-ID
}

// renamedOf gives the files of rows whose names are others than notmuch was told. Rows do not
// say that of stubs, of which there are few.
func renamedOf(rows []ledger.Row, files *maildir.Listing) (out []Renamed) {
	for _, row := range rows {
		if name, here := files.Find(row.Key); here && row.Key != "" && row.State == ledger.Present && name != row.Name {
			out = append(out, Renamed{Name: name, uid: row.UID})
		}
		if name, here := files.Find(row.StubKey); here && row.StubKey != "" {
			out = append(out, Renamed{Name: name, uid: row.UID, stub: true})
		}
	}
	return out
}

// NewName is what notmuch is to be told of a file that has another name.
type NewName struct {
	mail.Change
	In  int             // which of the views has it
	Row *ledger.Message // as it is when notmuch has heard; nil: the file has none
}

// NewNames gives what notmuch is to be told of files that have other names in their folders, and
// of those in other ones that no row is about: of the rest it hears with the server, or else by
// NewPlaces.
func (r *Reader) NewNames(ctx context.Context, views []View) (out []NewName, err error) {
	renamed, missing := make(map[string]bool), make(map[string]bool) // by place
	for in, v := range views {
		messages, err := r.messages(ctx, &v)
		if err != nil {
			return nil, err
		}
		for _, f := range v.Renamed {
			m := messages[f.uid]
			if m == nil {
				continue
			}
			name, id := &m.Name, m.ID
			if f.stub {
				name, id = &m.StubName, ""
			}
			if *name != f.Name {
				*name = f.Name
				out = append(out, NewName{mail.Change{Op: mail.OpFlag, Path: v.path(f.Name), ID: id}, in, m})
				renamed[maildir.Place(v.path(f.Name))] = true
			}
		}
	}
	read := make(map[string]bool)
	for _, v := range views {
		read[string(v.Dir)] = !v.Unread
		for _, m := range slices.Concat(v.Missing, v.MissingUnconfirmed) {
			missing[v.path(m.Key)] = true
		}
	}
	others, err := r.otherNames(ctx, views, func(v *View, was string) bool {
		switch dir := filepath.Dir(filepath.Dir(was)); {
		case dir == string(v.Dir):
			return !renamed[maildir.Place(was)]
		default:
			return read[dir] && !renamed[maildir.Place(was)] && !missing[maildir.Place(was)]
		}
	})
	return append(out, others...), err
}

// NewPlaces gives what notmuch is to be told of files that were put into other folders, and have
// no row there: the server was not told, or is not to be. They may have other names, too.
func (r *Reader) NewPlaces(ctx context.Context, views []View) ([]NewName, error) {
	return r.otherNames(ctx, views, func(*View, string) bool { return true })
}

// otherNames is NewNames of files without rows: one has another name if a file of its message is
// gone that may have been this one; else it is one that came.
func (r *Reader) otherNames(ctx context.Context, views []View, may func(v *View, was string) bool) (out []NewName, err error) {
	var ids []string
	for _, v := range views {
		for _, f := range v.Renamed {
			if f.uid == 0 {
				ids = append(ids, f.id)
			}
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	known, err := r.Index.Messages(ctx, ids, r.Root)
	if err != nil {
		return nil, err
	}
	for in, v := range views {
		for _, f := range v.Renamed {
			path := v.path(f.Name)
			t, is := known[f.id]
			if f.uid != 0 || !is || slices.Contains(t.Paths, path) || gone(path) {
				continue
			}
			was := slices.DeleteFunc(slices.Clone(t.Paths), func(p string) bool { return !may(&v, p) || !gone(p) })
			if len(was) == 0 {
				continue
			}
			key, _ := maildir.ParseName(path)
			i := max(0, slices.IndexFunc(was, func(p string) bool { k, _ := maildir.ParseName(p); return k == key }))
			out = append(out, NewName{mail.Change{Op: mail.OpFlag, Path: path, OldPath: was[i], ID: f.id}, in, nil})
			// Another file of the message has another one's place.
			t.Paths = append(slices.DeleteFunc(t.Paths, func(p string) bool { return p == was[i] }), path)
			known[f.id] = t
		}
	}
	return out, nil
}

// messages gives the messages of a folder whose files have other names, by UID.
func (r *Reader) messages(ctx context.Context, v *View) (map[imap.UID]*ledger.Message, error) {
	var uids []imap.UID
	for _, f := range v.Renamed {
		if f.uid != 0 {
			uids = append(uids, f.uid)
		}
	}
	ms, err := r.Ledger.GetMany(ctx, v.Name, v.Known.UIDValidity, uids)
	out := make(map[imap.UID]*ledger.Message, len(ms))
	for i := range ms {
		out[ms[i].UID] = &ms[i]
	}
	return out, err
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Heard notes that notmuch has heard of all names in a folder: if nothing else is left of
// its scan, it need not be read again.
func (r *Reader) Heard(ctx context.Context, v View) error {
	if len(v.Renamed) == 0 || !v.Nothing() {
		return nil
	}
	return r.MarkScanned(ctx, v.Name, v.Scanned)
}
