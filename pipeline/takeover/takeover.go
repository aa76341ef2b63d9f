// Package takeover makes what another synchroniser had agreed on with a server the
// ledger's own agreement: mail that is here already stays where it is, nothing is fetched,
// and what was changed on either side since is for the next sync.
package takeover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Session is what a take-over asks of the server.
type Session interface {
	List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error)
	// Examine selects a mailbox read-only. Known may be nil.
	Examine(ctx context.Context, mailbox string, known *mail.Known) (*mail.Selected, error)
	// Identify gives flags, date, size and Message-ID of messages of that mailbox.
	Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
	// Headers gives some fields of the headers of messages.
	Headers(ctx context.Context, uids imap.UIDSet, fields ...string) (map[imap.UID][]byte, error)
	// Fetch streams messages of that mailbox. A nil error does not mean that all of them came.
	Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error
	Alive() bool
}

// Account is what is taken over.
type Account struct {
	Root   string // absolute path of the account's folder
	Ledger *ledger.Ledger
	// Program is the other one, as the command that takes it over calls it.
	Program string
	// Selects tells which mailboxes are synchronised; nil means all.
	Selects func(mailbox string, delim rune) bool
	// Read gives the other program's agreement about a folder, by its path, and a mailbox;
	// takeover.ErrNone if there is none.
	Read func(folder string, m mail.Mailbox) (*takeover.Agreement, error)
	// Folders gives the folders in which the program may have a mailbox, the likeliest first.
	Folders func(m mail.Mailbox) []string
	// Tell is given each mailbox when it is done.
	Tell   func(Box)
	DryRun bool
	// Tags is what tags order by the configuration, and Messages gives those of the messages with
	// these ids, or of the files with these paths, that notmuch knows.
	Tags      *plan.Tags
	Deletions plan.Deletions
	Trash     string // the mailbox that is the Trash by the configuration; "" finds it
	Messages  func(ctx context.Context, ids []string) (map[string]mail.Tagged, error)
	// Called gives the mailbox that a folder is called by. Nil where folders of other accounts
	// may be among them.
	Called func(folder string, delim rune) (string, error)

	taking *taking
	trash  string
}

// Box is what became of a mailbox.
type Box struct {
	Mailbox string `json:"mailbox"`
	Folder  string `json:"folder,omitempty"` // below the account's
	Paired  int    `json:"paired"`
	Left    int    `json:"left"`             // not here by the other program's doing: they stay on the server
	Here    int    `json:"only_here"`        // files that it did not know
	Stay    int    `json:"stay_here"`        // those of them that nobody sends unasked
	There   int    `json:"only_there"`       // messages that it did not know
	Unsure  int    `json:"unsure,omitempty"` // whose file has not enough of a header to be known by, as after a full disk
	Both    int    `json:"both,omitempty"`   // mails that came on both sides since, as what was moved here and there: a sync pairs them
	Tagged  int    `json:"tagged"`           // that a rule would move for the tags that they have already
	Marked  int    `json:"marked,omitempty"` // whose tags have a sync delete them there
	Gone    int    `json:"gone_here"`        // whose file was removed since
	Removed int    `json:"gone_there"`       // that the server has no more
	Known   bool   `json:"known,omitempty"`
	Deleted bool   `json:"deleted,omitempty"` // the server has the mailbox no more
	None    bool   `json:"none,omitempty"`    // there is no agreement
	Refused string `json:"refused,omitempty"`
	Final   bool   `json:"final,omitempty"` // nothing mends that: it is refused ever after
	Again   bool   `json:"again,omitempty"` // it was taken over before, and the other program has changed what it remembers since
	Long    bool   `json:"long,omitempty"`  // the name of its folder is longer than notmuch takes: no sync takes it either
}

