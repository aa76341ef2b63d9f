package pipeline

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

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// deferMost is how long a hook may defer one message. Beyond it that counts as
// a failure of the hook, so that no hook keeps mail away for ever without being
// required.
const deferMost = 3 * 24 * time.Hour

// hooked is what the hooks did in one account's run.
type hooked struct {
	mu    sync.Mutex
	began bool   // they let the run begin, and are told of its end
	dir   string // where copies of mails are lent from; "" if there was none yet
	// tags are what hooks said of a message before it was fetched.
	tags  map[*box]map[imap.UID]hooks.Verdict
	lines []*hookLine // what there is to say at the end
	// mute are mailboxes whose server does not describe messages.
	mute map[*box]bool
}

// hookLine is one thing that a hook did, however often.
type hookLine struct {
	hook   string
	what   hooks.Action // "": it failed
	text   string       // of the first time
	forced bool
	n      int
}

// apart keeps hooks and our own writing of notmuch's database apart, so that a
// hook can call `notmuch tag`.
type apart struct {
	Index
	hooks *hooks.Runner
}

func (a apart) Apply(ctx context.Context, changes []mail.Change) (results []mail.Result, err error) {
	a.hooks.Apart(func() { results, err = a.Index.Apply(ctx, changes) })
	return results, err
}

// asked are the states of messages that a run asks for though the server told
// nothing new of them.
func (r *run) asked() []ledger.State {
	if r.Full {
		return []ledger.State{ledger.Stub, ledger.Deferred, ledger.Skipped}
	}
	return []ledger.State{ledger.Stub, ledger.Deferred}
}

// waits tells whether a message without a file is asked for again all the same:
// it was a hook that kept it away, not its user.
func waits(row ledger.Message) bool {
	return row.State == ledger.Deferred || row.State == ledger.Skipped
}

// judge asks the hooks about an event, and notes what they failed at. since is
// when one of them deferred it first.
func (r *run) judge(ctx context.Context, e hooks.Event, since time.Time) (hooks.Outcome, error) {
	e.Account = r.Account
	last := !since.IsZero() && r.Now().Sub(since) >= deferMost
	out, err := r.Hooks.Ask(ctx, e, last)
	for _, f := range out.Failed {
		r.noteHook(hookLine{hook: f.Hook, text: f.Err.Error(), forced: f.Required && e.Point.Pre()})
	}
	// That the account as a whole is put off is a fault of its own.
	if out.By != "" && !out.Forced && (e.Point != hooks.PreSync || out.Action != hooks.Defer) {
		r.noteHook(hookLine{hook: out.By, what: out.Action, text: out.Reason})
	}
	return out, err
}

func (r *run) noteHook(l hookLine) {
	r.hooked.mu.Lock()
	defer r.hooked.mu.Unlock()
	for _, have := range r.hooked.lines {
		if have.hook == l.hook && have.what == l.what && have.forced == l.forced {
			have.n++
			return
		}
	}
	l.n = 1
	r.hooked.lines = append(r.hooked.lines, &l)
}

// endHooks tells what the hooks did, a line for each thing, and cleans up behind
// them.
func (r *run) endHooks() {
	for _, l := range r.hooked.lines {
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
			r.fault(report.Failure{Scope: report.ScopeMessage, Text: fmt.Sprintf("%s failed%s: %s; it is required, so what it was asked about waits for the next run", text, times, l.text)})
		case l.what == "":
			r.emit(report.Event{Type: report.EventHook, Text: fmt.Sprintf("%s failed%s: %s; nothing was kept from going on by it", text, times, l.text)})
		case l.what == hooks.Skip:
			r.emit(report.Event{Type: report.EventNote, Text: fmt.Sprintf("%s said skip%s%s", text, times, l.text)})
		default:
			r.emit(report.Event{Type: report.EventNote, Text: fmt.Sprintf("%s said defer%s%s; the next run asks again", text, times, l.text)})
		}
	}
	r.clearLent()
}

// lentPrefix begins the name of a directory, in the account's, with copies of
// mails for hooks.
const lentPrefix = "hook-"

// clearLent removes such copies, also those that a killed run left: nobody else
// is at work on the account.
func (r *run) clearLent() {
	if r.DryRun {
		return
	}
	left, _ := filepath.Glob(filepath.Join(r.Ledger.Dir(), lentPrefix+"*")) // the pattern is right
	for _, dir := range left {
		_ = os.RemoveAll(dir) // the next run tries again
	}
}

