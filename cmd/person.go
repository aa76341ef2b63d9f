package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// person is who answers questions: somebody at a terminal, or the options of the
// command line, which then must say all that has no default.
type person struct {
	tty     *os.File // nil: nobody is there
	lines   *bufio.Reader
	yes     bool   // takes every proposal
	command string // whose help to see
}

// newPerson looks for somebody to ask. Standard input may be something else, so
// that the terminal itself is opened.
func newPerson(yes bool, command string) *person {
	p := &person{yes: yes, command: command}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		p.tty, p.lines = tty, bufio.NewReader(tty)
	}
	return p
}

func (p *person) close() {
	if p.tty != nil {
		_ = p.tty.Close() // nothing of it is kept
	}
}

// there tells whether somebody can be asked.
func (p *person) there() bool { return p.tty != nil && !p.yes }

// missing is the error where nobody can be asked.
func (p *person) missing(option string) error {
	return &usageError{"there is nobody to ask: give " + option, p.command}
}

// line asks for a line of text. An empty answer is the proposal.
func (p *person) line(ctx context.Context, question, proposal, option string) (string, error) {
	switch {
	case !p.there() && proposal != "":
		return proposal, nil
	case !p.there():
		return "", p.missing(option)
	}
	if proposal != "" {
		question += " [" + plain(proposal) + "]"
	}
	for {
		answer, err := p.ask(ctx, question+": ")
		if err != nil {
			return "", err
		}
		if answer != "" || proposal != "" {
			return either(answer, proposal), nil
		}
	}
}

// agrees asks a question to be answered by yes or no.
func (p *person) agrees(ctx context.Context, question string, proposal bool) (bool, error) {
	if !p.there() {
		return proposal, nil
	}
	keys := map[bool]string{true: "Y/n", false: "y/N"}[proposal]
	for {
		answer, err := p.ask(ctx, question+" ["+keys+"] ")
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "":
			return proposal, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
	}
}

// choice is one of several answers, taken by its first letter.
type choice struct{ word, text string }

// chooses asks for one of the choices; the first is the proposal.
func (p *person) chooses(ctx context.Context, question, option string, choices []choice) (string, error) {
	if !p.there() {
		if p.yes && len(choices) > 0 {
			return choices[0].word, nil
		}
		return "", p.missing(option)
	}
	text := question + "\n"
	var keys []string
	for _, c := range choices {
		text += fmt.Sprintf("  %s  %-8s %s\n", c.word[:1], c.word, plain(c.text))
		keys = append(keys, c.word[:1])
	}
	for {
		answer, err := p.ask(ctx, text+"["+strings.Join(keys, "/")+", Enter is "+keys[0]+"] ")
		if err != nil {
			return "", err
		}
		if answer == "" {
			return choices[0].word, nil
		}
		i := slices.IndexFunc(choices, func(c choice) bool { return answer == c.word || answer == c.word[:1] })
		if i >= 0 {
			return choices[i].word, nil
		}
		text = ""
	}
}

// errClosed says that the person will answer no more: Ctrl-D, or a terminal that is gone.
var errClosed = errors.New("nothing was answered; nothing was changed")

// ask shows a text on the terminal and reads one line, without its ends. An
// interruption ends the waiting.
func (p *person) ask(ctx context.Context, text string) (string, error) {
	if _, err := io.WriteString(p.tty, fold(text, columns(p.tty), hang)); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.tty.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := p.lines.ReadString('\n')
	switch {
	case ctx.Err() != nil:
		_, _ = io.WriteString(p.tty, "\n")
		return "", ctx.Err()
	case errors.Is(err, io.EOF):
		_, _ = io.WriteString(p.tty, "\n")
		return "", errClosed
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// secret asks for a line that is not shown, until there is one.
func (p *person) secret(ctx context.Context, question, option string) (string, error) {
	if p.tty == nil {
		return "", p.missing(option)
	}
	shown, err := p.echo(nil)
	if err != nil {
		return "", err
	}
	hidden := *shown
	hidden.Lflag &^= unix.ECHO
	if _, err := p.echo(&hidden); err != nil {
		return "", err
	}
	defer func() {
		_, _ = p.echo(shown) // a terminal that is gone shows nothing either
		_, _ = io.WriteString(p.tty, "\n")
	}()
	for {
		answer, err := p.ask(ctx, question+": ")
		if err != nil || answer != "" {
			return answer, err
		}
		_, _ = io.WriteString(p.tty, "\n") // the one that was typed is not shown either
	}
}

// echo gives the terminal's settings, and replaces them if there are others. The
// file stays one whose reads a deadline ends, which after File.Fd it would not.
func (p *person) echo(others *unix.Termios) (now *unix.Termios, err error) {
	raw, err := p.tty.SyscallConn()
	if err != nil {
		return nil, err
	}
	failed := raw.Control(func(fd uintptr) {
		if now, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil && others != nil {
			err = unix.IoctlSetTermios(int(fd), unix.TCSETS, others)
		}
	})
	return now, errors.Join(err, failed)
}

// tell shows a text to the person, if there is one.
func (p *person) tell(text string) {
	if p.tty != nil {
		_, _ = io.WriteString(p.tty, fold(text, columns(p.tty), hang)) // a terminal that is gone is found at the next question
	}
}
