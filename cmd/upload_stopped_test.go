package cmd

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestAnUploadThatWasStopped by SIGKILL, wherever it was, is ended by the next one: all that was
// here is on the server, once, and one more run has nothing to send.
func TestAnUploadThatWasStopped(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1, 25, 45, 79} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			m, _, _ := settle(t, s)
			want := map[string]int{}
			for b, folder := range []string{"INBOX", "Archiv/2024", "Alt"} {
				m.maildir(folder)
				for i := range 40 {
					m.put(fmt.Sprintf("%s/cur/%d.%d:2,S", folder, b, i), rawDovecot(100*b+i))
				}
				want[folder] = 40
			}
			m.must("notmuch", "new")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			count := func() (n int) {
				lines, err := s.Command(`LIST "" * RETURN (STATUS (MESSAGES))`)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range regexp.MustCompile(`MESSAGES (\d+)`).FindAllStringSubmatch(strings.Join(lines, "\n"), -1) {
					k, _ := strconv.Atoi(f[1])
					n += k
				}
				return n
			}
			cmd := exec.CommandContext(t.Context(), name, "upload", "work")
			cmd.Path = m.dir + "/bin/" + name
			cmd.Env, cmd.Dir, cmd.Err = m.env, m.dir, nil
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); _ = cmd.Wait() }() // it is killed, or was faster
			for count() < at {
				select {
				case <-ended:
					if n := count(); n < at {
						t.Fatalf("it ended when %d were there", n)
					}
				default:
				}
			}
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Log(err) // it was faster
			}
			<-ended
			m.must(name, "upload", "work")
			m.holds(want)
			says(t, m.must(name, "upload", "work"), "work: nothing new")
			says(t, m.must(name, "sync"), "work: nothing new")
			m.holds(want)
			m.hasTags(before)
			says(t, m.must(name, "verify", "--deep"), "work: all 120 messages are here, equal in every word")
		})
	}
}
