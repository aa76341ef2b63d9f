package cmd

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// machine is one user's machine whose system calls can be made to fail, and the
// server that it synchronises with.
type machine struct {
	t      testing.TB
	dir    string
	server *imaptest.Server
	env    []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	otherPrograms(t)
	server, err := imaptest.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	m := &machine{t: t, dir: ledgertest.Dir(t), server: server}
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"bin", "mail", "tmp"} {
		if err := os.Mkdir(filepath.Join(m.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(me, filepath.Join(m.dir, "bin", name)); err != nil {
		t.Fatal(err)
	}
	write("ca.pem", string(server.Certificate.PEM))
	write("secret", imaptest.Password+"\n")
	write("notmuch", "[database]\npath="+m.dir+"/mail\n[user]\nname=Me\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\n")
	write("config.toml", fmt.Sprintf("[account.work]\nhost = %q\nport = %d\ntls_ca_file = \"ca.pem\"\nuser = %q\npassword_file = \"secret\"\ndeletions = \"expunge\"\ntimeout = \"5s\"\n",
		server.Host(), server.Port(), imaptest.User))
	m.env = []string{"HOME=" + m.dir, "PATH=" + m.dir + "/bin:" + os.Getenv("PATH"), "TMPDIR=" + m.dir + "/tmp", "NOTMUCH_CONFIG=" + m.dir + "/notmuch",
		"NOTMUCH_IMAP_CONFIG=" + m.dir + "/config.toml", "XDG_STATE_HOME=" + m.dir + "/state", "GORACE=atexit_sleep_ms=0", "SSL_CERT_FILE=" + m.dir + "/ca.pem", "SSL_CERT_DIR=/nonexistent"}
	return m
}

// run runs a command and gives its output and exit status.
func (m *machine) run(args ...string) (out string, status int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), tooLong)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Dir = m.env, m.dir
	b, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return string(b), exit.ExitCode()
	}
	if err != nil {
		m.t.Fatalf("%v: %v: %s", args, err, b)
	}
	return string(b), 0
}

// sync synchronises without a fault until nothing is left to do.
func (m *machine) sync() {
	m.t.Helper()
	var out string
	for range 4 {
		var status int
		out, status = m.run(name, "sync")
		if status == 0 && strings.Contains(out, nothingNew) {
			return
		}
		if status != 0 {
			m.t.Fatalf("sync: status %d: %s", status, out)
		}
	}
	m.t.Fatalf("sync after sync finds something to do; the last said\n%s", out)
}

// client is another program's connection to the server.
func (m *machine) client() *imapclient.Client {
	m.t.Helper()
	c, err := imapclient.DialTLS(fmt.Sprintf("%s:%d", m.server.Host(), m.server.Port()), &imapclient.Options{TLSConfig: &tls.Config{RootCAs: m.server.Certificate.Pool(), MinVersion: tls.VersionTLS12}})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := c.Login(imaptest.User, imaptest.Password).Wait(); err != nil {
		m.t.Fatal(err)
	}
	return c
}

func ownMail(n int) []byte {
	return fmt.Appendf(nil, "From: ann@example.org\r\nTo: me@example.org\r\nSubject: number %d\r\nMessage-ID: <%d@own.example>\r\nDate: Sun, 01 Nov 2026 10:00:00 +0000\r\n\r\n%s\r\n",
		n, n, strings.Repeat(fmt.Sprintf("word%d ", n), 40))
}

