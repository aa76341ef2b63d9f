// Package ledger remembers what the server and the local store last agreed on:
// one SQLite database for each account, because it is transactional and can be
// looked into with sqlite3.
package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // without cgo, so that pipeline builds without it
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// State is what became of a message.
type State string

// The states of a message.
const (
	Intended State = "intended" // a file is about to get its name
	Present  State = "present"  // the mail is on disk, durable and indexed
	Stub     State = "stub"     // it could not be fetched; a stub stands for it
	Skipped  State = "skipped"  // a hook does not want it
	Deferred State = "deferred" // a hook does not want it yet
	GivenUp  State = "givenup"  // the user does not want it asked for any more
	Kept     State = "kept"     // of an older UIDVALIDITY, without a match; its file stays
)

// Message is the row of one message. Its key is Mailbox, UIDValidity and UID.
type Message struct {
	Mailbox     string
	UIDValidity uint64
	UID         imap.UID
	State       State
	Key         string      // maildir key of the mail's file; "" if there is none
	Name        string      // where the file was when notmuch was told of it, below the folder; a hint, the key counts
	ID          string      // notmuch message id; "" if notmuch does not take the file
	Size        int64       // RFC822.SIZE as told, in bytes
	WireSize    int64       // bytes that came
	Digest      mail.Digest // of the mail's file; zero where that is not known
	Date        time.Time   // INTERNALDATE, UTC, whole seconds
	Flags       []string    // system flags and keywords last agreed; they come back sorted
	StubKey     string      // like Key and Name, of the stub's file
	StubName    string
	Attempts    int
	Since       time.Time // of the first failure
	NextTry     time.Time
	Reason      string // one line
}

// Row is what comparing a mailbox with the server needs of a message.
type Row struct {
	UID   imap.UID
	State State
	Flags []string // rows share them: not to be written to

	Key     string
	Name    string // as in Message
	StubKey string
}

// Fileless tells whether a message has neither its file nor a stub here.
func (m Message) Fileless() bool { return m.Key == "" && m.StubKey == "" }

// UIDs gives those of messages.
func UIDs(rows []Message) []imap.UID {
	uids := make([]imap.UID, len(rows))
	for i, m := range rows {
		uids[i] = m.UID
	}
	return uids
}

// Mailbox is the row of one mailbox. The marks (UIDNext, HighestModSeq,
// Messages) are those of the last listing that was dealt with as a whole.
type Mailbox struct {
	Name          string
	Folder        string // below the account's folder
	Delim         rune
	UIDValidity   uint64
	UIDNext       imap.UID
	HighestModSeq uint64
	Messages      uint32
	Complete      bool // there was such a listing
}

// Errors that callers tell apart.
var (
	ErrBusy     = errors.New("another notmuch-imap is at work on this account")
	ErrNotExist = errors.New("nothing was synchronised yet")
)

// Ledger is an open ledger. It may be used by several goroutines.
type Ledger struct {
	path string
	db   *sql.DB
	lock *os.File // nil: opened to look into
	old  bool     // of a version that knows no digests, opened to look into

	log *keeper // nil: none is kept
}

// version is the schema's. A ledger of a newer one is refused.
const version = 2

const schema = `
CREATE TABLE mailbox (
	id            INTEGER PRIMARY KEY,
	name          TEXT NOT NULL UNIQUE,
	folder        TEXT NOT NULL,
	delim         INTEGER NOT NULL,
	uidvalidity   INTEGER NOT NULL,
	uidnext       INTEGER NOT NULL,
	highestmodseq INTEGER NOT NULL,
	messages      INTEGER NOT NULL,
	complete      INTEGER NOT NULL
);
CREATE TABLE message (
	mailbox     INTEGER NOT NULL REFERENCES mailbox (id),
	uidvalidity INTEGER NOT NULL,
	uid         INTEGER NOT NULL,
	state       TEXT NOT NULL,
	key         TEXT NOT NULL,
	name        TEXT NOT NULL,
	id          TEXT NOT NULL,
	size        INTEGER NOT NULL,
	wiresize    INTEGER NOT NULL,
	date        INTEGER NOT NULL,
	flags       TEXT NOT NULL,
	stubkey     TEXT NOT NULL,
	stubname    TEXT NOT NULL,
	attempts    INTEGER NOT NULL,
	since       INTEGER NOT NULL,
	nexttry     INTEGER NOT NULL,
	reason      TEXT NOT NULL,
	digest      BLOB NOT NULL,
	PRIMARY KEY (mailbox, uidvalidity, uid)
) WITHOUT ROWID;
CREATE INDEX message_id ON message (id);
CREATE INDEX message_state ON message (state) WHERE state <> 'present';
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`

