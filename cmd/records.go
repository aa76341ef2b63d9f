package cmd

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// recordPatience is how long a pipe may take to take a line.
const recordPatience = 2 * time.Second

// maxTrace is how many bytes of a trace one process writes.
const maxTrace = 64 << 20

// recordFlags are the options that keep in files what a sync does and says.
func recordFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log", TakesFile: true, Usage: "append to `FILE` all that happens, whatever is shown"},
		&cli.StringFlag{Name: "trace", TakesFile: true, Usage: "append to `FILE` what is said with the servers, without secrets but with the beginnings of mails"},
	}
}

// records are the files of recordFlags. The zero value keeps nothing.
type records struct {
	files       []*recordFile
	log         *slog.Logger // nil: none
	trace       io.Writer    // nil: none
	connections atomic.Int32 // of the trace so far
}

// keepRecords has out write what recordFlags ask for, until it is closed.
func (p *program) keepRecords(c *cli.Context, out *output) error {
	r := &out.records
	open := func(option string, most int) (io.Writer, error) {
		file := c.String(option)
		if file == "" {
			return nil, nil
		}
		// Not to wait for whoever reads from a pipe, neither now nor later.
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, &usageError{fmt.Sprintf("--%s: %v", option, err), c.Command.HelpName}
		}
		tell := func(text string) { out.fault("--" + option + ": " + text) }
		if option == "log" {
			// It is told out of the middle of a line of the log, which must not wait for another.
			tell = func(text string) { out.shows(name, "--"+option+": "+text) }
		}
		r.files = append(r.files, &recordFile{file: f, left: most, tell: tell})
		return r.files[len(r.files)-1], nil
	}
	log, err := open("log", -1)
	if err == nil && log != nil {
		r.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if err == nil {
		r.trace, err = open("trace", maxTrace)
	}
	if err != nil {
		r.close()
	}
	return err
}

func (r *records) close() {
	for _, f := range r.files {
		f.close()
	}
}

// event writes an event to the log. Progress is none: it would be most of it.
func (r *records) event(e pipeline.Event) {
	if r.log == nil || e.Type == pipeline.EventProgress {
		return
	}
	write := r.log.Info
	switch e.Type {
	case pipeline.EventFault, pipeline.EventStub, pipeline.EventHook:
		write = r.log.Warn
	case pipeline.EventNote:
		write = r.log.Debug
	}
	text := inLine(e.Text)
	if e.Type == pipeline.EventDone {
		if text = summary(*e.Report); text == "" {
			text = "nothing could be done"
		}
	}
	attrs := []any{slog.String("event", string(e.Type))}
	if e.Account != "" {
		attrs = append(attrs, slog.String("account", e.Account))
	}
	if e.Mailbox != "" {
		attrs = append(attrs, slog.String("mailbox", e.Mailbox))
	}
	if e.UID != 0 {
		attrs = append(attrs, slog.Uint64("uid", uint64(e.UID)))
	}
	write(text, attrs...)
}

// connection gives what writes the lines of a new connection to the trace; nil if there
// is none. Connections of one trace are told apart by their numbers.
func (r *records) connection(account string) func(mail.Line) {
	if r.trace == nil {
		return nil
	}
	where := fmt.Sprintf("%s/%d", plain(account), r.connections.Add(1))
	return func(l mail.Line) {
		who := 'S'
		if l.Client {
			who = 'C'
		}
		fmt.Fprintf(r.trace, "%s %s %c: %s\n", l.At.Format("2006-01-02 15:04:05.000"), where, who, l.Text) //nolint:errcheck // recordFile tells it
	}
}

// recordFile is a file that costs no sync anything: what goes wrong with it is told once,
// and then nothing is written to it, or nothing until there is room again.
type recordFile struct {
	tell func(string)

	mu     sync.Mutex
	file   *os.File // nil: it is over
	left   int      // bytes; less than 0: without bound
	noRoom bool     // for the line before
	torn   bool     // of one line only the beginning is there
}

func (f *recordFile) Write(line []byte) (int, error) {
	if wrong := f.write(line); wrong != "" {
		f.tell(wrong)
	}
	return len(line), nil
}

// write gives the words for what ends the file; "" if nothing does.
func (f *recordFile) write(line []byte) (wrong string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return ""
	}
	if f.left >= 0 {
		if f.left < len(line) {
			wrong = fmt.Sprintf("%s is full after %d MB; what follows is not in it", f.file.Name(), maxTrace>>20)
		}
		f.left -= len(line)
	}
	if wrong == "" {
		if f.torn {
			line = append([]byte("\n"), line...)
		}
		_ = f.file.SetWriteDeadline(time.Now().Add(recordPatience)) // what has none does not block
		n, err := f.file.Write(line)
		f.torn = f.torn && n == 0 || n > 0 && n < len(line)
		before := f.noRoom
		f.noRoom = errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
		switch {
		case f.noRoom && before:
			return ""
		case f.noRoom:
			return fmt.Sprintf("%v; what follows is not in it until there is room", err)
		case err != nil:
			wrong = fmt.Sprintf("%v; what follows is not in it", err)
		}
	}
	if wrong != "" {
		f.shut()
	}
	return wrong
}

func (f *recordFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut()
}

func (f *recordFile) shut() {
	if f.file != nil {
		_ = f.file.Close() // each line was written by a call of its own
	}
	f.file = nil
}
