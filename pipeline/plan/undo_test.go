package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

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
	dig := func(l mail.Logged, d byte) mail.Logged { l.Digest = mail.Digest{d}.String(); return l }
	as := func(l mail.Logged, uid imap.UID, key string) mail.Logged { l.UID, l.Key = uid, key; return l }
	row := func(h Here, d byte, uid imap.UID, key string) Here {
		h.Row.Digest, h.Row.UID, h.Row.Key, h.Name = mail.Digest{d}, uid, key, "cur/"+key+":2,"
		return h
	}
	const name, read = "cur/k:2,", "cur/k:2,S"
	for what, c := range map[string]struct {
		lines []mail.Logged
		here  []Here
		want  string
		stays string
	}{
		"a flag":                     {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen)}, []Here{here("In", read, seen)}, `[-\Seen]`, ""},
		"a flag that is off again":   {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen)}, []Here{here("In", name)}, "", ""},
		"one of two flags":           {[]mail.Logged{flags(line(mail.ActFlag, "In", ""), seen, seen+" "+flagged)}, []Here{here("In", "cur/k:2,FS", seen, flagged)}, `[-\Flagged]`, ""},
		"a flag twice":               {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen), flags(line(mail.ActStore, "In", ""), seen, "")}, []Here{here("In", name)}, "", ""},
		"a keyword":                  {[]mail.Logged{flags(line(mail.ActFlag, "In", ""), "todo", "")}, []Here{here("In", name)}, "[+todo]", ""},
		"a keyword of the server's":  {[]mail.Logged{flags(line(mail.ActFlag, "In", ""), "", "$x other")}, []Here{here("In", name, "$x", "other")}, "", "$x other does not go from here to the server"},
		"a move":                     {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("Old", name)}, "Old -> In", ""},
		"a move there":               {[]mail.Logged{line(mail.ActLink, "Old", "In"), line(mail.ActRemove, "In", "")}, []Here{here("Old", name)}, "Old -> In", ""},
		"a move there with a flag":   {[]mail.Logged{flags(line(mail.ActLink, "Old", "In"), flagged, seen), line(mail.ActRemove, "In", "")}, []Here{here("Old", read, seen)}, `Old -> In [+\Flagged -\Seen]`, ""},
		"a move followed":            {[]mail.Logged{line(mail.ActFollow, "In", "Old")}, []Here{here("Old", name)}, "Old -> In", ""},
		"a copy":                     {[]mail.Logged{line(mail.ActLink, "Old", "In")}, []Here{here("Old", name), here("In", name)}, "", "it was copied, and copies stay"},
		"two moves":                  {[]mail.Logged{line(mail.ActMove, "In", "Old"), line(mail.ActMove, "Old", "Work")}, []Here{here("Work", name)}, "Work -> In", ""},
		"a move away and back":       {[]mail.Logged{line(mail.ActMove, "In", "Old"), line(mail.ActMove, "Old", "In")}, []Here{here("In", name)}, "", ""},
		"a move that went on":        {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("Work", name)}, "", "its mail is not in Old any more, but in Work"},
		"a move that was undone":     {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("In", name)}, "", ""},
		"a flag and a move":          {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", seen), line(mail.ActMove, "In", "Old")}, []Here{here("Old", read, seen)}, `Old -> In [-\Seen]`, ""},
		"to a mailbox that is gone":  {[]mail.Logged{line(mail.ActMove, "Lost", "Old")}, []Here{here("Old", name)}, "", "there is no mailbox Lost any more"},
		"one of two":                 {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{twin(here("Old", name)), here("Old", name)}, "Old -> In", ""},
		"which of two":               {[]mail.Logged{line(mail.ActDelete, "In", "Bin")}, []Here{twin(here("Bin", name)), twin(here("Bin", name))}, "", "2 mails in Bin have its Message-ID"},
		"moved since":                {[]mail.Logged{line(mail.ActMove, "In", "Old")}, []Here{here("Old", "")}, "", "its file was moved or deleted since the last sync; sync first"},
		"a deletion":                 {[]mail.Logged{line(mail.ActDelete, "In", "Bin"), line(mail.ActFetch, "Bin", "")}, []Here{here("Bin", name)}, "Bin -> In", ""},
		"a deletion with tags":       {[]mail.Logged{attic(line(mail.ActDelete, "In", "Bin"))}, []Here{here("Bin", name)}, "Bin -> In tags [mine]", ""},
		"a deletion for good":        {[]mail.Logged{line(mail.ActDelete, "In", "")}, nil, "", "the server has deleted it for good"},
		"from the attic":             {[]mail.Logged{flags(todo(attic(line(mail.ActRemove, "In", ""))), seen+" todo", "")}, nil, `attic -> In flags [\Seen todo] tags [mine todo]`, ""},
		"untagged, and then removed": {[]mail.Logged{flags(attic(line(mail.ActRemove, "In", "")), seen+" todo", "")}, nil, `attic -> In flags [\Seen] tags [mine]`, ""},
		"in the attic no more":       {[]mail.Logged{other(attic(line(mail.ActRemove, "In", "")))}, nil, "", "its file is not in the attic any more"},
		"not kept":                   {[]mail.Logged{line(mail.ActRemove, "In", "")}, nil, "", "its file was not kept"},
		"came back by itself":        {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{here("In", name)}, "", ""},
		"another of its Message-ID":  {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{func() Here { h := here("In", name); h.Row.Digest[0] = 9; return h }()}, "attic -> In flags [] tags [mine]", ""},
		"elsewhere by now":           {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{text(here("Old", name))}, "", "its mail is in Old by now; move it, if it is to be in In"},
		"there, and as a copy":       {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{text(twin(here("In", name))), text(twin(here("In", name)))}, "", ""},
		"another text elsewhere":     {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{here("Old", name)}, "attic -> In flags [] tags [mine]", ""},
		"elsewhere, and deleted":     {[]mail.Logged{attic(line(mail.ActRemove, "In", ""))}, []Here{text(here("Old", ""))}, "attic -> In flags [] tags [mine]", ""},
		"a keyword that went late": {[]mail.Logged{todo(attic(line(mail.ActRemove, "In", ""))), flags(line(mail.ActStore, "In", ""), "", "todo"), todo(attic(line(mail.ActDelete, "In", "Bin")))},
			[]Here{text(here("Bin", name, "todo"))}, "Bin -> In tags [mine todo]", ""},
		"a keyword since":            {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", "todo"), todo(attic(line(mail.ActDelete, "In", "Bin")))}, []Here{here("Bin", name)}, "Bin -> In tags [mine]", ""},
		"moved, and then removed":    {[]mail.Logged{line(mail.ActMove, "In", "Old"), attic(line(mail.ActRemove, "Old", ""))}, nil, "attic -> In flags [] tags [mine]", ""},
		"an undone move":             {[]mail.Logged{line(mail.ActUndo, "Old", "In"), line(mail.ActMove, "Old", "In")}, []Here{here("In", name)}, "In -> Old", ""},
		"an undone flag":             {[]mail.Logged{flags(line(mail.ActUndo, "In", ""), seen, ""), flags(line(mail.ActStore, "In", ""), seen, "")}, []Here{here("In", name)}, `[+\Seen]`, ""},
		"what came from the attic":   {[]mail.Logged{attic(line(mail.ActUndo, "In", "")), line(mail.ActUpload, "In", "")}, []Here{here("In", name)}, "", "what came from the attic stays; delete it, if it is to go"},
		"its keyword that went late": {[]mail.Logged{flags(attic(line(mail.ActUndo, "In", "")), "", "todo"), flags(line(mail.ActStore, "In", ""), "", "todo")}, []Here{here("In", name, "todo")}, "", "what came from the attic stays; delete it, if it is to go"},
		"an undo, beside a twin": {[]mail.Logged{dig(line(mail.ActUndo, "Bin", "In"), 1), dig(line(mail.ActMove, "Bin", "In"), 1)},
			[]Here{row(here("In", ""), 1, 9, "k"), row(here("In", ""), 2, 2, "k2")}, "In -> Bin", ""},
		"a move that went on, beside a twin": {[]mail.Logged{dig(line(mail.ActMove, "In", "Old"), 1)},
			[]Here{row(here("Work", ""), 1, 9, "k"), row(here("Old", ""), 1, 2, "k2")}, "", "its mail is not in Old any more, but in Work"},
		"a deletion of one of two texts": {[]mail.Logged{dig(line(mail.ActDelete, "In", "Bin"), 1)},
			[]Here{row(here("Bin", ""), 2, 8, "k8"), row(here("Bin", ""), 1, 9, "k9")}, "Bin -> In", ""},
		"deletions of two of one text": {[]mail.Logged{dig(as(line(mail.ActDelete, "In", "Bin"), 1, "k1"), 1), dig(as(line(mail.ActDelete, "In", "Bin"), 2, "k2"), 1)},
			[]Here{row(here("Bin", ""), 1, 8, "k8"), row(here("Bin", ""), 1, 9, "k9")}, "Bin -> In; Bin -> In", ""},
		"deletions of two, and one is gone": {[]mail.Logged{dig(as(line(mail.ActDelete, "In", "Bin"), 1, "k1"), 1), dig(as(line(mail.ActDelete, "In", "Bin"), 2, "k2"), 1)},
			[]Here{row(here("Bin", ""), 1, 8, "k8")}, "Bin -> In", "its mail is not in Bin any more, but in In"},
		"two of one text from the attic": {[]mail.Logged{attic(as(line(mail.ActRemove, "In", ""), 1, "k1")), attic(as(line(mail.ActRemove, "In", ""), 2, "k2"))}, nil,
			"attic -> In flags [] tags [mine]", "one with its text is in In, and a mailbox is not given a mail twice; its file is kept"},
		"two, of which one is there again": {[]mail.Logged{attic(as(line(mail.ActRemove, "In", ""), 1, "k1")), attic(as(line(mail.ActRemove, "In", ""), 2, "k2"))},
			[]Here{row(here("In", ""), 7, 9, "k9")}, "", "one with its text is in In, and a mailbox is not given a mail twice; its file is kept"},
		"a move there, and a twin":    {[]mail.Logged{dig(as(line(mail.ActLink, "Old", "In"), 9, "k9"), 1), dig(line(mail.ActRemove, "In", ""), 1)}, []Here{row(here("Old", ""), 1, 9, "k9"), row(here("In", ""), 1, 2, "k2")}, "Old -> In", ""},
		"a flag of one of two":        {[]mail.Logged{flags(line(mail.ActStore, "In", ""), "", flagged)}, []Here{here("In", "cur/k:2,F", flagged), twin(here("In", "cur/twin:2,F", flagged))}, `[-\Flagged]`, ""},
		"an emptied file":             {[]mail.Logged{attic(as(line(mail.ActRemove, "In", ""), 1, "empty"))}, nil, "", "its file in the attic is no mail any more: kept"},
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
			log := Log(slices.Clone(c.lines))
			for i := range log {
				log[i].Number = int64(i + 1)
			}
			u := &Undoing{Lines: log.Whole(func(*mail.Logged) bool { return true }), Here: map[string][]Here{"a@b": c.here}, Kept: make(map[int64]Kept),
				Mailboxes: map[string]bool{"In": true, "Old": true, "Work": true, "Bin": true}}
			for _, l := range u.Lines {
				if l.Attic && l.ID == "a@b" {
					u.Kept[l.Number] = Kept{Path: "kept", Digest: mail.Digest{7}, Empty: l.Key == "empty"}
				}
			}
			undos := tags.Undo(u)
			var got, reasons []string
			for _, e := range undos.Edits {
				text := ""
				switch {
				case e.Kept.Path != "":
					text = fmt.Sprintf("attic -> %s flags %v", e.Row.Mailbox, e.Flags)
				case e.To != "":
					text = e.Row.Mailbox + " -> " + e.To
				}
				if a := (mail.Action{Kind: mail.ActUndo, Before: e.Remove, After: e.Add}); !e.Nothing() {
					text += " [" + strings.TrimSpace(strings.TrimPrefix(a.Plan(), "undo")) + "]"
				}
				if len(e.Tags) > 0 {
					text += fmt.Sprintf(" tags %v", e.Tags)
				}
				got = append(got, strings.TrimSpace(text))
			}
			for _, s := range undos.Stays {
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

// What the last run has changed is named, whatever came after it, and each of two lines of one thing
// stands for both.
func TestWhichLinesAreChosen(t *testing.T) {
	log := Log{
		{Run: 1, Action: mail.Action{Kind: mail.ActStore, Key: "a", ID: "a@b"}},
		{Run: 2, Action: mail.Action{Kind: mail.ActLink, Mailbox: "Old", Key: "b", ID: "b@b", Other: "In"}},
		{Run: 2, Action: mail.Action{Kind: mail.ActFetch, Mailbox: "In", Key: "c", ID: "c@b"}},
		{Run: 2, Action: mail.Action{Kind: mail.ActRemove, Mailbox: "In", Key: "d", ID: "b@b"}},
		{Run: 3, Action: mail.Action{Kind: mail.ActUndo, Mailbox: "Old", Key: "b", ID: "b@b", Other: "In"}},
		{Run: 3, Action: mail.Action{Kind: mail.ActMove, Mailbox: "Old", Key: "b", ID: "b@b", Other: "In"}},
		{Run: 4, Action: mail.Action{Kind: mail.ActFetch, Mailbox: "In", Key: "e", ID: "e@b"}},
		{Run: 5, Outcome: mail.IsRefused, Action: mail.Action{Kind: mail.ActMove, Mailbox: "In", Key: "e", ID: "e@b", Other: "Old"}},
	}
	// A keyword of what came from the attic goes to the server with a sync of its own.
	again := slices.Concat(log[:5:5], Log{
		{Run: 3, Action: mail.Action{Kind: mail.ActUndo, Mailbox: "In", Key: "f", ID: "f@b", Attic: true, After: []string{"todo"}}},
		{Run: 3, Action: mail.Action{Kind: mail.ActUpload, Mailbox: "In", Key: "f", ID: "f@b"}},
		{Run: 4, Action: mail.Action{Kind: mail.ActStore, Mailbox: "In", Key: "f", ID: "f@b", After: []string{"todo"}}},
	})
	for i := range again {
		again[i].Number, again[i].Outcome = int64(i+1), mail.IsDone
	}
	for i := range log {
		log[i].Number = int64(i + 1)
		if log[i].Outcome == "" {
			log[i].Outcome = mail.IsDone
		}
	}
	for name, c := range map[string]struct {
		log  Log
		is   func(Log) func(*mail.Logged) bool
		want string
	}{
		"the last of all":       {log, Log.Last, "[5]"},
		"the last before that":  {log[:4], Log.Last, "[2 4]"},
		"told with another run": {again, Log.Last, "[5 6]"},
		"the first":             {log[:1], Log.Last, "[1]"},
		"none":                  {log[6:], Log.Last, "[]"},
		"half of a move":        {log, func(Log) func(*mail.Logged) bool { return func(l *mail.Logged) bool { return l.Number == 4 } }, "[2 4]"},
		"what an undo has told": {log, func(Log) func(*mail.Logged) bool { return func(l *mail.Logged) bool { return l.Number == 6 } }, "[5]"},
	} {
		numbers := []int64{}
		for _, l := range c.log.Whole(c.is(c.log)) {
			numbers = append(numbers, l.Number)
		}
		if got := fmt.Sprint(numbers); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
