package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Undoing is what of the log is to be undone, and what is known of its mail.
type Undoing struct {
	Lines     []mail.Logged     // the oldest first
	Here      map[string][]Here // the messages that are recorded and may be a line's, by the line's id
	Kept      map[int64]Kept    // what is in the attic, by the number of the action that put it there
	Mailboxes map[string]bool   // of which there is a folder
	NoAttic   bool              // nothing is kept there
}

// Here is a recorded message, with what is here of it.
type Here struct {
	Row  ledger.Message
	Name string   // of its file in the folder; "" if it is not there
	Tags []string // of its message in notmuch
}

// Kept is a file in the attic.
type Kept struct {
	Path   string
	Digest mail.Digest
}

// text tells whether a mail has the text of the file.
func (k *Kept) text(m *undoing) Sign {
	return Weigh(Agreed(&m.Row), Agreed(&ledger.Message{ID: m.Row.ID, Digest: k.Digest})).Text
}

// Undo is what is to be done here with one mail, so that it is again as it was. What of that the server
// is to know the next sync finds, as it finds what a person has done.
type Undo struct {
	Of    []mail.Logged // what is undone by it, the newest first
	Here                // the message; of one that comes from the attic, only its Mailbox and ID
	To    string        // the mailbox to whose folder its file goes; "": it stays
	Delta               // of its flags
	Tags  []string      // that it is to have, without those of flags; nil: they stay
	Flags []string      // of what comes from the attic
	Kept  string        // the path there of what comes; "": it is here
	Away  bool          // its file goes to the attic
}

// NotUndone is an action that cannot be undone.
type NotUndone struct {
	mail.Logged
	Reason string
}

// undoing is a mail, as far as it was followed back through the log.
type undoing struct {
	Here
	mailbox     string   // where it was then
	flags, were []string // then, and now
	of          []mail.Logged
	tags        []string
	kept        string
	away        bool
}

// Undo gives what is to be done so that nothing of the lines is done any more, and what stays. What is
// as it was before already is in neither.
func (t *Tags) Undo(u *Undoing) (edits []Undo, stays []NotUndone) {
	w := &undoer{Undoing: u, Tags: t, mails: make(map[string][]*undoing)}
	type message struct {
		mailbox     string
		uidValidity uint64
		uid         imap.UID
	}
	met := make(map[message]*undoing) // without a Message-ID one has several ids
	for id, all := range u.Here {
		for _, h := range all {
			is := message{h.Row.Mailbox, h.Row.UIDValidity, h.Row.UID}
			if met[is] == nil {
				flags := t.AsNamed(h.Row.Flags, h.Name)
				met[is] = &undoing{Here: h, mailbox: h.Row.Mailbox, flags: flags, were: flags}
			}
			w.mails[id] = append(w.mails[id], met[is])
		}
	}
	reasons := make(map[int64]string)
	for _, line := range slices.Backward(u.Lines) {
		if reason := w.undo(line); reason != "" {
			reasons[line.Number] = reason
		}
	}
	for _, line := range u.Lines {
		if reason := reasons[line.Number]; reason != "" && !w.settled(line) {
			stays = append(stays, NotUndone{line, reason})
		}
	}
	for _, m := range w.order {
		e := Undo{Of: m.of, Here: m.Here, Delta: Changed(m.were, m.flags), Tags: m.tags, Kept: m.kept, Away: m.away && m.kept == ""}
		switch {
		case m.kept != "":
			e.Flags, e.Delta = m.flags, Delta{}
			e.Row.Mailbox = m.mailbox
			if m.away { // it came from there, and goes there: it stays
				continue
			}
		case m.mailbox != m.Row.Mailbox:
			e.To = m.mailbox
		}
		if e.Kept == "" && !e.Away && e.To == "" && e.Nothing() && e.Tags == nil {
			continue
		}
		edits = append(edits, e)
	}
	return edits, stays
}

// undoer goes back through the log.
type undoer struct {
	*Undoing
	*Tags
	mails map[string][]*undoing // by the id of lines
	order []*undoing            // those that are changed, in the order in which they were met
}

