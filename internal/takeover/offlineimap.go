package takeover

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // its state is a database

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// OfflineIMAPState is where OfflineIMAP keeps what it remembers of an account.
type OfflineIMAPState struct {
	Status   string // the directory of LocalStatus-sqlite and LocalStatus
	Validity string // that of FolderValidity of the server's side
	Lock     string // the account's lock
}

// StateOfflineIMAP gives the state of an account whose server's side is a repository, below
// the directory that `metadata` names.
func StateOfflineIMAP(metadata, account, remote string) OfflineIMAPState {
	return OfflineIMAPState{
		Status:   filepath.Join(metadata, "Account-"+account),
		Validity: filepath.Join(metadata, "Repository-"+remote, "FolderValidity"),
		Lock:     filepath.Join(metadata, account+".lock"),
	}
}

// OfflineIMAP reads what OfflineIMAP (6.5 to 8) remembers of a folder of the mailbox that
// has these levels; local are those of the folder, as it may have another name (nametrans).
// ErrNone says that it has nothing.
func OfflineIMAP(ctx context.Context, folder string, state OfflineIMAPState, levels, local []string) (*Agreement, error) {
	// The server's side is named by the mailbox, and the agreement by what that is called here.
	// Its names are in modified UTF-7, unless utf8foldernames is set.
	wire := encoded(levels)
	// A mailbox that was renamed since is there by its name of before, which the folder has still.
	validity, err := validityOf(state.Validity, wire, levels, encoded(local), local)
	if err != nil {
		return nil, err
	}
	if busy(state.Lock) {
		return nil, ErrBusy
	}
	letters, is, err := statusOf(ctx, state.Status, levels, wire, encoded(local), local)
	if err != nil {
		return nil, err
	}
	files, err := numbered(folder, letters)
	if err != nil {
		return nil, err
	}
	a := &Agreement{UIDValidity: validity, UIDNext: 1, State: is}
	for uid, l := range letters {
		key, here := files[uid]
		if !here {
			key = fmt.Sprintf("gone,U=%d", uid) // as with mbsync: no file has it
		}
		a.Messages = append(a.Messages, Agreed{UID: uid, Key: key, Letters: l})
		a.UIDNext = max(a.UIDNext, uid+1)
	}
	a.sort()
	return a, nil
}

// basenames are the names of OfflineIMAP's files of a folder (folder/Base.py,
// getfolderbasename): its levels, with dots between.
func basenames(spellings ...[]string) (out []string) {
	for _, levels := range spellings {
		name := strings.ReplaceAll(strings.Join(levels, "."), "/", ".")
		if name == "." || name == "" {
			name = "dot"
		}
		if !slices.Contains(out, name) && !strings.ContainsRune(name, 0) {
			out = append(out, name)
		}
	}
	return out
}

func encoded(levels []string) []string {
	out := make([]string, len(levels))
	for i, l := range levels {
		out[i] = mail.EncodeName(l)
	}
	return out
}

func validityOf(dir string, spellings ...[]string) (uint64, error) {
	for _, name := range basenames(spellings...) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%s: %q is no UIDVALIDITY", filepath.Join(dir, name), strings.TrimSpace(string(text)))
		}
		return n, nil
	}
	return 0, ErrNone
}

// busy tells whether somebody holds a lock of OfflineIMAP, which is flock's or fcntl's.
func busy(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only asked about; this gives a lock back, too
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err == nil && lock.Type != unix.F_UNLCK {
		return true
	}
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// statusOf gives the letters that were agreed on, by UID, and the file that says so.
func statusOf(ctx context.Context, dir string, spellings ...[]string) (map[imap.UID]string, State, error) {
	for _, name := range slices.Backward(basenames(spellings...)) { // as the folder is called here first
		for kind, read := range map[string]func(context.Context, string) (map[imap.UID]string, error){
			"LocalStatus-sqlite": statusSQLite, "LocalStatus": statusText,
		} {
			file := filepath.Join(dir, kind, name)
			if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
				continue
			}
			is, err := StateOf(file)
			if err != nil {
				return nil, State{}, err
			}
			out, err := read(ctx, file)
			if err != nil {
				return nil, State{}, fmt.Errorf("%s: %w", file, err)
			}
			return out, is, nil
		}
	}
	return nil, State{}, ErrNone
}

