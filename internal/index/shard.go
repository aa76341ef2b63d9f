package index

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sync/errgroup"
)

// A database has one writer. So several are written at once, by a process each, and
// Xapian merges them. What makes one database of them:
//
//   - A message names the directories of its files by the numbers of their documents. So
//     there is a base, that has the documents of all directories, and every shard begins as a
//     copy of it; the copies are deleted in the end. The base comes first when they are merged, and
//     its first document has number 1, so that the numbers of all its documents stay. Those of
//     messages are named nowhere, and may change.
//   - A thread gets the next number of a counter, which begins at another place in each shard.
//   - Whatever refers to one another is in one shard (parts).
//
// Only libnotmuch writes documents. Xapian's own programs set the counter and merge.

// workshop is a directory with databases that are being made, and what they are made of:
//
//	seed/         a mail root in which a mail lies in each directory
//	N/, N.conf    the databases: base, new, and one for each shard
//	N.job         what goes into a shard
type workshop struct {
	dir     string
	root    string // where the mail is
	config  string // notmuch's, as text
	grove   *grove
	counted func(messages int)
	worker  func(ctx context.Context, dir, shard string) *exec.Cmd
}

const (
	baseName = "base"
	newName  = "new"
	seedName = "seed"
)

// job is what a shard's process is told, by encoding/gob: names of files need not be UTF-8, as
// JSON has to be.
type job struct {
	Directories []string // of the base, below the mail root, parents first
	Seeds       []string // the files of the base's mail
	Messages    []record
}

// open gives a database of the workshop whose mail is below root. It needs not be there yet.
func (w *workshop) open(shard, root string) (*Index, error) {
	x := openOwn(w.dir, shard, root)
	if strings.ContainsAny(x.own+root, "\r\n") {
		return nil, fmt.Errorf("%q cannot be named in notmuch's configuration", x.own)
	}
	text := w.config + "\n[database]\npath=" + keyFile(x.own) + "\nmail_root=" + keyFile(root) + "\n"
	return x, os.WriteFile(x.config, []byte(text), 0o600)
}

func openOwn(dir, shard, root string) *Index {
	own := filepath.Join(dir, shard)
	return &Index{turn: make(chan struct{}, 1), aside: make(chan struct{}, 1), own: own, base: own, path: xapianDir(own), config: own + ".conf", conf: configuration{mailRoot: root}}
}

