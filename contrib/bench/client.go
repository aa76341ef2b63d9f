//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// usage is what a sync took.
type usage struct {
	Wall    time.Duration
	CPU     time.Duration // user and system
	RSS     int64         // peak, octets; of several programs, the largest
	steps   []time.Duration
	first   time.Duration // until notmuch knew a mail; 0 if not looked for
	flights int           // through a proxy
	conns   int
}

func wall(u usage) float64  { return u.Wall.Seconds() }
func cpu(u usage) float64   { return u.CPU.Seconds() }
func rss(u usage) float64   { return float64(u.RSS) / (1 << 20) }
func first(u usage) float64 { return u.first.Seconds() }

// step gives the i-th program's share of wall.
func step(i int) func(usage) float64 {
	return func(u usage) float64 { return u.steps[i].Seconds() }
}

// client is a mail root with its index and the programs that fill them.
type client struct {
	name  string
	dir   string
	env   []string
	steps [][]string // one sync is these commands, in order
	// point makes the client use this host:port.
	point func(addr string) error
}

func (b *bench) newClient(name string) (*client, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	mail, config := filepath.Join(dir, "Mail"), filepath.Join(dir, "notmuch-config")
	c := &client{name: name, dir: dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_STATE_HOME=" + filepath.Join(dir, "state"), "LC_ALL=C.UTF-8",
		"NOTMUCH_CONFIG=" + config, "NOTMUCH_IMAP_CONFIG=" + filepath.Join(dir, "config.toml"),
	}}
	text := "[database]\npath=" + mail + "\n[user]\nname=Bench\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\n"
	return c, errors.Join(os.Mkdir(mail, 0o700), os.WriteFile(config, []byte(text), 0o600))
}

// clients makes one of each, all anew: ours first, unless it is not measured.
func (b *bench) clients(s *imaptest.DovecotServer) ([]*client, error) {
	theirs, err := b.mbsync(s, "")
	if err != nil || b.binary == "" {
		return []*client{theirs}, err
	}
	ours, err := b.notmuchImap(s)
	return []*client{ours, theirs}, err
}

const (
	ourName   = "notmuch-imap"
	theirName = "mbsync"
)

// notmuchImap is the program with its defaults.
func (b *bench) notmuchImap(s *imaptest.DovecotServer) (*client, error) {
	c, err := b.newClient(ourName)
	if err != nil {
		return nil, err
	}
	password := filepath.Join(c.dir, "password")
	if err := os.WriteFile(password, []byte(s.Password+"\n"), 0o600); err != nil {
		return nil, err
	}
	c.steps = [][]string{{b.binary, "sync", "--quiet"}}
	c.point = func(addr string) error {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("[account.bench]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = %q\n", host, port, s.User, password)
		return os.WriteFile(filepath.Join(c.dir, "config.toml"), []byte(text), 0o600)
	}
	return c, c.point(s.Addr())
}

// mbsync is mbsync with what its manual page proposes, and `notmuch new` after
// it. extra are lines for the top of its configuration.
func (b *bench) mbsync(s *imaptest.DovecotServer, extra string) (*client, error) {
	c, err := b.newClient(theirName)
	if err != nil {
		return nil, err
	}
	rc := filepath.Join(c.dir, "mbsyncrc")
	c.steps = [][]string{{"mbsync", "-c", rc, "-a", "-q"}, {"notmuch", "new", "--quiet"}}
	c.point = func(addr string) error {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		mail := filepath.Join(c.dir, "Mail")
		text := extra + fmt.Sprintf(`IMAPStore remote
Host %s
Port %s
User %s
Pass %s
SSLType None
AuthMechs LOGIN

MaildirStore local
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel bench
Far :remote:
Near :local:
Patterns *
Create Near
Expunge Near
SyncState *
`, host, port, s.User, s.Password, mail, mail)
		return os.WriteFile(rc, []byte(text), 0o600)
	}
	return c, c.point(s.Addr())
}

// remove deletes what the client has written.
func (c *client) remove() error { return os.RemoveAll(c.dir) }

// sync runs the client's commands once.
func (c *client) sync(ctx context.Context) (usage, error) {
	var all usage
	for _, words := range c.steps {
		u, err := c.measure(ctx, words)
		if err != nil {
			return all, fmt.Errorf("%s: %w", strings.Join(words, " "), err)
		}
		all.Wall += u.Wall
		all.CPU += u.CPU
		all.RSS = max(all.RSS, u.RSS)
		all.steps = append(all.steps, u.Wall)
	}
	return all, nil
}

// measureArgument makes this program the parent of a command that is measured.
//
// Linux counts as a process's peak what its parent had resident when it forked,
// because the child begins in the parent's memory. This program holds mails of
// hundreds of megabytes, so a copy of it that holds nothing does the forking.
const measureArgument = "measure-one-command"

func (c *client) measure(ctx context.Context, words []string) (usage, error) {
	var u usage
	self, err := os.Executable()
	if err != nil {
		return u, err
	}
	result := filepath.Join(c.dir, "usage.json")
	cmd := exec.CommandContext(ctx, self, append([]string{measureArgument, result}, words...)...)
	cmd.Env = c.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the command is ended with its parent
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return u, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	text, err := os.ReadFile(result)
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal(text, &u)
}

// measureChild runs a command, writes its usage to a file and gives its exit
// status.
func measureChild(result string, words []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if cmd.ProcessState == nil {
		return fail(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return fail(errors.New("no resource usage"))
	}
	text, err := json.Marshal(usage{
		Wall: took, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), RSS: r.Maxrss << 10, // getrusage(2) has kilobytes
	})
	if err != nil {
		return fail(err)
	}
	if err := os.WriteFile(result, text, 0o600); err != nil {
		return fail(err)
	}
	return 0
}

// count asks notmuch; a database that is not there yet has no mail.
func (c *client) count(ctx context.Context, query string) (int, error) {
	if _, err := os.Stat(filepath.Join(c.dir, "Mail", ".notmuch")); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	cmd := exec.CommandContext(ctx, "notmuch", "count", query)
	cmd.Env = c.env
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("notmuch count: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

// pollEvery is how exactly the first searchable mail is seen.
const pollEvery = 50 * time.Millisecond

// firstMail waits until notmuch finds a mail and gives the time since start; 0
// if ctx ends before. A database that is just being made may refuse to open.
func (c *client) firstMail(ctx context.Context, start time.Time) time.Duration {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		if n, err := c.count(ctx, "*"); err == nil && n > 0 {
			return time.Since(start)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return 0
		}
	}
}

// expect fails unless notmuch knows as many mails as it should: a fast program
// that leaves mail behind is not fast.
func (c *client) expect(ctx context.Context, query string, want int) error {
	got, err := c.count(ctx, query)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s: notmuch count '%s' is %d, want %d", c.name, query, got, want)
	}
	return nil
}
