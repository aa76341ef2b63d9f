// Package journal is what an account's ledger keeps beside its rows: what is about to be
// done until it is done, what failed, what was said, and up to where both sides were
// compared. Every kind of note is declared in Of, with its value, its key, its life and,
// of what an interrupted run leaves, the order in which the next one ends it. Nothing
// else in pipeline reads or writes the ledger's values of the account.
package journal

import (
	"cmp"
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Life says until when a note is kept.
type Life int

// The lives of notes.
const (
	Intent Life = iota + 1 // until what it says is done: by the run that wrote it, or by the next one, in Order
	Memory                 // until it is over, or what it is about is gone
	Mark                   // as long as what it is about, in the words of the last run
	Always                 // as long as the ledger
)

// Form says what follows in the keys of a kind.
type Form int

// The forms of keys. A mailbox and a folder may have slashes in their names, a word and the
// key of a file have none.
const (
	Alone         Form = iota // nothing: there is one such note in an account
	OfMailbox                 // MAILBOX
	OfWord                    // WORD/MAILBOX
	OfMailboxFile             // MAILBOX/KEY of a file in its folder
	OfMessage                 // MAILBOX/UIDVALIDITY/UID
	OfFile                    // KEY of a file
	OfFileIn                  // likewise, of one in the folder of the mailbox that the note names
	OfFolder                  // FOLDER below the account's
	OfContent                 // the digest of a mail
)

// Kind is what is declared of a kind of note.
type Kind struct {
	Key   string // the note's key, or what its keys begin with; then a slash is its end
	What  string // what a note is of, in words
	Form  Form
	Life  Life
	Order int // of an intent: its place among those that a run ends; from 1
}

// Mailbox gives the mailbox that a key of this kind is about; "" if it is about none. A
// flag may have a slash, too: then this is a part of another name, and of no mailbox.
func (k Kind) Mailbox(key string) string {
	rest := strings.TrimPrefix(key, k.Key)
	cut := func(s string) string { return s[:max(strings.LastIndexByte(s, '/'), 0)] }
	switch k.Form {
	case OfMailbox:
		return rest
	case OfWord:
		_, rest, _ = strings.Cut(rest, "/")
		return rest
	case OfMailboxFile:
		return cut(rest)
	case OfMessage:
		return cut(cut(rest))
	default:
		return ""
	}
}

// Notes are the notes of one kind, each about one thing.
type Notes[T any] struct {
	kind   Kind
	ledger *ledger.Ledger
}

// Note is of a kind of which an account has one.
type Note[T any] struct{ notes Notes[T] }

// key is the key of a note.
func (n Notes[T]) key(about string) string { return n.kind.Key + about }

// Get gives a note; ok is false if there is none. One that cannot be read is an error if
// it is an intent, and otherwise over.
func (n Notes[T]) Get(ctx context.Context, about string) (v T, ok bool, err error) {
	text, err := n.ledger.Meta(ctx, n.key(about))
	if err != nil {
		return v, false, err
	}
	return n.decode(text)
}

// All gives all of them, by what they are about.
func (n Notes[T]) All(ctx context.Context) (map[string]T, error) {
	texts, err := n.ledger.Metas(ctx, n.kind.Key)
	if err != nil {
		return nil, err
	}
	out := make(map[string]T, len(texts))
	for key, text := range texts {
		v, ok, err := n.decode(text)
		if err != nil {
			return nil, err
		}
		if ok {
			out[strings.TrimPrefix(key, n.kind.Key)] = v
		}
	}
	return out, nil
}

func (n Notes[T]) decode(text string) (v T, ok bool, err error) {
	if text == "" { // as earlier versions left what was done
		return v, false, nil
	}
	if u, is := any(&v).(encoding.TextUnmarshaler); is {
		err = u.UnmarshalText([]byte(text))
	} else {
		err = json.Unmarshal([]byte(text), &v)
	}
	switch {
	case err == nil:
		return v, true, nil
	case n.kind.Life == Intent:
		err = fmt.Errorf("the ledger's note of %s cannot be read: %w", n.kind.What, err)
	default:
		err = nil
	}
	var none T
	return none, false, err
}

// Set writes a note at once.
func (n Notes[T]) Set(ctx context.Context, about string, v T) error {
	text, err := encode(v)
	if err != nil {
		return err
	}
	return n.ledger.SetMeta(ctx, n.key(about), text)
}

// Drop forgets notes at once, in one transaction.
func (n Notes[T]) Drop(ctx context.Context, about ...string) error {
	var c Change
	for _, a := range about {
		n.Forget(&c, a)
	}
	return n.ledger.Record(ctx, ledger.Change{Metas: c.notes})
}

// DropWhere forgets those notes at once of which over is true.
func (n Notes[T]) DropWhere(ctx context.Context, over func(about string, v T) bool) error {
	all, err := n.All(ctx)
	if err != nil {
		return err
	}
	maps.DeleteFunc(all, func(about string, v T) bool { return !over(about, v) })
	if len(all) == 0 {
		return nil
	}
	return n.Drop(ctx, slices.Collect(maps.Keys(all))...)
}

// Put writes a note with a change.
func (n Notes[T]) Put(c *Change, about string, v T) {
	text, err := encode(v)
	if err != nil && c.err == nil {
		c.err = err
	}
	c.set(n.key(about), text)
}

// Forget forgets a note with a change.
func (n Notes[T]) Forget(c *Change, about string) { c.set(n.key(about), "") }

// Get gives the note; ok is false if there is none.
func (n Note[T]) Get(ctx context.Context) (v T, ok bool, err error) { return n.notes.Get(ctx, "") }

// Set writes it.
func (n Note[T]) Set(ctx context.Context, v T) error { return n.notes.Set(ctx, "", v) }

// Drop forgets it. Where there is none, that costs no write.
func (n Note[T]) Drop(ctx context.Context) error {
	if text, err := n.notes.ledger.Meta(ctx, n.notes.key("")); err != nil || text == "" {
		return err
	}
	return n.notes.Drop(ctx, "")
}

// Put writes it with a change.
func (n Note[T]) Put(c *Change, v T) { n.notes.Put(c, "", v) }

// Forget forgets it with a change.
func (n Note[T]) Forget(c *Change) { n.notes.Forget(c, "") }

func encode(v any) (string, error) {
	if m, is := v.(encoding.TextMarshaler); is {
		text, err := m.MarshalText()
		return string(text), err
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// Change is what one transaction records. The zero value is one of nothing.
type Change struct {
	Mailbox *ledger.Mailbox  // its row; nil: none
	Save    []ledger.Message // their mailboxes must be recorded, or be Mailbox
	Forget  []ledger.Message // by Mailbox, UIDValidity and UID alone; unknown ones are no error

	notes map[string]string
	log   []mail.Logged
	err   error // of a note that has no text
}

// Begin puts into a change that the server is about to be asked for something, which the change
// that has the answer says again.
func (c *Change) Begin(a mail.Action) { c.say(mail.Logged{Action: a, Outcome: mail.IsBegun}) }

// Did puts into a change that something is done by it, or was before it.
func (c *Change) Did(a mail.Action) { c.say(mail.Logged{Action: a, Outcome: mail.IsDone}) }

// Became puts into a change what became of something that was begun, by its kind and what it is
// about; nothing, if it was not. said is about that, in words.
func (c *Change) Became(o mail.Outcome, said string, about mail.Action) {
	c.say(mail.Logged{Action: about, Outcome: o, Said: said, Only: true})
}

// mostSaid bounds what the log keeps of a server's words, in characters.
const mostSaid = 300

func (c *Change) say(l mail.Logged) {
	l.Why, l.Said = mail.OneLine(l.Why, mostSaid), mail.OneLine(l.Said, mostSaid)
	c.log = append(c.log, l)
}

// ActionOf is a message as an action has it.
func ActionOf(kind mail.ActionKind, m ledger.Message) mail.Action {
	a := mail.Action{Kind: kind, Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID, Key: m.Key, ID: m.ID}
	if !m.Digest.IsZero() {
		a.Digest = m.Digest.String()
	}
	return a
}

func (c *Change) set(key, text string) {
	if c.notes == nil {
		c.notes = make(map[string]string)
	}
	c.notes[key] = text
}

// Empty tells whether there is nothing to record.
func (c *Change) Empty() bool {
	return c.Mailbox == nil && len(c.Save)+len(c.Forget)+len(c.notes)+len(c.log) == 0
}

// Record records a change, all or nothing.
func (j *Journal) Record(ctx context.Context, c Change) error {
	if c.err != nil {
		return c.err
	}
	return j.ledger.Record(ctx, ledger.Change{Mailbox: c.Mailbox, Save: c.Save, Forget: c.Forget, Metas: c.notes, Log: c.log})
}

// ForgetMailbox forgets a mailbox with its messages and all notes about it, its folder and
// its files, all or nothing. and are notes that go with them.
func (j *Journal) ForgetMailbox(ctx context.Context, b ledger.Mailbox, and Change) error {
	gone := ledger.Change{Gone: b.Name, Metas: make(map[string]string), Log: and.log}
	for key := range and.notes {
		gone.Metas[key] = ""
	}
	for _, k := range j.kinds {
		if k.Form == Alone {
			continue
		}
		texts, err := j.ledger.Metas(ctx, k.Key)
		if err != nil {
			return err
		}
		for key, text := range texts {
			of := k.Mailbox(key) == b.Name || k.Form == OfFolder && key == k.Key+b.Folder && b.Folder != ""
			in, _ := Text(text).Said()
			if of || k.Form == OfFileIn && string(in) == b.Name {
				gone.Metas[key] = ""
			}
		}
	}
	return j.ledger.Record(ctx, gone)
}

// Kinds gives all kinds that are declared: the intents first, in the order in which a run
// ends them.
func (j *Journal) Kinds() []Kind { return slices.Clone(j.kinds) }

// KindOf gives the kind of a key in the ledger; ok is false for one that is not declared.
func (j *Journal) KindOf(key string) (kind Kind, ok bool) {
	for _, k := range j.kinds {
		if k.Form == Alone && key == k.Key || k.Form != Alone && strings.HasPrefix(key, k.Key) {
			return k, true
		}
	}
	return Kind{}, false
}

// Once tells what no later run repeats, unless said has that it was told already. tell tells
// whether somebody could read it; if not, the next run tells it. what is to be known of it
// is noted either way, if note is set.
func Once(ctx context.Context, said Notes[Text], about string, what Text, note bool, tell func() bool) error {
	last, ok, err := said.Get(ctx, about)
	if err != nil {
		return err
	}
	if _, already := last.Said(); ok && already {
		return nil
	}
	what = cmp.Or(what, SaidOnce)
	if !tell() {
		what = notSaid + what
	}
	if !note || what == last {
		return nil
	}
	return said.Set(ctx, about, what)
}

// Left says in words what an interrupted run has left for the next one to end.
func (j *Journal) Left(ctx context.Context) (texts []string, err error) {
	for _, k := range j.kinds {
		if k.Life != Intent {
			continue
		}
		notes, err := j.ledger.Metas(ctx, k.Key)
		if err == nil && k.Form == Alone {
			notes = make(map[string]string)
			notes[k.Key], err = j.ledger.Meta(ctx, k.Key)
		}
		if err != nil {
			return nil, err
		}
		n := 0
		for _, text := range notes {
			if text != "" {
				n++
			}
		}
		switch {
		case n == 1:
			texts = append(texts, k.What)
		case n > 1:
			texts = append(texts, fmt.Sprintf("%s (%d of them)", k.What, n))
		}
	}
	return texts, nil
}

// Interrupted tells whether something is left of what a run was about to do: an intent.
func (j *Journal) Interrupted(ctx context.Context) (bool, error) {
	left, err := j.Left(ctx)
	return len(left) > 0, err
}
