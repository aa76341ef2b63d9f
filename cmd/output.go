package cmd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// output tells a person or a program what happens in a run. Faults go to
// standard error, all else to standard output. It may be used by several
// goroutines.
type output struct {
	mu     sync.Mutex
	stdout io.Writer
	stderr io.Writer
	json   bool
	most   int  // events worth showing at all
	words  bool // the command tells itself what became of its messages
	quiet  bool // and not even that
	colour struct{ out, err bool }
	limit  int // lines left; -1 is no limit
	over   int // lines that the limit held back

	meter *meter // nil: none

	alerts map[string]bool // shown: account and text

	records records // files beside what is shown
}

// How much is shown: everything up to one of these.
const (
	showFaults = iota
	showResults
	showAll
	showNotes
)

// outputFlags are the options of every command that runs for a while.
func outputFlags() []cli.Flag {
	return []cli.Flag{
		quietFlag(),
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say also what is odd about the servers' answers"},
		&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each event"},
	}
}

func quietFlag() cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing but what went wrong"}
}

// output is what outputFlags ask for.
func (p *program) output(c *cli.Context) (*output, error) {
	o := &output{stdout: p.stdout, stderr: p.stderr, limit: -1, most: showAll, json: c.Bool("json")}
	switch {
	case c.Bool("quiet") && c.Bool("verbose"):
		return nil, &usageError{"--quiet and --verbose are opposites", c.Command.HelpName}
	case c.Bool("quiet"):
		o.most = showFaults
	case c.Bool("verbose"):
		o.most = showNotes
	}
	o.colour.out, o.colour.err = p.colour(p.stdout), p.colour(p.stderr)
	switch {
	case o.json || o.most == showFaults:
	case p.terminal(p.stderr):
		o.meter = newMeter(p.stderr, true)
	default:
		o.meter = newMeter(p.stdout, false)
	}
	return o, p.keepRecords(c, o)
}

// hookOutput is for a run within notmuch new: a few plain lines at most.
func (p *program) hookOutput() *output {
	return &output{stdout: p.stdout, stderr: p.stderr, most: showResults, limit: 6}
}

// wordsOutput is for commands about single messages: a sync within them says
// only what went wrong.
func (p *program) wordsOutput(quiet bool) *output {
	o := &output{stdout: p.stdout, stderr: p.stderr, most: showFaults, words: true, quiet: quiet, limit: -1}
	o.colour.out, o.colour.err = p.colour(p.stdout), p.colour(p.stderr)
	return o
}

// say shows a line of the command itself.
func (o *output) say(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.quiet {
		o.print(o.stdout, plain(text))
	}
}

// written is standard output. It remembers why something could not be written to it, since
// what a command was to say and nobody got is no success.
type written struct {
	io.Writer
	mu  sync.Mutex
	err error // the first
}

func (w *written) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = cmp.Or(w.err, err)
	}
	return n, err
}

// lost gives that error.
func (w *written) lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// file gives the file that w writes to, if it is one.
func file(w io.Writer) (*os.File, bool) {
	if out, ok := w.(*written); ok {
		w = out.Writer
	}
	f, ok := w.(*os.File)
	return f, ok
}