// undo goes back over one line. It gives why that cannot be; "" if it can, or if nothing is to be done.
func (w *undoer) undo(line mail.Logged) string {
	switch line.Outcome {
	case mail.IsDone:
	case mail.IsBegun:
		return "whether it was done is not known yet; the next sync finds out"
	default:
		return "it was not done"
	}
	switch line.Kind {
	case mail.ActStore, mail.ActFlag:
		return w.reflag(line)
	case mail.ActMove, mail.ActFollow:
		return w.moveBack(line, line.Other, line.Mailbox)
	case mail.ActDelete:
		if line.Other == "" {
			return "the server has deleted it for good"
		}
		return w.moveBack(line, line.Other, line.Mailbox)
	case mail.ActLink:
		if _, reason := w.find(line, line.Other); reason == "" {
			return "it was copied, and copies stay"
		}
		return w.moveBack(line, line.Mailbox, line.Other)
	case mail.ActRemove:
		return w.bringBack(line)
	case mail.ActUndo:
		return w.redo(line)
	case mail.ActFetch, mail.ActHeal, mail.ActPair:
		return "what came stays"
	case mail.ActUpload:
		return "what was sent stays; delete it, if it is to go"
	case mail.ActCreate:
		return "the mailbox stays; `notmuch imap folder delete` deletes it"
	case mail.ActErase:
		return "its mail was deleted for good"
	case mail.ActRename:
		return "a mailbox keeps its name; rename it where that was done"
	default:
		return "nothing of it is to be undone"
	}
}

// settled tells whether what could not be undone of a line is undone by that of others, or goes
// without saying beside it.
func (w *undoer) settled(line mail.Logged) bool {
	switch line.Kind {
	case mail.ActFetch, mail.ActLink, mail.ActUpload:
		// The mail of which it tells goes elsewhere, or was brought here by what is undone.
		return slices.ContainsFunc(w.order, func(m *undoing) bool {
			return m.Row.ID == line.ID && line.ID != "" && (m.mailbox != line.Mailbox || m.away)
		})
	case mail.ActRemove:
		_, reason := w.find(line, line.Mailbox)
		return reason == "" // it is there again
	}
	return false
}

// find gives the mail of a line that is, or by what was undone so far will be, in a mailbox, or why there
// is none of which that is sure.
func (w *undoer) find(line mail.Logged, mailbox string) (m *undoing, reason string) {
	if line.ID == "" {
		return nil, "the log does not tell which mail it was"
	}
	var in, elsewhere []*undoing
	for _, m := range w.mails[line.ID] {
		if m.mailbox == mailbox && !m.away {
			in = append(in, m)
		} else {
			elsewhere = append(elsewhere, m)
		}
	}
	same := func(m *undoing) bool {
		return m.Row.Mailbox == line.Mailbox && m.Row.UID == line.UID && m.Row.UIDValidity == line.UIDValidity || m.Row.Key == line.Key && line.Key != ""
	}
	if i := slices.IndexFunc(in, same); i >= 0 && len(in) > 1 {
		in = in[i : i+1]
	}
	switch {
	case len(in) == 0 && len(elsewhere) == 0:
		return nil, "its mail is not here any more"
	case len(in) == 0:
		return nil, "its mail is not in " + mailbox + " any more, but in " + elsewhere[0].mailbox
	case len(in) > 1:
		return nil, fmt.Sprintf("%d mails in %s have its Message-ID", len(in), mailbox)
	case in[0].kept == "" && in[0].Name == "":
		return nil, "its file was moved or deleted since the last sync; sync first"
	}
	return in[0], ""
}

// touch notes that a line is undone with a mail.
func (w *undoer) touch(m *undoing, line mail.Logged) {
	if !slices.Contains(w.order, m) {
		w.order = append(w.order, m)
	}
	m.of = append(m.of, line)
}

// reflag gives a mail the flags that it had, of those that a line changed.
func (w *undoer) reflag(line mail.Logged) string {
	back := Changed(line.After, line.Before)
	var stay []string
	goes := func(f string) bool {
		ok := slices.ContainsFunc(FlagRows(), func(r FlagRow) bool { return r.Tag != "" && strings.EqualFold(r.Flag, f) }) || w.isSent(f)
		if !ok {
			stay = append(stay, f)
		}
		return ok
	}
	back.Add = slices.DeleteFunc(back.Add, func(f string) bool { return !goes(f) })
	back.Remove = slices.DeleteFunc(back.Remove, func(f string) bool { return !goes(f) })
	if back.Nothing() && len(stay) > 0 {
		slices.Sort(stay)
		return strings.Join(stay, " ") + " does not go from here to the server"
	}
	m, reason := w.find(line, line.Mailbox)
	if reason != "" {
		return reason
	}
	if after := back.Merged(m.flags); !SameFlags(after, m.flags) {
		if m.tags != nil {
			add, remove, _, _ := w.FromFlags(m.flags, after)
			m.tags = slices.DeleteFunc(append(m.tags, w.without(add)...), func(t string) bool { return slices.Contains(remove, t) })
		}
		m.flags = after
		w.touch(m, line)
	}
	return ""
}

