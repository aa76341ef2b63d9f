package index

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// brokenOffMails are so many that Xapian writes while their tags are set.
const brokenOffMails = 600

// fullChild indexes all mail where no file may have more bytes than size, which is as a
// disk that gets full.
func fullChild(ctx context.Context, x *Index, size string) error {
	n, err := strconv.ParseUint(size, 10, 64)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		return err
	}
	BreakOff(42)
	var changes []mail.Change
	for i := range brokenOffMails {
		changes = append(changes, mail.Change{Op: mail.OpAdd, Path: filepath.Join(x.MailRoot(), "new", strconv.Itoa(i)),
			ID: fmt.Sprintf("%d@x", i), New: []string{"unread", "inbox"}, Add: []string{strings.Repeat(strconv.Itoa(i), 30)}})
	}
	_, err = x.Apply(ctx, changes)
	return err
}

// TestLibnotmuchBreaksOff: whatever libnotmuch makes of a full disk, the process ends with
// a line and a status of its own, and the database is as it was before.
func TestLibnotmuchBreaksOff(t *testing.T) {
	share.Sweep(t)
	w := newWorld(t)
	for i := range brokenOffMails {
		w.deliver(fmt.Sprintf("new/%d", i), fmt.Sprintf("%d@x", i))
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	broken := 0
	for size := 8 << 10; size <= 256<<10; size += 8 << 10 {
		cmd := exec.CommandContext(t.Context(), exe, w.config, strconv.Itoa(size))
		cmd.Env = append(cleanEnv(), childEnv+"=full", "HOME="+w.dir)
		out, err := cmd.CombinedOutput()
		if lines := strings.Count(string(out), "\n"); err == nil || lines != 1 {
			t.Fatalf("with %d bytes: %v, %d lines:\n%s", size, err, lines, out)
		}
		switch cmd.ProcessState.ExitCode() {
		case 1:
		case 42:
			broken++
			if want := "notmuch-imap: the notmuch database in " + w.x.DatabasePath() + " cannot be written: libnotmuch broke off"; !strings.HasPrefix(string(out), want) {
				t.Errorf("with %d bytes: %s", size, out)
			}
		default:
			t.Errorf("with %d bytes: %v: %s", size, err, out)
		}
		if n, err := w.x.Count(t.Context(), "*"); n != 0 || err != nil {
			t.Fatalf("with %d bytes: %d messages stay, %v", size, n, err)
		}
	}
	if broken == 0 {
		t.Error("libnotmuch never broke off")
	}
}