// Take takes over all mailboxes of which there is an agreement and of which the ledger
// knows nothing yet. An error is one of this machine, the context, or the connection.
func Take(ctx context.Context, a Account, s Session) error {
	a.taking = &taking{files: make(map[string]bool)}
	list, err := s.List(ctx, mail.Listing{Skip: func(mail.Mailbox) bool { return true }})
	if err != nil {
		return err
	}
	a.trash = mail.TrashOf(a.Trash, list)
	known, err := a.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	known, again, err := a.again(ctx, known)
	if err != nil {
		return err
	}
	if len(known) == 0 && !a.DryRun { // no place of one either
		if err := a.noteFolders(ctx); err != nil {
			return err
		}
	}
	taken := maildir.NewTaken(a.Root)
	known = slices.DeleteFunc(known, isPlace)
	for _, k := range known {
		taken.Put(k.Folder)
	}
	slices.SortFunc(list, func(x, y mail.Mailbox) int { return strings.Compare(x.Name, y.Name) })
	claimed := make(map[string]bool) // folders that are called as some mailbox may be
	var homeless []mail.Mailbox
	places := make(map[string]string) // folders of mailboxes of which there is no agreement
	for _, m := range list {
		for _, f := range a.Folders(m) {
			claimed[strings.ToLower(f)] = true
		}
		if m.Odd || !m.Selectable() || a.Selects != nil && !a.Selects(m.Name, m.Delim) {
			continue
		}
		if slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Name == m.Name }) {
			a.Tell(Box{Mailbox: m.Name, Known: again[m.Name] == "", Again: again[m.Name] != "", Refused: again[m.Name]})
			continue
		}
		box, err := a.box(ctx, s, m, taken)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		if box.None {
			homeless, places[m.Name] = append(homeless, m), box.Folder
			continue
		}
		if err := a.place(ctx, m, box); err != nil {
			return err
		}
		taken.Put(box.Folder)
		a.Tell(*box)
	}
	folders, err := maildir.Folders(a.Root)
	if err != nil {
		return err
	}
	lost := false                     // some mailbox has no folder
	doubtful := make(map[string]bool) // folders that may be of one that is not taken over
	for _, m := range homeless {
		free := slices.DeleteFunc(slices.Clone(folders), func(f string) bool { return taken.Has(f) || claimed[strings.ToLower(f)] })
		box, err := a.elsewhere(ctx, s, m, free, doubtful)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		if box.None && !taken.Has(places[m.Name]) {
			box.Folder = places[m.Name]
		}
		if err := a.place(ctx, m, box); err != nil {
			return err
		}
		if lost = lost || box.Folder == ""; box.Folder != "" {
			taken.Put(box.Folder)
		}
		a.Tell(*box)
	}
	for _, f := range folders {
		if taken.Has(f) || claimed[strings.ToLower(f)] {
			continue
		}
		if !doubtful[f] {
			if of, err := a.deleted(ctx, f, list); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			} else if of {
				continue
			}
		}
		if theirs, err := a.numbered(f); err != nil || !theirs || !lost {
			if err != nil {
				return err
			}
			continue
		}
		a.Tell(Box{Folder: f, Refused: "it is not known of which mailbox its mail is, which a sync would fetch again"})
	}
	if err := a.follow(ctx, s, a.taking); err != nil {
		return err
	}
	long, err := maildir.LongFolders(a.Root)
	for _, f := range long {
		if !claimed[strings.ToLower(f)] {
			a.Tell(Box{Folder: f, Final: true, Long: true, Refused: maildir.TooLong(f) + ": give it a shorter one"})
		}
	}
	return err
}

// deleted takes a mailbox over that the server has no more, as its folder and what the other
// program remembers of that say: what becomes of its mail here is for its owner to say, as if
// the mailbox were deleted after the take-over. It tells whether the folder is of one.
func (a *Account) deleted(ctx context.Context, folder string, list []mail.Mailbox) (of bool, err error) {
	if a.Called == nil {
		return false, nil
	}
	m := mail.Mailbox{Delim: mail.Delim(list)}
	if m.Name, err = a.Called(folder, m.Delim); err != nil {
		return false, nil //nolint:nilerr // no mailbox is called so
	}
	if prefix := mail.Prefix(list); !strings.HasPrefix(m.Name, prefix) {
		m.Name = prefix + m.Name
	}
	if slices.ContainsFunc(list, func(l mail.Mailbox) bool { return l.Name == m.Name }) || a.Selects != nil && !a.Selects(m.Name, m.Delim) {
		return false, nil
	}
	agreed, err := a.Read(filepath.Join(a.Root, folder), m)
	if err != nil || agreed.Gmail != nil || agreed.UIDValidity == 0 {
		return false, nil //nolint:nilerr // what is here then is like any folder that was here before
	}
	dir := maildir.Dir(filepath.Join(a.Root, folder))
	files, err := dir.Scan()
	if err != nil {
		return false, err
	}
	var rows []ledger.Message
	buf := make([]byte, 64<<10)
	for _, x := range agreed.Messages {
		name, here := files.Find(x.Key)
		if !here || x.Key == "" || x.Placeholder || len(x.Others) > 0 {
			continue
		}
		row := ledger.Message{Mailbox: m.Name, UIDValidity: agreed.UIDValidity, UID: x.UID, State: ledger.Present, Key: x.Key, Flags: flagsOf(x, name, nil)}
		if _, err := describe(&row, string(dir), name, buf); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return false, err
		}
		row.Size = row.WireSize // by which it is known where the server has it now
		a.taking.files[filepath.Join(folder, x.Key)] = true
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return false, nil
	}
	a.Tell(Box{Mailbox: m.Name, Folder: folder, Removed: len(rows), Deleted: true})
	if a.DryRun {
		return true, nil
	}
	return true, journal.Of(a.Ledger).Record(ctx, journal.Change{Save: rows,
		Mailbox: &ledger.Mailbox{Name: m.Name, Folder: folder, Delim: m.Delim, UIDValidity: agreed.UIDValidity, UIDNext: agreed.UIDNext, Messages: uint32(len(rows)), Complete: true}})
}

