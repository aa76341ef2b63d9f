// Package takeover reads what other synchronisers remember of a Maildir. It writes
// nothing of theirs.
package takeover

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Agreement is what another program and the server had agreed on of one mailbox.
type Agreement struct {
	UIDValidity uint64
	UIDNext     imap.UID // up to here it had looked at the mailbox
	Messages    []Agreed // by UID
	// Expired: what it does not know of up to here it left on the server.
	Expired imap.UID
	// Gmail has, in place of all that, the maildir keys of files by the numbers that Gmail
	// gives messages. What flags were agreed on is not known then.
	Gmail map[uint64]string
	// State is the file that remembers it, as it was when it was read.
	State State
}

// State is a file in which a program remembers what it agreed on.
type State struct {
	File   string
	Digest string // in hexadecimal digits; "": there is none
}

// StateOf reads a state: with the journal beside it, in which a run has what the file has not yet.
func StateOf(file string) (State, error) {
	sum := sha256.New()
	for i, name := range []string{file, file + ".journal"} {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			if i == 0 {
				return State{File: file}, nil
			}
			continue
		}
		if err != nil {
			return State{}, err
		}
		sum.Write(text)
	}
	return State{file, hex.EncodeToString(sum.Sum(nil))}, nil
}

// Changed tells whether the program has changed its state since. A state that is gone it has not:
// its owner has put the program away.
func (s State) Changed() (bool, error) {
	now, err := StateOf(s.File)
	return err == nil && now.Digest != "" && now.Digest != s.Digest, err
}

// Agreed is one message of it.
type Agreed struct {
	UID     imap.UID
	Key     string   // maildir key of its file; "" if it has none here
	Others  []string // those of files that have its number, too, as after a move by a mail reader
	Letters string   // maildir flag letters last agreed
	// Placeholder: the file is not the mail, but says that it was too large to come. Where that
	// file is now says nothing of the mail.
	Placeholder bool
	// Expired: the program marked its file as deleted (T), and not its owner, to keep few here.
	Expired bool
}

func (a *Agreement) sort() {
	slices.SortFunc(a.Messages, func(x, y Agreed) int { return cmp.Compare(x.UID, y.UID) })
}

// Errors that say why a state is not to be believed, each a line for a person.
var (
	ErrNone = errors.New("there is no state of that program")
	ErrBusy = errors.New("the other program is at work on it")
	// ErrNever: nothing that anybody does makes it known.
	ErrNever = errors.New("which file is which message cannot be known")
)

// bounds of what is read: a state file has some 15 bytes a message.
const (
	maxStateLines = 5_000_000
	maxStateLine  = 200
)