// retag gives a mail the tags that it had when it went, and the keywords of these.
func (w *undoer) retag(m *undoing, tags []string) {
	sent := func(flags []string) []string {
		return slices.DeleteFunc(flags, func(f string) bool { return !w.isSent(f) })
	}
	d := w.TagDelta(m.flags, tags)
	m.flags = Delta{Add: sent(d.Add), Remove: sent(d.Remove)}.Merged(m.flags)
	m.tags = w.without(tags)
}

// moveBack moves a mail back to where it was.
func (w *undoer) moveBack(line mail.Logged, from, to string) string {
	m, reason := w.find(line, from)
	if reason != "" {
		if m, _ := w.find(line, to); m != nil {
			return "" // it is there again
		}
		return reason
	}
	if !w.Mailboxes[to] {
		return "there is no mailbox " + to + " any more"
	}
	m.mailbox = to
	w.touch(m, line)
	if line.Kind == mail.ActDelete && line.Tags != nil {
		w.retag(m, line.Tags)
	}
	return ""
}

// without leaves out tags that flags give, or that order something.
func (w *undoer) without(tags []string) []string {
	out := []string{}
	for _, t := range tags {
		if !w.IsOrder(t) && !OfFlag(t) {
			out = append(out, t)
		}
	}
	return out
}

// bringBack brings a file back from the attic.
func (w *undoer) bringBack(line mail.Logged) string {
	kept := w.Kept[line.Number]
	if m, _ := w.find(line, line.Mailbox); m != nil && (kept.Path == "" || kept.text(m) != Differs) {
		if line.Tags != nil && slices.Contains(w.order, m) {
			w.retag(m, line.Tags)
			w.touch(m, line)
		}
		return ""
	}
	switch {
	case !line.Attic:
		return "its file was not kept"
	case kept.Path == "":
		return "its file is not in the attic any more"
	case !w.Mailboxes[line.Mailbox]:
		return "there is no mailbox " + line.Mailbox + " any more"
	case line.ID == "":
		return "the log does not tell which mail it was"
	}
	for _, m := range w.mails[line.ID] {
		if m.kept == "" && !m.away && m.Name != "" && kept.text(m) == Equal { // then it would not have been kept
			if m.mailbox == line.Mailbox { // one of several
				return ""
			}
			return "its mail is in " + m.mailbox + " by now; move it, if it is to be in " + line.Mailbox
		}
	}
	m := &undoing{mailbox: line.Mailbox, kept: kept.Path, tags: w.without(line.Tags)}
	m.Row = ledger.Message{Mailbox: line.Mailbox, ID: line.ID, Digest: kept.Digest}
	m.flags = slices.DeleteFunc(slices.Clone(line.Before), func(f string) bool { return strings.EqualFold(f, `\Deleted`) })
	w.mails[line.ID] = append(w.mails[line.ID], m)
	w.touch(m, line)
	return ""
}

// redo turns back what was turned back.
func (w *undoer) redo(line mail.Logged) string {
	if line.Attic {
		m, reason := w.find(line, line.Mailbox)
		switch {
		case reason != "":
			return reason
		case w.NoAttic:
			return "there is no attic (attic_days) where it would be kept"
		}
		m.away = true
		w.touch(m, line)
		return ""
	}
	if line.Other != "" {
		if reason := w.moveBack(line, line.Other, line.Mailbox); reason != "" {
			return reason
		}
	}
	if Changed(line.After, line.Before).Nothing() {
		return ""
	}
	return w.reflag(line)
}

// OfFlag tells whether a tag stands for a flag, or for that there is none.
func OfFlag(tag string) bool {
	return slices.ContainsFunc(FlagRows(), func(r FlagRow) bool { return r.Tag == tag && tag != "" })
}

// Action is an edit as the log has it.
func (e *Undo) Action() mail.Action {
	a := mail.Action{Kind: mail.ActUndo, Mailbox: e.Row.Mailbox, UIDValidity: e.Row.UIDValidity, UID: e.Row.UID, Key: e.Row.Key, ID: e.Row.ID, Other: e.To, Attic: e.Kept != ""}
	var of []string
	for _, line := range e.Of {
		of = append(of, strconv.FormatInt(line.Number, 10))
		a.From, a.Subject = cmp.Or(a.From, line.From), cmp.Or(a.Subject, line.Subject)
	}
	a.Why = "you undid " + strings.Join(of, " and ")
	switch {
	case e.Away:
		a.Kind, a.Attic, a.Before = mail.ActRemove, true, e.Row.Flags
	case !e.Nothing():
		a.Before, a.After = e.Remove, e.Add
	}
	if e.Away {
		a.Tags = slices.Clone(e.Here.Tags)
	}
	return a
}