func statusSQLite(ctx context.Context, file string) (out map[imap.UID]string, err error) {
	for _, left := range []string{"-journal", "-wal"} {
		if info, err := os.Stat(file + left); err == nil && info.Size() > 0 {
			return nil, errors.New("a run of OfflineIMAP was interrupted: run it once more first")
		}
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: file, RawQuery: "mode=ro&immutable=1"}).String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var version string
	if err := db.QueryRowContext(ctx, "SELECT value FROM metadata WHERE key = 'db_version'").Scan(&version); err != nil {
		return nil, fmt.Errorf("it is none of OfflineIMAP's: %w", err)
	}
	if version != "1" && version != "2" {
		return nil, fmt.Errorf("it is of a version that is not known: %s", version)
	}
	rows, err := db.QueryContext(ctx, "SELECT id, flags FROM status")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	out = make(map[imap.UID]string)
	for rows.Next() {
		var id int64
		var flags sql.NullString
		if err := rows.Scan(&id, &flags); err != nil {
			return nil, err
		}
		if err := putStatus(out, id, flags.String); err != nil {
			return nil, err
		}
	}
	return out, rows.Err()
}

// statusText reads the form before SQLite: a line that says what it is, then
// uid:flags, or uid|flags|mtime|labels (folder/LocalStatus.py).
func statusText(_ context.Context, file string) (map[imap.UID]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	in := bufio.NewScanner(f)
	in.Buffer(nil, 64<<10)
	out := make(map[imap.UID]string)
	for lines := 0; in.Scan(); lines++ {
		line := in.Text()
		if lines == 0 {
			if !strings.HasPrefix(line, "OFFLINEIMAP LocalStatus CACHE DATA - DO NOT MODIFY - FORMAT ") {
				return nil, fmt.Errorf("it is none of OfflineIMAP's: %.60q", line)
			}
			continue
		}
		if lines > maxStateLines {
			return nil, errors.New("it is too long")
		}
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ':' || r == '|' })
		if len(fields) == 0 {
			continue
		}
		id, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d is none of OfflineIMAP's: %q", lines+1, line)
		}
		flags := ""
		if _, rest, ok := strings.Cut(line, fields[0]); ok && rest != "" {
			flags, _, _ = strings.Cut(rest[1:], string(rest[0]))
		}
		if err := putStatus(out, id, flags); err != nil {
			return nil, err
		}
	}
	return out, in.Err()
}

// putStatus takes a message over. Custom flags are small letters, of which nothing says
// what they stand for.
func putStatus(out map[imap.UID]string, id int64, flags string) error {
	if id <= 0 || id > 1<<32-1 {
		return fmt.Errorf("%d is no UID", id)
	}
	letters := ""
	for _, c := range flags {
		if strings.ContainsRune("DFPRST", c) {
			letters += string(c)
		}
	}
	out[imap.UID(id)] = letters
	return nil
}

// numbered gives the keys of a folder's files by the UIDs that OfflineIMAP gave them. They
// count only with the folder's own FMD5, which is over its name as nametrans made it: so it
// is the one with which most of the agreed UIDs come.
func numbered(folder string, agreed map[imap.UID]string) (map[imap.UID]string, error) {
	sets := make(map[string]map[imap.UID]string)
	twice := make(map[string]error)
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(folder, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			key, _, _ := strings.Cut(e.Name(), ":2,")
			_, rest, ok := strings.Cut(key, ",U=")
			digits, sum, ok2 := strings.Cut(rest, ",FMD5=")
			uid, err := strconv.ParseUint(digits, 10, 32)
			if !ok || !ok2 || err != nil || uid == 0 {
				continue // mail that it has not sent yet
			}
			if sets[sum] == nil {
				sets[sum] = make(map[imap.UID]string)
			}
			if sets[sum][imap.UID(uid)] != "" {
				twice[sum] = fmt.Errorf("two files in %s have the UID %d", folder, uid)
			}
			sets[sum][imap.UID(uid)] = key
		}
	}
	best, most := "", 0
	for sum, files := range sets {
		n := 0
		for uid := range files {
			if _, ok := agreed[uid]; ok {
				n++
			}
		}
		if n > most || n == most && n > 0 && sum < best {
			best, most = sum, n
		}
	}
	return sets[best], twice[best]
}