// terminal tells whether w is a terminal that can move its cursor.
func (p *program) terminal(w io.Writer) bool {
	f, ok := file(w)
	return ok && p.getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// colour tells whether w may be coloured (no-color.org).
func (p *program) colour(w io.Writer) bool { return p.getenv("NO_COLOR") == "" && p.terminal(w) }

// event shows an event of the pipeline. It tells whether it did.
func (o *output) event(e pipeline.Event) bool {
	o.records.event(e)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.meter != nil && (e.Type == pipeline.EventProgress || e.Type == pipeline.EventDone) {
		o.meter.event(e, time.Now())
		if o.meter.stop == nil {
			o.meter.run(o.tick)
		}
	}
	if e.Type == pipeline.EventStub && o.words || rank(e) > o.most {
		return false
	}
	if o.json {
		return o.print(o.stdout, jsonLine(e))
	}
	if e.Type == pipeline.EventProgress {
		return false
	}
	text := inLine(e.Text)
	if e.Type == pipeline.EventDone {
		if text = summary(*e.Report); text == "" || o.most == showResults && strings.HasPrefix(text, nothingNew) {
			return false
		}
	}
	where := e.Account
	if e.Mailbox != "" && e.Type != pipeline.EventAction { // whose text names it
		where += "/" + e.Mailbox
		if e.UID != 0 {
			where += fmt.Sprintf("/%d", e.UID)
		}
	}
	line := plain(where) + ": " + plain(text)
	switch e.Type {
	case pipeline.EventFault, pipeline.EventStub, pipeline.EventHook:
		return o.red(plain(where), plain(text))
	default:
		return o.print(o.stdout, line)
	}
}

// jsonLine gives a value as one line of JSON, readable as far as JSON is.
func jsonLine(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "{}" // none of our types can fail
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// rank says how important an event is.
func rank(e pipeline.Event) int {
	switch e.Type {
	case pipeline.EventFault, pipeline.EventStub, pipeline.EventHook:
		return showFaults
	case pipeline.EventDone, pipeline.EventHealed:
		return showResults
	default:
		return showAll
	}
}

// fault shows something that went wrong and that no event tells of.
func (o *output) fault(text string) {
	o.records.event(pipeline.Event{Type: pipeline.EventFault, Text: text})
	o.shows(name, text)
}

// shows shows it, and puts it into no record.
func (o *output) shows(where, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.red(plain(where), plain(text))
}

// broken shows an error of this machine that ended an account's run, and what to do.
func (o *output) broken(account string, err error) {
	text := err.Error()
	if do := pipeline.Remedy(err); do != "" && !strings.Contains(text, do) {
		text += "; " + do
	}
	o.account(account, text)
}

// account shows what ended an account's run.
func (o *output) account(account, text string) {
	o.event(pipeline.Event{Time: time.Now(), Type: pipeline.EventFault, Account: account, Text: text})
}

// maxAlerts bounds how many alerts of servers a run shows.
const maxAlerts = 20

// alert shows what a server wants its user to read (RFC 9051 7.1), once a run,
// however quiet that is.
func (o *output) alert(account, text string) {
	o.records.event(pipeline.Event{Type: pipeline.EventFault, Account: account, Text: "the server says: " + text})
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.alerts == nil {
		o.alerts = make(map[string]bool)
	}
	key := account + "\x00" + text
	if o.alerts[key] || len(o.alerts) == maxAlerts {
		return
	}
	o.alerts[key] = true
	text = "the server says: " + text
	if o.json {
		o.print(o.stdout, jsonLine(pipeline.Event{Time: time.Now(), Type: pipeline.EventNote, Account: account, Text: text}))
		return
	}
	o.red(plain(account), plain(text))
}

// remark shows something odd that cost nothing.
func (o *output) remark(account, text string) {
	if o.most < showNotes {
		o.records.event(pipeline.Event{Type: pipeline.EventNote, Account: account, Text: text})
		return
	}
	o.event(pipeline.Event{Time: time.Now(), Type: pipeline.EventNote, Account: account, Text: text})
}

// result shows how something came out.
func (o *output) result(account, text string) {
	e := pipeline.Event{Time: time.Now(), Type: pipeline.EventNote, Account: account, Text: text}
	o.records.event(e)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.most < showResults:
	case o.json:
		o.print(o.stdout, jsonLine(e))
	default:
		o.print(o.stdout, plain(account)+": "+plain(text))
	}
}

func (o *output) red(where, text string) bool {
	if o.colour.err {
		where = "\x1b[31m" + where + "\x1b[0m"
	}
	return o.print(o.stderr, where+": "+text)
}

// print writes a line above the meter, and tells whether it could.
func (o *output) print(w io.Writer, line string) bool {
	if o.limit == 0 {
		o.over++
		return false
	}
	if o.limit > 0 {
		o.limit--
	}
	if o.meter != nil {
		o.meter.clear()
	}
	_, err := fmt.Fprintln(w, line)
	return err == nil
}

// tick has the meter shown as it is by now.
func (o *output) tick() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.meter.show(time.Now())
}