func (m *machine) deliver(mailbox string, numbers ...int) {
	m.t.Helper()
	for _, n := range numbers {
		if _, err := m.server.Append(mailbox, ownMail(n), time.Date(2026, 11, 1, 10, 0, n, 0, time.UTC)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// begin is a server with some mail in two mailboxes, and a notmuch database:
// that libnotmuch ends the process where it cannot make one is its own doing.
func (m *machine) begin() {
	m.t.Helper()
	if out, status := m.run("notmuch", "new"); status != 0 {
		m.t.Fatal(out)
	}
	c := m.client()
	if err := c.Create("Work", nil).Wait(); err != nil {
		m.t.Fatal(err)
	}
	if err := errors.Join(c.Logout().Wait(), c.Close()); err != nil {
		m.t.Fatal(err)
	}
	m.deliver("INBOX", 1, 2, 3, 4, 5, 6)
	m.deliver("Work", 7, 8)
}

// edit changes things on both sides, each kind once.
func (m *machine) edit() {
	m.t.Helper()
	c := m.client()
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		m.t.Fatal(err)
	}
	store := func(uid imap.UID, flag imap.Flag) {
		if err := c.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{flag}, Silent: true}, nil).Close(); err != nil {
			m.t.Fatal(err)
		}
	}
	store(1, imap.FlagFlagged)
	store(2, imap.FlagDeleted)
	if err := errors.Join(c.Expunge().Close(), c.Logout().Wait(), c.Close()); err != nil {
		m.t.Fatal(err)
	}
	m.deliver("INBOX", 9)
	m.deliver("Work", 10)
	m.move(3, "INBOX", "INBOX", "S")
	m.move(4, "INBOX", "Work", "")
	m.move(5, "INBOX", "", "")
	file := filepath.Join(m.dir, "mail", "work", "Work", "new", "1000.mine.host")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(ownMail(11)), "\r\n", "\n")), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if out, status := m.run("notmuch", "tag", "+flagged", "id:7@own.example"); status != 0 {
		m.t.Fatal(out)
	}
}

// move gives the file of a mail another place or other letters; to "" removes it.
func (m *machine) move(n int, from, to, letters string) {
	m.t.Helper()
	for _, sub := range []string{"new", "cur"} {
		files, err := filepath.Glob(filepath.Join(m.dir, "mail", "work", from, sub, "*"))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				m.t.Fatal(err)
			}
			if !strings.Contains(string(text), fmt.Sprintf("<%d@own.example>", n)) {
				continue
			}
			if to == "" {
				err = os.Remove(f)
			} else {
				key, _ := maildir.ParseName(filepath.Base(f))
				err = os.Rename(f, filepath.Join(m.dir, "mail", "work", to, "cur", key+":2,"+letters))
			}
			if err != nil {
				m.t.Fatal(err)
			}
			return
		}
	}
	m.t.Fatalf("there is no mail %d in %s", n, from)
}

