package plan

import (
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Log is the lines of an account's log, the oldest first.
type Log []mail.Logged

// Last tells of lines whether they are what the last run has changed. Mail that came or was sent, and
// what was not done, is no change: else each of these would be before what is meant. Nor is what a sync
// told the server of an undo: it is that undo.
func (l Log) Last() func(*mail.Logged) bool {
	told := make(map[int64]bool)
	for i := range l.carried() {
		told[l[i].Number] = true
	}
	changes := func(line *mail.Logged) bool {
		switch line.Kind {
		case mail.ActStore, mail.ActFlag, mail.ActMove, mail.ActFollow, mail.ActDelete, mail.ActRemove, mail.ActUndo, mail.ActErase:
			return line.Outcome == mail.IsDone && !told[line.Number]
		}
		return false
	}
	for _, line := range slices.Backward(l) {
		if changes(&line) {
			return func(other *mail.Logged) bool { return other.Run == line.Run && changes(other) }
		}
	}
	return func(*mail.Logged) bool { return false }
}

// Whole gives the lines of which is tells that they are chosen, as what they are parts of. What a sync
// told the server of an undo is that undo. Of a mail that another client moved there are two lines: that
// it is in another mailbox, and that it is not where it was; each of them stands for both.
func (l Log) Whole(is func(*mail.Logged) bool) []mail.Logged {
	halves := make(map[moved][]int)
	taken := make(map[int]bool)
	carried := l.carried()
	for i := range l {
		line, stands := &l[i], i
		if of, ok := carried[i]; ok {
			stands = of
		}
		if m, ok := half(line); ok {
			halves[m] = append(halves[m], i)
		}
		if is(line) {
			taken[stands] = true
		}
	}
	for _, all := range halves {
		if slices.ContainsFunc(all, func(i int) bool { return taken[i] }) && slices.ContainsFunc(all, func(i int) bool { return l[i].Kind == mail.ActLink }) {
			for _, i := range all {
				taken[i] = true
			}
		}
	}
	var out []mail.Logged
	for i := range l {
		if taken[i] {
			out = append(out, l[i])
		}
	}
	return out
}

// carried gives, by their places, the lines that tell that the server was told of an undo, and the lines
// of that.
func (l Log) carried() map[int]int {
	out := make(map[int]int)
	undone := make(map[string]int) // lines of what was undone last, by the key of the file
	for i := range l {
		line := &l[i]
		if line.Kind == mail.ActUndo {
			undone[line.Key] = i
		} else if of, ok := undone[line.Key]; ok && line.Key != "" && carries(&l[of], line) {
			out[i] = of
		}
	}
	return out
}

// moved is a mail that another client may have moved: in which run that was seen, and where it was.
type moved struct {
	run         int64
	id, mailbox string
}

// half tells whether a line may be one of the two of such a mail.
func half(line *mail.Logged) (moved, bool) {
	switch {
	case line.ID == "" || line.Outcome != mail.IsDone:
	case line.Kind == mail.ActLink:
		return moved{line.Run, line.ID, line.Other}, true
	case line.Kind == mail.ActRemove && !line.Attic:
		return moved{line.Run, line.ID, line.Mailbox}, true
	}
	return moved{}, false
}

// carries tells whether a line of the same file is that the server was told of an undo.
func carries(undo, line *mail.Logged) bool {
	if line.Outcome != mail.IsDone || undo.Outcome != mail.IsDone {
		return false
	}
	back, told := Changed(undo.Before, undo.After), Changed(line.Before, line.After)
	only := func(some, of []string) bool {
		return !slices.ContainsFunc(some, func(f string) bool { return !HasFlag(of, f) })
	}
	switch line.Kind {
	case mail.ActUpload:
		return undo.Attic && line.Mailbox == undo.Mailbox
	case mail.ActMove, mail.ActDelete:
		return undo.Other != "" && line.Mailbox == undo.Mailbox && line.Other == undo.Other
	case mail.ActStore:
		return !told.Nothing() && only(told.Add, back.Add) && only(told.Remove, back.Remove)
	}
	return false
}
