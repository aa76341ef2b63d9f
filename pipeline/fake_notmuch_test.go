package pipeline

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// notmuch is the index as pipeline sees it: messages by id with files and tags,
// kept in one file so that it outlives a killed process.
type notmuch struct {
	mu   sync.Mutex
	path string
	fail error
	at   func(changes []mail.Change) error // may fail; nil: it does not
	uuid string                            // of the database
	// refuses is what a single change of flags gives, or of a stub's words.
	refuses error

	loaded sync.Mutex
	raw    []byte // of the file, as it was loaded or saved last
	db     map[string]*indexed
}

type indexed struct {
	Mod   uint64 // the revision at which it changed last
	Files []string
	Tags  []string
	Read  map[string]int // by key: how long the file was when it was read
	From  string
	About string // its subject
}

func (m *indexed) read(path string, raw []byte) {
	if m.Read == nil {
		m.Read = map[string]int{}
	}
	key, _ := maildir.ParseName(path)
	m.Read[key] = len(raw)
	h := mail.ParseHeader(raw, "From", "Subject")
	m.From, m.About = h.Get("From"), h.Get("Subject")
}

// load reads the database. What is done to the answer changes nothing before it is saved.
func (x *notmuch) load() (map[string]*indexed, error) {
	db := map[string]*indexed{}
	b, err := os.ReadFile(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return db, nil
	}
	if err != nil {
		return nil, err
	}
	x.loaded.Lock()
	defer x.loaded.Unlock()
	if !bytes.Equal(b, x.raw) { // it may be another process that has written it
		if err := json.Unmarshal(b, &db); err != nil {
			return nil, err
		}
		x.raw, x.db = b, db
	}
	return copyOf(x.db), nil
}

func copyOf(db map[string]*indexed) map[string]*indexed {
	out := make(map[string]*indexed, len(db))
	for id, m := range db {
		c := *m
		c.Files, c.Tags, c.Read = slices.Clone(m.Files), slices.Clone(m.Tags), maps.Clone(m.Read)
		out[id] = &c
	}
	return out
}

