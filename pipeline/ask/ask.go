// Package ask puts to the hooks what the stages meet: it lends them copies of mails, and
// tells at the end of a run, a line for each thing, what they did.
package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// DeferMost is how long a hook may defer one message. Beyond it that counts as
// a failure of the hook, so that no hook keeps mail away for ever without being
// required.
const DeferMost = 3 * 24 * time.Hour

// Hooks are the hooks of one account's run, as its stages ask them.
type Hooks struct {
	account string
	runner  *hooks.Runner
	state   string // the account's directory, in which copies of mails are lent
	rep     *report.Reporter
	now     func() time.Time

	mu    sync.Mutex
	dir   string      // where copies of mails are lent from; "" if there was none yet
	lines []*hookLine // what there is to say at the end
}

// New gives the hooks of an account's run; runner may be nil. state is the account's own
// directory.
func New(account string, runner *hooks.Runner, state string, rep *report.Reporter, now func() time.Time) *Hooks {
	return &Hooks{account: account, runner: runner, state: state, rep: rep, now: now}
}

// At tells whether there are hooks at one of the points.
func (h *Hooks) At(points ...hooks.Point) bool { return h.runner.At(points...) }

// hookLine is one thing that a hook did, however often.
type hookLine struct {
	hook   string
	what   hooks.Action // "": it failed
	text   string       // of the first time
	forced bool
	n      int
}

// Judge asks the hooks about an event, and notes what they failed at. since is
// when one of them deferred it first.
func (h *Hooks) Judge(ctx context.Context, e hooks.Event, since time.Time) (hooks.Outcome, error) {
	e.Account = h.account
	last := !since.IsZero() && h.now().Sub(since) >= DeferMost
	out, err := h.runner.Ask(ctx, e, last)
	for _, f := range out.Failed {
		h.note(hookLine{hook: f.Hook, text: f.Err.Error(), forced: f.Required && e.Point.Pre()})
	}
	// That the account as a whole is put off is a fault of its own.
	if out.By != "" && !out.Forced && (e.Point != hooks.PreSync || out.Action != hooks.Defer) {
		h.note(hookLine{hook: out.By, what: out.Action, text: out.Reason})
	}
	return out, err
}

// JudgeFile is Judge with the mail at path lent to the hooks.
func (h *Hooks) JudgeFile(ctx context.Context, e hooks.Event, path string, since time.Time) (hooks.Outcome, error) {
	giveBack, err := h.lend(&e, path)
	if err != nil {
		return hooks.Outcome{}, err
	}
	defer giveBack()
	return h.Judge(ctx, e, since)
}

func (h *Hooks) note(l hookLine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, have := range h.lines {
		if have.hook == l.hook && have.what == l.what && have.forced == l.forced {
			have.n++
			return
		}
	}
	l.n = 1
	h.lines = append(h.lines, &l)
}

// End tells what the hooks did, a line for each thing.
func (h *Hooks) End() {
	for _, l := range h.lines {
		text := "hook " + l.hook
		times := ""
		if l.n > 1 {
			times = fmt.Sprintf(" %d times", l.n)
		}
		if l.what != "" && l.text != "" {
			l.text = ": " + l.text
		}
		switch {
		case l.forced:
			h.rep.Fault(report.Failure{Scope: report.ScopeMessage, Text: fmt.Sprintf("%s failed%s: %s; it is required, so what it was asked about waits for the next sync", text, times, l.text)})
		case l.what == "":
			h.rep.Emit(report.Event{Type: report.EventHook, Text: fmt.Sprintf("%s failed%s: %s; nothing was kept from going on by it", text, times, l.text)})
		case l.what == hooks.Skip:
			h.rep.Emit(report.Event{Type: report.EventNote, Text: fmt.Sprintf("%s said skip%s%s", text, times, l.text)})
		default:
			h.rep.Emit(report.Event{Type: report.EventNote, Text: fmt.Sprintf("%s said defer%s%s; the next sync asks again", text, times, l.text)})
		}
	}
}