// state is all that there is, on both sides and in notmuch, without what may
// differ from one run to another.
func (m *machine) state() string {
	m.t.Helper()
	var out []string
	c := m.client()
	defer c.Close()
	for _, box := range []string{"INBOX", "Work"} {
		sel, err := c.Select(box, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			m.t.Fatal(err)
		}
		if sel.NumMessages == 0 {
			continue
		}
		all, err := c.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{Flags: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}}).Collect()
		if err != nil {
			m.t.Fatal(err)
		}
		for _, msg := range all {
			flags := slices.DeleteFunc(msg.Flags, func(f imap.Flag) bool { return f == `\Recent` })
			slices.Sort(flags)
			raw := strings.ReplaceAll(string(msg.BodySection[0].Bytes), "\r\n", "\n")
			out = append(out, fmt.Sprintf("there %s %s %x", box, flags, sha256.Sum256([]byte(raw))))
		}
	}
	root := filepath.Join(m.dir, "mail", "work")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(filepath.Dir(path)) == "tmp" {
			return err // what a run left in tmp, the next that looks into the mailbox removes
		}
		raw, err := os.ReadFile(path)
		_, letters := maildir.ParseName(path)
		out = append(out, fmt.Sprintf("here %s %s %x", filepath.Base(filepath.Dir(filepath.Dir(path))), letters, sha256.Sum256(raw)))
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	dump, status := m.run("notmuch", "dump", "--include=properties", "--include=tags")
	if status != 0 {
		m.t.Fatal(dump)
	}
	count, _ := m.run("notmuch", "count", "--output=files", "*")
	out = append(append(out, strings.Split(dump, "\n")...), "files "+count)
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// Every kind of system call that touches a file is made to fail, with the errors
// that it has in life, at many places of a first sync and of one in both
// directions. strace does that to the real program with the real SQLite, libnotmuch and
// Xapian: nothing in the product knows of it. After each fault the status is not
// 0, or else the fault cost nothing; and the next run ends where a run without a
// fault ends.
func TestAnErrorOfThisMachineIsNoSuccess(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	faults := []struct {
		call   string
		errors []string
		first  int // by the calls before it the program is only loaded
	}{
		{"openat", []string{"EMFILE", "EACCES", "ENOSPC", "EIO"}, 24},
		{"pwrite64", []string{"ENOSPC", "EIO"}, 1},
		{"write", []string{"ENOSPC", "EIO"}, 1},
		{"fsync,fdatasync", []string{"EIO", "ENOSPC"}, 1},
		{"renameat2,renameat,rename", []string{"EACCES", "ENOSPC"}, 1},
		{"mkdirat,mkdir", []string{"ENOSPC", "EROFS"}, 1},
		{"unlinkat,unlink", []string{"EACCES", "EIO"}, 1},
		{"ftruncate", []string{"EIO"}, 1},
		{"utimensat", []string{"EROFS"}, 1},
		{"newfstatat,statx", []string{"EIO", "EACCES"}, 8},
		{"getdents64", []string{"EIO"}, 1},
		{"pread64", []string{"EIO"}, 3},
	}
	scenarios := map[string]func(*machine){
		"first": (*machine).begin,
		"both": func(m *machine) {
			m.begin()
			if out, status := m.run(name, "sync"); status != 0 {
				m.t.Fatalf("sync: status %d: %s", status, out)
			}
			m.edit()
		},
	}
	var mu sync.Mutex
	met := make(map[string]int) // faults that were really met, by call
	t.Run("all", func(t *testing.T) {
		for scenario, prepare := range scenarios {
			whole := newMachine(t)
			prepare(whole)
			whole.sync()
			want := whole.state()
			for _, f := range faults {
				t.Run(scenario+" "+f.call, func(t *testing.T) {
					t.Parallel()
					// Each thread counts for itself, so that one number stands for
					// several calls, and a number that no thread reaches for the end.
					for at, missed := f.first, 0; missed < 2 && at < 400; at += share.Pace() * (1 + at/2) {
						m := newMachine(t)
						prepare(m)
						log := filepath.Join(m.dir, "strace")
						errno := f.errors[at%len(f.errors)]
						out, status := m.run("strace", "-f", "--seccomp-bpf", "-qq", "-o", log, "-e", "trace="+f.call, "-e", "signal=none",
							"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", f.call, errno, at), filepath.Join(m.dir, "bin", name), "sync")
						text, err := os.ReadFile(log)
						if err != nil {
							t.Fatal(err)
						}
						hits := regexp.MustCompile(`(?m)^.*\(INJECTED\)`).FindAllString(string(text), -1)
						if len(hits) == 0 {
							missed++
							continue
						}
						missed = 0
						state := m.state
						if strings.Contains(strings.Join(hits, " "), `"\27\3\3`) { // a record of TLS
							// A connection that is lost again and again is no error of this machine: mail
							// may come by another road then, and is tagged so.
							state = func() string { return strings.ReplaceAll(m.state(), "+fetch-salvaged ", "") }
						}
						if strings.HasPrefix(f.call, "newfstatat") && strings.Contains(strings.Join(hits, " "), ".glass") {
							// libnotmuch 0.37 takes a database for a new one, and empties it, where
							// it cannot stat its tables: `notmuch tag` does that, too.
							continue
						}
						mu.Lock()
						met[f.call] += len(hits)
						mu.Unlock()
						// Go's own poller ends the process if it cannot wake itself.
						if strings.Contains(out, "goroutine ") && !strings.Contains(out, "netpollBreak write failed") {
							t.Errorf("%s at %d: a stack trace: %s", errno, at, out)
						}
						if status == 0 {
							if got := state(); got != want {
								t.Errorf("%s at %d passed for success (%s):\n%s\nis not\n%s\nafter\n%s", errno, at, hits, got, want, out)
							}
						}
						m.sync()
						if got := state(); got != want {
							t.Errorf("after %s at %d (%s), status %d, the next run ends in\n%s\nnot in\n%s\nthe first said\n%s", errno, at, hits, status, got, want, out)
						}
					}
				})
			}
		}
	})
	total := 0
	for _, n := range met {
		total += n
	}
	t.Logf("%d faults: %v", total, met)
	if total*share.Pace() < 100 {
		t.Errorf("only %d faults were met: %v", total, met)
	}
	for _, f := range faults {
		if met[f.call] == 0 {
			t.Errorf("%s was never met", f.call)
		}
	}
}