func (x *notmuch) Apply(_ context.Context, changes []mail.Change) ([]mail.Result, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at != nil {
		if err := x.at(changes); err != nil {
			return nil, err
		}
	}
	if x.fail != nil {
		return nil, x.fail
	}
	db, err := x.load()
	if err != nil {
		return nil, err
	}
	byFile := func(path string) (string, *indexed) {
		for id, m := range db {
			if slices.Contains(m.Files, path) {
				return id, m
			}
		}
		return "", nil
	}
	byKey := func(path string) (string, *indexed) {
		for id, m := range db {
			if slices.ContainsFunc(m.Files, sameKey(path)) {
				return id, m
			}
		}
		return "", nil
	}
	forget := func(path string) []string {
		id, m := byFile(path)
		if m == nil {
			return nil
		}
		m.Files = slices.DeleteFunc(m.Files, func(f string) bool { return f == path })
		if len(m.Files) == 0 {
			delete(db, id)
		}
		return m.Tags
	}
	retag := func(m *indexed, add, remove []string) {
		m.Tags = slices.DeleteFunc(append(m.Tags, add...), func(t string) bool { return slices.Contains(remove, t) })
		slices.Sort(m.Tags)
		m.Tags = slices.Compact(m.Tags)
	}
	was, err := x.load()
	if err != nil {
		return nil, err
	}
	settled := make(map[string]string) // by id: letters
	out := make([]mail.Result, len(changes))
	for i, c := range changes {
		switch c.Op {
		case mail.OpAdd, mail.OpReplace:
			raw, err := os.ReadFile(c.Path)
			if errors.Is(err, fs.ErrNotExist) {
				// As the real one: it was renamed since.
				dir := maildir.Dir(filepath.Dir(filepath.Dir(c.Path)))
				key, _ := maildir.ParseName(c.Path)
				if name, ok, e := dir.Find(key); ok && e == nil {
					_, was := maildir.ParseName(c.Path)
					_, is := maildir.ParseName(name)
					relettered := func(tag string) bool {
						return slices.ContainsFunc(plan.FlagRows(), func(row plan.FlagRow) bool {
							return row.Tag == tag && strings.Contains(was, row.Letter) != strings.Contains(is, row.Letter)
						})
					}
					c.Add, c.Remove = slices.DeleteFunc(slices.Clone(c.Add), relettered), slices.DeleteFunc(slices.Clone(c.Remove), relettered)
					c.Path = filepath.Join(string(dir), name)
					raw, err = os.ReadFile(c.Path)
				}
			}
			if err != nil {
				out[i] = mail.Result{Path: c.Path, Err: err}
				continue
			}
			id := notmuchID(raw)
			m, known := db[id]
			if !known {
				m = &indexed{}
				db[id] = m
				retag(m, c.New, nil)
			}
			own := m.own()
			if !slices.Contains(m.Files, c.Path) {
				m.Files = append(slices.DeleteFunc(m.Files, sameKey(c.Path)), c.Path)
			}
			m.read(c.Path, raw)
			if c.Op == mail.OpReplace {
				retag(m, forget(c.OldPath), nil)
			}
			isOwn := func(tag string) bool { return known && slices.Contains(own, tag) }
			retag(m, slices.DeleteFunc(slices.Clone(c.Add), isOwn), slices.DeleteFunc(slices.Clone(c.Remove), isOwn))
			out[i] = mail.Result{ID: id, Path: c.Path, Duplicate: known}
		case mail.OpReindex:
			raw, err := os.ReadFile(c.Path)
			if err != nil {
				return nil, err
			}
			if _, m := byKey(c.Path); m != nil {
				m.read(c.Path, raw)
			}
			out[i].Err = x.refuses
		case mail.OpFlag:
			if x.refuses != nil {
				out[i].Err = x.refuses
				continue
			}
			// As the real one: a path that the database has from before a
			// crash is found by its key.
			id, m := byKey(c.Path)
			if m == nil && db[c.ID] != nil { // by its id
				id, m = c.ID, db[c.ID]
				m.Files = append(m.Files, c.Path)
				if raw, err := os.ReadFile(c.Path); err == nil {
					m.read(c.Path, raw)
				}
			}
			if m == nil {
				out[i].Err = fs.ErrNotExist
				continue
			}
			retag(m, c.Add, c.Remove)
			settled[id] += c.Set + c.Clear
			if _, err := os.Stat(c.OldPath); err != nil {
				m.Files = slices.DeleteFunc(m.Files, func(f string) bool { return f == c.OldPath })
			}
			// As the real one: under the name that it has now.
			dir := maildir.Dir(filepath.Dir(filepath.Dir(c.Path)))
			key, _ := maildir.ParseName(c.Path)
			name, ok, err := dir.Find(key)
			if err != nil {
				return nil, err
			}
			if !ok {
				out[i] = mail.Result{Path: c.Path, ID: id, Err: fs.ErrNotExist}
				continue
			}
			c.Path = filepath.Join(string(dir), name)
			_, had := maildir.ParseName(name)
			to := filepath.Join(string(dir), maildir.WithFlags("cur/"+filepath.Base(name), c.Set, c.Clear))
			if _, has := maildir.ParseName(to); has == had {
				to = c.Path
			}
			if err := os.Rename(c.Path, to); err != nil {
				return nil, err
			}
			m.Files = append(slices.DeleteFunc(m.Files, sameKey(c.Path)), to)
			out[i] = mail.Result{ID: id, Path: to, From: m.From, Subject: m.About}
		case mail.OpRemove:
			// As the real one: under whatever name it has the file.
			same := sameKey(c.Path)
			m := db[c.ID]
			if m != nil && !slices.ContainsFunc(m.Files, same) {
				key, _ := maildir.ParseName(c.Path)
				same = func(other string) bool {
					k, _ := maildir.ParseName(other)
					_, err := os.Lstat(other)
					return k == key && errors.Is(err, fs.ErrNotExist)
				}
			}
			if m == nil || !slices.ContainsFunc(m.Files, same) && len(c.Add)+len(c.Remove) == 0 {
				_, m = byKey(c.Path)
			}
			if m == nil {
				continue
			}
			for _, f := range slices.Clone(m.Files) {
				if same(f) {
					forget(f)
				}
			}
			if len(m.Files) == 0 {
				out[i].Tags = append([]string{}, m.Tags...)
				continue
			}
			retag(m, c.Add, c.Remove)
		}
	}
	for id, m := range db {
		if old := was[id]; old == nil || settled[id] != "" || !slices.Equal(old.Files, m.Files) {
			m.asFiles(old, settled[id])
		}
	}
	return out, x.save(db)
}

