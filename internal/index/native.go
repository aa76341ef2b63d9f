package index

// #cgo LDFLAGS: -lnotmuch
// #include <stdlib.h>
// #include <notmuch.h>
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sys/unix"
)

// What go.notmuch leaves out of libnotmuch: the merged configuration, the text
// of an error on opening, creating a database with a configuration, the
// revision, the files of a directory, reading a message's files again, and
// counts and searches that say so when they fail.

// flushEarly lets Xapian merge what it has gathered into its tables after three
// hundred changes in place of 10,000, whether or not it commits then. What it
// gathers is a map of maps in which every change is looked for: 2,000 mails take a
// tenth longer to index with 10,000, in commits of 300 (a mail is a change or two).
// Merging costs reads and writes that grow with the database: 20,000 take a fifth
// longer with 100. It is read when a database is opened, and only C's environment
// has it, not that of programs that we start. Who has set it knows better.
func flushEarly() {
	name, free := cstr("XAPIAN_FLUSH_THRESHOLD")
	defer free()
	value, freeValue := cstr("300")
	defer freeValue()
	C.setenv(name, value, 0)
}

// isGhost tells whether nothing is known of a message but that others refer to
// it.
func isGhost(db *notmuch.DB, m *notmuch.Message) (bool, error) {
	var is C.notmuch_bool_t
	if status := C.notmuch_message_get_flag_st(message(m), C.NOTMUCH_MESSAGE_FLAG_GHOST, &is); status != C.NOTMUCH_STATUS_SUCCESS {
		return false, statusError(handle(db), status)
	}
	return is != 0, nil
}

// handle is libnotmuch's own pointer. A DB has it in its first field, which
// TestHandle checks.
func handle(db *notmuch.DB) *C.notmuch_database_t {
	return (*C.notmuch_database_t)(*(*unsafe.Pointer)(unsafe.Pointer(db)))
}

// begin begins a transaction.
func begin(db *notmuch.DB) error {
	if status := C.notmuch_database_begin_atomic(handle(db)); status != C.NOTMUCH_STATUS_SUCCESS {
		return statusError(handle(db), status)
	}
	return nil
}

// end ends it. Closing the database without that takes back what was done in it.
func end(db *notmuch.DB) error {
	if status := C.notmuch_database_end_atomic(handle(db)); status != C.NOTMUCH_STATUS_SUCCESS {
		return statusError(handle(db), status)
	}
	return nil
}

// message is libnotmuch's own pointer. A Message has it in its first field, as a DB has.
func message(m *notmuch.Message) *C.notmuch_message_t {
	return (*C.notmuch_message_t)(*(*unsafe.Pointer)(unsafe.Pointer(m)))
}

// tagsOf gives a message's tags, sorted. libnotmuch says that it cannot read them by
// giving none at all, which go.notmuch makes an empty list of: that would look as if
// their owner had taken them off.
func tagsOf(m *notmuch.Message) ([]string, error) {
	return listed(C.notmuch_message_get_tags(message(m)), "a message")
}

// allTagsOf gives the tags that any message has, sorted.
func allTagsOf(db *notmuch.DB) ([]string, error) {
	return listed(C.notmuch_database_get_all_tags(handle(db)), "the database")
}

// listed takes the tags out of a list, and ends it.
func listed(tags *C.notmuch_tags_t, of string) ([]string, error) {
	if tags == nil {
		return nil, fmt.Errorf("%w: the tags of %s cannot be read", notmuch.ErrXapianException, of)
	}
	defer C.notmuch_tags_destroy(tags)
	var out []string
	for ; C.notmuch_tags_valid(tags) != 0; C.notmuch_tags_move_to_next(tags) {
		out = append(out, C.GoString(C.notmuch_tags_get(tags)))
	}
	slices.Sort(out)
	return out, nil
}

// filesOf gives the paths of a message's files, as tagsOf does its tags.
func filesOf(m *notmuch.Message) ([]string, error) {
	files := C.notmuch_message_get_filenames(message(m))
	if files == nil {
		return nil, fmt.Errorf("%w: the files of a message cannot be read", notmuch.ErrXapianException)
	}
	return names(files), nil
}

