package cmd

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/watch"
)

// How others ask a watch: over a socket, one line of JSON each way, and for a sync one
// more before it that says that it was heard.
type (
	watchQuestion struct {
		Sync []string `json:"sync,omitempty"` // accounts to be synchronised now; none: how it stands
	}
	watchAnswer struct {
		Heard    bool                     `json:"heard,omitempty"`
		Mute     bool                     `json:"-"` // it is there, and does not answer
		Since    time.Time                `json:"since,omitzero"`
		Accounts []watch.State            `json:"accounts,omitempty"`
		Outcomes map[string]watch.Outcome `json:"outcomes,omitempty"`
	}
)

const (
	watchHeard     = 3 * time.Second // a watch that does not say so is asked no more
	watchAskers    = 16              // at once
	watchLongest   = 64 << 10        // bytes of a question
	watchSaidUntil = 10 * time.Second
)

// errWatched says that another watch of this configuration is running.
var errWatched = errors.New("a watch of this configuration is running already")

// watchSocket is where a watch of this configuration listens; "" where there is no
// XDG_RUNTIME_DIR, and nobody listens.
func (p *program) watchSocket(conf string) string {
	dir := p.getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, name, watchName+"-"+configurationKey(conf))
}

// configurationKey is a configuration's file in a few letters.
func configurationKey(conf string) string {
	if abs, err := filepath.Abs(conf); err == nil {
		conf = abs
	}
	sum := sha256.Sum256([]byte(conf))
	return fmt.Sprintf("%x", sum[:6])
}

// lockWatch makes this process the watch of a configuration; errWatched if there is one. The
// lock goes with the process however that ends.
func (p *program) lockWatch(conf string) (*os.File, error) {
	dir, err := config.StateDir(p.getenv)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "."+watchName+"-"+configurationKey(conf)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := ledger.TryLock(lock); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errWatched
		}
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// watchRuns tells whether some process is the watch of the configuration.
func (p *program) watchRuns(conf string) bool {
	dir, err := config.StateDir(p.getenv)
	if err != nil {
		return false
	}
	lock, err := os.Open(filepath.Join(dir, "."+watchName+"-"+configurationKey(conf)))
	if err != nil {
		return false
	}
	defer lock.Close() //nolint:errcheck // which ends what it has of the lock
	return errors.Is(unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// door is where a watch is asked.
type door struct {
	since    time.Time
	listener net.Listener
	turns    chan struct{}
	wg       sync.WaitGroup

	mu sync.Mutex
	w  *watch.Watcher // nil while the configuration is read again
}

// openDoor listens at the socket of the one watch of the configuration; nil if path is "".
func openDoor(path string) (_ *door, err error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a nil door is asked by nobody
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := ownDir(dir); err != nil {
		return nil, err
	}
	if most := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return nil, fmt.Errorf("the name of its socket, %s, has %d bytes of at most %d: set XDG_RUNTIME_DIR to a directory with a shorter name", path, len(path), most)
	}
	// One that was killed left its socket.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, err
	}
	d := &door{since: time.Now(), listener: l, turns: make(chan struct{}, watchAskers)}
	return d, nil
}

// ownDir tells what is wrong with a directory in which others could put a socket of theirs.
func ownDir(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s is not a directory of yours alone (mode 0700)", dir)
	}
	return nil
}

// serve answers until the context ends, and closes the door.
func (d *door) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = d.listener.Close() }) // which takes the socket away
	defer stop()
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			break
		}
		d.turns <- struct{}{}
		d.wg.Go(func() {
			defer func() { <-d.turns }()
			defer conn.Close() //nolint:errcheck // whoever asked sees it
			d.answer(ctx, conn)
		})
	}
	d.wg.Wait()
}

// now says who is asked from now on.
func (d *door) now(w *watch.Watcher) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.w = w
}

// answer answers one question. Whoever hangs up waits for it no more; what was begun goes on.
func (d *door) answer(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetReadDeadline(time.Now().Add(watchSaidUntil)) // a connection that is broken shows at once
	r := bufio.NewReader(io.LimitReader(conn, watchLongest))
	line, err := r.ReadBytes('\n')
	if err != nil {
		return
	}
	var q watchQuestion
	if json.Unmarshal(line, &q) != nil {
		return
	}
	d.mu.Lock()
	w := d.w
	d.mu.Unlock()
	a := watchAnswer{Since: d.since}
	if w != nil {
		a.Accounts = w.States()
	}
	if len(q.Sync) > 0 && w != nil {
		if say(conn, watchAnswer{Heard: true}) != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Time{}) // as above
		go func() {
			_, _ = io.Copy(io.Discard, conn) // ends with the connection
			cancel()
		}()
		if a.Outcomes, err = w.Sync(ctx, q.Sync); err != nil {
			return
		}
	}
	_ = say(conn, a) // whoever asked may have gone
}

func say(conn net.Conn, v any) error {
	if err := conn.SetWriteDeadline(time.Now().Add(watchSaidUntil)); err != nil {
		return err
	}
	_, err := io.WriteString(conn, jsonLine(v)+"\n")
	return err
}

// askWatch asks the watch of the configuration, if one is running: ok is false if none is, or
// it does not say within a few seconds that it heard, which Mute says then. A context that
// ends later is its error.
func (p *program) askWatch(ctx context.Context, conf string, q watchQuestion) (a watchAnswer, ok bool, err error) {
	path := p.watchSocket(conf)
	if path == "" || ownDir(filepath.Dir(path)) != nil {
		return a, false, nil
	}
	conn, err := (&net.Dialer{Timeout: watchHeard}).DialContext(ctx, "unix", path)
	if err != nil {
		a.Mute = errors.Is(err, os.ErrDeadlineExceeded) // or nobody is there
		return a, false, nil
	}
	defer conn.Close() //nolint:errcheck // it was asked and has answered
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if say(conn, q) != nil || conn.SetReadDeadline(time.Now().Add(watchHeard)) != nil {
		return a, false, nil
	}
	answers := json.NewDecoder(conn)
	if err := answers.Decode(&a); err != nil {
		return watchAnswer{Mute: errors.Is(err, os.ErrDeadlineExceeded)}, false, nil
	}
	if a.Heard {
		_ = conn.SetReadDeadline(time.Time{}) // ctx ends it
		a = watchAnswer{}
		if err := answers.Decode(&a); err != nil {
			return a, ctx.Err() != nil, ctx.Err()
		}
	}
	return a, true, nil
}

// syncByWatch has a running watch synchronise the accounts, and gives those that are left, or,
// beside the context's error, those that it is not done with.
func (p *program) syncByWatch(ctx context.Context, conf string, accounts []config.Account, out *output) (left []config.Account, err error) {
	is := make([]bool, len(accounts))
	errs := make([]error, len(accounts))
	var wg sync.WaitGroup
	for i, a := range accounts {
		wg.Go(func() {
			var answer watchAnswer
			var ok bool
			if answer, ok, errs[i] = p.askWatch(ctx, conf, watchQuestion{Sync: []string{a.Name}}); !ok || errs[i] != nil {
				is[i] = true
				return
			}
			o, done := answer.Outcomes[a.Name]
			switch {
			case !done, o.Busy, o.Ended:
				is[i] = true
			case o.Text != "":
				out.account(a.Name, o.Text+"; the watch says more")
			}
		})
	}
	wg.Wait()
	err = errors.Join(errs...)
	for i, a := range accounts {
		if is[i] && (err == nil || errs[i] != nil) {
			left = append(left, a)
		}
	}
	return left, err
}