// asFiles gives a message the tags of its files' letters, as the real one does: one that differed
// from the letters before stays, but for the letters that are settled.
func (m *indexed) asFiles(old *indexed, settled string) {
	is := m.letters()
	for _, row := range plan.FlagRows() {
		if row.Tag == "" {
			continue
		}
		has := slices.Contains(m.Tags, row.Tag)
		want := strings.Contains(is, row.Letter) != row.Absent
		own := old != nil && has != (strings.Contains(old.letters(), row.Letter) != row.Absent)
		if has == want || own && !strings.Contains(settled, row.Letter) {
			continue
		}
		m.Tags = slices.DeleteFunc(m.Tags, func(t string) bool { return t == row.Tag })
		if want {
			m.Tags = append(m.Tags, row.Tag)
			slices.Sort(m.Tags)
		}
	}
}

// tag is `notmuch tag`: it gives the letters of a message's tags to those of its files that are where
// it has them.
func (x *notmuch) tag(t *testing.T, id string, add, remove []string) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	db, err := x.load()
	m := db[id]
	if err != nil || m == nil {
		return // it does not know the message yet
	}
	m.Tags = slices.DeleteFunc(append(m.Tags, add...), func(tag string) bool { return slices.Contains(remove, tag) })
	slices.Sort(m.Tags)
	m.Tags = slices.Compact(m.Tags)
	set, clear := unwritten(m)
	for i, f := range m.Files {
		dir := filepath.Dir(filepath.Dir(f))
		to := filepath.Join(dir, maildir.WithFlags("cur/"+filepath.Base(f), set, clear))
		if err := os.Rename(f, to); err == nil {
			m.Files[i] = to
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if err := x.save(db); err != nil {
		t.Error(err)
	}
}

// own are the tags of flags that are not as the files' names have them.
func (m *indexed) own() (tags []string) {
	for _, row := range plan.FlagRows() {
		if row.Tag != "" && slices.Contains(m.Tags, row.Tag) != (strings.Contains(m.letters(), row.Letter) != row.Absent) {
			tags = append(tags, row.Tag)
		}
	}
	return tags
}

// letters are those of all files of a message, by the names that are known.
func (m *indexed) letters() (all string) {
	for _, f := range m.Files {
		_, letters := maildir.ParseName(f)
		all += letters
	}
	return all
}

// unwritten gives the letters that a message's tags want set and cleared in its files' names.
func unwritten(m *indexed) (set, clear string) {
	for _, row := range plan.FlagRows() {
		switch want := slices.Contains(m.Tags, row.Tag) != row.Absent; {
		case row.Tag == "" || want == strings.Contains(m.letters(), row.Letter):
		case want:
			set += row.Letter
		default:
			clear += row.Letter
		}
	}
	return set, clear
}

func (x *notmuch) Changes(_ context.Context, since mail.Revision, under string) (now mail.Revision, tagged []mail.Tagged, whole bool, err error) {
	db, err := x.load()
	if err != nil {
		return now, nil, false, err
	}
	now = mail.Revision{UUID: "db" + x.uuid, N: x.revision()}
	whole = since.UUID != now.UUID || since.N > now.N
	for id, m := range db {
		if !whole && m.Mod <= since.N {
			continue
		}
		inside := func(f string) bool { return strings.HasPrefix(f, under+"/") }
		t := mail.Tagged{ID: id, Tags: m.Tags, Others: slices.DeleteFunc(slices.Clone(m.Files), inside),
			Paths: slices.DeleteFunc(slices.Clone(m.Files), func(f string) bool { return !inside(f) })}
		if !whole {
			t.Set, t.Clear = unwritten(m)
		}
		if len(t.Paths) > 0 {
			tagged = append(tagged, t)
		}
	}
	return now, tagged, whole, nil
}

func (x *notmuch) Messages(_ context.Context, ids []string, under string) (map[string]mail.Tagged, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	db, err := x.load()
	out := make(map[string]mail.Tagged)
	for _, id := range ids {
		m, of := db[id], id
		for other, o := range db {
			if slices.Contains(o.Files, id) {
				m, of = o, other
			}
		}
		if m == nil {
			continue
		}
		t := mail.Tagged{ID: of, Tags: m.Tags, From: m.From, Subject: m.About}
		for _, f := range m.Files {
			if strings.HasPrefix(f, under+"/") {
				t.Paths = append(t.Paths, f)
			} else {
				t.Others = append(t.Others, f)
			}
		}
		out[id] = t
	}
	return out, err
}

func (x *notmuch) Stamped(context.Context, string) (now mail.Revision, of string, stamps []string, err error) {
	b, err := os.ReadFile(x.path + ".stamps")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if words := strings.Fields(string(b)); len(words) > 0 {
		of, stamps = words[0], words[1:]
	}
	return mail.Revision{UUID: "db" + x.uuid, N: x.revision()}, of, stamps, err
}

// another makes it a database of its own, which nobody has stamped.
func (x *notmuch) another() {
	x.uuid = "another"
	_ = os.Remove(x.path + ".stamps") // there may be none
}

func (x *notmuch) Stamp(_ context.Context, _ string, stamps ...string) (bool, error) {
	return true, os.WriteFile(x.path+".stamps", []byte("db"+x.uuid+" "+strings.Join(stamps, " ")), 0o600)
}

// revision counts the changes, and is kept apart: the last message to change may
// be gone.
func (x *notmuch) revision() (n uint64) {
	b, _ := os.ReadFile(x.path + ".revision")
	_, _ = fmt.Sscan(string(b), &n)
	return n
}

// notmuchID is the id that notmuch gives a mail.
func notmuchID(raw []byte) string {
	if id := mail.ParseEnvelope(raw).MessageID; id != "" {
		return id
	}
	return fmt.Sprintf("notmuch-sha1-%x", sha1.Sum(raw))
}

func (x *notmuch) save(db map[string]*indexed) error {
	old, err := x.load()
	if err != nil {
		return err
	}
	now := x.revision() + 1
	for id, m := range db {
		if o := old[id]; o == nil || !slices.Equal(o.Tags, m.Tags) || !slices.Equal(o.Files, m.Files) {
			m.Mod = now
		}
	}
	if err := os.WriteFile(x.path+".revision", []byte(fmt.Sprint(now)), 0o600); err != nil {
		return err
	}
	b, err := json.Marshal(db)
	if err != nil {
		return err
	}
	x.loaded.Lock()
	x.raw, x.db = b, copyOf(db)
	x.loaded.Unlock()
	if err := os.WriteFile(x.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(x.path+".new", x.path)
}

func sameKey(path string) func(string) bool {
	key, _ := maildir.ParseName(path)
	dir := filepath.Dir(filepath.Dir(path))
	return func(other string) bool {
		k, _ := maildir.ParseName(other)
		return k == key && filepath.Dir(filepath.Dir(other)) == dir
	}
}
