package hooks

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sample is an event with everything in it.
func sample() Event {
	return Event{
		Version: EventVersion, Point: PreWrite, Hook: "test", Account: "work", Mailbox: "INBOX", UIDValidity: 14, UID: 7, Size: 1200,
		Received: "2026-11-01T10:00:00Z", Flags: []string{`\Flagged`, `\Seen`}, Tags: []string{"inbox", "two words"}, File: "/tmp/x", ID: "n@example.org",
		MessageID: "m@example.org", From: "Jürgen <j@example.org>", To: "me@example.org", Subject: `a "b" & <c>`, Date: "2026-11-01T10:00:00Z",
		ListID: "list.example.org", Set: []string{`\Seen`}, Clear: []string{`\Flagged`}, Reason: "it fell silent",
		New: 1, Stubs: 2, Healed: 3, Flagged: 4, Pushed: 5, Moved: 8, Deleted: 9, Uploaded: 10, Removed: 6, Faults: 7,
	}
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

// runners are both ways to run a script that speaks for one event: as it is, and
// in a loop.
func runners(t *testing.T, script string) map[string]func(context.Context, *Event) (Verdict, error) {
	t.Helper()
	run, stop := Stream("test", sh("while read -r line; do "+script+"\ndone"))
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return map[string]func(context.Context, *Event) (Verdict, error){"each": Command(sh(script)), "stream": run}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// dueWhen gives a context whose time is up as soon as a file has a line.
func dueWhen(t *testing.T, file string) context.Context {
	t.Helper()
	d := due{t.Context(), make(chan struct{})}
	gone := make(chan struct{})
	t.Cleanup(func() { <-gone })
	go func() {
		defer close(gone)
		defer close(d.up)
		for end := time.Now().Add(5 * time.Minute); time.Now().Before(end) && d.Context.Err() == nil; time.Sleep(time.Millisecond) {
			if text, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(text), "\n") {
				return
			}
		}
	}()
	return d
}

// due is a context whose time is up when the channel is closed.
type due struct {
	context.Context
	up chan struct{}
}

func (d due) Done() <-chan struct{} { return d.up }

func (d due) Err() error {
	select {
	case <-d.up:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestExecutableGetsTheEventTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := sample()
	v, err := Command(sh(`cat >`+dir+`/in; env | grep -v ' words$' >`+dir+`/env
printf '%s' "$NOTMUCH_IMAP_TAGS" >`+dir+`/tags; echo '{"action":"pass","add":["x"]}'`))(within(t, time.Minute), &e)
	if err != nil || !slices.Equal(v.Add, []string{"x"}) {
		t.Fatalf("%+v %v", v, err)
	}
	in, _ := os.ReadFile(filepath.Join(dir, "in"))
	line, _ := encode(&e)
	if string(in) != string(line) || strings.Count(string(in), "\n") != 1 {
		t.Errorf("standard input was %q", in)
	}
	env, _ := os.ReadFile(filepath.Join(dir, "env"))
	for _, want := range []string{"HOOK=test", "POINT=pre-write", "MAILBOX=INBOX", "UID=7", "UIDVALIDITY=14", `SUBJECT=a "b" & <c>`, "FROM=Jürgen <j@example.org>", "NEW_STUBS=2"} {
		if !strings.Contains("\n"+string(env), "\nNOTMUCH_IMAP_"+want+"\n") {
			t.Errorf("no %s in %s", want, env)
		}
	}
	if tags, _ := os.ReadFile(filepath.Join(dir, "tags")); string(tags) != "inbox\ntwo words" {
		t.Errorf("tags are %q", tags)
	}
}

func TestExecutableAnswers(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]Verdict{
		`echo`:      {},
		`echo '{}'`: {},
		`echo '{"action":"skip","reason":"big"}'`:     {Action: Skip, Reason: "big"},
		`echo '{"action":"skip","placeholder":true}'`: {Action: Skip, Placeholder: true},
		`echo ' {"add":["a b"],"remove":["inbox"]}'`:  {Add: []string{"a b"}, Remove: []string{"inbox"}},
	} {
		for mode, run := range runners(t, script) {
			for range 3 {
				e := sample()
				v, err := run(within(t, time.Minute), &e)
				if err != nil || v.Action != want.Action || v.Reason != want.Reason || v.Placeholder != want.Placeholder || !slices.Equal(v.Add, want.Add) || !slices.Equal(v.Remove, want.Remove) {
					t.Errorf("%s, %s: %+v, %v", script, mode, v, err)
				}
			}
		}
	}
	e := sample()
	v, err := Command(sh("echo not now >&2; exit 75"))(within(t, time.Minute), &e)
	if err != nil || v.Action != Defer || v.Reason != "not now" {
		t.Errorf("75: %+v %v", v, err)
	}
	if _, err := Command(sh("exit 0"))(within(t, time.Minute), &e); err != nil {
		t.Errorf("silence: %v", err)
	}
}

func TestExecutableFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ script, each, stream string }{
		{"exit 3", "exit status 3", "ended without an answer (exit status 3)"},
		{"echo no disk >&2; exit 1", "exit status 1: no disk", "no disk"},
		{"kill -SEGV $$", "signal: segmentation fault", "signal: segmentation fault"},
		{"echo Subject: hello", `what is no verdict: "Subject: hello"`, `what is no verdict: "Subject: hello"`},
		{`echo '{"action":"skip"} and more'`, "no verdict", "no verdict"},
		{`echo '{"tags":["x"]}'`, "no verdict", "no verdict"},
		{`echo '[1]'`, "no verdict", "no verdict"},
		{`echo '{"error":"no model"}'`, "no model", "no model"},
		{`head -c 100000000 /dev/zero`, "more than 64 KiB", "more than 64 KiB"},
		{`head -c 100000000 /dev/zero >&2; exit 1`, "exit status 1", "exit status 1"},
	} {
		for mode, run := range runners(t, tc.script) {
			want := map[string]string{"each": tc.each, "stream": tc.stream}[mode]
			e := sample()
			_, err := run(within(t, time.Minute), &e)
			if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %s: %v", tc.script, mode, err)
			}
			if _, again := run(within(t, time.Minute), &e); again == nil || again.Error() != err.Error() {
				t.Errorf("%s, %s: then: %v", tc.script, mode, again)
			}
		}
	}
	for _, run := range []func(context.Context, *Event) (Verdict, error){Command([]string{"no-such-program"}), func(ctx context.Context, e *Event) (Verdict, error) {
		run, _ := Stream("test", []string{"no-such-program"})
		return run(ctx, e)
	}} {
		e := sample()
		if _, err := run(within(t, time.Minute), &e); err == nil || !strings.Contains(err.Error(), `no program "no-such-program" on the PATH`) {
			t.Errorf("%v", err)
		}
	}
}

