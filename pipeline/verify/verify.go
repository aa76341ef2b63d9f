// Package verify compares the two sides of an account, and changes neither: what the
// server lists with what the ledger has agreed on, the files, and notmuch. What a sync
// would do shows, and what it would not see: a mail whose identity, size or content is
// another on the other side.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Session is what a verification asks of the server. Errors are *mail.Fault or the
// context's. Once Alive is false, nothing more may be asked.
type Session interface {
	List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error)
	// Examine selects a mailbox read-only. Known may be nil.
	Examine(ctx context.Context, mailbox string, known *mail.Known) (*mail.Selected, error)
	// Search gives those of messages that there are in that mailbox.
	Search(ctx context.Context, uids imap.UIDSet) (imap.UIDSet, error)
	// Identify gives flags, date, size and Message-ID of messages; a server may leave
	// out one that it cannot read.
	Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
	// Fetch streams messages. A nil error does not mean that all of them came.
	Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error
	// FetchOne fetches one message with the tolerant reader.
	FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error)
	Alive() bool
}

// Ledger is what was agreed on.
type Ledger interface {
	Mailboxes(ctx context.Context) ([]ledger.Mailbox, error)
	Rows(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Row, error)
	GetMany(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) ([]ledger.Message, error)
}

// Index is notmuch.
type Index interface {
	Changes(ctx context.Context, since mail.Revision, under string) (now mail.Revision, tagged []mail.Tagged, whole bool, err error)
}

// Account is what is compared.
type Account struct {
	Name   string
	Root   string // absolute path of the account's folder
	Layout maildir.Layout
	Ledger Ledger
	Index  Index
	// Selects tells which mailboxes are synchronised; nil means all.
	Selects func(mailbox string, delim rune) bool
	Only    []string // mailboxes, in place of all of them
	Memory
	// Tags tells what tags say beside flags and keywords, of what the server is to have.
	Tags *plan.Tags
	// NamesHaveFlags: tags of flags are in the files' names, too (maildir.synchronize_flags).
	NamesHaveFlags bool
	ReadOnly       bool // the server is told nothing
	Deletions      plan.Deletions
	Trash          string // of the configuration; "" where it is to be found
	Strays         Strays
	// Tell is given each difference as it is found.
	Tell func(Difference)
	// Progress is told how many of how many messages are compared. May be nil.
	Progress func(done, total int)
	// Deep: all texts are compared afterwards, with Bytes.
	Deep bool
}

// Strays gives, for a list of mailboxes, what says of a folder that is of none of them what becomes
// of it; "" if it takes no part.
type Strays func(list []mail.Mailbox) func(ctx context.Context, folder string) (string, error)

// Kind is in what the two sides differ.
type Kind string

// The kinds of differences.
const (
	NotHere    Kind = "not here"    // the server has it
	NotThere   Kind = "not there"   // it is here
	Copy       Kind = "copy"        // a file of a mail that has another one here: no difference
	NotFetched Kind = "not fetched" // the server does not hand it over; a stub stands for it
	Flags      Kind = "flags"       // and keywords
	Identity   Kind = "identity"    // another Message-ID
	Size       Kind = "size"
	Leaving    Kind = "leaving" // a sync deletes it, or moves it, on the server
	Content    Kind = "content"
	NotIndexed Kind = "not in notmuch"
	Mailbox    Kind = "mailbox" // the mailbox as a whole cannot be compared
)

// Difference is one of them.
type Difference struct {
	Account string   `json:"account"`
	Mailbox string   `json:"mailbox,omitempty"`
	UID     imap.UID `json:"uid,omitempty"`
	File    string   `json:"file,omitempty"` // below the account's folder
	Kind    Kind     `json:"kind"`
	Text    string   `json:"text"` // one line, for a person
}

// Result sums an account's verification up.
type Result struct {
	Account     string       `json:"account"`
	Mailboxes   int          `json:"mailboxes"`
	Messages    int          `json:"messages"`          // that are on both sides
	Left        int          `json:"left"`              // that stay on the server: hooks did not want them, or they were given up
	Copies      int          `json:"copies,omitempty"`  // files of mail that has another one in its folder
	Compared    int          `json:"compared"`          // whose bytes were compared
	Unsized     int          `json:"unsized,omitempty"` // that have another size on the server than here, by which nothing is known, as so many have
	Differences map[Kind]int `json:"differences,omitempty"`
}

