package index

// #cgo LDFLAGS: -lnotmuch
// #include <stdlib.h>
// #include <notmuch.h>
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	notmuch "github.com/zenhack/go.notmuch"
)

// What go.notmuch leaves out of libnotmuch: the merged configuration, the text
// of an error on opening, creating a database with a configuration, and the
// revision. Its DB holds the C pointer in its first field (checked by a test).

func handle(db *notmuch.DB) *C.notmuch_database_t {
	return (*C.notmuch_database_t)(*(*unsafe.Pointer)(unsafe.Pointer(db)))
}

// configuration is what of notmuch's configuration is of use here.
type configuration struct {
	mailRoot  string
	hookDir   string
	newTags   []string
	syncFlags bool
	uuid      string
}

func readConfiguration(db *notmuch.DB) configuration {
	h := handle(db)
	var c configuration
	c.mailRoot = C.GoString(C.notmuch_config_get(h, C.NOTMUCH_CONFIG_MAIL_ROOT))
	c.hookDir = C.GoString(C.notmuch_config_get(h, C.NOTMUCH_CONFIG_HOOK_DIR))
	for v := C.notmuch_config_get_values(h, C.NOTMUCH_CONFIG_NEW_TAGS); C.notmuch_config_values_valid(v) != 0; C.notmuch_config_values_move_to_next(v) {
		if tag := C.GoString(C.notmuch_config_values_get(v)); tag != "" {
			c.newTags = append(c.newTags, tag)
		}
	}
	var sync C.notmuch_bool_t
	if C.notmuch_config_get_bool(h, C.NOTMUCH_CONFIG_SYNC_MAILDIR_FLAGS, &sync) != C.NOTMUCH_STATUS_SUCCESS {
		sync = 1 // notmuch's default
	}
	c.syncFlags = sync != 0
	var uuid *C.char
	C.notmuch_database_get_revision(h, &uuid)
	c.uuid = C.GoString(uuid)
	return c
}

// Errors on opening that have a remedy.
var (
	errNoConfig   = errors.New("notmuch has no configuration: run `notmuch setup`")                                      //nolint:gochecknoglobals // a sentinel
	errNoDatabase = errors.New("notmuch has no database yet: run `notmuch new` once")                                    //nolint:gochecknoglobals // a sentinel
	errUpgrade    = errors.New("the notmuch database is of an older version: run `notmuch new` once, which upgrades it") //nolint:gochecknoglobals // a sentinel
)

// cstr gives a C string that free takes back; nil for "".
func cstr(s string) (p *C.char, free func()) {
	if s == "" {
		return nil, func() {}
	}
	p = C.CString(s)
	return p, func() { C.free(unsafe.Pointer(p)) }
}

// explain opens the database once more to learn why it cannot be opened.
func (x *Index) explain() error {
	config, free := cstr(x.config)
	defer free()
	profile, freeProfile := cstr(x.profile)
	defer freeProfile()
	var db *C.notmuch_database_t
	var text *C.char
	status := C.notmuch_database_open_with_config(nil, C.NOTMUCH_DATABASE_MODE_READ_ONLY, config, profile, &db, &text)
	if db != nil {
		C.notmuch_database_destroy(db)
	}
	return openError(status, text)
}

// create makes the database that the configuration names, as `notmuch new`
// would.
func (x *Index) create() error {
	config, free := cstr(x.config)
	defer free()
	profile, freeProfile := cstr(x.profile)
	defer freeProfile()
	var db *C.notmuch_database_t
	var text *C.char
	status := C.notmuch_database_create_with_config(nil, config, profile, &db, &text)
	if db != nil {
		C.notmuch_database_destroy(db)
	}
	return openError(status, text)
}

func openError(status C.notmuch_status_t, text *C.char) error {
	words := ""
	if text != nil {
		words = strings.TrimSpace(C.GoString(text))
		C.free(unsafe.Pointer(text))
	}
	switch status {
	case C.NOTMUCH_STATUS_SUCCESS, C.NOTMUCH_STATUS_DATABASE_EXISTS:
		return nil
	case C.NOTMUCH_STATUS_NO_CONFIG:
		return errNoConfig
	case C.NOTMUCH_STATUS_NO_DATABASE:
		return errNoDatabase
	case C.NOTMUCH_STATUS_FILE_ERROR:
		// What 0.37 says when the directory named by database.path has none.
		if strings.Contains(words, "No such file or directory") {
			return errNoDatabase
		}
	case C.NOTMUCH_STATUS_UPGRADE_REQUIRED:
		return errUpgrade
	}
	if words == "" {
		words = C.GoString(C.notmuch_status_to_string(status))
	}
	return fmt.Errorf("the notmuch database cannot be opened: %s", strings.ReplaceAll(words, "\n", " "))
}