// preSync asks whether the account is to be synchronised now.
func (r *run) preSync(ctx context.Context) (bool, error) {
	if r.DryRun {
		return true, nil
	}
	if r.Hooks.At(hooks.PreSync) {
		out, err := r.judge(ctx, hooks.Event{Point: hooks.PreSync}, time.Time{})
		switch {
		case err != nil:
			return false, err
		case out.Action == hooks.Defer && !out.Forced:
			text := fmt.Sprintf("hook %s puts this account off", out.By)
			if out.Reason != "" {
				text += ": " + out.Reason
			}
			r.fault(report.Failure{Scope: report.ScopeAccount, Text: text + "; nothing was done"})
			return false, nil
		case out.Action != hooks.Pass:
			return false, nil
		}
	}
	r.hooked.began = true
	return true, nil
}

// postSync tells the hooks that the account's run is over.
func (r *run) postSync(ctx context.Context) error {
	if !r.hooked.began || !r.Hooks.At(hooks.PostSync) {
		return nil
	}
	rep := r.rep.Report()
	_, err := r.judge(ctx, hooks.Event{
		Point: hooks.PostSync, New: rep.New, Stubs: rep.NewStubs, Healed: rep.Healed, Flagged: rep.Flagged, Pushed: rep.Pushed, Moved: rep.Moved, Deleted: rep.Deleted, Uploaded: rep.Uploaded,
		Removed: rep.Removed, Faults: len(rep.Faults),
	}, time.Time{})
	return err
}

// preFetch gives those of the messages that the hooks let be downloaded. A
// message that has a stub, or that its user asked for, is not put to them.
func (w *worker) preFetch(ctx context.Context, b *box, uids []imap.UID) ([]imap.UID, error) {
	if !w.Hooks.At(hooks.PreFetch) {
		return uids, nil
	}
	var pass, ask []imap.UID
	for _, u := range uids {
		if old, ok := b.stubs[u]; ok && (!waits(old) || w.wants(old)) {
			pass = append(pass, u)
		} else {
			ask = append(ask, u)
		}
	}
	told, err := w.describe(ctx, b, ask)
	if err != nil {
		return nil, err
	}
	var kept []ledger.Message
	var left []leftThere
	for _, u := range ask {
		m := told[u]
		row := ledger.Message{Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: u, Size: m.Size, Flags: storedFlags(m.Flags)}
		if !m.InternalDate.IsZero() {
			row.Date = m.InternalDate.UTC().Truncate(time.Second)
		}
		e := eventOf(hooks.PreFetch, row)
		e.MessageID = mail.OneLine(m.MessageID, maxField)
		e.Tags = w.tagsToBe(w.initialTags(row.Flags, b.add, b.remove))
		old := b.stubs[u]
		out, err := w.judge(ctx, e, old.Since)
		if err != nil {
			return nil, err
		}
		row = w.keptAway(row, old, out)
		switch {
		case out.Action == hooks.Pass:
			pass = append(pass, u)
			w.remember(b, u, out.Verdict)
		case old.StubKey != "":
			if err := w.stands(ctx, b, old, m.Flags); err != nil {
				return nil, err
			}
		case out.Placeholder:
			left = append(left, leftThere{failure{b, stub.Salvaged{UID: u, Told: m}}, row, out.Verdict})
		default:
			kept = append(kept, row)
		}
	}
	if err := w.recordKept(ctx, kept); err != nil {
		return nil, err
	}
	return pass, w.sendPlaceholders(ctx, b, left)
}

// describe asks the server for what a hook may want to know of messages before
// they are fetched. A server that does not tell is no reason not to fetch.
func (w *worker) describe(ctx context.Context, b *box, uids []imap.UID) (map[imap.UID]mail.Message, error) {
	w.hooked.mu.Lock()
	mute := w.hooked.mute[b]
	w.hooked.mu.Unlock()
	if len(uids) == 0 || mute {
		return nil, nil //nolint:nilnil // nothing is known of any of them
	}
	listed, err := w.session.Identify(ctx, mail.UIDSet(uids))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		w.note(b, "the server does not describe messages, so hooks know little of them: %v", err)
		w.hooked.mu.Lock()
		if w.hooked.mute == nil {
			w.hooked.mute = make(map[*box]bool)
		}
		w.hooked.mute[b] = true
		w.hooked.mu.Unlock()
	}
	told := make(map[imap.UID]mail.Message, len(listed))
	for _, m := range listed {
		told[m.UID] = m
	}
	return told, nil
}

