package verify

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// gone is a message that one side has no more, or is about to delete. Whether a sync does that on
// the other side, or its guard holds it back, is known when all mailboxes are compared.
type gone struct {
	*box
	uid  imap.UID
	kind Kind
	text string // what a sync does, if it is not held back
}

// lost are the messages of a mailbox that the server has no more.
type lost struct {
	*box
	rows []ledger.Message
	why  plan.Suspicion
}

// places are the mailboxes in which the server has a message, by what it is known by wherever it
// is.
type places map[string][]string

func (p places) of(id string, size int64) string { return fmt.Sprint(id, " ", size) }

func (p places) add(id string, size int64, mailbox string) {
	if at := p.of(id, size); !slices.Contains(p[at], mailbox) {
		p[at] = append(p[at], mailbox)
	}
}

// elsewhere tells whether the server has a message in another mailbox.
func (p places) elsewhere(row ledger.Message) bool {
	return row.ID != "" && slices.ContainsFunc(p[p.of(plan.RealID(row.ID), row.Size)], func(at string) bool { return at != row.Mailbox })
}

// local is what lacks in the mailbox's folder.
func (b *box) local() *plan.Local {
	if b.locals[b.known.Name] == nil {
		b.locals[b.known.Name] = new(plan.Local)
	}
	return b.locals[b.known.Name]
}

// notBoth notes what is missing here, and what has vanished on the server, of what it lists (there).
func (b *box) notBoth(ctx context.Context, rows []ledger.Row, there, missing, vanished []imap.UID) error {
	l := b.local()
	for _, r := range rows {
		if r.State == ledger.Present && r.Key != "" {
			l.Have++
		}
	}
	doubt := b.doubt(b.known.Name, b.dir)
	switch l.Files = b.files.Len(); {
	case !b.dir.Exists():
		l.Doubt = plan.DoubtGone
	case doubt == plan.DoubtReplaced, doubt != "" && len(missing) > 0:
		l.Doubt = doubt
	case l.Files == 0 && l.Have > 0:
		l.Doubt = plan.DoubtEmpty
	}
	here, err := b.Ledger.GetMany(ctx, b.known.Name, b.known.UIDValidity, missing)
	if err != nil {
		return err
	}
	for _, row := range here {
		text := "its file is gone from the folder; the server has the message, and "
		switch {
		case b.Deletions == plan.DeletionsKeep || b.ReadOnly:
			b.differs(row.UID, NotHere, "%s", text+fmt.Sprintf("keeps it; `notmuch imap sync --restore %s` brings it back", b.Name))
			continue
		case !plan.HasFlag(row.Flags, `\Deleted`):
			l.Missing = append(l.Missing, row)
		}
		away, err := b.inStray(ctx, row)
		if err != nil {
			return err
		}
		if away != "" {
			b.differs(row.UID, NotHere, "its file is in %s now, a folder of no mailbox of the server: a sync leaves both where they are", away)
			continue
		}
		b.gone = append(b.gone, gone{b, row.UID, NotHere, text + "a sync deletes it there, or moves it where it is here now"})
	}
	rest, err := b.Ledger.GetMany(ctx, b.known.Name, b.known.UIDValidity, vanished)
	if err != nil {
		return err
	}
	for _, uid := range vanished {
		b.gone = append(b.gone, gone{b, uid, NotThere, "the server has it no more; its file is in the folder, from where a sync removes it"})
	}
	b.lost = append(b.lost, lost{b, rest, plan.Suspicion{
		Doubt: plan.DoubtOf(b.known, nil, b.now, plan.View{Complete: true, UIDs: there}, len(vanished), 0, plan.Oldest(rows, vanished)),
		Gone:  len(vanished), Have: len(rows), All: len(vanished) == len(rows), Held: b.HeldThere[b.known.Name],
	}})
	return nil
}

// inStray gives the folder of a mailbox that the server has no more in which the file of a message
// is now; "" if it is in none.
func (s *side) inStray(ctx context.Context, row ledger.Message) (folder string, err error) {
	if s.astray == nil {
		s.astray = []plan.Untracked{}
		for _, k := range s.former {
			if err := s.readStray(ctx, k); err != nil {
				return "", err
			}
		}
	}
	i := slices.IndexFunc(s.astray, func(f plan.Untracked) bool { return f.SameContent(&row) })
	if i < 0 {
		return "", nil
	}
	return s.astray[i].Mailbox, nil
}

// readStray reads the files in the folder of such a mailbox that were not of it.
func (s *side) readStray(ctx context.Context, of ledger.Mailbox) error {
	rows, err := s.Ledger.Rows(ctx, of.Name, of.UIDValidity)
	if err != nil {
		return err
	}
	its := make(map[string]bool, len(rows))
	for _, r := range rows {
		its[r.Key], its[r.StubKey] = true, true
	}
	dir := maildir.Dir(filepath.Join(s.Root, of.Folder))
	files, err := dir.Scan()
	if err != nil {
		return nil //nolint:nilerr // it is told of as a folder
	}
	some, err := files.Some(func(key string) bool { return !its[key] })
	for _, f := range some {
		path := dir.Path(f.Name)
		h, e := maildir.ReadHeader(path, "Message-ID")
		digest, e2 := maildir.Digest(path)
		if e == nil && e2 == nil { // else it goes this moment
			s.astray = append(s.astray, plan.Untracked{Message: ledger.Message{Mailbox: of.Folder, Key: f.Key, ID: h.MessageID(), Digest: digest}})
		}
	}
	return err
}

// tellGone tells of all that, as the guard of a sync judges it.
func (s *side) tellGone(list []mail.Mailbox) {
	here, there := make(map[string]bool), make(map[string]bool)
	daily := plan.DailyOf(list, s.trash)
	for name, o := range plan.OfFolders(s.locals, plan.Policy{Deletions: s.Deletions, Yes: func(string) bool { return false }, Held: s.HeldHere, Daily: daily, Whole: true}) {
		here[name] = o.Held > 0
	}
	var j plan.Judgement
	for i := range s.lost {
		l := &s.lost[i]
		if l.why.Holds(l.why.Gone) {
			l.rows = slices.DeleteFunc(l.rows, s.places.elsewhere)
			l.why.Weigh(&j, len(l.rows), daily[l.known.Name])
		}
	}
	for _, l := range s.lost {
		there[l.known.Name] = j.Mistake() && l.why.Holds(len(l.rows))
	}
	for _, g := range s.gone {
		yes := fmt.Sprintf("`notmuch imap sync --yes-delete=%s` deletes it", mail.Typed(s.Name+"/"+g.known.Name))
		switch {
		case g.kind == NotThere && there[g.known.Name]:
			g.text = "the server has it no more; a sync keeps its file until you say what is right: " + yes
		case g.kind == NotHere && here[g.known.Name]:
			g.text = fmt.Sprintf("its file is gone from the folder; the server has the message, and a sync keeps it until you say what is right: %s, `notmuch imap sync --restore %s` brings it back", yes, mail.Typed(s.Name))
		case g.kind == Leaving && here[g.known.Name]:
			g.text = fmt.Sprintf("it was deleted here, and a sync keeps it on the server until you say what is right: %s, `notmuch imap sync --restore %s` takes that back", yes, mail.Typed(s.Name))
		}
		g.differs(g.uid, g.kind, "%s", g.text)
	}
}