// close takes the meter away, ends the records and says how much was not shown.
func (o *output) close() {
	if o.meter != nil {
		o.meter.halt() // not under mu, which its clock takes
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.meter != nil {
		o.meter.clear()
	}
	o.records.close()
	if o.over > 0 {
		fmt.Fprintf(o.stderr, "%s: %s; see: notmuch imap sync, notmuch imap stubs\n", name, mail.Number(o.over, "more line", "more lines")) //nolint:errcheck // as print
	}
}

const nothingNew = "nothing new"

// summary says in one line what a run did.
func summary(r pipeline.Report) string {
	var parts []string
	add := func(n int, one, many string) {
		switch {
		case n == 1:
			parts = append(parts, "1 "+one)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", n, many))
		}
	}
	add(r.New-r.Ours, "new", "new")
	add(r.Linked, "of them was here already", "of them were here already")
	add(r.Flagged, "change of flags", "changes of flags")
	add(r.Pushed, "change of flags sent", "changes of flags sent")
	add(r.Moved, "moved on the server", "moved on the server")
	add(r.Deleted, "deleted on the server", "deleted on the server")
	add(r.Uploaded, "uploaded", "uploaded")
	add(r.Removed, "removed", "removed")
	add(r.Held, "deletion held back", "deletions held back")
	add(r.Salvaged, "had by another road", "had by another road")
	add(r.Healed, "stub gave way to its mail", "stubs gave way to their mails")
	add(r.NewStubs, "could not be fetched", "could not be fetched")
	add(r.Skipped, "not wanted by a hook", "not wanted by hooks")
	add(r.Deferred, "put off by a hook", "put off by hooks")
	add(r.NotMail, "is no mail for notmuch", "are no mail for notmuch")
	if len(parts) == 0 && r.Nothing() {
		return ""
	}
	if len(parts) == 0 {
		parts = append(parts, nothingNew)
	}
	add(r.Stubs, "known stub", "known stubs")
	add(r.Unsent, "refused by the server before", "refused by the server before")
	known := 0
	for _, f := range r.Faults {
		if f.Known {
			known++
		}
	}
	add(known, "known fault", "known faults")
	text := strings.Join(parts, ", ")
	if r.DryRun {
		text = "would be: " + text
	}
	return text
}

// say shows a text to whoever runs the command. Lines that it has are kept, and those too
// long for a terminal are folded: what must not be several goes through plain first.
func (p *program) say(format string, args ...any) {
	p.verbatim(fold(plainText(fmt.Sprintf(format, args...)), columns(p.stdout), hang))
}

// verbatim is say without folding: for what is copied, or read by a program.
func (p *program) verbatim(text string) {
	fmt.Fprintln(p.stdout, plainText(text)) //nolint:errcheck // a closed standard output ends the process by SIGPIPE
}

// columns gives how wide lines for w are at most; 0 if it is no terminal, for which
// what is one line stays one.
func columns(w io.Writer) int {
	f, ok := file(w)
	if !ok {
		return 0
	}
	raw, err := f.SyscallConn() // after File.Fd no deadline would end a read
	if err != nil {
		return 0
	}
	most := 0
	_ = raw.Control(func(fd uintptr) { // a closed file is none
		if size, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); err == nil { //nolint:gosec // a descriptor fits
			if most = width + 2; size.Col > 0 {
				most = min(most, int(size.Col))
			}
		}
	})
	return most
}

// prose shows running text, in paragraphs that empty lines part.
func prose(w io.Writer, text string) {
	most := width
	if c := columns(w); c > 0 {
		most = min(most, c)
	}
	fmt.Fprint(w, paragraphs(text, most)) //nolint:errcheck // nowhere left to tell
}

// hang is how much further in the rest of a folded line begins.
const hang = 2

// fold breaks lines of more than most columns at their blanks, and begins each rest so
// much further in. What has no blank, such as an address, stays whole; a blank at the end
// of the text, as after a question, stays, too. Nothing is broken if most is 0.
func fold(text string, most, further int) string {
	if most == 0 {
		return text
	}
	body := strings.TrimRight(text, " ")
	var out []string
	for l := range strings.SplitSeq(body, "\n") {
		lead := l[:len(l)-len(strings.TrimLeft(l, " "))]
		rest := lead + strings.Repeat(" ", further)
		for r, from := []rune(l), len(lead); len(r) > most; from = len(rest) {
			at := from
			for i := from; i < len(r) && (i <= most || at == from); i++ {
				if r[i] == ' ' {
					at = i
				}
			}
			if at == from {
				break
			}
			out = append(out, strings.TrimRight(string(r[:at]), " "))
			l = rest + strings.TrimLeft(string(r[at:]), " ")
			r = []rune(l)
		}
		out = append(out, l)
	}
	return strings.Join(out, "\n") + text[len(body):]
}

// complain shows what is wrong with one account, where the others are told of all the
// same.
func (p *program) complain(account string, err error) {
	fmt.Fprintln(p.stderr, fold(plain(account)+": "+plain(inLine(err.Error())), columns(p.stderr), hang)) //nolint:errcheck // nowhere left to tell
}

// plainText leaves line ends and takes out what could steer the terminal.
func plainText(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = plain(strings.TrimPrefix(l, "\f")) // by which notmuch show marks its parts
	}
	return strings.Join(lines, "\n")
}

// inLine puts the lines of several errors, as errors.Join parts them, into one.
func inLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }), "; ")
}

// plain makes text safe for a terminal: what a server sends must not move the
// cursor, nor turn the direction of writing.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, s)
}
