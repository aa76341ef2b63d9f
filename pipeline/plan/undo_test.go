package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What is to be done so that lines of the log are undone, by what is here.
func TestWhatUndoesTheLog(t *testing.T) {
	const seen, flagged = `\Seen`, `\Flagged`
	line := func(kind mail.ActionKind, mailbox, other string) mail.Logged {
		return mail.Logged{Outcome: mail.IsDone, Action: mail.Action{Kind: kind, Mailbox: mailbox, UIDValidity: 1, UID: 1, Key: "k", ID: "a@b", Other: other}}
	}
	flags := func(l mail.Logged, before, after string) mail.Logged {
		l.Before, l.After = strings.Fields(before), strings.Fields(after)
		return l
	}
	became := func(l mail.Logged, o mail.Outcome) mail.Logged { l.Outcome = o; return l }
	attic := func(l mail.Logged) mail.Logged { l.Attic, l.Tags = true, []string{"mine", "unread", "gone"}; return l }
	other := func(l mail.Logged) mail.Logged { l.ID = "c@d"; return l }
	here := func(mailbox, name string, flags ...string) Here {
		return Here{Row: ledger.Message{Mailbox: mailbox, UIDValidity: 1, UID: 1, Key: "k", ID: "a@b", Flags: flags}, Name: name}
	}
	text := func(h Here) Here { h.Row.Digest[0] = 7; return h }
	todo := func(l mail.Logged) mail.Logged { l.Tags = append(slices.Clone(l.Tags), "todo"); return l }
	twin := func(h Here) Here { h.Row.UID, h.Row.Key = 2, "twin"; return h }
	const name, read = "cur/k:2,", "cur/k:2,S"
	for what, c := range map[string]struct {
		lines []mail.Logged
		here  []Here
		want  string
		stays string
	}{
		"a flag":                    {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen)}, []Here{here("In", read, seen)}, `[-\Seen]`, ""},
		"a flag that is off again":  {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen)}, []Here{here("In", name)}, "", ""},
		"one of two flags":          {[]mail.Logged{flags(line(mail.ActFlag, "In", ""), seen, seen+" "+flagged)}, []Here{here("In", "cur/k:2,FS", seen, flagged)}, `[-\Flagged]`, ""},
		"a flag twice":              {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen), flags(line(mail.ActStore, "In", ""), seen, "")}, []Here{here("In", name)}, "", ""},
		"a keyword":                 {[]mail.Logged{flags(line(mail.ActFlag, "In", ""), "todo", "")}, []Here{here("In", name)}, "[+todo]", ""},
		"a keyword of the server's": {[]mail.Logged{flags(line(mail.ActFlag, "In", ""), "", "$x other")}, []Here{here("In", name, "$x", "other")}, "", "$x other does not go from here to the server"},
		"a move":                    {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("Old", name)}, "Old -> In", ""},
		"a move there":              {[]mail.Logged{line(mail.ActLink, "Old", "In"), line(mail.ActRemove, "In", "")}, []Here{here("Old", name)}, "Old -> In", ""},
		"a move followed":           {[]mail.Logged{line(mail.ActFollow, "In", "Old")}, []Here{here("Old", name)}, "Old -> In", ""},
		"a copy":                    {[]mail.Logged{line(mail.ActLink, "Old", "In")}, []Here{here("Old", name), here("In", name)}, "", "it was copied, and copies stay"},
		"two moves":                 {[]mail.Logged{line(mail.ActMove, "In", "Old"), line(mail.ActMove, "Old", "Work")}, []Here{here("Work", name)}, "Work -> In", ""},
		"a move away and back":      {[]mail.Logged{line(mail.ActMove, "In", "Old"), line(mail.ActMove, "Old", "In")}, []Here{here("In", name)}, "", ""},
		"a move that went on":       {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("Work", name)}, "", "its mail is not in Old any more, but in Work"},
		"a move that was undone":    {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("In", name)}, "", ""},
		"a flag and a move":         {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen), line(mail.ActMove, "In", "Old")}, []Here{here("Old", read, seen)}, `Old -> In [-\Seen]`, ""},
		"to a mailbox that is gone": {[]mail.Logged{line(mail.ActMove, "Lost", "Old")}, []Here{here("Old", name)}, "", "there is no mailbox Lost any more"},
		"one of two":                {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{twin(here("Old", name)), here("Old", name)}, "Old -> In", ""},
		"which of two":              {[]mail.Logged{line(mail.ActDelete, "In", "Bin")}, []Here{twin(here("Bin", name)), twin(here("Bin", name))}, "", "2 mails in Bin have its Message-ID"},
		"moved since":               {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("Old", "")}, "", "its file was moved or deleted since the last sync; sync first"},
		"a deletion":                {[]mail.Logged{line(mail.ActDelete, "In", "Bin"), line(mail.ActFetch, "Bin", "")}, []Here{here("Bin", name)}, "Bin -> In", ""},
		"a deletion with tags":      {[]mail.Logged{attic(line(mail.ActDelete, "In", "Bin"))}, []Here{here("Bin", name)}, "Bin -> In tags [mine]", ""},
		"a deletion for good":       {[]mail.Logged{line(mail.ActDelete, "In", "")}, nil, "", "the server has deleted it for good"},
		"from the attic":            {[]mail.Logged{flags(attic(line(mail.ActRemove, "In", "")), seen+" todo", "")}, nil, `attic -> In flags [\Seen todo] tags [mine]`, ""},
		"in the attic no more":      {[]mail.Logged{other(attic(line(mail.ActRemove, "In", "")))}, nil, "", "its file is not in the attic any more"},
		"not kept":                  {[]mail.Logged{line(mail.ActRemove, "In", "")}, nil, "", "its file was not kept"},
		"came back by itself":       {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{here("In", name)}, "", ""},
		"another of its Message-ID": {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{func() Here { h := here("In", name); h.Row.Digest[0] = 9; return h }()}, "attic -> In flags [] tags [mine]", ""},
		"elsewhere by now":          {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{text(here("Old", name))}, "", "its mail is in Old by now; move it, if it is to be in In"},
		"there, and as a copy":      {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{text(twin(here("In", name))), text(twin(here("In", name)))}, "", ""},
		"another text elsewhere":    {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{here("Old", name)}, "attic -> In flags [] tags [mine]", ""},
		"elsewhere, and deleted":    {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{text(here("Old", ""))}, "attic -> In flags [] tags [mine]", ""},
		"a keyword that went late": {[]mail.Logged{todo(attic(line(mail.ActRemove, "In", ""))), flags(line(mail.ActStore, "In", ""), "", "todo"), todo(attic(line(mail.ActDelete, "In", "Bin")))},
			[]Here{text(here("Bin", name, "todo"))}, "Bin -> In tags [mine todo]", ""},
		"a keyword since":             {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", "todo"), todo(attic(line(mail.ActDelete, "In", "Bin")))}, []Here{here("Bin", name)}, "Bin -> In tags [mine]", ""},
		"moved, and then removed":     {[]mail.Logged{line(mail.ActMove, "In", "Old"), attic(line(mail.ActRemove, "Old", ""))}, nil, "attic -> In flags [] tags [mine]", ""},
		"an undone move":              {[]mail.Logged{line(mail.ActUndo, "Old", "In"), line(mail.ActMove, "Old", "In")}, []Here{here("In", name)}, "In -> Old", ""},
		"an undone flag":              {[]mail.Logged{flags(line(mail.ActUndo, "In", ""), seen, ""), flags(line(mail.ActStore, "In", ""), seen, "")}, []Here{here("In", name)}, `[+\Seen]`, ""},
		"what came from the attic":    {[]mail.Logged{attic(line(mail.ActUndo, "In", "")), line(mail.ActUpload, "In", "")}, []Here{here("In", name)}, "In -> attic", ""},
		"what was sent":               {[]mail.Logged{line(mail.ActUpload, "In", "")}, []Here{here("In", name)}, "", "what was sent stays; delete it, if it is to go"},
		"what came":                   {[]mail.Logged{line(mail.ActFetch, "In", "")}, []Here{here("In", name)}, "", "what came stays"},
		"a mailbox":                   {[]mail.Logged{line(mail.ActCreate, "In", "")}, nil, "", "the mailbox stays; `notmuch imap folder delete` deletes it"},
		"what was refused":            {[]mail.Logged{became(line(mail.ActMove, "In", "Old"), mail.IsRefused)}, []Here{here("In", name)}, "", "it was not done"},
		"what nobody knows of":        {[]mail.Logged{became(line(mail.ActMove, "In", "Old"), mail.IsBegun)}, []Here{here("In", name)}, "", "whether it was done is not known yet; the next sync finds out"},
		"what is nowhere":             {[]mail.Logged{line(mail.ActMove, "In", "Old")}, nil, "", "its mail is not here any more"},
		"what the log knows too late": {[]mail.Logged{func() mail.Logged { l := line(mail.ActMove, "In", "Old"); l.ID = ""; return l }()}, nil, "", "the log does not tell which mail it was"},
	} {
		t.Run(what, func(t *testing.T) {
			tags := &Tags{Keywords: []string{"todo"}, DeletedTag: "gone"}
			u := &Undoing{Lines: slices.Clone(c.lines), Here: map[string][]Here{"a@b": c.here}, Kept: make(map[int64]Kept),
				Mailboxes: map[string]bool{"In": true, "Old": true, "Work": true, "Bin": true}}
			for i := range u.Lines {
				u.Lines[i].Number = int64(i + 1)
				if u.Lines[i].Attic && u.Lines[i].ID == "a@b" {
					u.Kept[int64(i+1)] = Kept{Path: "kept", Digest: mail.Digest{7}}
				}
			}
			edits, stays := tags.Undo(u)
			var got, reasons []string
			for _, e := range edits {
				text := ""
				switch {
				case e.Kept != "":
					text = fmt.Sprintf("attic -> %s flags %v", e.Row.Mailbox, e.Flags)
				case e.Away:
					text = e.Row.Mailbox + " -> attic"
				case e.To != "":
					text = e.Row.Mailbox + " -> " + e.To
				}
				if a := e.Action(); !e.Nothing() {
					a.Other, a.Mailbox, a.From, a.Subject, a.Key, a.UID = "", "", "", "", "", 0
					text += " [" + strings.TrimSpace(strings.TrimPrefix(a.Plan(), "undo")) + "]"
				}
				if len(e.Tags) > 0 {
					text += fmt.Sprintf(" tags %v", e.Tags)
				}
				got = append(got, strings.TrimSpace(text))
			}
			for _, s := range stays {
				reasons = append(reasons, s.Reason)
			}
			if text := strings.Join(got, "; "); text != c.want {
				t.Errorf("%q, want %q", text, c.want)
			}
			if text := strings.Join(reasons, "; "); text != c.stays {
				t.Errorf("stays %q, want %q", text, c.stays)
			}
		})
	}
}
