package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/zalando/go-keyring"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// TestScripts runs testdata/*.txtar: the program as a user types it, with a
// real notmuch beside it.
func TestScripts(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TZ", "UTC")
			e.Values[fixtureKey{}] = &fixture{t: e.T()}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":  status,
			"account": account,
			"mailbox": mailbox,
			"deliver": deliver,
			"post":    post,
			"seed":    seed,
			"heal":    heal,
			"due":     due,
			"aged":    aged,
			"silent":  silent,
			"await":   await,
			"hang-up": hangUp,
			"lock":    lock,
		},
	})
}

type fixtureKey struct{}

// fixture is what a script has around it.
type fixture struct {
	t        testscript.T
	user     *imapmemserver.User
	listener net.Listener
	server   *imapserver.Server
	accepted chan net.Conn // of a silent server
	seed     *imaptest.Server
}

func of(ts *testscript.TestScript) *fixture { return ts.Value(fixtureKey{}).(*fixture) }

// status N PROGRAM ARG... runs a program and wants that exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARG]...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// account NAME [FILE] starts an empty server with INBOX, and makes a
// configuration with this one account, plus the lines of FILE, and an empty
// notmuch database.
func account(ts *testscript.TestScript, _ bool, args []string) {
	f := of(ts)
	mem := imapmemserver.New()
	f.user = imapmemserver.NewUser("me", "hunter2")
	mem.AddUser(f.user)
	ts.Check(f.user.Create("INBOX", nil))
	f.server = imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return lasting{mem.NewSession().(imapserver.SessionIMAP4rev2)}, nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		InsecureAuth: true,
		Logger:       nothing{},
	})
	f.listen(ts)
	served := make(chan error, 1)
	server, listener := f.server, f.listener // a script may have several
	go func() { served <- server.Serve(listener) }()
	ts.Defer(func() { _ = server.Close(); <-served })
	f.configure(ts, args, plainAccount(f.listener))
}

// lasting is a session that keeps all flags and keywords, and says so: imapmemserver names those of its
// flags alone that a message has.
type lasting struct{ imapserver.SessionIMAP4rev2 }

func (l lasting) Select(mailbox string, options *imap.SelectOptions) (*imap.SelectData, error) {
	data, err := l.SessionIMAP4rev2.Select(mailbox, options)
	if err == nil {
		data.PermanentFlags = []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft, imap.FlagWildcard}
	}
	return data, err
}

type nothing struct{}

func (nothing) Printf(string, ...any) {}

func (f *fixture) listen(ts *testscript.TestScript) {
	var err error
	share := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, failed)
	}}
	f.listener, err = share.Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
}

// plainAccount is the configuration for a server without TLS.
func plainAccount(l net.Listener) string {
	return fmt.Sprintf("host = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = \"secret\"\n",
		l.Addr().(*net.TCPAddr).Port)
}

// configure writes the configurations of the program and of notmuch.
func (f *fixture) configure(ts *testscript.TestScript, args []string, account string) {
	text := fmt.Sprintf("[account.%s]\n%s", args[0], account)
	if len(args) > 1 {
		text += ts.ReadFile(args[1])
	}
	write := func(file, text string) { ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600)) }
	write("config.toml", text)
	write("secret", "hunter2\n")
	write("notmuch", "[database]\npath="+ts.MkAbs("mail")+"\n[user]\nname=Me\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\n")
	ts.Check(os.MkdirAll(ts.MkAbs("mail"), 0o700))
	ts.Setenv("NOTMUCH_IMAP_CONFIG", ts.MkAbs("config.toml"))
	ts.Setenv("NOTMUCH_CONFIG", ts.MkAbs("notmuch"))
	ts.Check(ts.Exec("notmuch", "new", "--quiet"))
}

// mailbox NAME makes a mailbox on the server.
func mailbox(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(of(ts).user.Create(args[0], nil))
}

// deliver MAILBOX FIRST LAST puts mails with these numbers on the server.
func deliver(ts *testscript.TestScript, _ bool, args []string) {
	first, err := strconv.Atoi(args[1])
	ts.Check(err)
	last, err := strconv.Atoi(args[2])
	ts.Check(err)
	for i := first; i <= last; i++ {
		raw := fmt.Sprintf("From: Ann <ann@example.org>\r\nTo: me@example.org\r\nSubject: number %d\r\nMessage-ID: <%d@example.org>\r\n"+
			"Date: Sun, 01 Nov 2026 10:00:00 +0000\r\n\r\nMail number %d.\r\n", i, i, i)
		_, err := of(ts).user.Append(args[0], bytes.NewReader([]byte(raw)), &imap.AppendOptions{Time: time.Date(2026, 11, 1, 10, 0, i, 0, time.UTC)})
		ts.Check(err)
	}
}