// keptAway is the row of a message that a hook does not let in. It is there, so
// that the message is neither forgotten nor taken for deleted.
func (r *run) keptAway(row, old ledger.Message, out hooks.Outcome) ledger.Message {
	row.Key, row.Name, row.ID = "", "", ""
	row.State, row.Since = ledger.Skipped, r.Now().UTC().Truncate(time.Second)
	if out.Action == hooks.Defer {
		row.State, row.Attempts = ledger.Deferred, 1
		if old.State == ledger.Deferred {
			row.Since, row.Attempts = old.Since, old.Attempts+1
		}
	}
	row.Reason = "hook " + out.By
	if out.Reason != "" {
		row.Reason += ": " + out.Reason
	}
	return row
}

// recordKept records what the hooks kept away.
func (r *run) recordKept(ctx context.Context, rows []ledger.Message) error {
	if len(rows) == 0 {
		return nil
	}
	if err := r.Ledger.Save(ctx, rows...); err != nil {
		return err
	}
	r.step("verdicts recorded")
	r.tally(func(rep *report.Report) {
		for _, row := range rows {
			if row.State == ledger.Deferred {
				rep.Deferred++
			} else {
				rep.Skipped++
			}
		}
	})
	for range rows {
		r.rep.Came()
	}
	return nil
}

// remember keeps the tags for a message that is still to come.
func (r *run) remember(b *box, uid imap.UID, v hooks.Verdict) {
	if len(v.Add)+len(v.Remove) == 0 {
		return
	}
	r.hooked.mu.Lock()
	defer r.hooked.mu.Unlock()
	if r.hooked.tags == nil {
		r.hooked.tags = make(map[*box]map[imap.UID]hooks.Verdict)
	}
	if r.hooked.tags[b] == nil {
		r.hooked.tags[b] = make(map[imap.UID]hooks.Verdict)
	}
	r.hooked.tags[b][uid] = v
}

// recall gives an item the tags that were kept for it.
func (r *run) recall(it *item) {
	r.hooked.mu.Lock()
	defer r.hooked.mu.Unlock()
	if v, ok := r.hooked.tags[it.box][it.row.UID]; ok {
		it.tag(v)
		delete(r.hooked.tags[it.box], it.row.UID)
	}
}

// tag gives an item the tags of a verdict, which count more than those by rule.
func (it *item) tag(v hooks.Verdict) {
	it.add = append(slices.DeleteFunc(it.add, func(t string) bool { return slices.Contains(v.Remove, t) }), v.Add...)
	it.remove = append(slices.DeleteFunc(it.remove, func(t string) bool { return slices.Contains(v.Add, t) }), v.Remove...)
}

// tagsToBe are the tags that a new mail would get.
func (r *run) tagsToBe(add, remove []string) []string {
	out := slices.DeleteFunc(slices.Concat(r.NewTags, add), func(t string) bool { return slices.Contains(remove, t) })
	slices.Sort(out)
	return slices.Compact(out)
}

// preWrite asks the hooks about mails that came, and gives the items that go
// on. A mail that was here already, and one that its user asked for, can get
// tags only; where a stub stands, it stays if the mail is deferred.
func (r *run) preWrite(ctx context.Context, items []*item) ([]*item, error) {
	if !r.Hooks.At(hooks.PreFetch, hooks.PreWrite) {
		return items, nil
	}
	var on, off []*item
	var kept []ledger.Message
	for _, it := range items {
		r.recall(it)
		if it.known || it.op != opAdd && it.op != opReplace || !r.Hooks.At(hooks.PreWrite) {
			on = append(on, it)
			continue
		}
		path := it.box.path(it.row.Name)
		if it.spool != nil {
			path = it.spool.Path()
		}
		old := it.box.stubs[it.row.UID]
		out, err := r.judgeMail(ctx, hooks.PreWrite, it, path, old.Since)
		if err != nil {
			return nil, err
		}
		it.tag(out.Verdict)
		switch {
		case out.Action == hooks.Pass, it.spool == nil, r.wants(it.row), it.op == opReplace && out.Action == hooks.Skip && old.State == ledger.Stub:
			on = append(on, it)
			continue
		case it.op == opAdd:
			kept = append(kept, r.keptAway(it.row, old, out))
		}
		off = append(off, it)
	}
	if err := r.recordKept(ctx, kept); err != nil {
		return nil, err
	}
	for _, it := range off {
		it.discard()
		it.spool = nil
		if err := r.release(ctx, it.box); err != nil {
			return nil, err
		}
	}
	return on, nil
}