// numbered tells whether a folder has a file that another program numbered.
func (a *Account) numbered(folder string) (bool, error) {
	files, err := maildir.Dir(filepath.Join(a.Root, folder)).Scan()
	if err != nil {
		return false, err
	}
	some, err := files.Some(func(key string) bool { return strings.Contains(key, ",U=") })
	return len(some) > 0, err
}

// place remembers the folder of a mailbox that was not taken over, so that the first sync pairs
// what is in it by what it is, whatever it is called.
func (a *Account) place(ctx context.Context, m mail.Mailbox, box *Box) error {
	if a.DryRun || box.Folder == "" || !box.None && box.Refused == "" {
		return nil
	}
	return journal.Of(a.Ledger).Record(ctx, journal.Change{Mailbox: &ledger.Mailbox{Name: m.Name, Folder: box.Folder, Delim: m.Delim}})
}

// isPlace tells whether of a mailbox its folder alone is known.
func isPlace(k ledger.Mailbox) bool { return k.UIDValidity == 0 && !k.Complete }

// elsewhere takes a mailbox over whose folder is called otherwise: it was renamed on the server
// since, or the other program has names of its own (OfflineIMAP's nametrans). It is that of
// folders whose agreement is of this mailbox, as Message-IDs say. Those that may be are doubtful.
func (a *Account) elsewhere(ctx context.Context, s Session, m mail.Mailbox, folders []string, doubtful map[string]bool) (*Box, error) {
	none := &Box{Mailbox: m.Name, None: true}
	var sel *mail.Selected
	var there map[imap.UID]mail.Message
	for _, f := range folders {
		agreed, err := a.Read(filepath.Join(a.Root, f), m)
		if errors.Is(err, takeover.ErrBusy) {
			doubtful[f] = true
			return &Box{Mailbox: m.Name, Refused: err.Error()}, nil
		}
		if err != nil || agreed.Gmail != nil || !slices.ContainsFunc(agreed.Messages, func(x takeover.Agreed) bool { return x.Key != "" }) {
			continue // it is not known to be of this mailbox
		}
		if sel == nil {
			if sel, err = s.Examine(ctx, m.Name, nil); err != nil {
				if _, refused := mail.Refused(err); refused {
					for _, f := range folders {
						doubtful[f] = true
					}
					return none, nil
				}
				return nil, err
			}
			if there, err = identified(ctx, s, sel); err != nil {
				return nil, err
			}
		}
		if sel.UIDValidity != agreed.UIDValidity {
			continue
		}
		out := &Box{Mailbox: m.Name, Folder: f}
		if err := a.take(ctx, s, m, sel, maps.Clone(there), agreed, out, false); err != nil || out.Refused == "" {
			return out, err
		}
		doubtful[f] = true
	}
	return none, nil
}

// identified gives all messages of the mailbox that is open.
func identified(ctx context.Context, s Session, sel *mail.Selected) (map[imap.UID]mail.Message, error) {
	there := make(map[imap.UID]mail.Message)
	if sel.Messages == 0 {
		return there, nil
	}
	messages, err := s.Identify(ctx, mail.EveryUID())
	for _, msg := range messages {
		there[msg.UID] = msg
	}
	return there, err
}