// Equal tells whether there is no difference.
func (r *Result) Equal() bool { return len(r.Differences) == 0 }

// Body is a message whose bytes can be compared.
type Body struct {
	Mailbox     string
	UIDValidity uint64
	UID         imap.UID
}

// side is an account while it is compared.
type side struct {
	Account
	result  Result
	bodies  []Body
	doubted []doubted
	files   map[string]map[string]mail.Tagged // notmuch's, by directory and key
	news    map[string]bool                   // ids of the messages whose tags a sync looks at
	whole   bool                              // it looks at those of all, as in a database that is new to it
	trash   string

	gone   []gone                 // what is told when all mailboxes are compared
	locals map[string]*plan.Local // what lacks here, by mailbox
	lost   []lost                 // what lacks there
	places places                 // of the server's messages
	former []ledger.Mailbox       // that the server has no more
	astray []plan.Untracked       // what is in their folders; nil: not read yet
}

func (s *side) tell(d Difference) {
	d.Account = s.Name
	if d.Kind == Copy {
		s.result.Copies++
	} else {
		s.result.Differences[d.Kind]++
	}
	s.Tell(d)
}

// Sides compares all but the bytes of messages, which it gives: the newest first, and
// INBOX before all others. An error is one of this machine, of the context, or of the
// connection; what a server refuses for one mailbox is a difference. Nobody else may
// work on the account meanwhile.
func Sides(ctx context.Context, a Account, session Session) (*Result, []Body, error) {
	s := &side{Account: a, result: Result{Account: a.Name, Differences: make(map[Kind]int)}, locals: make(map[string]*plan.Local), places: make(places)}
	list, err := session.List(ctx, mail.Listing{Skip: func(mail.Mailbox) bool { return true }})
	if err != nil {
		return nil, nil, err
	}
	known, err := a.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := s.readIndex(ctx); err != nil {
		return nil, nil, err
	}
	s.trash = mail.TrashOf(a.Trash, list)
	there := make(map[string]bool)
	var boxes []mail.Mailbox
	for _, m := range list {
		there[m.Name] = true
		if !m.Odd && m.Selectable() && s.selects(m) {
			boxes = append(boxes, m)
		}
	}
	s.former = slices.DeleteFunc(slices.Clone(known), func(k ledger.Mailbox) bool { return there[k.Name] })
	for _, name := range a.Only {
		if !there[name] {
			s.tell(Difference{Mailbox: name, Kind: Mailbox, Text: "the server has no such mailbox"})
		}
	}
	slices.SortStableFunc(boxes, func(x, y mail.Mailbox) int {
		inbox := func(m mail.Mailbox) int {
			if m.Name == "INBOX" {
				return 0
			}
			return 1
		}
		return cmp.Or(inbox(x)-inbox(y), strings.Compare(x.Name, y.Name))
	})
	for _, m := range boxes {
		i := slices.IndexFunc(known, func(k ledger.Mailbox) bool { return k.Name == m.Name })
		k := ledger.Mailbox{Name: m.Name, Delim: m.Delim}
		if i >= 0 {
			k = known[i]
		}
		if err := s.mailbox(ctx, session, k); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	if !a.Deep {
		if err := s.resolve(ctx, session); err != nil {
			return nil, nil, err
		}
	}
	s.tellGone(list)
	if len(a.Only) == 0 {
		err = s.strays(ctx, known, list)
	}
	return &s.result, s.bodies, err
}

func (s *side) selects(m mail.Mailbox) bool {
	if len(s.Only) > 0 {
		return slices.Contains(s.Only, m.Name)
	}
	return s.Selects == nil || s.Selects(m.Name, m.Delim)
}

// readIndex gets all that notmuch has of the account.
func (s *side) readIndex(ctx context.Context) error {
	_, tagged, _, err := s.Index.Changes(ctx, mail.Revision{}, s.Root)
	s.files = make(map[string]map[string]mail.Tagged)
	for _, t := range tagged {
		for _, p := range t.Paths {
			dir := filepath.Dir(filepath.Dir(p))
			if s.files[dir] == nil {
				s.files[dir] = make(map[string]mail.Tagged)
			}
			key, _ := maildir.ParseName(p)
			s.files[dir][key] = t
		}
	}
	if err != nil {
		return err
	}
	_, tagged, s.whole, err = s.Index.Changes(ctx, s.TagsAt, s.Root)
	s.news = make(map[string]bool, len(tagged))
	for _, t := range tagged {
		s.news[t.ID] = true
	}
	return err
}

// mailbox compares one. An error that costs it alone is a difference.
func (s *side) mailbox(ctx context.Context, session Session, known ledger.Mailbox) error {
	s.result.Mailboxes++
	rows, err := s.Ledger.Rows(ctx, known.Name, known.UIDValidity)
	if err != nil {
		return err
	}
	sel, there, messages, err := list(ctx, session, known, rows)
	if err != nil {
		if _, refused := mail.Refused(err); refused && session.Alive() {
			s.tell(Difference{Mailbox: known.Name, Kind: Mailbox, Text: "it cannot be looked into: " + err.Error()})
			return nil
		}
		return err
	}
	_, unnamed := s.Layout.Folder(known.Name, known.Delim)
	switch {
	case known.UIDValidity == 0 && known.Folder == "" && unnamed != nil:
		s.tell(Difference{Mailbox: known.Name, Kind: Mailbox, Text: unnamed.Error()})
		return nil //nolint:nilerr // it is the difference that was told
	case known.UIDValidity == 0:
		if len(there) > 0 {
			s.tell(Difference{Mailbox: known.Name, Kind: NotHere, Text: fmt.Sprintf("it was never synchronised; the server has %s in it, which a sync fetches, unless they are here", mail.Number(len(there), "message", "messages"))})
		}
		return nil
	case sel.UIDValidity != known.UIDValidity:
		s.tell(Difference{Mailbox: known.Name, Kind: Mailbox, Text: "the server renumbered it since the last sync; the next one finds out which is which"})
		return nil
	case len(there) != int(sel.Messages):
		s.tell(Difference{Mailbox: known.Name, Kind: Mailbox, Text: fmt.Sprintf("the server counts %d messages in it, and lists %d", sel.Messages, len(there))})
	}
	dir := maildir.Dir(filepath.Join(s.Root, known.Folder))
	files, err := dir.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		files, err = &maildir.Listing{}, nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		s.tell(Difference{Mailbox: known.Name, Kind: Mailbox, Text: "its folder here cannot be read: " + err.Error()})
		return nil
	}
	if err != nil {
		return err
	}
	b := &box{side: s, known: known, now: sel.Status, dir: dir, files: files}
	return b.compare(ctx, there, messages, rows)
}