// names takes the names out of a list, and ends it. A mail root may end in a slash.
func names(files *C.notmuch_filenames_t) (out []string) {
	defer C.notmuch_filenames_destroy(files)
	for ; C.notmuch_filenames_valid(files) != 0; C.notmuch_filenames_move_to_next(files) {
		out = append(out, filepath.Clean(C.GoString(C.notmuch_filenames_get(files))))
	}
	return out
}

// reindexed reads the files of a message again, as index.decrypt says: without options libnotmuch
// decrypts nothing here, as it does where a file is new.
func reindexed(db *notmuch.DB, m *notmuch.Message) error {
	options := C.notmuch_database_get_default_indexopts(handle(db))
	if options == nil {
		return notmuch.ErrOutOfMemory
	}
	defer C.notmuch_indexopts_destroy(options)
	if status := C.notmuch_message_reindex(message(m), options); status != C.NOTMUCH_STATUS_SUCCESS {
		return statusError(handle(db), status)
	}
	return nil
}

// configuration is what of notmuch's configuration is of use here.
type configuration struct {
	path      string // database.path; NOTMUCH_DATABASE does not show in it
	mailRoot  string
	hookDir   string
	newTags   []string
	newIgnore []string
	syncFlags bool
	addresses []string // of the user
	uuid      string
}

func readConfiguration(h *C.notmuch_database_t) configuration {
	c := configuration{
		path:      C.GoString(C.notmuch_database_get_path(h)),
		mailRoot:  C.GoString(C.notmuch_config_get(h, C.NOTMUCH_CONFIG_MAIL_ROOT)),
		hookDir:   C.GoString(C.notmuch_config_get(h, C.NOTMUCH_CONFIG_HOOK_DIR)),
		syncFlags: true, // notmuch's default
	}
	list := func(key C.notmuch_config_key_t) (out []string) {
		values := C.notmuch_config_get_values(h, key)
		defer C.notmuch_config_values_destroy(values)
		for ; C.notmuch_config_values_valid(values) != 0; C.notmuch_config_values_move_to_next(values) {
			if value := C.GoString(C.notmuch_config_values_get(values)); value != "" {
				out = append(out, value)
			}
		}
		return out
	}
	c.newTags = list(C.NOTMUCH_CONFIG_NEW_TAGS)
	c.newIgnore = list(C.NOTMUCH_CONFIG_NEW_IGNORE)
	c.addresses = append(list(C.NOTMUCH_CONFIG_PRIMARY_EMAIL), list(C.NOTMUCH_CONFIG_OTHER_EMAIL)...)
	var sync C.notmuch_bool_t
	if C.notmuch_config_get_bool(h, C.NOTMUCH_CONFIG_SYNC_MAILDIR_FLAGS, &sync) == C.NOTMUCH_STATUS_SUCCESS {
		c.syncFlags = sync != 0
	}
	c.uuid, _ = revisionOf(h)
	return c
}

// Errors on opening that have a remedy.
var (
	// ErrNoConfig says that notmuch itself was not set up yet.
	ErrNoConfig = errors.New("notmuch has no configuration: run `notmuch setup`")
	// ErrNoDatabase says that there is none, or none any more.
	ErrNoDatabase = errors.New("notmuch has no database yet: run `notmuch new` once")
	errUpgrade    = errors.New("the notmuch database is of an older version: run `notmuch new` once, which upgrades it")
)

// cstr gives a C string that free takes back; nil for "".
func cstr(s string) (p *C.char, free func()) {
	if s == "" {
		return nil, func() {}
	}
	p = C.CString(s)
	return p, func() { C.free(unsafe.Pointer(p)) }
}

// probe opens the database to read its configuration, or to learn in words why
// it cannot be opened.
func (x *Index) probe() (configuration, error) {
	return x.configuredBy(func(config, profile *C.char, db **C.notmuch_database_t, text **C.char) error {
		path, free := cstr(x.own)
		defer free()
		var status C.notmuch_status_t
		undisturbed(func() (disturbed bool) {
			C.free(unsafe.Pointer(*text))
			*text = nil
			status = C.notmuch_database_open_with_config(path, C.NOTMUCH_DATABASE_MODE_READ_ONLY, config, profile, db, text)
			return status == C.NOTMUCH_STATUS_XAPIAN_EXCEPTION
		})
		return openError(status, *text)
	})
}