// noteFolders remembers what was here before: of what is not taken over nothing is
// uploaded unasked.
func (a *Account) noteFolders(ctx context.Context) error {
	folders, err := maildir.Folders(a.Root)
	if err != nil {
		return err
	}
	j := journal.Of(a.Ledger)
	var c journal.Change
	for _, f := range append(folders, ".") {
		j.Before.Put(&c, f, journal.SaidOnce)
	}
	return j.Record(ctx, c)
}

// box takes one mailbox over.
func (a *Account) box(ctx context.Context, s Session, m mail.Mailbox, taken *maildir.Taken) (*Box, error) {
	out := &Box{Mailbox: m.Name}
	refuse := func(why string) (*Box, error) {
		out.Refused = why
		return out, nil
	}
	for _, f := range a.Folders(m) {
		if taken.Has(f) || !maildir.Dir(filepath.Join(a.Root, f)).Exists() {
			continue
		}
		if why := maildir.TooLong(f); why != "" {
			out.Final, out.Long = true, true
			return refuse(why + ": rename the mailbox on the server, or exclude it with `mailboxes` in the configuration")
		}
		agreed, err := a.Read(filepath.Join(a.Root, f), m)
		if errors.Is(err, takeover.ErrNone) {
			out.Folder = cmp.Or(out.Folder, f)
			continue
		}
		if out.Folder = f; err != nil {
			out.Final = errors.Is(err, takeover.ErrNever)
			return refuse(err.Error())
		}
		sel, err := s.Examine(ctx, m.Name, nil)
		if err != nil {
			if _, refused := mail.Refused(err); refused {
				return refuse(err.Error())
			}
			return nil, err
		}
		if agreed.Gmail == nil && sel.UIDValidity != agreed.UIDValidity {
			out.Final = true
			return refuse(fmt.Sprintf("the server's UIDVALIDITY is %d, and %d was agreed on: it renumbered the mailbox since", sel.UIDValidity, agreed.UIDValidity))
		}
		there, err := identified(ctx, s, sel)
		if err != nil {
			return nil, err
		}
		return out, a.take(ctx, s, m, sel, there, agreed, out, true)
	}
	out.None = true
	return out, nil
}