// list gives what the server has in a mailbox, and what it says of each message, but of those that
// did not come: it may refuse all that is asked of one, and of the others that are asked for with it.
func list(ctx context.Context, session Session, known ledger.Mailbox, rows []ledger.Row) (sel *mail.Selected, there []imap.UID, messages []mail.Message, err error) {
	if sel, err = session.Examine(ctx, known.Name, nil); err != nil || sel.Messages == 0 {
		return sel, nil, nil, err
	}
	set, err := session.Search(ctx, mail.EveryUID())
	if err != nil {
		return nil, nil, nil, err
	}
	there, _ = mail.UIDList(set, mail.MaxUIDs)
	of := mail.EveryUID()
	if sel.UIDValidity == known.UIDValidity && len(there) > 0 {
		of = came(there, rows)
	}
	if len(of) > 0 {
		messages, err = session.Identify(ctx, of)
	}
	return sel, there, messages, err
}

// came gives all messages but those that did not come: the ranges between these, which are fewer than
// those of the others are.
func came(there []imap.UID, rows []ledger.Row) (out imap.UIDSet) {
	next := imap.UID(1)
	for _, r := range rows {
		if r.State != ledger.Stub && r.State != ledger.GivenUp {
			continue
		}
		if r.UID > next {
			out = append(out, imap.UIDRange{Start: next, Stop: r.UID - 1})
		}
		next = r.UID + 1
	}
	if next == 1 {
		return mail.EveryUID()
	}
	if last := slices.Max(there); last >= next { // "next:*" has the last message in any case (RFC 9051 9, seq-range)
		out = append(out, imap.UIDRange{Start: next, Stop: last})
	}
	return out
}