// judgeMail asks the hooks about a mail whose file is at path.
func (r *run) judgeMail(ctx context.Context, p hooks.Point, it *item, path string, since time.Time) (hooks.Outcome, error) {
	e := eventOf(p, it.row)
	e.Tags = r.tagsToBe(it.add, it.remove)
	return r.judgeFile(ctx, e, path, since)
}

// judgeFile is judge with the mail at path lent to the hooks.
func (r *run) judgeFile(ctx context.Context, e hooks.Event, path string, since time.Time) (hooks.Outcome, error) {
	giveBack, err := r.lend(&e, path)
	if err != nil {
		return hooks.Outcome{}, err
	}
	defer giveBack()
	return r.judge(ctx, e, since)
}

// tagAgain asks the hooks again about mails that an interrupted run left, for
// their tags: these are nowhere but in notmuch.
func (r *run) tagAgain(ctx context.Context, items []*item) error {
	for _, p := range []hooks.Point{hooks.PreFetch, hooks.PreWrite} {
		if !r.Hooks.At(p) {
			continue
		}
		for _, it := range items {
			if it.op == opStub || it.op == opPlaceholder && p == hooks.PreWrite {
				continue
			}
			out, err := r.judgeMail(ctx, p, it, it.box.path(it.row.Name), time.Time{})
			if err != nil {
				return err
			}
			it.tag(out.Verdict)
		}
	}
	return nil
}

// postIndex tells the hooks of what is in notmuch now. It comes before the
// record: they hear of it twice rather than never.
func (r *run) postIndex(ctx context.Context, items []*item, results []mail.Result) error {
	for i, it := range items {
		point := hooks.PostIndex
		switch it.op {
		case opAdd, opReplace:
		case opStub:
			point = hooks.PostStub
		default:
			continue
		}
		if !r.Hooks.At(point) || results[i].Err != nil || results[i].ID == "" || it.known && !it.resumed {
			continue
		}
		e := eventOf(point, it.row)
		e.ID = results[i].ID
		if it.op == opStub {
			e.Reason = it.row.Reason
		}
		path := results[i].Path
		if path == "" {
			path = it.box.path(it.name())
		}
		if _, err := r.judgeFile(ctx, e, path, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// maxField bounds a header field as hooks get it, in characters.
const maxField = 1000

// eventOf tells of a row's message.
func eventOf(p hooks.Point, row ledger.Message) hooks.Event {
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
func (r *run) lend(e *hooks.Event, path string) (giveBack func(), err error) {
	from, err := openMail(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		r.noteHook(hookLine{hook: "files", text: "a mail could not be shown to hooks: " + err.Error()})
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	file, fields, err := r.duplicate(from)
	if err = errors.Join(err, from.Close()); err != nil {
		return nil, fmt.Errorf("no copy can be made for hooks: %w", err)
	}
	h := mail.EnvelopeOf(fields)
	e.File = file
	e.MessageID, e.From, e.To, e.Subject = mail.OneLine(h.MessageID, maxField), mail.OneLine(h.From, maxField), mail.OneLine(h.To, maxField), mail.OneLine(h.Subject, maxField)
	e.ListID = mail.OneLine(bareID(fields.Get("List-Id")), maxField)
	if !h.Date.IsZero() {
		e.Date = h.Date.Format(time.RFC3339)
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
func (r *run) duplicate(from *os.File) (file string, fields mail.Header, err error) {
	to, err := r.blank()
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
func (r *run) blank() (*os.File, error) {
	r.hooked.mu.Lock()
	defer r.hooked.mu.Unlock()
	if r.hooked.dir != "" {
		f, err := os.CreateTemp(r.hooked.dir, "mail-")
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	dir, err := os.MkdirTemp(r.Ledger.Dir(), lentPrefix)
	if err != nil {
		return nil, err
	}
	r.hooked.dir = dir
	return os.CreateTemp(dir, "mail-")
}