// Open opens the ledger in dir, and makes it if there is none. It takes the
// account's lock until Close; ErrBusy says that another run holds it.
func Open(ctx context.Context, dir string) (*Ledger, error) {
	return OpenThrough(ctx, dir, &sqlite.Driver{})
}

// OpenThrough is Open through a driver that stands before SQLite's own.
func OpenThrough(ctx context.Context, dir string, through driver.Driver) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "ledger.db")
	// SQLite gives a new database the process's umask; it lists whom one writes to.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Close()
	}
	var l *Ledger
	if err == nil {
		l, err = open(ctx, through, path, "rwc")
	}
	if err != nil {
		return nil, errors.Join(err, dropLock(lock))
	}
	l.lock = lock
	if err := l.migrate(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Dir is the account's directory, where it may keep files of a run.
func (l *Ledger) Dir() string { return filepath.Dir(l.path) }

// OpenReadOnly opens the ledger without the account's lock, to look into it.
// ErrNotExist says that there is none.
func OpenReadOnly(ctx context.Context, dir string) (*Ledger, error) {
	path := filepath.Join(dir, "ledger.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotExist
	}
	l, err := open(ctx, &sqlite.Driver{}, path, "rw") // SQLite must be able to make the WAL's index
	if err != nil {
		return nil, err
	}
	if _, err := l.db.ExecContext(ctx, "PRAGMA query_only = 1"); err != nil {
		return nil, errors.Join(l.fail(err), l.Close())
	}
	v, err := userVersion(ctx, l.db)
	switch {
	case err != nil:
		err = l.fail(err)
	case v == 0:
		err = ErrNotExist // a run was interrupted before it recorded anything
	case v > version:
		err = tooNew(path, v)
	default:
		l.old = v < version
		return l, nil
	}
	return nil, errors.Join(err, l.Close())
}

func open(ctx context.Context, through driver.Driver, path, mode string) (*Ledger, error) {
	q := url.Values{"mode": {mode}, "_pragma": {
		"busy_timeout(10000)",
		"journal_mode(WAL)",
		// Every commit is synced: an intent that a power cut forgets would
		// leave its mail twice.
		"synchronous(FULL)",
		"foreign_keys(1)",
	}, "_txlock": {"immediate"}}
	name := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
	db := sql.OpenDB(connector{through, name})
	// One connection: the work is small, and pragmas belong to a connection.
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fail(path, err), db.Close())
	}
	return &Ledger{path: path, db: db}, nil
}

// fail says which ledger an error is about, and what to do. A full disk is
// ENOSPC, as it is everywhere else.
func fail(path string, err error) error {
	e, ok := errors.AsType[interface {
		error
		Code() int
	}](err)
	if !ok {
		return fmt.Errorf("ledger: %w", err)
	}
	switch e.Code() & 0xff { // the primary code, sqlite.org/rescode.html
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		// A -wal that stays behind would be played into the new ledger.
		return fmt.Errorf("the ledger %s is damaged: %w; move it away, with those of ledger.db-wal and ledger.db-shm that lie beside it: "+
			"it is rebuilt from the mail that is here, without downloading it again", path, err)
	case sqlite3.SQLITE_IOERR:
		if !full(path) {
			return fmt.Errorf("the ledger %s cannot be used: %w", path, err)
		}
		fallthrough // it is so for the files beside the database
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the ledger %s cannot grow: %w (%w)", path, syscall.ENOSPC, err)
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY:
		return fmt.Errorf("the ledger %s cannot be used: %w", path, err)
	}
	return fmt.Errorf("ledger: %w", err)
}

