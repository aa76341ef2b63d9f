package maildir

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Attic keeps mail for a while that was removed from the folders of an account: a directory for
// each day, in UTC, and in it a maildir for each folder that mail was removed from. The modification
// times of files stay what they were.
type Attic struct {
	Dir  string // its directory, which need not be there
	Days int    // for how long a mail is kept; 0: none is, and what there is goes with the next Prune
	Size int64  // so many bytes at most, after a Prune
	Now  func() time.Time

	kept map[string]bool // paths of what it was given
}

// unpruned is a file that is there while the attic may hold more than it is to.
const unpruned = "unpruned"

// Keep moves the file at a path, which was removed from a folder of the account, into the attic. At
// each moment the mail is in its folder or in the attic, or in both.
func (a *Attic) Keep(folder, path string) error {
	dir := a.folder(a.Now().UTC().Format(time.DateOnly), folder)
	if err := dir.Create(); err != nil {
		return err
	}
	mark, err := os.OpenFile(filepath.Join(a.Dir, unpruned), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := mark.Close(); err != nil {
		return err
	}
	key, letters := ParseName(path)
	to := dir.Path("cur/" + key + ":2," + letters)
	err = Move(path, to)
	if errors.Is(err, fs.ErrExist) { // it was removed on this day before, and came back under its name
		if err := os.Remove(to); err != nil {
			return err
		}
		err = Move(path, to)
	}
	if err != nil {
		return err
	}
	if a.kept == nil {
		a.kept = make(map[string]bool)
	}
	a.kept[to] = true
	return nil
}

// Rename makes what was removed from a folder that of another one. What was removed from both under one
// name stays.
func (a *Attic) Rename(from, to string) error {
	days, err := a.days()
	if err != nil {
		return err
	}
	for _, day := range days {
		was, is := a.folder(day, from), a.folder(day, to)
		files, err := was.Scan()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		mails, err := files.Files()
		if err != nil {
			return err
		}
		if err := is.Create(); err != nil {
			return err
		}
		for _, f := range mails {
			if err := Move(was.Path(f.Name), is.Path(f.Name)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		if err := was.RemoveEmpty(); err != nil {
			return err
		}
	}
	return nil
}

func (a *Attic) folder(day, folder string) Dir { return Dir(filepath.Join(a.Dir, day, folder)) }

// Find gives the path of the file with this key that was removed from a folder at a time, or next
// after it; "" if there is none.
func (a *Attic) Find(folder, key string, at time.Time) (string, error) {
	days, err := a.days()
	if err != nil {
		return "", err
	}
	for _, day := range days {
		if day < at.UTC().Format(time.DateOnly) {
			continue
		}
		dir := a.folder(day, folder)
		if name, ok, err := dir.Find(key); err != nil || ok {
			return dir.Path(name), err
		}
	}
	return "", nil
}

// days are those of which there is mail, the oldest first. What else lies there is none of the
// attic's.
func (a *Attic) days() ([]string, error) {
	entries, err := os.ReadDir(a.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var days []string
	for _, e := range entries {
		if _, err := time.Parse(time.DateOnly, e.Name()); err == nil && e.IsDir() {
			days = append(days, e.Name())
		}
	}
	return days, err
}

// Prune removes what was kept for long enough, and of too much that which was removed first, and of a
// day's the oldest mail. No more is kept than is free beside it on the disk, either, and early is how
// many mails went for that alone. tight says that the disk is full. What this Attic was given itself stays.
func (a *Attic) Prune(tight bool) (early int, err error) {
	days, err := a.days()
	if err != nil || len(days) == 0 {
		return 0, err
	}
	first := a.Now().UTC().AddDate(0, 0, -a.Days).Format(time.DateOnly)
	for _, day := range days {
		if day < first || a.Days <= 0 {
			if err := os.RemoveAll(filepath.Join(a.Dir, day)); err != nil {
				return 0, err
			}
		}
	}
	mark := filepath.Join(a.Dir, unpruned)
	if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) && !tight {
		return 0, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	early, over, err := a.shrink()
	if err != nil || over { // then the next one goes on
		return early, err
	}
	if err := os.Remove(mark); !errors.Is(err, fs.ErrNotExist) {
		return early, err
	}
	return early, nil
}

// shrink removes the oldest of too much. over tells whether it is still too much.
func (a *Attic) shrink() (early int, over bool, err error) {
	type file struct {
		path string
		day  string
		sent time.Time
		size int64
	}
	days, err := a.days()
	if err != nil {
		return 0, false, err
	}
	var files []file
	var sum int64
	for _, day := range days {
		err := filepath.WalkDir(filepath.Join(a.Dir, day), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			files, sum = append(files, file{path, day, fi.ModTime(), fi.Size()}), sum+fi.Size()
			return nil
		})
		if err != nil {
			return 0, false, err
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		return cmp.Or(cmp.Compare(a.day, b.day), a.sent.Compare(b.sent), cmp.Compare(a.path, b.path))
	})
	most := a.Size
	var disk unix.Statfs_t
	if unix.Statfs(a.Dir, &disk) == nil {
		most = min(most, int64(float64(disk.Bavail)*float64(disk.Bsize))) // integers of each system's own kind
	}
	for _, f := range files {
		if sum <= most {
			break
		}
		if a.kept[f.path] {
			continue
		}
		if err := os.Remove(f.path); err != nil {
			return early, true, err
		}
		if sum <= a.Size {
			early++
		}
		sum -= f.size
	}
	return early, sum > most, nil
}