// box is a mailbox while it is compared.
type box struct {
	*side
	known ledger.Mailbox
	now   mail.Status
	dir   maildir.Dir
	files *maildir.Listing
}

func (b *box) differs(uid imap.UID, kind Kind, format string, args ...any) {
	b.tell(Difference{Mailbox: b.known.Name, UID: uid, Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (b *box) compare(ctx context.Context, uids []imap.UID, messages []mail.Message, rows []ledger.Row) error {
	byUID := make(map[imap.UID]mail.Message, len(uids))
	for _, uid := range uids {
		byUID[uid] = mail.Message{UID: uid}
	}
	for _, m := range messages {
		byUID[m.UID] = m
	}
	keys := make(map[string]bool, len(rows))
	listed := make(map[imap.UID]bool, len(rows))
	var both, missing, vanished []imap.UID
	for _, row := range rows {
		keys[row.Key], keys[row.StubKey] = true, true
		listed[row.UID] = true
		_, there := byUID[row.UID]
		_, here := b.files.Find(row.Key)
		here = here && row.Key != ""
		switch row.State {
		case ledger.Present:
			switch {
			case there && here:
				both = append(both, row.UID)
			case there:
				missing = append(missing, row.UID)
			case here:
				vanished = append(vanished, row.UID)
			}
		case ledger.Stub:
			if there {
				b.differs(row.UID, NotFetched, "a note stands for it here, since the server did not hand it over; `notmuch imap retry %s` asks again", mail.Typed(fmt.Sprintf("%s/%s/%d", b.Name, b.known.Name, row.UID)))
			}
		case ledger.Intended:
			b.differs(row.UID, NotHere, "a sync that was interrupted was about to write it; the next one does")
		case ledger.Skipped, ledger.Deferred, ledger.GivenUp:
			if there {
				b.result.Left++
			}
		}
	}
	if err := b.notBoth(ctx, rows, uids, missing, vanished); err != nil {
		return err
	}
	for _, uid := range uids {
		if m := byUID[uid]; m.MessageID != "" {
			b.places.add(m.MessageID, m.Size, b.known.Name)
		}
		if !listed[uid] {
			b.differs(uid, NotHere, "it is on the server; a sync fetches it")
		}
	}
	stored, err := b.Ledger.GetMany(ctx, b.known.Name, b.known.UIDValidity, both)
	if err != nil {
		return err
	}
	d := doubted{of: Body{Mailbox: b.known.Name, UIDValidity: b.known.UIDValidity}, folder: b.known.Folder}
	for _, row := range slices.Backward(stored) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.message(&row, byUID[row.UID])
		file, intact := b.intact(&row)
		if intact {
			b.bodies = append(b.bodies, Body{b.known.Name, b.known.UIDValidity, row.UID})
		}
		if intact && !file.Digest.IsZero() && doubts(&row, byUID[row.UID], file) {
			d.uids = append(d.uids, row.UID)
		}
	}
	if len(d.uids) > 0 {
		b.doubted = append(b.doubted, d)
	}
	b.result.Messages += len(stored)
	return b.untracked(ctx, func(key string) bool { return !keys[key] }, stored)
}

// message compares one that is on both sides.
func (b *box) message(row *ledger.Message, m mail.Message) {
	if m.Flags == nil && m.Size == 0 && m.MessageID == "" {
		b.differs(row.UID, NotFetched, "the server lists it, and tells nothing of it; its mail is here")
		return
	}
	name, _ := b.files.Find(row.Key)
	_, letters := maildir.ParseName(name)
	here := row.Flags
	if plan.HasInfo(name) {
		here = plan.DeltaOf(row.Flags, letters).Merged(row.Flags)
	}
	sent := here // what of that a sync sees
	tagged, indexed := b.side.files[string(b.dir)][row.Key]
	if indexed && b.seen(b.known, row.UID) {
		said := b.Tags.TagDelta(row.Flags, tagged.Tags)
		here = said.Merged(here)
		switch {
		case b.whole:
			sent = b.Tags.Unlost(said).Merged(sent)
		case b.news[tagged.ID]:
			sent = here
		}
	}
	if words := apart(here, m.Flags); words != "" && m.Flags != nil {
		b.differs(row.UID, Flags, "%s; %s", words, b.settles(tagged.ID, row.Flags, here, sent, m.Flags))
	} else if words, add, remove := untrue(tagged, row.Key, name); words != "" && b.NamesHaveFlags {
		b.differs(row.UID, Flags, "its tags in notmuch are not those of its file's name: %s; as its name says it is after %s", words, tagging(tagged.ID, add, remove))
	}
	if leaves, deleted := b.leaves(row, letters, tagged); leaves != "" && !b.ReadOnly {
		if deleted {
			b.local().Marked = append(b.local().Marked, *row)
			b.gone = append(b.gone, gone{b, row.UID, Leaving, leaves})
		} else {
			b.differs(row.UID, Leaving, "%s", leaves)
		}
	}
	switch {
	case !indexed && row.ID != "":
		b.differs(row.UID, NotIndexed, "notmuch does not know its file %s; `notmuch new` finds it, unless its new.ignore has that", filepath.Join(b.known.Folder, name))
	case indexed && m.MessageID != "" && plan.RealID(tagged.ID) != "" && mail.NotmuchID(tagged.ID) != m.MessageID:
		b.differs(row.UID, Identity, "its Message-ID is %s on the server, and %s here; %s", m.MessageID, tagged.ID, b.anew())
	}
	if m.Size != 0 && row.Size != 0 && m.Size != row.Size {
		b.differs(row.UID, Size, "it has %d bytes on the server; when it came it had %d; %s", m.Size, row.Size, b.anew())
	}
}

// leaves says why and how a message leaves the mailbox with the next sync, though it and its
// file are there; "" if it stays. deleted is that it was deleted here, and not moved.
func (b *box) leaves(row *ledger.Message, letters string, tagged mail.Tagged) (how string, deleted bool) {
	if plan.HasFlag(row.Flags, `\Deleted`) {
		return "", false // it was asked for already
	}
	deletes := "a sync deletes it on the server"
	if b.Deletions != plan.DeletionsExpunge && b.known.Name != b.trash {
		deletes = "a sync moves it to the Trash on the server"
	}
	if strings.Contains(letters, "T") && b.Deletions != plan.DeletionsKeep {
		return "the name of its file marks it as deleted (T), and " + deletes, true
	}
	if !b.whole && !b.news[tagged.ID] && b.Rules == b.Tags.RulesFingerprint(b.Deletions) || !b.seen(b.known, row.UID) {
		return "", false // a sync has seen its tags, or they are of another database
	}
	to, deleted := b.Tags.Ordered(b.known.Name, b.trash, b.Deletions, tagged.Tags, b.oldTags(row.Key))
	if !deleted && to == "" {
		return "", false
	}
	if same, err := maildir.OneMail(slices.Concat(tagged.Paths, tagged.Others)); err != nil || !same {
		return "", false // a sync leaves it where it is, and says so
	}
	if deleted {
		return fmt.Sprintf("it has the tag %s, and %s", b.Tags.DeletedTag, deletes), true
	}
	return fmt.Sprintf("a sync moves it to %s, where its tags want it", to), false
}

func (b *box) oldTags(key string) plan.OldTags {
	if b.OldTags == nil {
		return nil
	}
	return b.OldTags(b.known.Name, key)
}

// anew says how the mail of a file comes anew.
func (s *side) anew() string {
	return fmt.Sprintf("move that away, and `notmuch imap sync --restore %s` brings what the server has", s.Name)
}

// intact tells whether a message's file is as it came, and gives its size and digest.
func (b *box) intact(row *ledger.Message) (file plan.Untracked, intact bool) {
	file, err := contentOf(b.dir, row.Key)
	if err == nil && file.Digest.IsZero() { // it got another name this moment, or went
		file, err = contentOf(b.dir, row.Key)
	}
	_, here, e := b.dir.Find(row.Key)
	switch err = errors.Join(err, e); {
	case err != nil:
		b.differs(row.UID, NotHere, "its file cannot be read: %v; %s", err, b.anew())
	case file.Digest.IsZero() && here:
		b.differs(row.UID, NotHere, "its file cannot be read: it is a link to nothing; %s", b.anew())
	case file.Digest.IsZero(), row.Digest.IsZero(), file.Digest == row.Digest:
		return file, true
	default:
		b.differs(row.UID, Content, "its file was changed since it came; %s", b.anew())
	}
	return file, false
}

// settles says what a sync does about flags that are others here and there, of which it sees
// of those here what is sent; or, if they stay apart then, what makes them equal.
func (b *box) settles(id string, agreed, here, sent, there []string) string {
	sends, brings := plan.Changed(agreed, sent), plan.Changed(agreed, there)
	add, remove, _, _ := b.Tags.FlagTags(here, there)
	switch {
	case b.ReadOnly && !plan.SameFlags(agreed, here):
		return "what was changed here stays here (read_only)"
	case apart(brings.Merged(here), sends.Merged(there)) != "":
		return "no sync changes that, since nothing says which is right; as on the server it is after " + tagging(id, add, remove)
	case sends.Nothing():
		return "a sync brings that here"
	case brings.Nothing():
		return "a sync sends that"
	default:
		return "a sync takes each to the other side"
	}
}

// tagging is the command that changes tags of a message.
func tagging(id string, add, remove []string) string {
	words := []string{"notmuch", "tag"}
	for _, t := range add {
		words = append(words, mail.ShellQuoted("+"+t))
	}
	for _, t := range remove {
		words = append(words, mail.ShellQuoted("-"+t))
	}
	return "`" + strings.Join(append(words, "--", mail.ShellQuoted("id:"+id)), " ") + "`"
}

// untrue says which tags of a message are not as the names of its files say, of which one, by
// its key, has this name now, and what makes them so; "" if all are.
func untrue(t mail.Tagged, key, name string) (words string, add, remove []string) {
	letters, says := "", false
	for _, path := range slices.Concat(t.Paths, t.Others) {
		k, l := maildir.ParseName(path)
		if k == key {
			_, l = maildir.ParseName(name)
			says = says || plan.HasInfo(name)
		} else if _, err := os.Lstat(path); err != nil {
			continue // notmuch has not heard that it is gone
		}
		letters, says = letters+l, says || plan.HasInfo(path)
	}
	var parts []string
	for _, row := range plan.FlagRows() {
		tag := slices.Contains(t.Tags, row.Tag)
		switch letter := strings.Contains(letters, row.Letter); {
		case row.Tag == "" || letter == (tag != row.Absent) || !says && row.Absent:
		case tag:
			parts, remove = append(parts, row.Tag+" in notmuch alone"), append(remove, row.Tag)
		default:
			parts, add = append(parts, row.Tag+" by the name alone"), append(add, row.Tag)
		}
	}
	return strings.Join(parts, ", "), add, remove
}

// apart says which flags are on one side alone; "" if none is.
func apart(here, there []string) string {
	var parts []string
	for _, side := range []struct {
		where     string
		have, not []string
	}{{"here", here, there}, {"on the server", there, here}} {
		var alone []string
		for _, f := range side.have {
			if !plan.HasFlag(side.not, f) && !strings.EqualFold(f, `\Deleted`) {
				alone = append(alone, f)
			}
		}
		if len(alone) > 0 {
			slices.Sort(alone)
			parts = append(parts, fmt.Sprintf("%s %s alone", strings.Join(alone, " "), side.where))
		}
	}
	return strings.Join(parts, ", ")
}
