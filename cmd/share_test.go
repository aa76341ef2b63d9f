package cmd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// TestEachAccountIsInOneShare, in one that is not empty, and stays in it when others come.
func TestEachAccountIsInOneShare(t *testing.T) {
	t.Parallel()
	count := make(map[uint64]int)
	for i := range 200 {
		at := shareOf(fmt.Sprintf("person%03d", i), 8)
		if at >= 8 {
			t.Fatalf("share %d of 8", at)
		}
		count[at]++
	}
	for i := range uint64(8) {
		if count[i] < 10 || count[i] > 40 {
			t.Errorf("share %d has %d of 200 accounts", i, count[i])
		}
	}
	// The shares are the same in every version: a run would else repeat others' work.
	if a, b := shareOf("jane", 1000), shareOf("work", 1000); a != 171 || b != 398 {
		t.Errorf("shares %d and %d", a, b)
	}
	for text, ok := range map[string]bool{"0/1": true, "7/8": true, "8/8": false, "-1/8": false, "1": false, "": false, "a/b": false, "1/8/9": false, "0/0": false, "+1/8": false} {
		if _, _, got := shard(text); got != ok {
			t.Errorf("shard %q: %v", text, got)
		}
	}
}

// TestAFleetSharesItsAccounts: several runs at once synchronise each of 200 accounts once. Where
// one could not do all, it says so by its status, and is repeated alone.
func TestAFleetSharesItsAccounts(t *testing.T) {
	t.Parallel()
	const people, shards = 200, 4
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR LIST-STATUS", nil, imaptest.Box("INBOX", faultMail(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	signIns := func() (n int) {
		for _, line := range server.Log() {
			if strings.HasPrefix(line, "LOGIN") || strings.HasPrefix(line, "AUTHENTICATE") {
				n++
			}
		}
		return n
	}
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	n.write("password", "secret\n")
	late := filepath.Join(n.home, "late") // a password that is not there yet
	const waits = 17
	var conf, list strings.Builder
	list.WriteString("# people\r\n\n")
	of := make(map[uint64]int)
	failing := shareOf(fmt.Sprintf("person%03d", waits), shards)
	for i := range people {
		person, password := fmt.Sprintf("person%03d", i), filepath.Join(n.home, "password")
		if i == waits {
			password = late
		}
		of[shareOf(person, shards)]++
		fmt.Fprintf(&conf, "[account.%s]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = %q\nconnections = 1\n", person, server.Port(), person, password)
		fmt.Fprintf(&list, " %s\r\n", person)
	}
	fmt.Fprintf(&conf, "[account.other]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"other\"\npassword_file = \"password\"\n")
	n.write(newConfig, conf.String())
	n.write("people", list.String())

	run := func(i uint64) int {
		cmd := exec.CommandContext(t.Context(), filepath.Join(n.home, "bin", name), "sync", "--json", "--accounts-from", "-", "--shard", fmt.Sprintf("%d/%d", i, shards))
		cmd.Env, cmd.Stdin = n.env, strings.NewReader(list.String())
		out, err := cmd.Output()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			t.Error(err)
			return -1
		}
		if done := strings.Count(string(out), `"type":"done"`); done != of[i] {
			t.Errorf("share %d: %d accounts are done, want %d: %s", i, done, of[i], out)
		}
		return cmd.ProcessState.ExitCode()
	}
	var status [shards]int
	var wg sync.WaitGroup
	for i := range shards {
		wg.Go(func() { status[i] = run(uint64(i)) })
	}
	wg.Wait()
	for i, got := range status {
		want := exitDone
		if uint64(i) == failing {
			want = exitBroken // the file of a password is missing
		}
		if got != want {
			t.Errorf("share %d ends with %d, want %d", i, got, want)
		}
	}
	if got := signIns(); got != people-1 {
		t.Errorf("%d sign-ins for %d accounts", got, people-1)
	}

	n.write("late", "secret\n")
	if got := run(failing); got != exitDone {
		t.Errorf("the share that failed ends with %d when it is repeated", got)
	}
	if got := signIns(); got != of[failing] {
		t.Errorf("%d sign-ins, and the share has %d accounts", got, of[failing])
	}
	for i := range people {
		dir := filepath.Join(n.home, "mail", fmt.Sprintf("person%03d", i), "INBOX")
		if mails, err := filepath.Glob(filepath.Join(dir, "[cn][ue][rw]", "*")); err != nil || len(mails) != 1 {
			t.Errorf("%s has %d mails", dir, len(mails))
		}
	}

	for _, c := range []struct {
		status int
		says   string
		args   []string
	}{
		{exitUsage, "I from 0 to N-1", []string{"--shard", "4/4"}},
		{exitUsage, `no account "nobody"`, []string{"--accounts-from", "nobodies"}},
		{exitUsage, "not both", []string{"--accounts-from", "people", "person001"}},
		{exitUsage, "no such file", []string{"--accounts-from", "missing"}},
		{exitDone, "no account is in this share", []string{"--accounts-from", "none"}},
	} {
		n.write("nobodies", "person001\nnobody\n")
		n.write("none", "# nobody yet\n")
		for i, a := range c.args {
			if i > 0 && c.args[i-1] == "--accounts-from" {
				c.args[i] = filepath.Join(n.home, a)
			}
		}
		n.wants(n.does(c.status, append([]string{"sync"}, c.args...)...), c.says)
	}
	if st, err := os.Stat(filepath.Join(n.home, "mail", "other")); err == nil {
		t.Errorf("an account that is not in the list was synchronised: %v", st.Name())
	}
}
