package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Undoing is what of the log is to be undone, and what is known of its mail.
type Undoing struct {
	Lines     []mail.Logged     // Log.Whole's
	Here      map[string][]Here // the messages that are recorded and may be a line's, by the line's id
	Kept      map[int64]Kept    // what is in the attic, by the number of the action that put it there
	Mailboxes map[string]bool   // of which there is a folder
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
	Empty  bool // it is no mail any more
}

// Undo is what is to be done here with one mail, so that it is again as it was. What of that the server
// is to know the next sync finds, as it finds what a person has done.
type Undo struct {
	Of    []mail.Logged // what is undone by it, the newest first
	Here                // the message; of one that comes from the attic, only its Mailbox, ID and Digest
	To    string        // the mailbox to whose folder its file goes; "": it stays
	Delta               // of its flags
	Tags  []string      // that it is to have, without those of flags; nil: they stay
	Flags []string      // of what comes from the attic
	Kept  Kept          // what comes; without Path it is here
}

// NotUndone is an action that cannot be undone.
type NotUndone struct {
	mail.Logged
	Reason string
}

// Undos is what is to be done so that nothing of some lines is done any more.
type Undos struct {
	Edits  []Undo
	Stays  []NotUndone
	Before []mail.Logged // what they did is not so any more without that
}

// Undo gives what is to be done so that nothing of the lines is done any more, and what stays.
func (t *Tags) Undo(u *Undoing) (out Undos) {
	w := &undoer{Undoing: u, Tags: t, mails: make(map[string][]*undoing), halves: make(map[int64]mail.Logged), spoken: make(map[int64]bool)}
	met := make(map[string]*undoing) // without a Message-ID one has several ids
	for id, all := range u.Here {
		for _, h := range all {
			is := fmt.Sprint(h.Row.Mailbox, "/", h.Row.UIDValidity, "/", h.Row.UID)
			if met[is] == nil {
				flags := t.AsNamed(h.Row.Flags, h.Name)
				met[is] = &undoing{Here: h, mailbox: h.Row.Mailbox, flags: flags, were: flags}
			}
			w.mails[id] = append(w.mails[id], met[is])
		}
	}
	w.pair()
	reasons := make(map[int64]string)
	for _, line := range slices.Backward(u.Lines) {
		if reason := w.undo(line); reason != "" {
			reasons[line.Number] = reason
		}
	}
	undone := make(map[int64]bool)
	for _, m := range w.order {
		if e := m.edit(); e.Kept.Path != "" || e.To != "" || !e.Nothing() || e.Tags != nil {
			out.Edits = append(out.Edits, e)
			for _, line := range e.Of {
				undone[line.Number] = true
			}
		}
	}
	for _, line := range u.Lines {
		switch reason := reasons[line.Number]; {
		case undone[line.Number] || w.spoken[line.Number] || w.besides(line):
		case reason == "":
			out.Before = append(out.Before, line)
		default:
			out.Stays = append(out.Stays, NotUndone{line, reason})
		}
	}
	return out
}

// undoing is a mail, as far as it was followed back through the log.
type undoing struct {
	Here
	mailbox     string   // where it was then
	flags, were []string // then, and now
	of          []mail.Logged
	tags        []string
	kept        Kept
	stands      bool // for a line whose mail it is, or has the text of
}

// is tells whether a line is about this very mail.
func (m *undoing) is(line *mail.Logged) bool {
	same := func(a *mail.Action) bool {
		return a.Key != "" && a.Key == line.Key || a.UID != 0 && a.UID == line.UID && a.UIDValidity == line.UIDValidity && a.Mailbox == line.Mailbox
	}
	return same(&mail.Action{Mailbox: m.Row.Mailbox, UIDValidity: m.Row.UIDValidity, UID: m.Row.UID, Key: m.Row.Key}) ||
		slices.ContainsFunc(m.of, func(l mail.Logged) bool { return same(&l.Action) })
}

// text tells whether the mail has this text, a digest in hexadecimal.
func (m *undoing) text(digest string) Sign {
	switch {
	case digest == "" || m.Row.Digest.IsZero():
		return Missing
	case m.Row.Digest.String() == digest:
		return Equal
	}
	return Differs
}