// ended waits until a process is gone.
func ended(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(5 * time.Minute)
	for {
		// A zombie that nobody reaps is gone as well.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("process %d lives", pid)
		}
	}
}

func TestHangingExecutableIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		"sleep 1000 & echo $! >child; wait",
		// The hook itself is through, its child holds the output.
		"trap '' TERM HUP; sleep 1000 & echo $! >child; sleep 1000",
	} {
		dir := t.TempDir()
		for mode, run := range runners(t, "cd "+dir+"; "+script) {
			e := sample()
			child := filepath.Join(dir, "child")
			_, err := run(dueWhen(t, child), &e)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, %s: %v", script, mode, err)
			}
			ended(t, child)
			if err := os.Remove(child); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestChildThatHoldsTheOutputKeepsNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := sample()
	v, err := Command(sh("cd "+dir+`; sleep 1000 & echo $! >child; echo '{"add":["x"]}'`))(within(t, time.Minute), &e)
	if err != nil || !slices.Equal(v.Add, []string{"x"}) {
		t.Errorf("%+v %v", v, err)
	}
	child := filepath.Join(dir, "child")
	ended(t, child)
	if err := os.Remove(child); err != nil {
		t.Error(err)
	}
	run, stop := Stream("test", sh("cd "+dir+"; sleep 1000 & echo $! >child; exit 0"))
	if _, err := run(dueWhen(t, child), &e); err == nil {
		t.Error("an answer came")
	}
	ended(t, child)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestStreamKeepsOneProcessAndBeginsAnewAfterAFailure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run, stop := Stream("test", sh("echo start >>"+dir+`/log; while read -r line; do case $line in *bad*) exit 1;; *two*) printf '\n\n';; *) echo '{"add":["ok"]}';; esac; done; echo end >>`+dir+"/log"))
	for _, subject := range []string{"one", "one", "one", "bad", "one", "two", "one"} {
		e := Event{Subject: subject}
		v, err := run(within(t, time.Minute), &e)
		if good := subject == "one"; good == (err != nil) || good && !slices.Equal(v.Add, []string{"ok"}) {
			t.Errorf("%s: %+v %v", subject, v, err)
		}
	}
	if err := errors.Join(stop(), stop()); err != nil {
		t.Error(err)
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	if got := string(log); strings.Count(got, "start") < 3 || !strings.HasSuffix(got, "end\n") {
		t.Errorf("log %q", got)
	}
}
