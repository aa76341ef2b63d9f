package deliver

import (
	"cmp"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Op is what an item on the line is for.
type Op int

// The ops.
const (
	OpAdd         Op = iota + 1 // a mail that came
	OpReplace                   // a mail that came where a stub stands
	OpStub                      // a stub that was made
	OpPlaceholder               // a stub for what a hook left on the server
	OpFlag                      // flags that changed
	OpGone                      // a message that the server has no more
	OpPreindex                  // a file that the server has taken: for notmuch alone
)

// Beside says which other files of a message had its tags before an item's was there.
type Beside int

// The kinds.
const (
	BesideAny      Beside = iota // all others
	BesideRecorded               // those that have rows: its owner put it there, and may have tagged it
	BesideNone                   // none, since the message was moved: its tags are this file's, as they were the other's
)

// Item is one message on its way from a connection to the ledger. Whoever puts it onto
// the line has nothing more to do with it.
type Item struct {
	Box      *Mailbox
	Op       Op
	Row      ledger.Message // as it will be recorded
	Spool    *maildir.Spool // of what gets a file; nil if that is in place
	Add      []string
	Remove   []string
	ID       string         // Message-ID of a mail that came
	Orders   []string       // tags by which the stub's owner asked for something
	Tags     []string       // in place of notmuch's new.tags, if not nil
	Set      string         // OpFlag: maildir letters
	Clear    string         // and those that go
	Before   ledger.Message // what stood in the place of a mail that came; zero if nothing did
	Wanted   bool           // the user asked for this mail: no hook keeps it away
	IfKnown  *Tags          // in place of Add and Remove where notmuch knows the message; nil: they count for that, too
	Salvaged bool           // it came by another road than a plain fetch
	Resumed  bool           // an interrupted run had it in place
	Had      []string       // the tags of a resumed one that is gone, when that run let it go
	Known    bool           // no news: a file that was there before, or a change that came from here
	Linked   bool           // the mail is here already, in another mailbox
	Source   string         // that mailbox
	Ours     bool           // of a resumed one: its file was here, and the server was given it or moved it there
	Paired   bool           // its file was here, and is nobody's whom this run has told the server of
	Who      string         // who wrote it, and what about (mail.Brief), as far as that is known
	What     string
	Was      []string // OpFlag: the flags that were agreed on
	Beside   Beside   // which other files of its message were tagged before it was there
	Marked   bool     // it was marked for deletion here, too
	Absent   bool     // its file was gone before the run: the next one is to judge nothing of it

	kept  bool     // its file goes to the attic
	tags  []string // that it had before
	began bool     // the log has that its file is about to be removed
	// left: its file is not as the run has seen it, or its folder does not take it: the next run
	// judges what became of it.
	left bool
}

// Tags are what a message gets and loses.
type Tags struct{ Add, Remove []string }

// TagsOfFlags are those that a message gets by its flags alone, and that it loses by those that
// went off it.
func TagsOfFlags(t *plan.Tags, flags, off []string) *Tags {
	add, remove := t.InitialTags(flags, nil, off)
	return &Tags{add, remove}
}

// news tells whether an item is a mail that its owner has to hear of.
func (it *Item) news() bool {
	return (it.Op == OpAdd || it.Op == OpReplace) && !it.Known && !it.Linked && !it.Box.Quiet && !plan.HasFlag(it.Row.Flags, `\Seen`)
}

// Forgetting is a message that is not here any more, and whose row went before.
func (m *Mailbox) Forgetting(row ledger.Message) *Item {
	row.Key, row.StubKey, row.StubName = "", "", row.Name
	return &Item{Box: m, Op: OpGone, Row: row, Known: true}
}

// Flagging is a message whose flags are others on the server than was agreed.
func (m *Mailbox) Flagging(row ledger.Message, after []string, tags *plan.Tags) *Item {
	it := &Item{Box: m, Op: OpFlag, Row: row, Was: row.Flags}
	it.Add, it.Remove, it.Set, it.Clear = tags.FromFlags(row.Flags, after)
	it.Row.Flags = after
	return it
}

// Forgotten tells whether an item is Forgetting's.
func (it *Item) Forgotten() bool { return it.Op == OpGone && it.Row.Key == "" && it.Row.StubKey == "" }

// Tag gives an item the tags of a verdict, which count more than those by rule.
func (it *Item) Tag(v hooks.Verdict) {
	t := &Tags{it.Add, it.Remove}
	t.change(v.Add, v.Remove)
	if it.Add, it.Remove = t.Add, t.Remove; it.IfKnown != nil {
		it.IfKnown.change(v.Add, v.Remove)
	}
}

func (t *Tags) change(add, remove []string) {
	t.Add = append(slices.DeleteFunc(t.Add, func(t string) bool { return slices.Contains(remove, t) }), add...)
	t.Remove = append(slices.DeleteFunc(t.Remove, func(t string) bool { return slices.Contains(add, t) }), remove...)
}

func (it *Item) discard() {
	if it.Spool != nil {
		it.Spool.Discard()
	}
}

// key is the maildir key of the file that the item is about.
func (it *Item) key() string {
	if it.Op == OpStub || it.Row.Key == "" {
		return it.Row.StubKey
	}
	return it.Row.Key
}

// name is the last known name of the file that the item is about. Of what another program
// had, and is gone, none is known: that of a file without flags stands for it, since a path
// without a name would be the folder's own.
func (it *Item) name() string {
	if it.Op == OpStub || it.Row.Key == "" {
		return cmp.Or(it.Row.StubName, "cur/"+it.Row.StubKey)
	}
	return cmp.Or(it.Row.Name, "cur/"+it.Row.Key)
}

// Place is where the file that the item is about was last (maildir.Place).
func (it *Item) Place() string { return maildir.Place(it.Box.Dir.Path(it.name())) }

func (it *Item) setName(name string) {
	if it.Op == OpStub || it.Row.Key == "" {
		it.Row.StubName = name
	} else {
		it.Row.Name = name
	}
}

// change is the item as notmuch is told of it.
func (it *Item) change(newTags []string) (mail.Change, error) {
	c := mail.Change{Path: it.Box.Dir.Path(it.name()), Add: it.Add, Remove: it.Remove, ID: it.Row.ID}
	switch it.Op {
	case OpAdd, OpStub, OpPlaceholder, OpPreindex:
		c.Op, c.New, c.ID = mail.OpAdd, newTags, it.ID
		if it.Tags != nil {
			c.New = it.Tags
		}
	case OpReplace:
		c.Op, c.New, c.ID = mail.OpReplace, newTags, it.ID
		name, ok, err := it.Box.Dir.Locate(it.Row.StubKey, it.Row.StubName)
		if err != nil {
			return c, err
		}
		if ok {
			it.Row.StubName = name
		}
		c.OldPath = it.Box.Dir.Path(it.Row.StubName)
		c.Remove = slices.Concat(it.Remove, []string{stub.LabelFailed, stub.LabelSkipped}, it.Orders)
	case OpFlag:
		c.Op, c.Set, c.Clear = mail.OpFlag, it.Set, it.Clear
		name, ok, err := it.Box.Dir.Locate(it.key(), it.name())
		if err != nil {
			return c, err
		}
		if ok {
			it.setName(name)
			c.Path = it.Box.Dir.Path(name)
		}
	case OpGone:
		c.Op = mail.OpRemove
	}
	return c, nil
}