// Mbsync reads the state that mbsync (isync 1.1 to 1.5) keeps in a folder itself
// (`SyncState *`), or else in one of the files states, that which is of this folder. The
// format is that of isync's sync_state.c. ErrNone says that there is none.
func Mbsync(folder string, states ...string) (*Agreement, error) {
	own := filepath.Join(folder, ".mbsyncstate")
	var found *mbsyncState
	var files map[imap.UID][]string
	at := ""
	var is State
	for _, state := range append([]string{own}, states...) {
		if state == at {
			continue
		}
		info, err := os.Stat(state)
		if errors.Is(err, fs.ErrNotExist) {
			if err := idle(state); err != nil { // its first run
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		read, err := StateOf(state)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(state)
		if err != nil {
			return nil, err
		}
		s, err := readMbsync(f)
		_ = f.Close() // it was only read
		if err != nil {
			return nil, fmt.Errorf("%s: %w", state, err)
		}
		validity, near, err := nearSide(folder)
		if err != nil {
			return nil, err
		}
		switch {
		case validity == s.near && found != nil:
			// Folders that were made in one second have one UIDVALIDITY.
			return nil, fmt.Errorf("it is not known whether %s or %s is its state", at, state)
		case validity == s.near:
			found, files, at, is = s, near, state, read
		case state == own:
			return nil, fmt.Errorf("%s is of another folder: it has the UIDVALIDITY %d, and the folder %d", state, s.near, validity)
		}
		if at == own {
			break
		}
	}
	if found == nil {
		return nil, ErrNone
	}
	if err := idle(at); err != nil {
		return nil, err
	}
	a, err := found.agreement(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	a.State = is
	return a, nil
}

// MbsyncStates gives the files that may be the state of a mailbox, of whose levels name is
// a spelling: behind a prefix, as SyncState has it (a directory, or more), and in
// directories where mbsync keeps states by itself, called `:STORE:NAME_:STORE:NAME`. It
// has `!` for `/` there.
func MbsyncStates(prefix string, dirs []string, spellings ...[]string) (out []string) {
	for _, levels := range spellings {
		far := strings.Join(levels, "!")
		if prefix != "" {
			out = append(out, prefix+far, filepath.Join(prefix, far))
		}
		for _, dir := range dirs {
			for file, name := range stateFiles(dir + "/") {
				if of, _, ok := ends(name); ok && of == far {
					out = append(out, file)
				}
			}
		}
	}
	return out
}

// MbsyncStatesAt gives those that are called by a folder, whose path below the others' is at: it
// has that name still when the mailbox was renamed on the server, or deleted.
func MbsyncStatesAt(prefix string, dirs []string, at string) (out []string) {
	is := func(near string) bool {
		return slices.Contains(Folders(strings.ReplaceAll(near, "!", "/"), '/'), at)
	}
	if prefix != "" {
		for _, p := range []string{prefix, prefix + "/"} {
			for file, near := range stateFiles(p) {
				if is(near) {
					out = append(out, file)
				}
			}
		}
	}
	for _, dir := range dirs {
		for file, name := range stateFiles(dir + "/") {
			if _, near, ok := ends(name); ok && is(near) {
				out = append(out, file)
			}
		}
	}
	return out
}

// ends gives the two mailboxes of the name of a state, as they are written there.
func ends(name string) (far, near string, ok bool) {
	_, rest, ok := strings.Cut(strings.TrimPrefix(name, ":"), ":")
	far, rest, two := strings.Cut(rest, "_:")
	_, near, _ = strings.Cut(rest, ":")
	return far, near, ok && two
}

// stateFiles gives the files that may be states, behind a prefix: a directory, and how their
// names begin; with what follows that.
func stateFiles(prefix string) iter.Seq2[string, string] {
	return func(yield func(file, rest string) bool) {
		dir, begin := filepath.Split(prefix)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return // it need not be there
		}
		for _, e := range entries {
			rest, ok := strings.CutPrefix(e.Name(), begin)
			if ok && !slices.Contains([]string{".lock", ".journal", ".new"}, filepath.Ext(e.Name())) && !yield(filepath.Join(dir, e.Name()), rest) {
				return
			}
		}
	}
}

// agreement is what the state says, with the folder's files.
func (s *mbsyncState) agreement(files map[imap.UID][]string) (*Agreement, error) {
	a := &Agreement{UIDValidity: s.far, UIDNext: s.pulled + 1, Expired: s.expired}
	for _, r := range s.rows {
		if r.far == 0 {
			continue // it was never on the server, or is gone there
		}
		m := Agreed{UID: r.far, Letters: r.letters, Placeholder: r.placeholder}
		if r.near != 0 && !r.skipped {
			if keys := files[r.near]; len(keys) > 0 {
				m.Key, m.Expired = keys[0], r.expired
				if len(keys) > 1 {
					m.Others = keys[1:]
				}
			}
		}
		if m.Key == "" && r.near != 0 && !r.skipped && !r.expired && !r.placeholder {
			// Its file was removed since, which is for a sync to find: the key must be one
			// that no file has.
			m.Key = fmt.Sprintf("gone,U=%d", r.near)
		}
		a.Messages = append(a.Messages, m)
	}
	a.sort()
	for i := 1; i < len(a.Messages); i++ {
		if a.Messages[i].UID == a.Messages[i-1].UID {
			return nil, fmt.Errorf("UID %d stands there twice", a.Messages[i].UID)
		}
	}
	if n := len(a.Messages); n > 0 {
		a.UIDNext = max(a.UIDNext, a.Messages[n-1].UID+1)
	}
	return a, nil
}

// idle refuses a state that a run of mbsync holds, or left in the middle.
func idle(state string) error {
	switch locked, err := lockedByFcntl(state + ".lock"); {
	case err != nil:
		return err
	case locked:
		return ErrBusy
	}
	for _, left := range []string{".journal", ".new"} {
		if info, err := os.Stat(state + left); err == nil && info.Size() > 0 {
			return fmt.Errorf("a run of mbsync was interrupted (%s%s): run mbsync once more first", filepath.Base(state), left)
		}
	}
	return nil
}

// mbsyncRow is a line of the state.
type mbsyncRow struct {
	far, near   imap.UID
	placeholder bool // of the near side
	skipped     bool
	expired     bool
	letters     string
}

type mbsyncState struct {
	far, near uint64 // UIDVALIDITY
	pulled    imap.UID
	expired   imap.UID
	rows      []mbsyncRow
}

func readMbsync(r io.Reader) (*mbsyncState, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, maxStateLine), maxStateLine)
	whole := true // the last line has an end: mbsync writes none without
	in.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if atEOF && len(data) > 0 && !bytes.ContainsRune(data, '\n') {
			whole = false
		}
		return bufio.ScanLines(data, atEOF)
	})
	s := &mbsyncState{}
	header := true
	lines := 0
	for in.Scan() {
		if lines++; lines > maxStateLines {
			return nil, errors.New("it is too long")
		}
		line := in.Text()
		if header && line == "" {
			header = false
			continue
		}
		var err error
		if header {
			err = s.header(line)
		} else {
			err = s.row(line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d is none of mbsync's: %w", lines, err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if !whole {
		return nil, errors.New("its end is missing")
	}
	if s.far == 0 || s.near == 0 {
		return nil, errors.New("it names no UIDVALIDITY, as after a first run that was interrupted, or before isync 1.1")
	}
	return s, nil
}

func (s *mbsyncState) header(line string) error {
	name, value, _ := strings.Cut(line, " ")
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return fmt.Errorf("%q", line)
	}
	switch name {
	case "FarUidValidity", "MasterUidValidity":
		s.far = n
	case "NearUidValidity", "SlaveUidValidity":
		s.near = n
	case "MaxPulledUid":
		s.pulled = imap.UID(n)
	case "MaxExpiredFarUid", "MaxExpiredMasterUid":
		s.expired = imap.UID(n)
	case "MaxPushedUid":
	default:
		return fmt.Errorf("%q", line)
	}
	return nil
}