// take pairs one mailbox with what is there, and records that. Where the folder is not sure to
// be the mailbox's, some Message-ID must say so.
func (a *Account) take(ctx context.Context, s Session, m mail.Mailbox, sel *mail.Selected, there map[imap.UID]mail.Message, agreed *takeover.Agreement, out *Box, sure bool) error {
	dir := maildir.Dir(filepath.Join(a.Root, out.Folder))
	files, err := dir.Scan()
	if err != nil {
		return err
	}
	state := agreed.State
	if state.File, err = filepath.Abs(state.File); err != nil { // a sync may run in another directory
		return err
	}
	if agreed.Gmail != nil {
		if agreed = ofGmail(agreed.Gmail, there, files); agreed == nil {
			out.Final, out.Refused = true, "the server does not tell what number a message has (X-GM-MSGID), as Gmail does"
			return nil
		}
	}
	known := make(map[string]bool)
	var rows []ledger.Message
	var nameless []ledger.Message // those without a Message-ID to go by
	buf := make([]byte, 64<<10)
	for _, x := range agreed.Messages {
		msg, listed := there[x.UID]
		row := ledger.Message{Mailbox: m.Name, UIDValidity: sel.UIDValidity, UID: x.UID, State: ledger.Present, Key: x.Key,
			Size: msg.Size, Date: msg.InternalDate.UTC().Truncate(time.Second), Flags: flags(x.Letters, msg.Flags)}
		if len(x.Others) > 0 {
			if x.Key, err = which(string(dir), files, x, msg); err != nil {
				return err
			}
			if x.Key == "" {
				out.Refused = fmt.Sprintf("%s have one number (,U= in their names), and no Message-ID tells which is UID %d: take it out of the name of what came from elsewhere", strings.Join(append([]string{row.Key}, x.Others...), " and "), x.UID)
				return nil
			}
			row.Key = x.Key
		}
		name, here := files.Find(x.Key)
		here = here && x.Key != ""
		delete(there, x.UID)
		switch {
		case !listed && !here:
			continue // gone on both sides
		case here && x.Placeholder, x.Key == "":
			row.State, row.Key, row.Reason = ledger.Skipped, "", leftThere
			if here {
				known[x.Key] = true
				row.StubKey, row.StubName = x.Key, name
				if row.ID, err = idOf(filepath.Join(string(dir), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			out.Left++
		case !here:
			row.ID = msg.MessageID
			out.Gone++
		default:
			known[x.Key] = true
			row.Flags = flagsOf(x, name, msg.Flags)
			header, err := describe(&row, string(dir), name, buf)
			if errors.Is(err, fs.ErrNotExist) {
				out.Refused = "its files change: end the programs that work on it, and run this again"
				return nil
			}
			if err != nil {
				return err
			}
			id := header.MessageID()
			if listed && id != "" && msg.MessageID != "" && id != msg.MessageID {
				out.Final, out.Refused = true, fmt.Sprintf("UID %d has the Message-ID %s on the server, and %s in %s", x.UID, msg.MessageID, id, name)
				return nil
			}
			sure = sure || listed && id != "" && id == msg.MessageID
			if listed && (id == "" || msg.MessageID == "") {
				nameless = append(nameless, row)
			}
			if listed {
				out.Paired++
			} else {
				row.Size = row.WireSize // by which it is known where the server has it now
				out.Removed++
			}
		}
		rows = append(rows, row)
	}
	for uid, msg := range there {
		if uid <= agreed.Expired {
			rows = append(rows, ledger.Message{Mailbox: m.Name, UIDValidity: sel.UIDValidity, UID: uid, State: ledger.Skipped, Reason: leftThere,
				Size: msg.Size, Date: msg.InternalDate.UTC().Truncate(time.Second), Flags: plan.StoredFlags(msg.Flags)})
			delete(there, uid)
			out.Left++
		}
	}
	if !sure {
		out.Refused = "nothing says that the folder is the mailbox's"
		return nil
	}
	unsure := make(map[imap.UID]bool)
	if out.Refused, err = a.headersAgree(ctx, s, dir, nameless, unsure); err != nil || out.Refused != "" {
		out.Final = true
		return err
	}
	j := journal.Of(a.Ledger)
	var c journal.Change
	rows = slices.DeleteFunc(rows, func(row ledger.Message) bool {
		if unsure[row.UID] { // a sync fetches what the server has, and sends no piece of it
			j.NeverUpload.Put(&c, row.Key, journal.Text(m.Name))
		}
		return unsure[row.UID]
	})
	out.Unsure, out.Paired = len(unsure), out.Paired-len(unsure)
	out.There = len(there)
	some, err := files.Some(func(key string) bool { return !known[key] })
	if err != nil {
		return err
	}
	for _, f := range some {
		j.Stood.Put(&c, f.Key, journal.Text(m.Name))
	}
	if out.Here = len(some); agreed.Gmail != nil {
		// It may have been deleted on the server, or be where All Mail does not show it.
		out.Here, out.Stay = 0, len(some)
		for _, f := range some {
			j.HereBefore.Put(&c, f.Key, journal.Text(m.Name))
		}
	}
	if out.Both, out.Refused, err = unpaired(string(dir), some, there, agreed.UIDNext); err != nil || out.Refused != "" {
		return err
	}
	out.There -= out.Both
	if agreed.Gmail == nil {
		out.Here -= out.Both
	}
	if out.Tagged, out.Marked, err = a.oldTags(ctx, out.Folder, rows, &c); err != nil || a.DryRun {
		return err
	}
	c.Save, c.Mailbox = rows, &ledger.Mailbox{Name: m.Name, Folder: out.Folder, Delim: m.Delim, UIDValidity: sel.UIDValidity, UIDNext: agreed.UIDNext, Messages: uint32(len(rows)), Complete: true}
	if state.Digest != "" {
		j.Imported.Put(&c, m.Name, journal.Imported{Program: a.Program, File: state.File, Digest: state.Digest})
	}
	for key := range known {
		a.taking.files[filepath.Join(out.Folder, key)] = true
	}
	var gone []int // of rows, without a file
	for i, row := range rows {
		if row.State == ledger.Present && row.Name == "" {
			gone = append(gone, i)
		}
	}
	if len(gone) > 0 {
		a.taking.left = append(a.taking.left, &leaving{m.Name, sel.UIDValidity, c, gone})
		return nil
	}
	// All or nothing: a run that is stopped leaves whole mailboxes, and those of which
	// nothing is known, with which the next one goes on.
	return j.Record(ctx, c)
}

// oldTags has a change note of what tags order nothing: those that mail has already, of which a rule
// would move it. Where it is its owner has put it. It gives how many messages that is, and how many a
// sync deletes for a tag.
func (a *Account) oldTags(ctx context.Context, folder string, rows []ledger.Message, c *journal.Change) (n, marked int, err error) {
	if a.Tags == nil || !a.Tags.HasRules() {
		return 0, 0, nil
	}
	rows = slices.DeleteFunc(slices.Clone(rows), func(m ledger.Message) bool { return m.State != ledger.Present || m.Name == "" })
	ids, paths := make([]string, len(rows)), make([]string, len(rows))
	for i, m := range rows {
		ids[i], paths[i] = m.ID, filepath.Join(a.Root, folder, m.Name)
	}
	known, err := a.Messages(ctx, mail.Asking(ids, paths))
	if err != nil {
		return 0, 0, err
	}
	notes := journal.Of(a.Ledger).Old
	for i, m := range rows {
		t, is := mail.Answer(known, m.ID, paths[i])
		if !is {
			continue
		}
		old := a.Tags.Ordering(m.Mailbox, t.Tags)
		moving := a.Tags.Moving(old)
		if len(t.Paths)+len(t.Others) == 1 { // of several files nobody knows which is to be deleted
			old = moving
			if _, deleted := a.Tags.Ordered(m.Mailbox, a.trash, a.Deletions, t.Tags, nil); deleted && !plan.HasFlag(m.Flags, `\Deleted`) {
				marked++
			}
		}
		if len(moving) > 0 {
			n++
		}
		if len(old) > 0 {
			notes.Put(c, journal.AboutFile(m.Mailbox, m.Key), old)
		}
	}
	return n, marked, nil
}

// which gives the one of several files with the other program's number of a message that is this
// message; "" if that is not known. The others came from elsewhere.
func which(dir string, files *maildir.Listing, x takeover.Agreed, msg mail.Message) (string, error) {
	if msg.MessageID == "" {
		return "", nil
	}
	for _, key := range append([]string{x.Key}, x.Others...) {
		name, here := files.Find(key)
		if !here {
			continue
		}
		h, err := maildir.ReadHeader(filepath.Join(dir, name), "Message-ID")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if h.MessageID() == msg.MessageID {
			return key, nil
		}
	}
	return "", nil
}

// ofGmail gives the agreement of a program that goes by Gmail's numbers of messages: of flags
// what both sides have, so that one that only one of them has goes to the other. Nil if the
// server tells no numbers.
func ofGmail(keys map[uint64]string, there map[imap.UID]mail.Message, files *maildir.Listing) *takeover.Agreement {
	a := &takeover.Agreement{UIDNext: 1, Gmail: keys}
	for _, uid := range slices.Sorted(maps.Keys(there)) {
		m := there[uid]
		if m.GmailID == 0 {
			return nil
		}
		key, known := keys[m.GmailID]
		if !known {
			continue
		}
		name, _ := files.Find(key)
		_, here := maildir.ParseName(name)
		letters := strings.Map(func(c rune) rune {
			if strings.ContainsRune(here, c) {
				return c
			}
			return -1
		}, plan.Letters(m.Flags))
		a.Messages = append(a.Messages, takeover.Agreed{UID: uid, Key: key, Letters: letters})
		a.UIDNext = uid + 1
	}
	return a
}

// unpaired finds mail of which an agreement knows neither file nor message. What came to the server
// since, which gave it UIDs from next on, a sync pairs: both are how many. Of what was there
// before, the agreement lacks something, and a sync would send and fetch it: why says so.
func unpaired(dir string, files []maildir.File, there map[imap.UID]mail.Message, next imap.UID) (both int, why string, err error) {
	if len(files) == 0 || len(there) == 0 {
		return 0, "", nil
	}
	byID := make(map[string]imap.UID)
	anonymous := false // some message of before has no Message-ID
	for uid, m := range there {
		switch {
		case m.MessageID == "":
			anonymous = anonymous || uid < next
		case byID[m.MessageID] == 0 || uid < byID[m.MessageID]:
			byID[m.MessageID] = uid
		}
	}
	for _, f := range files {
		h, err := maildir.ReadHeader(filepath.Join(dir, f.Name), "Message-ID")
		if errors.Is(err, fs.ErrNotExist) {
			continue // it goes elsewhere this moment
		}
		if err != nil {
			return 0, "", err
		}
		id := h.MessageID()
		switch uid, ok := byID[id]; {
		case ok && uid >= next:
			both++
			delete(byID, id) // one more file of it is not paired
		case ok:
			return 0, fmt.Sprintf("it knows neither UID %d nor %s, which are the same mail (%s): what it remembers is not whole", uid, f.Name, id), nil
		case id == "" && anonymous:
			return 0, fmt.Sprintf("it does not know %s, nor messages on the server that have no Message-ID either: one may be the other", f.Name), nil
		}
	}
	return both, "", nil
}

// flags are what both sides had: the letters that were agreed on, and those flags that the
// server has now which mean nothing here. The other program knew nothing of keywords: those
// that are tags come here, as from a mailbox that is new.
func flags(letters string, there []string) []string {
	out := plan.FlagsOf(letters)
	if strings.Contains(letters, "T") {
		out = append(out, `\Deleted`)
	}
	for _, f := range there {
		known := slices.ContainsFunc(plan.FlagRows(), func(r plan.FlagRow) bool { return strings.EqualFold(r.Flag, f) })
		if !known && plan.KeywordTag(f) == "" {
			out = append(out, f)
		}
	}
	return out
}

// flagsOf is flags of a message whose file has this name. A mark that the program itself put there to have
// it go counts as agreed: the server has it not, so that a sync takes it off.
func flagsOf(x takeover.Agreed, name string, there []string) []string {
	if _, are := maildir.ParseName(name); x.Expired && strings.Contains(are, "T") {
		x.Letters += "T"
	}
	return flags(x.Letters, there)
}

// describe fills in what the file of a row is.
func describe(row *ledger.Message, dir, name string, buf []byte) (mail.Header, error) {
	head, sum := mail.NewHeaderReader("Message-ID"), mail.NewDigester()
	path := filepath.Join(dir, name)
	size, err := maildir.Read(path, buf, io.MultiWriter(head, sum))
	if err != nil {
		return nil, err
	}
	row.Name, row.WireSize, row.Digest = name, size-sum.Left(), sum.Sum()
	header := head.Header()
	if row.ID = header.MessageID(); row.ID == "" {
		row.ID, err = maildir.MadeUpID(path)
	}
	return header, err
}

const leftThere = "the program that was here before left it on the server"

// idOf gives the id by which notmuch has a mail.
func idOf(path string) (string, error) {
	h, err := maildir.ReadHeader(path, "Message-ID")
	if err != nil {
		return "", err
	}
	if id := h.MessageID(); id != "" {
		return id, nil
	}
	return maildir.MadeUpID(path)
}

// atOnce is of how many messages headers are kept.
const atOnce = 500

// headersAgree compares the messages that no Message-ID vouches for by other fields, all of them: a
// server that was restored has other mail under its newest numbers alone. It gives why they are not
// the files that they should be, or "". A file without a header, or that ends in it, as after a full
// disk, says nothing against that: such messages are put into unsure.
func (a *Account) headersAgree(ctx context.Context, s Session, dir maildir.Dir, rows []ledger.Message, unsure map[imap.UID]bool) (string, error) {
	fields := []string{"Date", "From", "Subject"}
	buf := make([]byte, 64<<10)
	for part := range slices.Chunk(rows, atOnce) {
		told, err := s.Headers(ctx, mail.UIDSet(ledger.UIDs(part)), fields...)
		if err != nil {
			return "", err
		}
		for _, row := range part {
			raw, came := told[row.UID]
			if !came {
				continue
			}
			head := mail.NewHeaderReader(fields...)
			if _, err := maildir.Read(filepath.Join(string(dir), row.Name), buf, head); err != nil {
				return "", err
			}
			whole := head.Done()
			here, there := head.Header(), mail.ParseHeader(raw, fields...)
			whole = whole && slices.ContainsFunc(fields, func(f string) bool { return here.Get(f) != "" })
			if !whole && row.WireSize != row.Size {
				unsure[row.UID] = true
			}
			for _, f := range fields {
				switch ours, theirs := mail.FoldSpace(here.Get(f)), mail.FoldSpace(there.Get(f)); {
				case ours == theirs:
				case !whole && strings.HasPrefix(theirs, ours):
					unsure[row.UID] = true
				default:
					return fmt.Sprintf("UID %d has another %s on the server than %s", row.UID, f, row.Name), nil
				}
			}
		}
	}
	return "", nil
}