// post MAILBOX FILE [BYTES] puts a mail on the server, with so many bytes more.
func post(ts *testscript.TestScript, _ bool, args []string) {
	raw := strings.ReplaceAll(ts.ReadFile(args[1]), "\n", "\r\n")
	if len(args) > 2 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		raw += strings.Repeat(strings.Repeat("x", 70)+"\r\n", n/72)
	}
	_, err := of(ts).user.Append(args[0], bytes.NewReader([]byte(raw)), &imap.AppendOptions{Time: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)})
	ts.Check(err)
}

// seed NAME [FILE] is account with the server of the seed, over TLS.
func seed(ts *testscript.TestScript, _ bool, args []string) {
	f := of(ts)
	var err error
	f.seed, err = imaptest.NewSeed()
	ts.Check(err)
	ts.Defer(func() { _ = f.seed.Close() })
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), f.seed.Certificate.PEM, 0o600))
	f.configure(ts, args, fmt.Sprintf("host = %q\nport = %d\ntls_ca_file = \"ca.pem\"\nuser = %q\npassword_command = [\"cat\", %q]\n",
		f.seed.Host(), f.seed.Port(), imaptest.User, ts.MkAbs("secret")))
	ts.Check(os.WriteFile(ts.MkAbs("secret"), []byte(imaptest.Password+"\n"), 0o600))
}

// heal UID makes the server of the seed hand a message out.
func heal(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	of(ts).seed.Heal(imap.UID(uid))
}

// due NAME lets the time pass until all that failed is asked for again.
func due(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	l, err := ledger.Open(ctx, ts.MkAbs(".local/state/notmuch-imap/"+args[0]))
	ts.Check(err)
	stubs, err := l.InState(ctx, ledger.Stub)
	ts.Check(err)
	for i := range stubs {
		stubs[i].NextTry = time.Unix(1, 0)
	}
	ts.Check(l.Save(ctx, stubs...))
	ts.Check(l.Close())
}

// aged NAME lets a month pass since hooks put mail off.
func aged(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	l, err := ledger.Open(ctx, ts.MkAbs(".local/state/notmuch-imap/"+args[0]))
	ts.Check(err)
	rows, err := l.InState(ctx, ledger.Deferred)
	ts.Check(err)
	for i := range rows {
		rows[i].Since = rows[i].Since.AddDate(0, -1, 0)
	}
	ts.Check(l.Save(ctx, rows...))
	ts.Check(l.Close())
}

// silent NAME [FILE] is account with a server that says nothing.
func silent(ts *testscript.TestScript, _ bool, args []string) {
	f := of(ts)
	f.listen(ts)
	f.accepted = make(chan net.Conn, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := f.listener.Accept()
			if err != nil {
				return
			}
			f.accepted <- c
		}
	}()
	ts.Defer(func() {
		_ = f.listener.Close()
		<-done
		close(f.accepted)
		for c := range f.accepted {
			_ = c.Close()
		}
	})
	f.configure(ts, args, plainAccount(f.listener))
}

// await waits until somebody connects to the silent server.
func await(ts *testscript.TestScript, _ bool, _ []string) {
	f := of(ts)
	select {
	case c := <-f.accepted:
		f.accepted <- c // for the end
	case <-time.After(tooLong):
		ts.Fatalf("nobody connected")
	}
}

// hang-up ends the server.
func hangUp(ts *testscript.TestScript, _ bool, _ []string) {
	f := of(ts)
	addr, ok := f.listener.Addr().(*net.TCPAddr)
	if !ok {
		ts.Fatalf("no TCP address: %v", f.listener.Addr())
	}
	// The port stays taken, though nobody listens: another test's server must
	// not be found there.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ts.Check(err)
	ts.Defer(func() { _ = unix.Close(fd) })
	ts.Check(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	ts.Check(unix.Bind(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte{127, 0, 0, 1}}))
	ts.Check(f.server.Close())
}

// lock NAME takes the account's lock, as another run would.
func lock(ts *testscript.TestScript, _ bool, args []string) {
	l, err := ledger.Open(context.Background(), ts.MkAbs(".local/state/notmuch-imap/"+args[0]))
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		name: func() { os.Exit(Main()) }, crashChild: runCrashChild,
		"with-own": func() { os.Exit(Main(ownHook("tags what comes"))) }, "with-keyring": func() { keyring.MockInit(); os.Exit(Main()) },
		"without-doc": func() { os.Exit(Main(ownHook(""))) },
	})
}

// ownHook is one of a third party's main, as in contrib/example-main.
func ownHook(doc string) hooks.Hook {
	return hooks.Hook{
		Name: "own", Doc: doc, Points: []hooks.Point{hooks.PreWrite, hooks.PostIndex},
		Run: func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
			if e.Point == hooks.PostIndex {
				return hooks.Verdict{}, exec.Command("notmuch", "tag", "+told", "--", "id:"+e.ID).Run()
			}
			return hooks.Verdict{Add: []string{"own"}}, nil
		},
	}
}

// runHere runs the program in this process.
func runHere(ctx context.Context, env map[string]string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	p := &program{stdin: strings.NewReader(""), stdout: &out, stderr: &errs, getenv: func(n string) string { return env[n] }}
	status = p.run(ctx, append([]string{name}, args...))
	return status, out.String(), errs.String()
}