// edit is what is to be done with the mail.
func (m *undoing) edit() Undo {
	e := Undo{Of: m.of, Here: m.Here, Delta: Changed(m.were, m.flags), Tags: m.tags, Kept: m.kept}
	switch {
	case m.kept.Path != "":
		e.Flags, e.Delta, e.Row.Mailbox = m.flags, Delta{}, m.mailbox
	case m.mailbox != m.Row.Mailbox:
		e.To = m.mailbox
	}
	return e
}

// undoer goes back through the log.
type undoer struct {
	*Undoing
	*Tags
	mails  map[string][]*undoing // by the id of lines
	order  []*undoing            // those that are changed, in the order in which they were met
	halves map[int64]mail.Logged // of mail that another client moved, by the number of the line that says where it went, that which says that it is not where it was
	spoken map[int64]bool        // the numbers of the latter
}

// pair finds the two lines of mails that other clients moved.
func (w *undoer) pair() {
	from := make(map[moved][]mail.Logged)
	for _, line := range w.Lines {
		if m, ok := half(&line); ok && line.Kind == mail.ActRemove {
			from[m] = append(from[m], line)
		}
	}
	for _, line := range w.Lines {
		if m, ok := half(&line); ok && line.Kind == mail.ActLink && len(from[m]) > 0 {
			w.halves[line.Number], w.spoken[from[m][0].Number] = from[m][0], true
			from[m] = from[m][1:]
		}
	}
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
		if _, moved := w.halves[line.Number]; !moved {
			return "it was copied, and copies stay"
		}
		return w.moveBack(line, line.Mailbox, line.Other)
	case mail.ActRemove:
		if w.spoken[line.Number] {
			return ""
		}
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

// besides tells whether a line goes without saying beside others: that a mail came to where they moved it.
func (w *undoer) besides(line mail.Logged) bool {
	switch line.Kind {
	case mail.ActFetch, mail.ActLink, mail.ActUpload:
		return line.ID != "" && slices.ContainsFunc(w.Lines, func(l mail.Logged) bool {
			return (l.Kind == mail.ActMove || l.Kind == mail.ActDelete) && l.Outcome == mail.IsDone && l.ID == line.ID && l.Other == line.Mailbox
		})
	}
	return false
}

// find gives the mail of a line that is, or by what was undone so far will be, in a mailbox, or why there
// is none of which that is sure. Where the very mail of the line is known, no other one is taken for it.
// any tells that of several with one text each will do.
func (w *undoer) find(line mail.Logged, mailbox string, anyOf bool) (m *undoing, reason string) {
	if line.ID == "" {
		return nil, "the log does not tell which mail it was"
	}
	var known, like []*undoing
	for _, m := range w.mails[line.ID] {
		if m.is(&line) {
			known = append(known, m)
		} else if m.text(line.Digest) != Differs {
			like = append(like, m)
		}
	}
	all := like
	if len(known) > 0 {
		all = known
	}
	var in []*undoing
	for _, m := range all {
		if m.mailbox == mailbox {
			in = append(in, m)
		}
	}
	if len(in) > 1 && (anyOf || len(known) > 0) && oneText(in) {
		in = []*undoing{slices.MaxFunc(in, func(a, b *undoing) int {
			return cmp.Or(likeness(a, line)-likeness(b, line), cmp.Compare(a.Row.UID, b.Row.UID))
		})}
	}
	switch {
	case len(all) == 0:
		return nil, "its mail is not here any more"
	case len(in) == 0:
		return nil, "its mail is not in " + mailbox + " any more, but in " + all[0].mailbox
	case len(in) > 1:
		return nil, fmt.Sprintf("%d mails in %s have its Message-ID", len(in), mailbox)
	case in[0].kept.Path == "" && in[0].Name == "":
		return nil, "its file was moved or deleted since the last sync; sync first"
	}
	return in[0], ""
}

// likeness is greater of a mail that has the flags which the line's had.
func likeness(m *undoing, line mail.Logged) int {
	if SameFlags(m.flags, line.Before) {
		return 1
	}
	return 0
}

// oneText tells whether all of some mails have the same text for sure.
func oneText(all []*undoing) bool {
	digest := all[0].Row.Digest.String()
	return !slices.ContainsFunc(all, func(m *undoing) bool { return m.text(digest) != Equal })
}

// standing gives a mail that is in a mailbox, and the line's by all that is known, or has its text. It
// stands for no other line then. What comes from the attic, or was moved for another line, is another one.
func (w *undoer) standing(line mail.Logged, mailbox string) *undoing {
	var other *undoing
	for _, m := range w.mails[line.ID] {
		switch {
		case m.mailbox != mailbox || m.kept.Path != "" || m.Name == "" || m.text(line.Digest) == Differs:
		case m.is(&line):
			m.stands = true
			return m
		case len(m.of) == 0 && !m.stands:
			other = m
		}
	}
	if other != nil {
		other.stands = true
	}
	return other
}

// touch notes that a line is undone with a mail.
func (w *undoer) touch(m *undoing, lines ...mail.Logged) {
	if !slices.Contains(w.order, m) {
		w.order = append(w.order, m)
	}
	m.of, m.stands = append(m.of, lines...), true
}

// flagsBack gives what turns back the flags that a line changed, and which of them do not go to the
// server from here.
func (w *undoer) flagsBack(line mail.Logged) (back Delta, stay []string) {
	back = Changed(line.After, line.Before)
	goes := func(f string) bool {
		ok := slices.ContainsFunc(FlagRows(), func(r FlagRow) bool { return r.Tag != "" && strings.EqualFold(r.Flag, f) }) || w.isSent(f)
		if !ok {
			stay = append(stay, f)
		}
		return ok
	}
	back.Add = slices.DeleteFunc(back.Add, func(f string) bool { return !goes(f) })
	back.Remove = slices.DeleteFunc(back.Remove, func(f string) bool { return !goes(f) })
	slices.Sort(stay)
	return back, stay
}

// reflag gives a mail the flags that it had, of those that a line changed.
func (w *undoer) reflag(line mail.Logged) string {
	back, stay := w.flagsBack(line)
	if back.Nothing() && len(stay) > 0 {
		return strings.Join(stay, " ") + " does not go from here to the server"
	}
	m, reason := w.find(line, line.Mailbox, false)
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
	m, reason := w.find(line, from, true)
	if reason != "" {
		if w.standing(line, to) != nil {
			return "" // it is there again
		}
		return reason
	}
	if !w.Mailboxes[to] {
		return "there is no mailbox " + to + " any more"
	}
	m.mailbox = to
	w.touch(m, line)
	if half, ok := w.halves[line.Number]; ok {
		w.touch(m, half)
		back, _ := w.flagsBack(line) // whoever moved it may have flagged it, too
		m.flags = back.Merged(m.flags)
	}
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
	if kept.Path != "" {
		line.Digest = kept.Digest.String()
	}
	if m := w.standing(line, line.Mailbox); m != nil { // it is there again
		if line.Tags != nil && slices.Contains(w.order, m) {
			w.retag(m, line.Tags)
			w.touch(m, line)
		}
		return ""
	}
	switch {
	case line.ID == "":
		return "the log does not tell which mail it was"
	case !line.Attic:
		return "its file was not kept"
	case kept.Path == "":
		return "its file is not in the attic any more"
	case kept.Empty:
		return "its file in the attic is no mail any more: " + kept.Path
	case !w.Mailboxes[line.Mailbox]:
		return "there is no mailbox " + line.Mailbox + " any more"
	}
	for _, m := range w.mails[line.ID] {
		if m.mailbox == line.Mailbox && (m.kept.Path != "" || m.Name != "") && m.text(line.Digest) == Equal {
			return "one with its text is in " + m.mailbox + ", and a mailbox is not given a mail twice; its file is " + kept.Path
		}
		if m.kept.Path == "" && !m.stands && m.Name != "" && m.text(line.Digest) == Equal { // then it would not have been kept
			m.stands = true
			return "its mail is in " + m.mailbox + " by now; move it, if it is to be in " + line.Mailbox
		}
	}
	m := &undoing{mailbox: line.Mailbox, kept: kept}
	m.Row = ledger.Message{Mailbox: line.Mailbox, ID: line.ID, Digest: kept.Digest}
	m.flags = slices.DeleteFunc(w.AsNamed(slices.Clone(line.Before), kept.Path), func(f string) bool { return strings.EqualFold(f, `\Deleted`) })
	if w.TagFlags && line.Tags != nil {
		m.flags = w.TagDelta(m.flags, line.Tags).Merged(m.flags)
	}
	if m.tags = []string{}; line.Tags != nil {
		w.retag(m, line.Tags)
	}
	w.mails[line.ID] = append(w.mails[line.ID], m)
	w.touch(m, line)
	return ""
}

// redo turns back what was turned back.
func (w *undoer) redo(line mail.Logged) string {
	if line.Attic {
		return "what came from the attic stays; delete it, if it is to go"
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
