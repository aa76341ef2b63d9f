//go:build linux

package imaptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dovecot starts a server that ends with the test.
func dovecot(t *testing.T, o DovecotOptions) *DovecotServer {
	t.Helper()
	start := time.Now()
	s, err := StartDovecot(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(start))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// letters yields n small mails, a minute apart.
func letters(n int) iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		date := time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)
		for i := range n {
			mail := fmt.Sprintf("From: a@example.org\r\nSubject: letter %d\r\nMessage-ID: <%d@example.org>\r\n\r\nbody %d\r\n", i, i, i)
			if !yield(date.Add(time.Duration(i)*time.Minute), []byte(mail)) {
				return
			}
		}
	}
}

func TestDovecotCapability(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		o           DovecotOptions
		has, hasNot []string
	}{
		{"stock", DovecotOptions{}, strings.Fields(dovecotCapability), nil},
		{"hidden", DovecotOptions{Hide: []string{"condstore", "QRESYNC", "LIST-STATUS"}},
			[]string{"IMAP4rev1", "UIDPLUS", "MOVE", "ESEARCH"}, []string{"CONDSTORE", "QRESYNC", "LIST-STATUS"}},
		{"hidden in the banner", DovecotOptions{Hide: []string{"IDLE", "LITERAL+"}}, []string{"IMAP4rev1", "CONDSTORE"}, []string{"IDLE", "LITERAL+"}},
		{"TLS", DovecotOptions{TLS: true}, []string{"CONDSTORE", "QRESYNC", "LIST-STATUS"}, []string{"STARTTLS"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, tt.o)
			lines, err := s.Command("CAPABILITY")
			if err != nil {
				t.Fatal(err)
			}
			after := strings.Fields(lines[0])
			for _, c := range tt.has {
				if !slices.Contains(after, c) {
					t.Errorf("%s is missing in %q", c, lines[0])
				}
			}
			// The same must hold of what is said unasked, before and after LOGIN.
			c, err := s.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			greeting, err := c.readResponse()
			if err != nil {
				t.Fatal(err)
			}
			before, err := c.command("a", "CAPABILITY")
			if err != nil {
				t.Fatal(err)
			}
			login, err := c.command("b", "LOGIN "+s.User+" "+s.Password)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(slices.Concat(lines, []string{greeting}, before, login), "\n")
			t.Log(all)
			for _, c := range tt.hasNot {
				if strings.Contains(all, c) {
					t.Errorf("%s is advertised:\n%s", c, all)
				}
			}
		})
	}
}

func TestDovecotCertPEM(t *testing.T) {
	t.Parallel()
	if cert := dovecot(t, DovecotOptions{}).CertPEM(); cert != nil {
		t.Errorf("a certificate without TLS: %s", cert)
	}
	if cert := dovecot(t, DovecotOptions{TLS: true}).CertPEM(); !strings.HasPrefix(string(cert), "-----BEGIN CERTIFICATE-----") {
		t.Errorf("not a PEM certificate: %q", cert)
	}
}

func TestDovecotRefusesAWrongPassword(t *testing.T) {
	t.Parallel()
	s := dovecot(t, DovecotOptions{})
	wrong := &DovecotServer{Host: s.Host, Port: s.Port, User: s.User, Password: "wrong"}
	if _, err := wrong.Command("NOOP"); err == nil || !strings.Contains(err.Error(), "AUTHENTICATIONFAILED") {
		t.Errorf("got %v, want AUTHENTICATIONFAILED", err)
	}
}

func TestDovecotAppendAll(t *testing.T) {
	t.Parallel()
	for _, o := range []DovecotOptions{{}, {TLS: true}} {
		t.Run(fmt.Sprintf("TLS=%v", o.TLS), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, o)
			start := time.Now()
			if err := s.AppendAll("Lists/a b", letters(500)); err != nil {
				t.Fatal(err)
			}
			t.Logf("500 mails in %v", time.Since(start))
			lines, err := s.Command(`STATUS "Lists/a b" (MESSAGES)`, `EXAMINE "Lists/a b"`, "UID FETCH 500 (INTERNALDATE BODY.PEEK[])")
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(lines, "\n")
			for _, want := range []string{
				`* STATUS "Lists/a b" (MESSAGES 500)`,
				"* 500 EXISTS",
				`INTERNALDATE "01-Mar-2024 20:19:00 +0000"`,
				"{85}\r\nFrom: a@example.org\r\nSubject: letter 499\r\nMessage-ID: <499@example.org>\r\n\r\nbody 499\r\n)",
			} {
				if !strings.Contains(all, want) {
					t.Errorf("no %q in\n%s", want, all)
				}
			}
			if err := s.AppendAll("Lists/a b", letters(1)); err != nil { // it exists
				t.Fatal(err)
			}
			out, err := s.Doveadm("-f", "flow", "mailbox", "status", "messages", "Lists/a b")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), "messages=501") {
				t.Errorf("doveadm says %q, want 501 messages", out)
			}
		})
	}
}