func (s *mbsyncState) row(line string) error {
	fields := strings.Split(line, " ")
	if len(fields) < 2 || len(fields) > 3 {
		return fmt.Errorf("%q", line)
	}
	far, err := strconv.ParseUint(fields[0], 10, 32)
	near, err2 := strconv.ParseUint(fields[1], 10, 32)
	if err != nil || err2 != nil {
		return fmt.Errorf("%q", line)
	}
	r := mbsyncRow{far: imap.UID(far), near: imap.UID(near)}
	flags := ""
	if len(fields) == 3 {
		flags = fields[2]
	}
	for _, c := range flags {
		switch c {
		case '<':
		case '>':
			r.placeholder = true
		case '^':
			r.skipped = true
		case '~', 'X':
			r.expired = true
		case 'D', 'F', 'P', 'R', 'S', 'T':
			r.letters += string(c)
		default:
			return fmt.Errorf("%q", line)
		}
	}
	s.rows = append(s.rows, r)
	return nil
}

// otherDelimiter is found in what follows U= in the name of a file with flags, up to a comma.
var otherDelimiter = regexp.MustCompile(`^[0-9]+([^0-9])2$`)

// nearSide gives the UIDVALIDITY that mbsync gave a folder, and the keys of its files by
// the UIDs that it gave them, of which a file that was moved or copied has one of another folder.
func nearSide(folder string) (validity uint64, files map[imap.UID][]string, err error) {
	text, err := os.ReadFile(filepath.Join(folder, ".uidvalidity"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, fmt.Errorf("the folder has no .uidvalidity, as with AltMap: %w from mbsync", ErrNever)
	}
	if err != nil {
		return 0, nil, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if validity, err = strconv.ParseUint(strings.TrimSpace(first), 10, 32); err != nil {
		return 0, nil, fmt.Errorf("%s/.uidvalidity: %q is no number", folder, first)
	}
	files = make(map[imap.UID][]string)
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(folder, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, nil, err
		}
		for _, e := range entries {
			key, _, _ := strings.Cut(e.Name(), ":2,")
			_, rest, ok := strings.Cut(key, ",U=")
			digits, _, _ := strings.Cut(rest, ",")
			if other := otherDelimiter.FindStringSubmatch(digits); ok && other != nil {
				return 0, nil, fmt.Errorf("its files have their flags behind %q (InfoDelimiter), and not behind a colon: %w", other[1], ErrNever)
			}
			uid, err := strconv.ParseUint(digits, 10, 32)
			if !ok || err != nil || uid == 0 {
				continue // mail that it has not sent yet
			}
			files[imap.UID(uid)] = append(files[imap.UID(uid)], key)
		}
	}
	return validity, files, nil
}