// configured reads the configuration where there is no database.
func (x *Index) configured() (configuration, error) {
	return x.configuredBy(func(config, profile *C.char, db **C.notmuch_database_t, text **C.char) error {
		status := C.notmuch_database_load_config(nil, config, profile, db, text)
		err := openError(status, *text)
		if errors.Is(err, ErrNoDatabase) {
			return nil // that is known
		}
		return err
	})
}

// configuredBy reads the configuration of what open gives.
func (x *Index) configuredBy(open func(config, profile *C.char, db **C.notmuch_database_t, text **C.char) error) (conf configuration, err error) {
	config, free := cstr(x.config)
	defer free()
	profile, freeProfile := cstr(x.profile)
	defer freeProfile()
	var db *C.notmuch_database_t
	var text *C.char
	err = open(config, profile, &db, &text)
	if db != nil {
		if err == nil {
			conf = readConfiguration(db)
		}
		C.notmuch_database_destroy(db)
	}
	return conf, err
}

// create makes the database that the configuration names, as `notmuch new`
// would. Its directory must be there: a file system that is not mounted must
// not make it look as if there were no mail.
func (x *Index) create() error {
	config, free := cstr(x.config)
	defer free()
	profile, freeProfile := cstr(x.profile)
	defer freeProfile()
	var db *C.notmuch_database_t
	var text *C.char
	path, freePath := cstr(x.own)
	defer freePath()
	status := C.notmuch_database_create_with_config(path, config, profile, &db, &text)
	if db != nil {
		C.notmuch_database_destroy(db)
	}
	err := openError(status, text)
	if status == C.NOTMUCH_STATUS_DATABASE_EXISTS {
		return nil // somebody was faster
	}
	if err == nil {
		return nil
	}
	if conf, why := x.configured(); why == nil {
		return noRoom(conf.path, err)
	}
	return err
}

// noRoom makes an error of writing ENOSPC if the database's file system is full: Xapian does not
// always say why it could not write, and go.notmuch never does.
func noRoom(dir string, err error) error {
	var st unix.Statfs_t
	if err == nil || errors.Is(err, unix.ENOSPC) || unix.Statfs(dir, &st) != nil || float64(st.Bavail)*float64(st.Bsize) >= leastDatabase { // integers of each system's own kind
		return err
	}
	return fmt.Errorf("%w: %w", unix.ENOSPC, err)
}

// leastDatabase is what an empty database takes, in bytes.
const leastDatabase = 64 << 10

func openError(status C.notmuch_status_t, text *C.char) error {
	words := ""
	if text != nil {
		words = strings.TrimPrefix(oneLine(C.GoString(text)), "Error: ")
		C.free(unsafe.Pointer(text))
	}
	switch status {
	case C.NOTMUCH_STATUS_SUCCESS:
		return nil
	case C.NOTMUCH_STATUS_NO_CONFIG:
		return ErrNoConfig
	case C.NOTMUCH_STATUS_NO_DATABASE:
		return ErrNoDatabase
	case C.NOTMUCH_STATUS_FILE_ERROR:
		// What 0.37 says when the directory named by database.path has none, or
		// is not there itself.
		if strings.Contains(words, "No such file or directory") {
			return fmt.Errorf("%w (%s)", ErrNoDatabase, words)
		}
	case C.NOTMUCH_STATUS_UPGRADE_REQUIRED:
		return errUpgrade
	}
	if begun(words) {
		return fmt.Errorf("%w (%s)", ErrNoDatabase, words)
	}
	if words == "" {
		words = C.GoString(C.notmuch_status_to_string(status))
	}
	return full(words, fmt.Errorf("the notmuch database cannot be opened: %s", words))
}

// begun tells from the library's words that a database was about to be made, on a disk that was
// full or by a process that was killed, and never held anything. `notmuch new` makes one there,
// too.
func begun(words string) bool {
	at, ok := strings.CutSuffix(words, ": Couldn't detect type of database")
	_, dir, named := strings.Cut(at, "Xapian database at ")
	if !ok || !named {
		return false
	}
	entries, err := os.ReadDir(dir)
	return err == nil && !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) == ".glass" })
}