// LentPrefix begins the name of a directory, in the account's, with copies of
// mails for hooks.
const LentPrefix = "hook-"

// Clear removes such copies, also those that a killed run left: nobody else
// is at work on the account.
func (h *Hooks) Clear() {
	left, _ := filepath.Glob(filepath.Join(h.state, LentPrefix+"*")) // the pattern is right
	for _, dir := range left {
		_ = os.RemoveAll(dir) // the next run tries again
	}
}

// MaxField bounds a header field as hooks get it, in characters.
const MaxField = 1000

// EventOf tells of a row's message.
func EventOf(p hooks.Point, row ledger.Message) hooks.Event {
	e := hooks.Event{Point: p, Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, UID: uint32(row.UID), Size: row.Size, Flags: slices.Clone(row.Flags)}
	if !row.Date.IsZero() {
		e.Received = row.Date.Format(time.RFC3339)
	}
	return e
}

// lend puts the header of the mail at path into an event, and a copy of the
// mail: what a hook does to that changes nothing. giveBack ends the loan. A mail that
// is gone, or that nobody may read, is judged unseen. That no copy can be made is an
// error of this machine: a hook that sees nothing of a mail might keep it away.
func (h *Hooks) lend(e *hooks.Event, path string) (giveBack func(), err error) {
	from, err := openMail(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		h.note(hookLine{hook: "files", text: "a mail could not be shown to hooks: " + err.Error()})
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	file, fields, err := h.duplicate(from)
	if err = errors.Join(err, from.Close()); err != nil {
		return nil, fmt.Errorf("no copy can be made for hooks: %w", err)
	}
	env := mail.EnvelopeOf(fields)
	e.File = file
	e.MessageID, e.From, e.To, e.Subject = mail.OneLine(env.MessageID, MaxField), mail.OneLine(env.From, MaxField), mail.OneLine(env.To, MaxField), mail.OneLine(env.Subject, MaxField)
	e.ListID = mail.OneLine(bareID(fields.Get("List-Id")), MaxField)
	if !env.Date.IsZero() {
		e.Date = env.Date.Format(time.RFC3339)
	}
	if e.Size == 0 {
		if fi, err := os.Stat(file); err == nil {
			e.Size = fi.Size()
		}
	}
	return func() { _ = os.Remove(file) }, nil // a hook may have done so
}

// bareID takes a list's identifier out of its angle brackets (RFC 2919).
func bareID(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.IndexByte(s, '<'); i >= 0 {
		s = s[i+1:]
	}
	if i := strings.IndexByte(s, '>'); i >= 0 {
		s = s[:i]
	}
	return strings.TrimSpace(s)
}

// openMail opens a mail. What is no file is no mail: a message that has none leads
// to its folder.
func openMail(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return os.Open(path)
}

// duplicate copies a file to where only hooks look, and gives what they are told
// of its header.
func (h *Hooks) duplicate(from *os.File) (file string, fields mail.Header, err error) {
	to, err := h.blank()
	if err != nil {
		return "", nil, err
	}
	header := mail.NewHeaderReader("Message-ID", "From", "To", "Subject", "Date", "List-Id")
	_, err = io.Copy(to, io.TeeReader(from, header))
	if err = errors.Join(err, to.Close()); err != nil {
		_ = os.Remove(to.Name()) // the directory goes as a whole at the end
		return "", nil, err
	}
	return to.Name(), header.Header(), nil
}

// blank makes an empty file, and the directory for such files, which a hook may
// have removed.
func (h *Hooks) blank() (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dir != "" {
		f, err := os.CreateTemp(h.dir, "mail-")
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	dir, err := os.MkdirTemp(h.state, LentPrefix)
	if err != nil {
		return nil, err
	}
	h.dir = dir
	return os.CreateTemp(dir, "mail-")
}