func TestDovecotAppendAllReportsRefusal(t *testing.T) {
	t.Parallel()
	s := dovecot(t, DovecotOptions{})
	err := s.AppendAll("INBOX", func(yield func(time.Time, []byte) bool) {
		_ = yield(time.Time{}, nil) && yield(time.Time{}, []byte("Subject: b\r\n\r\n"))
	})
	if err == nil || !strings.Contains(err.Error(), "append NO") {
		t.Errorf("an empty mail: got %v, want append NO", err)
	}
}

func TestDovecotCommandReportsRefusal(t *testing.T) {
	t.Parallel()
	s := dovecot(t, DovecotOptions{})
	lines, err := s.Command("SELECT INBOX", "SELECT nowhere", "NOOP")
	if err == nil || !strings.Contains(err.Error(), "SELECT nowhere: NO ") {
		t.Errorf("got %v, want the NO of SELECT nowhere", err)
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "c2 NO ") {
		t.Errorf("last line %q, want c2 NO", last)
	}
}

func TestDovecotCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := StartDovecot(t.Context(), dir, DovecotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.login() // a client that is still there must not hold it up
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	group := s.cmd.Process.Pid
	start := time.Now()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %v", time.Since(start))
	if groupRuns(group) {
		t.Error("a process is still there")
	}
	if _, err := os.Stat(s.base); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", s.base, err)
	}
	log, err := os.ReadFile(s.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(s.LogPath()) != dir || strings.Contains(string(log), s.Password) {
		t.Errorf("log %s:\n%s", s.LogPath(), log)
	}
	for line := range strings.Lines(string(log)) {
		t.Log(line)
		if strings.Contains(line, "Error:") || strings.Contains(line, "Fatal:") {
			t.Errorf("dovecot complains: %s", line)
		}
	}
}

func TestDovecotNoticesTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it accepts and says nothing
	owner, err := dovecotAccount()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := startDovecot(t.Context(), t.TempDir(), DovecotOptions{}, owner, l.Addr().(*net.TCPAddr).Port); !errors.Is(err, errPortTaken) {
		t.Errorf("got %v, want %v", err, errPortTaken)
	}
}

func TestDovecotHidesOnlyWhatItKnows(t *testing.T) {
	t.Parallel()
	s, err := StartDovecot(t.Context(), t.TempDir(), DovecotOptions{Hide: []string{"CONSTORE"}})
	if err == nil {
		s.Close()
		t.Error("a misspelt capability is taken")
	}
}

func TestDovecotStartHeedsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if s, err := StartDovecot(ctx, dir, DovecotOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v; want context.Canceled", s, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "dc*", "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestDovecotDiesWithItsProcess kills a process that never gets to Close.
func TestDovecotDiesWithItsProcess(t *testing.T) {
	const env = "IMAPTEST_DOVECOT_CHILD"
	if dir := os.Getenv(env); dir != "" { // the process to be killed
		s, err := StartDovecot(t.Context(), dir, DovecotOptions{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("started %d %s\n", s.cmd.Process.Pid, s.base)
		select {}
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDovecotDiesWithItsProcess$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), env+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var pid, base string
	for sc := bufio.NewScanner(out); pid == "" && sc.Scan(); {
		fmt.Sscanf(sc.Text(), "started %s %s", &pid, &base)
	}
	master, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal("the process did not start a server")
	}
	defer os.RemoveAll(base)
	if !groupRuns(master) {
		t.Fatal("dovecot does not run")
	}
	cmd.Process.Kill()
	deadline := time.After(5 * time.Minute)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for groupRuns(master) {
		select {
		case <-poll.C:
		case <-deadline:
			syscall.Kill(-master, syscall.SIGKILL)
			t.Fatal("dovecot outlives its process")
		}
	}
}
