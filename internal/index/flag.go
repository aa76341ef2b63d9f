package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// flag changes tags and the file's name.
func (b *batch) flag(c mail.Change) (r mail.Result, err error) {
	r.Path = c.Path
	m, err := b.flagged(c)
	if err != nil {
		return r, err
	}
	if m == nil {
		if b.shadow != nil {
			return r, errLater
		}
		// notmuch does not know it (it is no mail, or was taken away): the name
		// alone changes.
		r.Path, err = reletter(c.Path, nil, c.Set, c.Clear)
		return r, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	r.ID, r.From, r.Subject = m.ID(), m.Header("from"), m.Header("subject")
	have, files, err := b.stateOf(m)
	if err != nil {
		return r, err
	}
	path, gone := locate(c.Path, files)
	if gone != nil {
		want := b.asFiles(with(have, c.Add, c.Remove), files, files, c.Set+c.Clear)
		if err := b.retagAlone(r.ID, without(want, have), without(have, want)); err != nil {
			return r, err
		}
		return r, gone
	}
	// What its reader did by renaming the file comes first, then the server's
	// change.
	to := withLetters(path, c.Set, c.Clear)
	was := func(f string) bool { return sameFile(f, to) || f == c.OldPath && !exists(f) }
	after := append(slices.DeleteFunc(slices.Clone(files), was), to)
	want := b.asFiles(with(have, c.Add, c.Remove), files, after, c.Set+c.Clear)
	add, remove := without(want, have), without(have, want)

	if b.shadow != nil && (len(files) != 1 || files[0] != to && !followable(files[0], to, want)) {
		return r, errLater
	}
	if r.Path, err = reletter(path, files, c.Set, c.Clear); err != nil {
		return r, err
	}
	if b.shadow != nil && files[0] != r.Path {
		return r, b.follow(m, files[0], r.Path, add, remove)
	}
	if err := b.retagAlone(r.ID, add, remove); err != nil {
		return r, err
	}
	if !slices.Contains(files, r.Path) {
		again, err := b.db.AddMessage(r.Path)
		if err != nil && !errors.Is(err, notmuch.ErrDuplicateMessageID) {
			return r, err
		}
		runtime.SetFinalizer(again, nil)
		if err := again.Close(); err != nil {
			return r, err
		}
	}
	if slices.Contains(files, c.OldPath) && !exists(c.OldPath) {
		if err := b.forget(c.OldPath); err != nil {
			return r, err
		}
		files = without(files, []string{c.OldPath})
	}
	return r, b.forgetOldNames(files, r.Path)
}

// retagAlone changes the tags of a message and nothing else of it. Of the document
// that it read last Xapian writes only what changed, in place of all words with
// their places, which saves a quarter of the time; so it must be read anew after
// its files were looked for.
func (b *batch) retagAlone(id string, add, remove []string) error {
	if len(add)+len(remove) == 0 {
		return nil
	}
	m, err := find(b.db.FindMessage(id))
	if m == nil || err != nil {
		return err
	}
	return errors.Join(retag(m, add, remove), m.Close())
}

// flagged finds the message of a change by its id, else by its file.
func (b *batch) flagged(c mail.Change) (*notmuch.Message, error) {
	if c.ID != "" {
		m, err := find(b.db.FindMessage(c.ID))
		if m != nil || err != nil {
			return m, err
		}
	}
	m, _, err := b.byFile(c.Path)
	return m, err
}

// forgetOldNames takes those names out of the database that the file path had
// before.
func (b *batch) forgetOldNames(files []string, path string) error {
	left := withoutOldNames(files, path)
	for _, f := range files {
		if !slices.Contains(left, f) {
			if err := b.forget(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutOldNames gives files less those names that the file path had before.
func withoutOldNames(files []string, path string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return f != path && sameFile(f, path) && !exists(f) })
}

// letterRow is a line of libnotmuch's own mapping between letters and tags
// (flag2tag in lib/message.cc), in the order of ASCII.
type letterRow struct {
	letter string
	tag    string
	absent bool // the tag stands for the letter's absence
}

func letterRows() []letterRow {
	return []letterRow{{"D", "draft", false}, {"F", "flagged", false}, {"P", "passed", false}, {"R", "replied", false}, {"S", "unread", true}}
}

// letterTags gives what a file's letters say of its message, if notmuch is to
// mind them. That it is unread is not said: another file's S overrules it.
func (b *batch) letterTags(path string) (add, remove []string) {
	if !b.syncFlags || !inMaildir(path) {
		return nil, nil
	}
	for _, row := range letterRows() {
		switch {
		case !strings.Contains(lettersOf(path), row.letter):
		case row.absent:
			remove = append(remove, row.tag)
		default:
			add = append(add, row.tag)
		}
	}
	return add, remove
}

// relettered gives the tags of the letters that one name of a file has and the other has not: its
// owner has changed these flags since they were read from the name.
func (b *batch) relettered(was, is string) (tags []string) {
	for _, row := range letterRows() {
		if b.syncFlags && strings.Contains(lettersOf(was), row.letter) != strings.Contains(lettersOf(is), row.letter) {
			tags = append(tags, row.tag)
		}
	}
	return tags
}

// asFiles gives the tags of a message whose files the database knew as before, and
// knows as after: those of flags are what `notmuch new` makes of the names
// (notmuch_message_maildir_flags_to_tags), to which a flag that any of the files has
// counts. Every change ends here, so that no file comes, goes, or is renamed and
// leaves a tag behind. A tag that differed from the names is of a user whom notmuch
// could not follow, as where a file was renamed by hand: it stays, but for the letters
// that are settled.
func (b *batch) asFiles(tags, before, after []string, settled string) []string {
	if !b.syncFlags {
		return tags
	}
	is, says := lettersOfAll(after)
	if !says {
		return tags
	}
	own := b.ownTags(tags, before)
	for _, row := range letterRows() {
		switch {
		case slices.Contains(own, row.tag) && !strings.Contains(settled, row.letter):
		case strings.Contains(is, row.letter) != row.absent:
			tags = with(tags, []string{row.tag}, nil)
		default:
			tags = without(tags, []string{row.tag})
		}
	}
	return tags
}

// ownTags gives the tags of flags of which a message's tags say something else than its files'
// names: notmuch could not write that into them.
func (b *batch) ownTags(tags, files []string) (own []string) {
	letters, says := lettersOfAll(files)
	for _, row := range letterRows() {
		if b.syncFlags && says && slices.Contains(tags, row.tag) != (strings.Contains(letters, row.letter) != row.absent) {
			own = append(own, row.tag)
		}
	}
	return own
}

// unwritten gives the letters that tags want set and cleared in the names of files: notmuch could
// not do it, since one was not where the database had it, or its folder could not be written to.
func unwritten(tags, files []string) (set, clear string) {
	letters, says := lettersOfAll(files)
	if !says {
		return "", ""
	}
	for _, row := range letterRows() {
		switch has := strings.Contains(letters, row.letter); {
		case has == (slices.Contains(tags, row.tag) != row.absent):
		case has:
			clear += row.letter
		default:
			set += row.letter
		}
	}
	return set, clear
}

// lettersOfAll gives the letters of a message's files; says is false if none of them
// has a name that notmuch takes for a statement.
func lettersOfAll(files []string) (letters string, says bool) {
	for _, f := range files {
		if hasInfo(f) {
			letters, says = letters+lettersOf(f), true
		}
	}
	return letters, says
}

// lettersAfter gives the letters that TagsToMaildirFlags would give a file for
// these tags: those that stand for no tag stay.
func lettersAfter(path string, tags []string) string {
	letters := lettersOf(path)
	for _, row := range letterRows() {
		letters = strings.ReplaceAll(letters, row.letter, "")
		if slices.Contains(tags, row.tag) != row.absent {
			letters += row.letter
		}
	}
	b := []byte(letters)
	slices.Sort(b)
	return string(b)
}

// A file's name is its key, and the letters of its flags behind ":2,"
// (https://cr.yp.to/proto/maildir.html).

func keyOf(path string) string {
	key, _, _ := strings.Cut(filepath.Base(path), ":2,")
	return key
}

func lettersOf(path string) string {
	_, letters, _ := strings.Cut(filepath.Base(path), ":2,")
	return letters
}

func inMaildir(path string) bool {
	sub := filepath.Base(filepath.Dir(path))
	return sub == "cur" || sub == "new"
}

// hasInfo tells whether notmuch takes the lack of a letter in a file's name for
// a statement: a file in new is known to have none.
func hasInfo(path string) bool {
	return inMaildir(path) && (strings.Contains(filepath.Base(path), ":2,") || filepath.Base(filepath.Dir(path)) == "new")
}

// sameFile tells whether two paths are names of one file at different times:
// flags change the name, and with them it goes from new to cur.
func sameFile(a, b string) bool {
	return filepath.Dir(filepath.Dir(a)) == filepath.Dir(filepath.Dir(b)) && keyOf(a) == keyOf(b)
}

// withLetters gives the path of a file with some letters more and some less.
// One that has what is wanted stays as it is, also in new.
func withLetters(path, set, clear string) string {
	letters := []byte(strings.Map(func(r rune) rune {
		if strings.ContainsRune(clear, r) {
			return -1
		}
		return r
	}, lettersOf(path)) + set)
	slices.Sort(letters)
	letters = slices.Compact(letters)
	if !inMaildir(path) || string(letters) == lettersOf(path) {
		return path
	}
	return filepath.Join(filepath.Dir(filepath.Dir(path)), "cur", keyOf(path)+":2,"+string(letters))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// locate gives the path under which a file is now: a mail reader may have
// renamed it since. names are those that the database has for its message; they
// spare reading the directories.
func locate(path string, names []string) (string, error) {
	_, err := os.Lstat(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	for _, name := range names {
		if sameFile(name, path) && exists(name) {
			return name, nil
		}
	}
	dir, key := filepath.Dir(filepath.Dir(path)), keyOf(path)
	for _, sub := range []string{"new", "cur"} { // the way that files go
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
		for _, e := range entries {
			if keyOf(e.Name()) == key {
				return filepath.Join(dir, sub, e.Name()), nil
			}
		}
	}
	return path, &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
}

// reletter renames a file, wherever it is by now, and gives its path. What
// stands at the new name already stays.
func reletter(path string, names []string, set, clear string) (string, error) {
	var err error
	for range 3 { // a mail reader may rename it at the same moment
		if path, err = locate(path, names); err != nil {
			return path, err
		}
		to := withLetters(path, set, clear)
		if to == path {
			return path, nil
		}
		if err = rename(path, to); err == nil {
			return to, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return path, err
}

// lookAndRename is rename where no call does both. Names are unique, so that a
// look before is enough; a link would double the mail if it ended there.
func lookAndRename(from, to string) error {
	if exists(to) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}
