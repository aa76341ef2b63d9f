package takeover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LieerFolder is lieer's one Maildir below the directory in which `gmi` runs.
const LieerFolder = "mail"

// lieerConfig is what is of use in lieer's .gmailieer.json.
type lieerConfig struct {
	Account   string `json:"account"`
	Extension string `json:"file_extension"`
}

// Lieer reads the Maildir of lieer (gmi) in a directory. Its files are called by the number
// that Gmail gives a message, in hexadecimal digits, which over IMAP is X-GM-MSGID. What flags
// were agreed on it does not remember. ErrNone says that it has nothing there.
func Lieer(dir string) (*Agreement, error) {
	conf, err := readLieer(dir)
	if err != nil {
		return nil, err
	}
	switch lieerBusy, err := lockedByFcntl(filepath.Join(dir, ".lock")); {
	case err != nil:
		return nil, err
	case lieerBusy:
		return nil, ErrBusy
	}
	if info, err := os.Stat(filepath.Join(dir, ".resume-pull.gmailieer.json")); err == nil && info.Size() > 0 {
		return nil, errors.New("a pull of lieer was interrupted: run `gmi pull` once more first")
	}
	is, err := StateOf(filepath.Join(dir, ".state.gmailieer.json"))
	if err != nil {
		return nil, err
	}
	a := &Agreement{Gmail: make(map[uint64]string), State: is}
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(dir, LieerFolder, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			key, _, _ := strings.Cut(e.Name(), ":2,")
			digits := key
			if conf.Extension != "" {
				digits = strings.TrimSuffix(key, "."+conf.Extension)
			}
			id, err := strconv.ParseUint(digits, 16, 64)
			if err != nil {
				continue // mail that lieer does not know
			}
			if a.Gmail[id] != "" {
				return nil, fmt.Errorf("two files in %s are the message %s", dir, digits)
			}
			a.Gmail[id] = key
		}
	}
	return a, nil
}

// LieerProposal gives the account of a directory of lieer.
func LieerProposal(dir string) (*Proposal, error) {
	conf, err := readLieer(dir)
	if errors.Is(err, ErrNone) {
		return nil, fmt.Errorf("%s: there is no .gmailieer.json, as where gmi runs", dir)
	}
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	p := &Proposal{Name: filepath.Base(dir), Host: "imap.gmail.com", TLS: "implicit", User: conf.Account, Root: dir, Mailboxes: []string{"[Gmail]/All Mail"}}
	if conf.Account == "me" {
		p.User = ""
	}
	if p.User == "" {
		p.leave("user: lieer says only that it is you: write the address here")
	}
	p.leave("lieer's token, which is of another kind: sign in by `notmuch imap login`, with oauth here, or with an app password in your keyring")
	p.leave("labels: IMAP has none; tags stay as they are, and become labels no more")
	p.leave("the name of All Mail, which is in your language: `notmuch imap check` shows it")
	return p, nil
}

func readLieer(dir string) (conf lieerConfig, err error) {
	f, err := os.Open(filepath.Join(dir, ".gmailieer.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return conf, ErrNone
	}
	if err != nil {
		return conf, err
	}
	defer f.Close() //nolint:errcheck // only read
	if err := json.NewDecoder(io.LimitReader(f, maxConfig)).Decode(&conf); err != nil {
		return conf, fmt.Errorf("%s is none of lieer's: %w", f.Name(), err)
	}
	return conf, nil
}

// lockedByFcntl tells whether somebody holds a lock of fcntl's on a file, which need not be
// there.
func lockedByFcntl(file string) (bool, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // it was only asked about
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}
