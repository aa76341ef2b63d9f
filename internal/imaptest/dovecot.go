//go:build linux

package imaptest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout bounds StartDovecot when its context has no deadline of
	// its own; a start takes about 100 ms on an idle machine.
	startTimeout = 5 * time.Minute
	// greetTimeout is how long one connection waits for its greeting before
	// another is tried.
	greetTimeout = 5 * time.Second
	// stopTimeout bounds Close, which takes a few milliseconds.
	stopTimeout = 5 * time.Minute
	// maxBase is the longest directory that Dovecot's sockets fit below:
	// sun_path has 108 bytes, and the longest name that Dovecot appends to
	// base_dir (plus our own "dc" directory) takes less than 48.
	maxBase = 60
)

// DovecotOptions says how the server differs from a stock Dovecot.
type DovecotOptions struct {
	// Hide lists capabilities that are not advertised, neither before nor
	// after sign-in, such as "CONDSTORE", "QRESYNC", "LIST-STATUS" or
	// "ESEARCH". Dovecot still obeys the commands: hiding shows what a client
	// asks for, not what it does when it is refused.
	Hide []string
	// Prefix is what the names of all mailboxes but INBOX begin with; it ends in
	// the hierarchy delimiter, such as "INBOX.". Left out, there is none.
	Prefix string
	// Maildir keeps the mail in a Maildir, whose indexes may be removed, in place of
	// an mdbox.
	Maildir bool
	// TLS makes the port speak implicit TLS, with a certificate made for this
	// server alone. See CertPEM.
	TLS bool
	// Mechanisms are the SASL mechanisms that are offered, such as
	// "SCRAM-SHA-256"; left out, it is PLAIN. OAUTHBEARER and XOAUTH2 take
	// what Token makes. EXTERNAL needs TLS, and takes the certificate that
	// ClientCertificate makes.
	Mechanisms []string
	// Compress offers COMPRESS=DEFLATE.
	Compress bool
	// Rotates begins each index log anew as soon as something was written to it, in place of
	// after five minutes, and looks at nothing by the clock: what then is not told at once
	// never is.
	Rotates bool
}

// DovecotServer is a running Dovecot with one user and an empty INBOX. Its
// methods may be called from several goroutines.
type DovecotServer struct {
	Host     string // an IP address, 127.0.0.1
	Port     int
	User     string
	Password string

	base  string // configuration, sockets and mail; removed by Close
	log   string
	cert  *Certificate // nil without TLS
	owner runAs
	cmd   *exec.Cmd
	done  chan struct{} // closed when the master has been waited for

	closing  sync.Once
	closeErr error
}

// runAs is the system user that Dovecot runs as.
type runAs struct {
	name, group string
	uid, gid    int
	switched    bool // it is not the user of this process
}

// errPortTaken says that somebody bound the port between our look and
// Dovecot's own bind.
var errPortTaken = errors.New("port was taken meanwhile")

// StartDovecot starts a private Dovecot 2.3 on a free port of 127.0.0.1 and
// returns when it greets. dir is an existing directory private to the caller;
// the log goes there and stays after Close. The rest goes below dir as well,
// unless the path is too long for sockets or the process is root: then it goes
// to a new directory in /tmp, because Dovecot runs as nobody and a directory
// private to root is closed to it.
//
// ctx bounds the start only. The server lives until Close, or until this
// process dies, however it dies.
func StartDovecot(ctx context.Context, dir string, o DovecotOptions) (*DovecotServer, error) {
	known := strings.Fields(dovecotCapability)
	for _, h := range o.Hide {
		if !slices.ContainsFunc(known, func(c string) bool { return strings.EqualFold(h, c) }) {
			return nil, fmt.Errorf("starting dovecot: it has no capability %q to hide", h)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	owner, err := dovecotAccount()
	if err != nil {
		return nil, fmt.Errorf("choosing a user for dovecot: %w", err)
	}
	for {
		port, err := freePort()
		if err != nil {
			return nil, fmt.Errorf("starting dovecot: %w", err)
		}
		s, err := startDovecot(ctx, dir, o, owner, port)
		if errors.Is(err, errPortTaken) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("starting dovecot: %w", err)
		}
		return s, nil
	}
}

// dovecotAccount returns the current user, or nobody for root: Dovecot refuses
// to serve mail as uid 0, and started as an ordinary user it needs no rights.
func dovecotAccount() (runAs, error) {
	var u *user.User
	var err error
	root := os.Geteuid() == 0
	if root {
		u, err = user.Lookup("nobody")
	} else {
		u, err = user.LookupId(strconv.Itoa(os.Geteuid()))
	}
	if err != nil {
		return runAs{}, err
	}
	a := runAs{name: u.Username, switched: root}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return runAs{}, err
	}
	a.gid = os.Getegid()
	if root {
		if a.gid, err = strconv.Atoi(u.Gid); err != nil {
			return runAs{}, err
		}
	}
	g, err := user.LookupGroupId(strconv.Itoa(a.gid))
	if err != nil {
		return runAs{}, err
	}
	a.group = g.Name
	return a, nil
}