// keyFile writes a value for GLib's key files.
func keyFile(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// withParents gives directories with all above them, parents first.
func withParents(dirs []string) (out []string) {
	for _, d := range dirs {
		for ; d != "."; d = filepath.Dir(d) {
			out = append(out, d)
		}
	}
	out = append(out, "")
	slices.Sort(out)
	return slices.Compact(out)
}

// makeBase makes the base, with the directories of these files.
func (w *workshop) makeBase(messages []record, stored []property) (j job, err error) {
	var dirs []string
	for _, m := range messages {
		for _, f := range m.Files {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	name := filepath.Base(w.dir)
	text := fmt.Sprintf("From: %[1]s\nSubject: %[1]s\nMessage-ID: <%[1]s@notmuch-imap.invalid>\n\n", name)
	seed := filepath.Join(w.dir, seedName)
	for _, d := range dirs {
		file := filepath.Join(d, name)
		if err := errors.Join(os.MkdirAll(filepath.Join(seed, d), 0o700), os.WriteFile(filepath.Join(seed, file), []byte(text), 0o600)); err != nil {
			return j, err
		}
		j.Seeds = append(j.Seeds, file)
	}
	j.Directories = withParents(dirs)
	base, err := w.open(baseName, seed)
	if err != nil {
		return j, err
	}
	if err := os.Mkdir(base.own, 0o700); err != nil {
		return j, err
	}
	if err := base.create(); err != nil {
		return j, err
	}
	base.path = xapianDir(base.own)
	return j, base.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		return atomically(db, func() error {
			for _, s := range j.Seeds {
				if err := indexFile(db, filepath.Join(seed, s), name+"@notmuch-imap.invalid"); err != nil {
					return err
				}
			}
			return storeConfig(db, stored)
		})
	})
}

// build makes a database of messages in n processes, below newName.
func (w *workshop) build(ctx context.Context, messages []record, stored []property, n int) (*Index, error) {
	j, err := w.makeBase(messages, stored)
	if err != nil {
		return nil, err
	}
	base := xapianDir(filepath.Join(w.dir, baseName))
	var shards []string
	for i, part := range w.grove.parts(messages, n) {
		shard := strconv.Itoa(i + 1)
		shards = append(shards, shard)
		x, err := w.open(shard, w.root)
		if err != nil {
			return nil, err
		}
		x.path = filepath.Join(x.own, filepath.Base(base))
		if err := os.CopyFS(x.path, os.DirFS(base)); err != nil {
			return nil, err
		}
		if err := countFrom(ctx, x.path, i+1); err != nil {
			return nil, err
		}
		j.Messages = part
		if err := j.write(x.own + ".job"); err != nil {
			return nil, err
		}
	}
	if err := countFrom(ctx, base, len(shards)+1); err != nil {
		return nil, err
	}
	all, working := errgroup.WithContext(ctx)
	for _, shard := range shards {
		all.Go(func() error { return w.run(working, shard) })
	}
	if err := all.Wait(); err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	x, err := w.open(newName, w.root)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(x.own, 0o700); err != nil {
		return nil, err
	}
	x.path = filepath.Join(x.own, filepath.Base(base))
	args := []string{base}
	for _, shard := range shards {
		args = append(args, filepath.Join(w.dir, shard, filepath.Base(base)))
	}
	if _, err := tool(ctx, "xapian-compact", append(args, x.path)...); err != nil {
		return nil, err
	}
	for _, name := range append(shards, baseName) {
		if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
			return nil, err
		}
	}
	return x, x.once(notmuch.DBReadWrite, func(db *notmuch.DB) error { return removeSeeds(db, w.root, j.Seeds) })
}

func removeSeeds(db *notmuch.DB, root string, seeds []string) error {
	return atomically(db, func() error {
		for _, s := range seeds {
			err := db.RemoveMessage(filepath.Join(root, s))
			if err != nil && !errors.Is(err, notmuch.ErrDuplicateMessageID) { // it has others
				return err
			}
		}
		return nil
	})
}

// countFrom has a database number its threads from the n-th of many ranges on.
func countFrom(ctx context.Context, path string, n int) error {
	const threads = 40 // bits; libnotmuch has 64
	_, err := tool(ctx, "xapian-metadata", "set", path, "last_thread_id", fmt.Sprintf("%016x", n<<threads))
	return err
}

// tool runs one of Xapian's programs, and gives what it says.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	said := beginning{most: maxSaid}
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%s is not there: install xapian-tools", name)
	case err != nil:
		words := oneLine(string(said.kept))
		return "", full(words, fmt.Errorf("%s: %w: %s", name, err, words))
	}
	return string(out), nil
}

func (j job) write(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	return errors.Join(gob.NewEncoder(b).Encode(j), b.Flush(), f.Close())
}

func readJob(path string) (j job, err error) {
	f, err := os.Open(path)
	if err != nil {
		return j, err
	}
	err = gob.NewDecoder(bufio.NewReader(f)).Decode(&j)
	return j, errors.Join(err, f.Close())
}

// run has a shard made by a process. That ends when its standard input does, so that it
// does not outlive this one.
func (w *workshop) run(ctx context.Context, shard string) (err error) {
	cmd := w.worker(ctx, w.dir, shard)
	said := beginning{most: maxSaid}
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // nothing is written
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			w.counted(n)
		}
	}
	if err := cmd.Wait(); err != nil {
		// Where libnotmuch crashes there are many lines, which are nobody's to read.
		words, _, _ := strings.Cut(strings.TrimSpace(string(said.kept)), "\n")
		if words = strings.TrimPrefix(words, "notmuch-imap: "); words == "" {
			return fmt.Errorf("a process that indexes was ended (%w): memory may be short", err)
		}
		return noRoom(w.dir, full(words, errors.New(words)))
	}
	return nil
}

