package cmd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// BenchmarkImport takes 20,000 mails over that mbsync has of a Dovecot on this machine. It
// reports the memory of the process at its peak, its seconds of CPU, which other programs on the
// machine hardly change, and round trips for 1,000 messages.
func BenchmarkImport(b *testing.B) {
	const mails = 20_000
	s, err := imaptest.StartDovecot(b.Context(), b.TempDir(), imaptest.DovecotOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	proxy, err := imaptest.NewProxy(s.Addr(), 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = proxy.Close() })
	host, port, err := net.SplitHostPort(proxy.Addr())
	if err != nil {
		b.Fatal(err)
	}
	m := settleAt(b, host, port, s.User, s.Password)
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, "INBOX", d), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	m.must("notmuch", "new") // that the database is empty makes no difference
	var state strings.Builder
	n := 0
	if err := s.AppendAll("INBOX", func(yield func(time.Time, []byte) bool) {
		for date, raw := range imaptest.Corpus(1, mails) {
			n++
			m.write(fmt.Sprintf("mail/work/INBOX/cur/1700000000.%d_1.host,U=%d:2,", n, n), strings.ReplaceAll(string(raw), "\r\n", "\n"))
			fmt.Fprintf(&state, "%d %d \n", n, n)
			if !yield(date, raw) {
				return
			}
		}
	}); err != nil {
		b.Fatal(err)
	}
	status, err := s.Command("STATUS INBOX (UIDVALIDITY)")
	if err != nil {
		b.Fatal(err)
	}
	_, validity, _ := strings.Cut(strings.Join(status, " "), "UIDVALIDITY ")
	validity, _, _ = strings.Cut(validity, ")")
	m.write("mail/work/INBOX/.uidvalidity", fmt.Sprintf("1\n%d\n", n))
	m.write("mail/work/INBOX/.mbsyncstate", fmt.Sprintf("FarUidValidity %s\nNearUidValidity 1\nMaxPulledUid %d\nMaxPushedUid 0\n\n%s", validity, n, state.String()))

	var peak int64
	var busy time.Duration
	for b.Loop() {
		b.StopTimer()
		if err := os.RemoveAll(filepath.Join(m.dir, "state")); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.Fatal(err)
		}
		proxy.Reset()
		b.StartTimer()
		cmd := exec.CommandContext(b.Context(), filepath.Join(m.dir, "bin", name), "import", "mbsync")
		cmd.Env, cmd.Dir = m.env, m.dir
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), fmt.Sprintf("work/INBOX: %s messages are paired\n", thousands(mails))) {
			b.Fatalf("%v: %s", err, out)
		}
		usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		peak = max(peak, usage.Maxrss)
		busy += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	b.ReportMetric(float64(peak)/1024, "MiB")
	b.ReportMetric(busy.Seconds()/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(proxy.Flights())*1000/mails, "flights/1000")
}