// full makes an error ENOSPC, as a full disk is everywhere else, if the library's words
// for it say that: it has no status for it.
func full(words string, err error) error {
	if !strings.Contains(words, unix.ENOSPC.Error()) && !strings.Contains(words, "No space left on device") {
		return err
	}
	return fmt.Errorf("%w: %w", unix.ENOSPC, err)
}

// statusError makes an error of a status, with the library's last words.
func statusError(h *C.notmuch_database_t, status C.notmuch_status_t) error {
	words := oneLine(C.GoString(C.notmuch_database_status_string(h)))
	if words == "" {
		words = C.GoString(C.notmuch_status_to_string(status))
	}
	switch status {
	case C.NOTMUCH_STATUS_XAPIAN_EXCEPTION:
		return full(words, fmt.Errorf("%w: %s", notmuch.ErrXapianException, words))
	case C.NOTMUCH_STATUS_OUT_OF_MEMORY:
		return notmuch.ErrOutOfMemory
	case C.NOTMUCH_STATUS_READ_ONLY_DATABASE:
		return notmuch.ErrReadOnlyDB
	}
	return errors.New(words)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// revisionOf counts the changes that were made to the database (lastmod:).
func revisionOf(h *C.notmuch_database_t) (uuid string, revision uint64) {
	var p *C.char
	revision = uint64(C.notmuch_database_get_revision(h, &p))
	return C.GoString(p), revision
}

// count counts the messages that match a query.
func count(db *notmuch.DB, query string) (int, error) {
	text := C.CString(query)
	defer C.free(unsafe.Pointer(text))
	q := C.notmuch_query_create(handle(db), text)
	if q == nil {
		return 0, notmuch.ErrOutOfMemory
	}
	defer C.notmuch_query_destroy(q)
	var n C.uint
	if status := C.notmuch_query_count_messages(q, &n); status != C.NOTMUCH_STATUS_SUCCESS {
		return 0, statusError(handle(db), status)
	}
	return int(n), nil
}

// search gives the ids of at most limit messages (0: of all), newest first.
func search(db *notmuch.DB, query string, limit int) ([]string, error) {
	text := C.CString(query)
	defer C.free(unsafe.Pointer(text))
	q := C.notmuch_query_create(handle(db), text)
	if q == nil {
		return nil, notmuch.ErrOutOfMemory
	}
	defer C.notmuch_query_destroy(q)
	C.notmuch_query_set_sort(q, C.NOTMUCH_SORT_NEWEST_FIRST)
	var messages *C.notmuch_messages_t
	if status := C.notmuch_query_search_messages(q, &messages); status != C.NOTMUCH_STATUS_SUCCESS {
		return nil, statusError(handle(db), status)
	}
	defer C.notmuch_messages_destroy(messages)
	var ids []string
	for ; C.notmuch_messages_valid(messages) != 0 && (limit <= 0 || len(ids) < limit); C.notmuch_messages_move_to_next(messages) {
		m := C.notmuch_messages_get(messages)
		if m == nil {
			return nil, notmuch.ErrOutOfMemory
		}
		ids = append(ids, C.GoString(C.notmuch_message_get_message_id(m)))
		C.notmuch_message_destroy(m)
	}
	return ids, nil
}

// childFiles gives the names of the files that the database has in a
// directory; none for a directory that it does not know.
func childFiles(db *notmuch.DB, dir string) ([]string, error) {
	path := C.CString(dir)
	defer C.free(unsafe.Pointer(path))
	var d *C.notmuch_directory_t
	if status := C.notmuch_database_get_directory(handle(db), path, &d); status != C.NOTMUCH_STATUS_SUCCESS {
		return nil, statusError(handle(db), status)
	}
	if d == nil {
		return nil, nil
	}
	defer C.notmuch_directory_destroy(d)
	files := C.notmuch_directory_get_child_files(d)
	if files == nil {
		return nil, fmt.Errorf("%w: the files of a directory cannot be read", notmuch.ErrXapianException)
	}
	return names(files), nil
}