// full tells whether the file system of a file has no room for the least of SQLite's files.
func full(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(filepath.Dir(path), &st) == nil && float64(st.Bavail)*float64(st.Bsize) < leastRoom // which are integers of each system's own kind
}

// leastRoom is what the index of the write-ahead log takes at first, in bytes.
const leastRoom = 32 << 10

func (l *Ledger) fail(err error) error { return fail(l.path, err) }

func tooNew(path string, v int) error {
	return fmt.Errorf("the ledger %s was written by a newer notmuch-imap (version %d, this one knows %d): install that one again", path, v, version)
}

func userVersion(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) (v int, err error) {
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v)
	return v, err
}

// migrate makes the tables, or those of an older version those of today, in one
// transaction. A later schema's steps go here, by version.
func (l *Ledger) migrate(ctx context.Context) error {
	v, err := userVersion(ctx, l.db)
	switch {
	case err != nil:
		return l.fail(err)
	case v > version:
		return tooNew(l.path, v)
	case v == version:
		return nil
	}
	step := schema
	if v == 1 {
		if err := l.keepOld(ctx, v); err != nil {
			return err
		}
		step = "ALTER TABLE message ADD COLUMN digest BLOB NOT NULL DEFAULT x'';" // no digest is known
	}
	return l.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, step+fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	})
}

// keepOld leaves a copy of a ledger of version v beside it, as ledger.db.v1, for
// who goes back to the notmuch-imap that wrote it.
func (l *Ledger) keepOld(ctx context.Context, v int) error {
	to := fmt.Sprintf("%s.v%d", l.path, v)
	part := to + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) // a killed run may have left it
	if err != nil {
		return err
	}
	_, err = l.db.ExecContext(ctx, "VACUUM INTO ?", part)
	if err != nil {
		err = l.fail(err)
	} else if err = f.Sync(); err == nil {
		err = os.Rename(part, to)
	}
	return errors.Join(err, f.Close())
}

// Close closes the ledger and gives the lock back.
func (l *Ledger) Close() error {
	err := l.db.Close()
	if l.lock != nil {
		err = errors.Join(err, dropLock(l.lock))
	}
	return err
}

// tx does f in one transaction.
func (l *Ledger) tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return l.fail(err)
	}
	if err := f(tx); err != nil {
		return errors.Join(l.fail(err), rollback(tx))
	}
	if err := tx.Commit(); err != nil {
		return l.fail(err)
	}
	return nil
}

func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return err
	}
	return nil
}

// Meta gives a value of the account; "" if there is none.
func (l *Ledger) Meta(ctx context.Context, key string) (string, error) {
	var v string
	err := l.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", l.fail(err)
	}
	return v, nil
}

// Metas gives the values whose keys begin with prefix, which ends in a slash.
func (l *Ledger) Metas(ctx context.Context, prefix string) (out map[string]string, err error) {
	// The byte after the slash: all such keys lie between the two.
	rows, err := l.db.QueryContext(ctx, "SELECT key, value FROM meta WHERE key > ? AND key < ?", prefix, strings.TrimSuffix(prefix, "/")+"0")
	if err != nil {
		return nil, l.fail(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	out = make(map[string]string)
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return nil, l.fail(err)
		}
		out[k] = v
	}
	if err := rows.Err(); err != nil {
		return nil, l.fail(err)
	}
	return out, nil
}

// SetMeta sets a value of the account.
func (l *Ledger) SetMeta(ctx context.Context, key, value string) error {
	_, err := l.db.ExecContext(ctx, "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", key, value)
	if err != nil {
		return l.fail(err)
	}
	return nil
}

// Flags are stored as words, sorted: none of IMAP's can hold a space.
func joinFlags(flags []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(flags))), " ")
}

func splitFlags(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, " ")
}

// Times are stored as seconds; 0 is no time.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}