// sysProcAttr returns what makes a process run as a.
func (a runAs) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{}
	if a.switched {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

func startDovecot(ctx context.Context, dir string, o DovecotOptions, owner runAs, port int) (_ *DovecotServer, err error) {
	parent, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if owner.switched || len(parent) > maxBase {
		parent = "/tmp" // not os.TempDir, which may be long as well
	}
	base, err := os.MkdirTemp(parent, "dc")
	if err != nil {
		return nil, err
	}
	s := &DovecotServer{
		Host:     "127.0.0.1",
		Port:     port,
		User:     "user",
		Password: rand.Text(),
		base:     base,
		log:      filepath.Join(dir, filepath.Base(base)+".log"),
		owner:    owner,
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if o.TLS {
		if err := s.makeCertificate(); err != nil {
			return nil, fmt.Errorf("making a certificate: %w", err)
		}
	}
	greeting := "Dovecot " + rand.Text() + " ready."
	if err := s.writeConfig(o, greeting); err != nil {
		return nil, fmt.Errorf("writing its configuration: %w", err)
	}
	if err := s.launch(); err != nil {
		return nil, err
	}
	return s, s.awaitGreeting(ctx, greeting)
}

// freePort returns a port that the kernel just had free.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// makeCertificate fills in cert and writes the pair that Dovecot reads.
func (s *DovecotServer) makeCertificate() error {
	cert, err := NewCertificate()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.TLS.PrivateKey)
	if err != nil {
		return err
	}
	s.cert = cert
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	if err := os.WriteFile(filepath.Join(s.base, "cert.pem"), cert.PEM, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.base, "key.pem"), keyPEM, 0o600)
}

func (s *DovecotServer) conf() string { return filepath.Join(s.base, "dovecot.conf") }

// launch starts the master in a process group of its own. The kernel ties a
// parent death signal to the thread that forked, not to the process, so the
// goroutine that starts the master keeps its thread until the master is gone.
func (s *DovecotServer) launch() error {
	binary, err := exec.LookPath("dovecot")
	if err != nil {
		binary = "/usr/sbin/dovecot" // not on an ordinary user's PATH
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(binary, "-F", "-c", s.conf())
	s.cmd.Dir = s.base
	s.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.base}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = s.owner.sysProcAttr()
	s.cmd.SysProcAttr.Setpgid = true
	s.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM // the master then ends its children

	started := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%w (is dovecot-imapd installed?)", err)
	}
	s.done = done
	return nil
}

// awaitGreeting dials until this very server greets: another one may have
// taken the port, so the greeting carries a word that nobody else knows.
func (s *DovecotServer) awaitGreeting(ctx context.Context, greeting string) error {
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	for {
		// Short, as whoever took the port may say nothing.
		try, cancel := context.WithTimeout(ctx, greetTimeout)
		c, err := s.dial(try)
		cancel()
		if err == nil {
			line, readErr := c.readResponse()
			c.Close()
			if strings.Contains(line, greeting) {
				return nil
			}
			err = fmt.Errorf("greeting %q: %w", line, cmp.Or(readErr, errors.New("somebody else's server")))
		}
		select {
		case <-s.done:
			tail := s.logTail()
			if strings.Contains(tail, "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("it ended at once: %s", tail)
		case <-ctx.Done():
			return fmt.Errorf("%w: no greeting: %w: %s", ctx.Err(), err, s.logTail())
		case <-retry.C:
		}
	}
}

// logTail returns the end of the log for an error, without passwords: Dovecot
// logs none unless auth_debug_passwords is set.
func (s *DovecotServer) logTail() string {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(log[max(0, len(log)-2000):]))
}

// MailDir is where the user's mail is. While nobody is signed in it may be changed,
// copied and put back.
func (s *DovecotServer) MailDir() string { return filepath.Join(s.base, "home", "mail") }

// Addr returns host:port.
func (s *DovecotServer) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// CertPEM returns the certificate that the server shows, nil without TLS. It
// is good for 127.0.0.1 and localhost.
func (s *DovecotServer) CertPEM() []byte {
	if s.cert == nil {
		return nil
	}
	return slices.Clone(s.cert.PEM)
}

// LogPath returns the path of Dovecot's log, which stays after Close.
func (s *DovecotServer) LogPath() string { return s.log }

// Doveadm runs a doveadm mail command for the server's user, such as
// Doveadm("mailbox", "status", "messages", "INBOX"), and returns its standard
// output. Give no -u: the user comes from the environment, so that it holds for
// commands of one and of two words alike.
func (s *DovecotServer) Doveadm(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "doveadm", append([]string{"-c", s.conf()}, args...)...)
	cmd.Dir = s.base
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + filepath.Join(s.base, "home"), "USER=" + s.User}
	cmd.SysProcAttr = s.owner.sysProcAttr()
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("doveadm %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// Close kills every process of the server, waits until none runs and removes
// its files, the log apart. Further calls return what the first returned.
func (s *DovecotServer) Close() error {
	s.closing.Do(func() {
		s.closeErr = errors.Join(s.stop(), os.RemoveAll(s.base))
	})
	return s.closeErr
}

// stop kills the group rather than ask the master, which takes a second to end
// and reaps its children no better: nothing here is worth a clean end.
func (s *DovecotServer) stop() error {
	if s.done == nil {
		return nil
	}
	group := s.cmd.Process.Pid
	if err := syscall.Kill(-group, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing dovecot: %w", err)
	}
	<-s.done
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for groupRuns(group) {
		select {
		case <-poll.C:
		case <-deadline.C:
			return errors.New("dovecot's processes outlive SIGKILL")
		}
	}
	return nil
}

// groupRuns tells whether a process of the group runs. A zombie does not: the
// orphans of the master are process 1's to reap, which may take its time.
func groupRuns(group int) bool {
	if errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
		return false
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// pid (comm) state ppid pgrp ..., and comm may hold anything (proc(5)).
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) > 2 && f[2] == strconv.Itoa(group) && f[0] != "Z" && f[0] != "X" {
			return true
		}
	}
	return false
}
