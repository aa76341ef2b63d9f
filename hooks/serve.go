package hooks

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Serve is the main function of a program that holds hooks in Go, to be named as
// a command in the configuration, with mode = "stream" or without. It asks the
// hooks of its list in order for every event that comes on standard input, and
// gives an exit status.
func Serve(list ...Hook) int {
	if err := serve(context.Background(), os.Stdin, os.Stdout, list); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, in io.Reader, out io.Writer, list []Hook) (err error) {
	r, err := NewRunner(list)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	events := json.NewDecoder(bufio.NewReader(in))
	for {
		var e Event
		switch err := events.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("standard input holds no event of notmuch-imap: %w", err)
		case e.Version != EventVersion:
			return fmt.Errorf("events of version %d are not known here; build this program with the hooks of that notmuch-imap", e.Version)
		}
		o, err := r.Ask(ctx, e, false)
		if err != nil {
			return err
		}
		a := answer{Verdict: o.Verdict}
		// What a hook of the list failed at, the reader of this answer reports;
		// whether that holds the mail back is for the configuration to say.
		if len(o.Failed) > 0 {
			a = answer{Error: o.Failed[0].Hook + ": " + o.Failed[0].Err.Error()}
		}
		if !e.Point.Pre() {
			a.Verdict = Verdict{}
		}
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return err
		}
	}
}
