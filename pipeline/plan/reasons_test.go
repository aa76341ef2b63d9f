package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// reasons tells of an action for which nothing here is a reason. An action's kind says which it
// is: a message is moved since its file is missing and one of its content has come elsewhere;
// renamed, if that is in the same folder; deleted, since its file is missing, and there is none
// of its content that has come, or it is marked; uploaded, since it has no row and is nobody's.
func reasons(locals map[string]*Local, out map[string]*Outgoing) error {
	did := make(map[string]string) // by key, what is done with a file
	once := func(key, what string) error {
		if was := did[key]; was != "" {
			return fmt.Errorf("the file %s: %s, and %s", key, was, what)
		}
		did[key] = what
		return nil
	}
	missing := func(box string, row ledger.Message) bool {
		return slices.ContainsFunc(locals[box].Missing, func(m ledger.Message) bool { return m.UID == row.UID && m.Key == row.Key })
	}
	came := func(box, key string, row *ledger.Message) bool {
		return slices.ContainsFunc(locals[box].Untracked, func(s Untracked) bool { return s.Key == key && s.SameContent(row) && !s.Stayed })
	}
	var deleted []ledger.Message
	for _, box := range boxNames() {
		o := out[box]
		for to, moves := range o.Moves {
			for _, m := range moves {
				if err := cmp.Or(once(m.Key, "has come to "+to), once("row "+m.Row.Key, "moved")); err != nil {
					return err
				}
				if !missing(box, m.Row) || !came(to, m.Key, &m.Row) || to == box {
					return fmt.Errorf("%s UID %d is moved to %s without a reason", box, m.Row.UID, to)
				}
			}
		}
		for _, row := range o.Renamed {
			was := locals[box].Missing[slices.IndexFunc(locals[box].Missing, func(m ledger.Message) bool { return m.UID == row.UID })]
			if err := cmp.Or(once(row.Key, "is renamed"), once("row "+was.Key, "renamed")); err != nil {
				return err
			}
			if !came(box, row.Key, &was) {
				return fmt.Errorf("%s UID %d is renamed without a reason", box, row.UID)
			}
		}
		for _, row := range o.Deleted {
			if err := once("row "+row.Key, "deleted"); err != nil {
				return err
			}
			if !missing(box, row) && !slices.ContainsFunc(locals[box].Marked, func(m ledger.Message) bool { return m.UID == row.UID }) {
				return fmt.Errorf("%s UID %d is deleted without a reason", box, row.UID)
			}
			deleted = append(deleted, row)
		}
		for _, s := range o.Uploads {
			if err := once(s.Key, "is uploaded"); err != nil {
				return err
			}
			if !s.New() || !came(box, s.Key, &s.Message) {
				return fmt.Errorf("%s is uploaded to %s without a reason", s.Key, box)
			}
		}
		for u, d := range locals[box].Flags {
			if len(d.Add)+len(d.Remove) == 0 {
				return fmt.Errorf("%s UID %d: no flag is changed", box, u)
			}
		}
	}
	for _, row := range deleted { // what is deleted is not what is uploaded
		for _, box := range boxNames() {
			if slices.ContainsFunc(out[box].Uploads, func(s Untracked) bool { return s.SameContent(&row) }) {
				return fmt.Errorf("%s UID %d is deleted, and its mail uploaded to %s", row.Mailbox, row.UID, box)
			}
		}
	}
	return nil
}

// reasonsThere tells of an action here for which nothing on the server is a reason: mail comes
// since it is there and has no row, flags since they are others there, and mail goes since it is
// there no more. A server whose lie is one of these is believed in nothing but flags.
func (a *account) reasonsThere(box string, todo Actions, gone []imap.UID) error {
	for _, u := range todo.Fetch {
		if _, known := a.rows[box][u]; known || a.server[box][u] == nil {
			return fmt.Errorf("%s UID %d is fetched without a reason", box, u)
		}
	}
	for _, f := range todo.Flags {
		if c := a.server[box][f.UID]; c == nil || !SameFlags(c.flags, f.After) || SameFlags(a.rows[box][f.UID].Flags, f.After) {
			return fmt.Errorf("%s UID %d has its flags changed without a reason", box, f.UID)
		}
	}
	for _, u := range gone {
		if _, known := a.rows[box][u]; !known || a.server[box][u] != nil {
			return fmt.Errorf("%s UID %d is removed without a reason", box, u)
		}
	}
	return nil
}
