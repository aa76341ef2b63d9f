package index

// #include <stdlib.h>
// #include <notmuch.h>
import "C"

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	notmuch "github.com/zenhack/go.notmuch"
)

// record is what a database alone knows of a message; all else is in its files.
type record struct {
	ID         string
	Files      []string // below the mail root, in the order in which libnotmuch gives them
	Tags       []string // sorted
	Properties []property
	Thread     string // "" before libnotmuch has seen it
}

// property is one of notmuch's properties of a message.
type property struct{ Key, Value string }

func (p property) compare(q property) int {
	return cmp.Or(cmp.Compare(p.Key, q.Key), cmp.Compare(p.Value, q.Value))
}

// sessionKey is the property with which a mail can be decrypted, and its words indexed.
const sessionKey = "session-key"

// made tells of a property that indexing makes.
func (p property) made() bool { return strings.HasPrefix(p.Key, "index.") }

// readBatch is how many messages are read between two commits of other programs.
const readBatch = 200

// records lets f have what there is of each of these messages that is there, in this order.
func (x *Index) records(ctx context.Context, ids []string, f func(record) error) error {
	for ids := range slices.Chunk(ids, readBatch) {
		var batch []record
		err := x.read(ctx, func(db *notmuch.DB) error {
			batch = batch[:0]
			for _, id := range ids {
				_, err := lookUp(db, id, func(m *notmuch.Message) error {
					r, err := x.recordOf(db, m)
					if err == nil && len(r.Files) > 0 {
						batch = append(batch, r)
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range batch {
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// recordOf gives what there is of a message; no files of a ghost.
func (x *Index) recordOf(db *notmuch.DB, m *notmuch.Message) (r record, err error) {
	r.ID, r.Thread = m.ID(), m.ThreadID()
	if ghost, err := isGhost(db, m); ghost || err != nil {
		return r, err
	}
	if r.Tags, err = tagsOf(m); err != nil {
		return r, err
	}
	if r.Properties, err = propertiesOf(m); err != nil {
		return r, err
	}
	files, err := filesOf(m)
	for _, f := range files {
		rel, e := filepath.Rel(x.conf.mailRoot, f)
		err = errors.Join(err, e)
		r.Files = append(r.Files, rel)
	}
	return r, err
}

// propertiesOf gives those that indexing does not make, sorted.
func propertiesOf(m *notmuch.Message) (out []property, err error) {
	all := C.CString("")
	defer C.free(unsafe.Pointer(all))
	list := C.notmuch_message_get_properties(message(m), all, 0)
	if list == nil {
		return nil, fmt.Errorf("%w: the properties of a message cannot be read", notmuch.ErrXapianException)
	}
	defer C.notmuch_message_properties_destroy(list)
	for ; C.notmuch_message_properties_valid(list) != 0; C.notmuch_message_properties_move_to_next(list) {
		p := property{C.GoString(C.notmuch_message_properties_key(list)), C.GoString(C.notmuch_message_properties_value(list))}
		if !p.made() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, property.compare)
	return out, nil
}

// setRecord gives a message the tags and properties of r, in one write, and no others.
func setRecord(m *notmuch.Message, r record) error {
	have, err := tagsOf(m)
	if err != nil {
		return err
	}
	had, err := propertiesOf(m)
	if err != nil {
		return err
	}
	slices.Sort(r.Tags)
	if slices.Equal(have, r.Tags) && slices.Equal(had, r.Properties) {
		return nil
	}
	var errs []error
	err = m.Atomic(func(m *notmuch.Message) {
		errs = change(m, without(r.Tags, have), without(have, r.Tags))
		for _, p := range had {
			if !slices.Contains(r.Properties, p) {
				errs = append(errs, m.RemoveProperty(p.Key, p.Value))
			}
		}
		for _, p := range r.Properties {
			if !slices.Contains(had, p) {
				errs = append(errs, m.AddProperty(p.Key, p.Value))
			}
		}
	})
	return errors.Join(append(errs, err)...)
}

// indexFile indexes a file, which is to be of this message.
func indexFile(db *notmuch.DB, path, id string) error {
	f, _, err := openMail(path) // libnotmuch waits at a FIFO, and does not say why it cannot open
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (%s is gone, or in another folder)", ErrStale, path)
	case err != nil:
		return err
	}
	_ = f.Close() // nothing was written
	m, err := db.AddMessage(path)
	switch {
	case errors.Is(err, notmuch.ErrFileError) && !exists(path):
		return fmt.Errorf("%w (%s is gone, or in another folder)", ErrStale, path)
	case errors.Is(err, notmuch.ErrFileNotEmail):
		return oddFile(fmt.Sprintf("%s is no mail any more, and the message id:%s in the database", path, id))
	case err != nil && !errors.Is(err, notmuch.ErrDuplicateMessageID):
		return fmt.Errorf("%s: %w", path, err)
	}
	runtime.SetFinalizer(m, nil)
	got := m.ID()
	if err := m.Close(); err != nil {
		return err
	}
	if got != id {
		return oddFile(fmt.Sprintf("%s is the message id:%s by now, and id:%s in the database", path, got, id))
	}
	return nil
}

// storedConfig gives the configuration that is in the database itself, of the keys that begin
// with this.
func storedConfig(db *notmuch.DB, prefix string) (out []property, err error) {
	all := C.CString(prefix)
	defer C.free(unsafe.Pointer(all))
	var list *C.notmuch_config_list_t
	if status := C.notmuch_database_get_config_list(handle(db), all, &list); status != C.NOTMUCH_STATUS_SUCCESS {
		return nil, statusError(handle(db), status)
	}
	defer C.notmuch_config_list_destroy(list)
	for ; C.notmuch_config_list_valid(list) != 0; C.notmuch_config_list_move_to_next(list) {
		out = append(out, property{C.GoString(C.notmuch_config_list_key(list)), C.GoString(C.notmuch_config_list_value(list))})
	}
	return out, nil
}

func storeConfig(db *notmuch.DB, config []property) error {
	for _, c := range config {
		key, value := C.CString(c.Key), C.CString(c.Value)
		status := C.notmuch_database_set_config(handle(db), key, value)
		C.free(unsafe.Pointer(key))
		C.free(unsafe.Pointer(value))
		if status != C.NOTMUCH_STATUS_SUCCESS {
			return statusError(handle(db), status)
		}
	}
	return nil
}

// configPath gives the file that the configuration is read from.
func configPath(db *notmuch.DB) string { return C.GoString(C.notmuch_config_path(handle(db))) }

// withDirectory lets f at what the database has of a directory, and tells whether it
// has anything of it. f may delete it.
func withDirectory(db *notmuch.DB, path string, f func(*C.notmuch_directory_t) C.notmuch_status_t) (bool, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	var d *C.notmuch_directory_t
	status := C.notmuch_database_get_directory(handle(db), p, &d)
	if status == C.NOTMUCH_STATUS_SUCCESS && d != nil {
		status = f(d)
	}
	if status != C.NOTMUCH_STATUS_SUCCESS {
		return false, statusError(handle(db), status)
	}
	return d != nil, nil
}

// scanned gives the time of change with which `notmuch new` has read a directory last; 0 if
// it did not.
func scanned(db *notmuch.DB, path string) (when int64, err error) {
	_, err = withDirectory(db, path, func(d *C.notmuch_directory_t) C.notmuch_status_t {
		when = int64(C.notmuch_directory_get_mtime(d))
		C.notmuch_directory_destroy(d)
		return C.NOTMUCH_STATUS_SUCCESS
	})
	return when, err
}

// setScanned sets it, if there is such a directory.
func setScanned(db *notmuch.DB, path string, when int64) error {
	_, err := withDirectory(db, path, func(d *C.notmuch_directory_t) C.notmuch_status_t {
		defer C.notmuch_directory_destroy(d)
		if int64(C.notmuch_directory_get_mtime(d)) == when {
			return C.NOTMUCH_STATUS_SUCCESS
		}
		return C.notmuch_directory_set_mtime(d, C.time_t(when))
	})
	return err
}

// deleteDirectory takes a directory's document out of the database, and nothing else.
func deleteDirectory(db *notmuch.DB, path string) error {
	there, err := withDirectory(db, path, func(d *C.notmuch_directory_t) C.notmuch_status_t { return C.notmuch_directory_delete(d) })
	if err == nil && !there {
		err = fmt.Errorf("the database has no directory %s", path)
	}
	return err
}
