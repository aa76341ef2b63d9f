package report

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// An error of this machine is told from one of the server or of the way to it, and
// the line says what to do about it.
func TestWhatIsAnErrorOfThisMachine(t *testing.T) {
	t.Parallel()
	network := func(errno unix.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", errno)}
	}
	path := func(errno unix.Errno) error { return &fs.PathError{Op: "open", Path: "it", Err: errno} }
	secret := func(err error) error {
		return &mail.Fault{Kind: mail.KindSecret, Op: "sign-in", Err: err, Do: "check password_file"}
	}
	for _, c := range []struct {
		err  error
		Own  bool
		hint string
	}{
		{&mail.Fault{Kind: mail.KindDial, Err: network(unix.EMFILE), Do: "is the network there?"}, true, "ulimit"},
		{&mail.Fault{Kind: mail.KindDial, Err: network(unix.ENFILE)}, true, "ulimit"},
		{&mail.Fault{Kind: mail.KindDial, Err: network(unix.ECONNREFUSED), Do: "is the network there?"}, false, "is the network there?"},
		{&mail.Fault{Kind: mail.KindDial, Err: path(unix.ENOENT), Do: "tunnel names a program that is not there"}, false, "tunnel names"},
		{secret(path(unix.EACCES)), true, "check password_file"},
		{secret(network(unix.ECONNREFUSED)), false, "check password_file"},
		{secret(errors.New("exit status 1")), false, "check password_file"},
		{fmt.Errorf("its folder: %w", path(unix.EACCES)), true, "you may read"},
		{fmt.Errorf("its folder: %w", path(unix.EROFS)), true, "written to"},
		{fmt.Errorf("its folder: %w", path(unix.ENOSPC)), true, "make space"},
		{&OwnError{Err: errors.New("notmuch could not be told")}, true, ""},
		{errors.New("50 messages are gone: not deleted, since that may be a mistake"), false, ""},
		{&mail.Fault{Kind: mail.KindNo, Op: "EXAMINE"}, false, "the next sync tries again"},
	} {
		if got := Own(c.err); got != c.Own {
			t.Errorf("%v: %v", c.err, got)
		}
		if got := Hint(c.err).String(); !strings.Contains(got, c.hint) || c.hint == "" && got != "" {
			t.Errorf("%v: do %q", c.err, got)
		}
	}
}

// What of this machine is in the way of one folder alone costs its mailbox, what all need the run.
func TestAnErrorOfOneFolderCostsItsMailbox(t *testing.T) {
	t.Parallel()
	for errno, want := range map[unix.Errno]Scope{
		unix.EACCES: ScopeMailbox, unix.EPERM: ScopeMailbox, unix.EROFS: ScopeMailbox, unix.ENOTDIR: ScopeMailbox, unix.ELOOP: ScopeMailbox,
		unix.ENOSPC: ScopeRun, unix.EDQUOT: ScopeRun, unix.EMFILE: ScopeRun, unix.EIO: ScopeRun,
	} {
		for _, err := range []error{&fs.PathError{Op: "open", Err: errno}, &os.LinkError{Op: "rename", Err: errno}} {
			if got := ScopeOf(err, AtMailbox); got != want {
				t.Errorf("%v: %v, not %v", err, got, want)
			}
		}
		if got := ScopeOf(errno, AtMailbox); got != ScopeRun {
			t.Errorf("%v of no file: %v", errno, got)
		}
	}
}

// What a fault that passes has to say of the next run stands in its line once.
func TestTheNextRunIsNamedOnce(t *testing.T) {
	t.Parallel()
	for _, do := range []string{"", "is the network there?", "the server wants no guests now"} {
		for kind, again := range map[mail.Kind]bool{mail.KindDial: false, mail.KindCut: false, mail.KindSilent: false, mail.KindBye: false, mail.KindTLS: true, mail.KindSecret: true} {
			f := &mail.Fault{Kind: kind, Op: "greeting", Do: do, Again: again}
			got := Hint(f).String()
			if strings.Count(got, "the next sync tries again") != 1 || !strings.HasPrefix(got, do) {
				t.Errorf("%v with %q: %q", kind, do, got)
			}
			var told string
			r := NewReporter(Report{}, time.Now, func(e Event) bool { told = e.Text; return true }, nil)
			r.Fault(Failure{Text: "it failed", Again: Hint(f).Again})
			if in := r.Report().Faults; told != "it failed; the next sync tries again" || len(in) != 1 || in[0].Text != told {
				t.Errorf("%v: told %q, reported %+v", kind, told, in)
			}
		}
	}
	if got := Hint(&mail.Fault{Kind: mail.KindTLS, Op: "greeting", Do: "check the certificate"}).String(); got != "check the certificate" {
		t.Errorf("of a fault that lasts: %q", got)
	}
}
