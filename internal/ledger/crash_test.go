package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.uber.org/goleak"
)

// childVar names, in a child process, the directory of the ledger that it is to
// write until it is killed.
const childVar = "NOTMUCH_IMAP_LEDGER_TEST_DIR"

const childBatch = 50

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("child:", err)
		}
		os.Exit(1) // it was to be killed
	}
	goleak.VerifyTestMain(m)
}

// child saves batches of messages for ever and says so after each.
func child(dir string) error {
	ctx := context.Background()
	l, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	if err := l.SaveMailbox(ctx, Mailbox{Name: "INBOX", UIDValidity: 14}); err != nil {
		return err
	}
	old, err := l.Rows(ctx, "INBOX", 14)
	if err != nil {
		return err
	}
	for n := len(old); ; n += childBatch {
		ms := make([]Message, childBatch)
		for i := range ms {
			ms[i] = present(imap.UID(n + i + 1))
		}
		if err := l.Save(ctx, ms...); err != nil {
			return err
		}
		fmt.Println(n + childBatch)
	}
}

// startChild gives a running child and its words. It is killed at the end of
// the test at the latest.
func startChild(t *testing.T, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// kill ends a child as a crash would, and gives what it said last.
func kill(t *testing.T, cmd *exec.Cmd, out *bufio.Scanner) (last int) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for out.Scan() {
		if _, err := fmt.Sscan(out.Text(), &last); err != nil {
			t.Errorf("the child said %q", out.Text())
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Errorf("the child was not killed: %v", err)
	}
	return last
}

func TestAKilledRunLeavesWholeTransactions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	said := 0
	for run := range 8 {
		cmd, out := startChild(t, dir)
		for range 1 + 5*run {
			if !out.Scan() {
				t.Fatal("the child ended early", out.Err())
			}
			if _, err := fmt.Sscan(out.Text(), &said); err != nil {
				t.Fatalf("the child said %q", out.Text())
			}
		}
		// By now it is within the next Save.
		said = max(said, kill(t, cmd, out))

		l, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := l.Rows(t.Context(), "INBOX", 14)
		if err != nil {
			t.Fatal(err)
		}
		// One batch may be recorded and not yet said.
		if n := len(rows); n%childBatch != 0 || n < said || n > said+childBatch || int(rows[n-1].UID) != n {
			t.Errorf("after kill %d there are %d rows, the last with UID %d; the child said %d", run, n, rows[n-1].UID, said)
		}
		var ok string
		if err := l.db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
			t.Errorf("after kill %d: %s, %v", run, ok, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestASecondRunIsRefusedUntilTheFirstEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	cmd, out := startChild(t, dir)
	if !out.Scan() {
		t.Fatal("the child did not begin")
	}
	_, err := Open(t.Context(), dir)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", cmd.Process.Pid)) {
		t.Errorf("err = %v; the holder is process %d", err, cmd.Process.Pid)
	}
	// Looking is possible all the while.
	r, err := OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if rows, err := r.Rows(t.Context(), "INBOX", 14); err != nil || len(rows) < childBatch || len(rows)%childBatch != 0 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	kill(t, cmd, out)
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	// The same process is no exception.
	if _, err := Open(t.Context(), dir); !errors.Is(err, ErrBusy) {
		t.Errorf("err = %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if l, err = Open(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhoOnlyLooksKeepsNobodyFromTheLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "work")
	if err := Busy(dir); err != nil {
		t.Errorf("where there is no ledger: %v", err)
	}
	for range 50 {
		looked := make(chan error, 1)
		go func() { looked <- Busy(dir) }()
		l, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-looked; err != nil && !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		if err := Busy(dir); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("while it is held: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := Busy(dir); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}
