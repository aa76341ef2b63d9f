package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Stream gives a Run that keeps one process of an executable for the whole run:
// it gets one line of JSON for each event on standard input, and answers each by
// one line, empty or a verdict, on standard output. A process that fails is
// killed, and the next event starts another one. A spawn for every mail is too
// slow for a first sync.
func Stream(name string, argv []string) (run func(context.Context, *Event) (Verdict, error), stop func() error) {
	s := &stream{name: name, argv: argv}
	return s.run, s.stop
}

// stream is used by one goroutine at a time.
type stream struct {
	name string
	argv []string
	proc *process // nil: none
}

// process is one that runs.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	pipe   io.Closer // below stdout
	stderr *bounded
}

func (s *stream) run(ctx context.Context, e *Event) (Verdict, error) {
	line, err := encode(e)
	if err != nil {
		return Verdict{}, err
	}
	if s.proc != nil && s.proc.quiet() != nil {
		// It ended since, or said more than it was asked: what it says next
		// would be taken for an answer to this event.
		s.proc.end()
		s.proc = nil
	}
	if s.proc == nil {
		if s.proc, err = s.start(); err != nil {
			return Verdict{}, err
		}
	}
	p := s.proc
	// Reading and writing end when the group is gone and the pipes are closed,
	// also when a child outside the group still holds them.
	stop := context.AfterFunc(ctx, p.cut)
	answer, err := p.speak(line)
	var v Verdict
	if err == nil {
		v, err = decode(answer)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return v, nil
	}
	// Whatever it was, question and answer may be out of step now.
	s.proc = nil
	exited := p.end()
	switch {
	case ctx.Err() != nil:
		return Verdict{}, ctx.Err()
	case errors.Is(err, errEnded):
		return Verdict{}, fmt.Errorf("%w (%s)%s", err, exited, after(p.stderr.words()))
	}
	return Verdict{}, err
}

var errEnded = errors.New("it ended without an answer")

func (s *stream) start() (*process, error) {
	// Not by the event's context: the process outlives it.
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	group(cmd)
	cmd.Cancel = nil
	cmd.WaitDelay = holdOn
	cmd.Env = append(os.Environ(), EnvInside+"="+s.name)
	p := &process{cmd: cmd, stderr: &bounded{most: maxStderr}}
	cmd.Stderr = p.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("there is no program %q on the PATH", s.argv[0])
		}
		return nil, err
	}
	p.stdin, p.pipe, p.stdout = stdin, stdout, bufio.NewReaderSize(stdout, maxAnswer)
	return p, nil
}

// quiet tells whether the process is there and waits for a question.
func (p *process) quiet() error {
	f, ok := p.pipe.(syscall.Conn)
	if !ok {
		return nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var one [1]byte
	n := 0
	var readErr error
	err = conn.Read(func(fd uintptr) bool {
		n, readErr = syscall.Read(int(fd), one[:])
		return true // the pipe does not block: there is something, or not
	})
	switch {
	case err != nil:
		return err
	case n == 0 && readErr == nil, n > 0:
		return errEnded
	}
	return nil
}

// speak asks one question.
func (p *process) speak(line []byte) ([]byte, error) {
	wrote := make(chan error, 1)
	go func() {
		_, err := p.stdin.Write(line)
		wrote <- err
	}()
	answer, err := p.stdout.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("it printed a line of more than %d KiB", maxAnswer>>10)
	case err != nil:
		return nil, errEnded
	}
	if p.stdout.Buffered() > 0 {
		return nil, errors.New("it printed more than one line for one event")
	}
	// An answer that comes before the question was read is no answer.
	return answer, <-wrote
}

// cut kills the process and what it started, and ends whoever speaks with it.
func (p *process) cut() {
	_ = kill(p.cmd) // it may be gone
	_ = p.stdin.Close()
	_ = p.pipe.Close()
}

// end cuts the process off and says how it ended.
func (p *process) end() string {
	p.cut()
	_ = p.cmd.Wait() // its state says it
	return fmt.Sprint(p.cmd.ProcessState)
}

// stop ends the process: by the end of its input, else by force.
func (s *stream) stop() error {
	if s.proc == nil {
		return nil
	}
	p := s.proc
	s.proc = nil
	_ = p.stdin.Close()
	// It may have work to finish, and nobody waits for what it prints.
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = kill(p.cmd); _ = p.pipe.Close() })()
	_, _ = io.Copy(io.Discard, p.stdout)
	_ = p.end()
	return nil
}
