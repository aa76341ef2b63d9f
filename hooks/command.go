package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The environment of an executable.
const (
	envPrefix = "NOTMUCH_IMAP_"
	// EnvInside is set for executables, to the hook's name. A sync that finds
	// it does nothing: it would wait for the one that it is part of.
	EnvInside = envPrefix + "HOOK"
)

// Bounds of what an executable may print.
const (
	maxAnswer = 64 << 10
	maxStderr = 2 << 10
)

// exitDefer is EX_TEMPFAIL of sysexits.h.
const exitDefer = 75

// holdOn is how long the output of a hook that has ended is waited for: a child
// of it may have kept it open.
const holdOn = time.Second

// Command gives a Run that starts an executable for every event. It gets the
// event as one line of JSON on standard input and in NOTMUCH_IMAP_* variables,
// and answers nothing, or one verdict, on standard output. It is started
// without a shell, in a process group of its own, which is killed when its time
// is up.
func Command(argv []string) func(context.Context, *Event) (Verdict, error) {
	return func(ctx context.Context, e *Event) (Verdict, error) {
		line, err := encode(e)
		if err != nil {
			return Verdict{}, err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		group(cmd)
		cmd.WaitDelay = holdOn
		cmd.Env = append(os.Environ(), e.environment()...)
		cmd.Stdin = bytes.NewReader(line)
		stdout, stderr := &bounded{most: maxAnswer, full: cmd}, &bounded{most: maxStderr}
		cmd.Stdout, cmd.Stderr = stdout, stderr
		err = cmd.Run()
		if errors.Is(err, exec.ErrWaitDelay) {
			_ = kill(cmd) // what it left behind would pile up, one a mail
			err = nil
		}
		exit, exited := errors.AsType[*exec.ExitError](err)
		switch {
		case stdout.cut:
			return Verdict{}, fmt.Errorf("it printed more than %d KiB", maxAnswer>>10)
		case err == nil:
			return decode(stdout.kept)
		case ctx.Err() != nil:
			return Verdict{}, ctx.Err()
		case exited && exit.ExitCode() == exitDefer:
			return Verdict{Action: Defer, Reason: bound(stderr.words(), maxReason)}, nil
		case exited:
			return Verdict{}, fmt.Errorf("%w%s", exit, after(stderr.words()))
		case errors.Is(err, exec.ErrNotFound):
			return Verdict{}, fmt.Errorf("there is no program %q on the PATH", argv[0])
		}
		return Verdict{}, err
	}
}

// after sets what a program said behind what became of it.
func after(words string) string {
	if words == "" {
		return ""
	}
	return ": " + words
}

// group gives a command a process group of its own, to be killed as a whole.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return kill(cmd) }
}

// kill ends a command and what it started. A group that is gone is no error.
func kill(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// encode gives an event as one line.
func encode(e *Event) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(e)
	return b.Bytes(), err
}

// decode reads a verdict: nothing, or one JSON object.
func decode(text []byte) (_ Verdict, err error) {
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return Verdict{}, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var a answer
	if err = d.Decode(&a); err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is more behind it")
		}
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("it printed what is no verdict: %q", bound(string(text[:min(len(text), 4*shown)]), shown))
	}
	if a.Error != "" {
		return Verdict{}, errors.New(a.Error)
	}
	return a.Verdict, nil
}

// answer is what an executable prints: a verdict, or why there is none.
type answer struct {
	Verdict
	Error string `json:"error,omitempty"`
}

// shown is how much of a wrong answer is shown, in characters.
const shown = 60

// environment gives the event for programs that read no JSON: its keys in upper
// case, lists with one entry a line. Only what there is is set.
func (e *Event) environment() []string {
	var fields map[string]any
	line, err := json.Marshal(e)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		err = d.Decode(&fields)
	}
	if err != nil {
		return []string{EnvInside + "=" + e.Hook} // none of our types can fail
	}
	out := make([]string, 0, len(fields))
	for key, value := range fields {
		if list, ok := value.([]any); ok {
			lines := make([]string, len(list))
			for i, l := range list {
				lines[i] = fmt.Sprint(l)
			}
			value = strings.Join(lines, "\n")
		}
		out = append(out, envPrefix+strings.ToUpper(key)+"="+strings.ReplaceAll(fmt.Sprint(value), "\x00", ""))
	}
	return out
}

// bounded keeps the first bytes of what a program prints. The rest is swallowed,
// or ends the program.
type bounded struct {
	mu   sync.Mutex
	kept []byte
	most int
	cut  bool
	full *exec.Cmd // killed when there is more; nil: swallow
}

func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.most - len(b.kept)
	if len(p) > room {
		if b.full != nil && !b.cut {
			_ = kill(b.full) // its end shows by itself
		}
		b.cut = true
	}
	b.kept = append(b.kept, p[:min(len(p), room)]...)
	return len(p), nil
}

// words makes one line of what was printed.
func (b *bounded) words() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bound(string(b.kept), maxReason)
}