// maxSaid is how much is kept of what another process says, in bytes.
const maxSaid = 4 << 10

// beginning keeps what is written first.
type beginning struct {
	most int
	kept []byte
}

func (b *beginning) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), b.most-len(b.kept))]...)
	return len(p), nil
}

// shardCommit is how many messages are one transaction, and told as one.
const shardCommit = 100

// BuildShard fills a shard of the workshop in dir. It is what a process of Rebuild's does: that
// ends when in ends, and tells out, a number a line, how many more messages it has indexed.
func BuildShard(ctx context.Context, dir, shard string, in io.Reader, out io.Writer) error {
	go func() { // ends with the process, at the latest
		_, _ = io.Copy(io.Discard, in) // however it ends
		os.Exit(1)                     // libnotmuch may be at one mail for minutes
	}()
	flushEarly()
	j, err := readJob(filepath.Join(dir, shard+".job"))
	if err != nil {
		return err
	}
	x := openOwn(dir, shard, "")
	breakOffPlainly(x.path)
	conf, err := x.probe()
	if err != nil {
		return err
	}
	root := filepath.Clean(conf.mailRoot)
	return x.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		for batch := range slices.Chunk(j.Messages, shardCommit) {
			err := atomically(db, func() error {
				for _, r := range batch {
					if err := ctx.Err(); err != nil {
						return err
					}
					// What has no file of this name any more is seen to when others have told
					// notmuch of it.
					if err := put(db, root, r); err != nil && !errors.Is(err, ErrStale) {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(out, len(batch)); err != nil {
				return err
			}
		}
		if err := removeSeeds(db, root, j.Seeds); err != nil {
			return err
		}
		return atomically(db, func() error {
			for _, d := range slices.Backward(j.Directories) {
				if err := deleteDirectory(db, filepath.Join(root, d)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// put makes a message of the database what r says. A message whose tags are on its ghost
// when its mail comes is written once.
func put(db *notmuch.DB, root string, r record) error {
	m, err := find(db.FindMessage(r.ID))
	if err != nil {
		return err
	}
	var have []string
	ghost := false
	if m != nil {
		if ghost, err = isGhost(db, m); err == nil && ghost {
			err = setRecord(m, r)
		} else if err == nil {
			have, err = filesOf(m)
		}
		if err := errors.Join(err, m.Close()); err != nil {
			return err
		}
	}
	var want []string
	for _, file := range r.Files {
		path := filepath.Join(root, file)
		want = append(want, path)
		if slices.Contains(have, path) {
			continue
		}
		if err := indexFile(db, path, r.ID); err != nil {
			if ghost && len(want) == 1 {
				err = errors.Join(err, update(db, r.ID, func(m *notmuch.Message) error { return setRecord(m, record{}) }))
			}
			return err
		}
	}
	for _, path := range without(have, want) {
		if err := db.RemoveMessage(path); err != nil && !errors.Is(err, notmuch.ErrDuplicateMessageID) {
			return err
		}
	}
	if len(want) == 0 {
		return nil
	}
	return update(db, r.ID, func(m *notmuch.Message) error {
		// Words that only their key makes readable are indexed when it is there.
		keyed := len(have) == 0 && slices.ContainsFunc(r.Properties, func(p property) bool { return p.Key == sessionKey })
		if err := setRecord(m, r); err != nil || !keyed {
			return err
		}
		return reindexed(db, m)
	})
}

// update lets f at the message with this id.
func update(db *notmuch.DB, id string, f func(*notmuch.Message) error) error {
	found, err := lookUp(db, id, f)
	if err == nil && !found {
		err = fmt.Errorf("the message id:%s is not found again", id)
	}
	return err
}
