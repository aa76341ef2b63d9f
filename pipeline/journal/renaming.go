package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Renaming is, by the name that a mailbox has now, that its files are on their way from one folder
// to another. Both are below the account's.
type Renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Renamed is a mailbox that has another name and folder.
type Renamed struct{ From, To ledger.Mailbox }

// Action is that as the log has it.
func (r Renamed) Action() mail.Action {
	return mail.Action{Kind: mail.ActRename, Mailbox: r.From.Name, Other: r.To.Name, Why: "it has that name on the server"}
}

// renamings are mailboxes that have other names, all at once: one may have the name and the folder
// that another one had.
type renamings struct {
	root    string                    // the account's folder
	folders map[string]string         // by the folders of before
	mailbox map[string]ledger.Mailbox // as they are now, by the names of before
}

// Rename gives mailboxes other names and folders: their rows, their messages, and all notes about them,
// their folders and their files, all or nothing. root is the account's folder. What a command met under
// a name of before is over.
func (j *Journal) Rename(ctx context.Context, all []Renamed, root string) error {
	n := renamings{root, make(map[string]string), make(map[string]ledger.Mailbox)}
	for _, r := range all {
		n.folders[r.From.Folder], n.mailbox[r.From.Name] = r.To.Folder, r.To
	}
	over, metas := make(map[string]string), make(map[string]string)
	for _, k := range j.kinds {
		texts, err := j.ledger.Metas(ctx, k.Key)
		if err == nil && k.Form == Alone {
			texts = make(map[string]string)
			texts[k.Key], err = j.ledger.Meta(ctx, k.Key)
		}
		if err != nil {
			return err
		}
		for key, text := range texts {
			key2, text2 := n.key(k, key), n.text(k, text)
			if key2 == key && text2 == text || text == "" {
				continue
			}
			over[key] = ""
			if k.Key != j.Unavailable.kind.Key {
				metas[key2] = text2
			}
		}
	}
	for _, r := range all {
		if r.From.Folder == r.To.Folder {
			continue
		}
		text, err := encode(Renaming{r.From.Folder, r.To.Folder})
		if err != nil {
			return err
		}
		metas[j.Renaming.key(r.To.Name)] = text
	}
	maps.Copy(over, metas) // a note of another one may be where one was
	var c Change
	for _, r := range all {
		c.Did(r.Action())
	}
	return j.ledger.Record(ctx, ledger.Change{Renamed: n.mailbox, Metas: over, Log: c.log})
}

// key gives the key of a note as it is when the mailboxes have their other names and folders.
func (n *renamings) key(k Kind, key string) string {
	rest := strings.TrimPrefix(key, k.Key)
	if k.Form == OfFolder {
		return k.Key + cmp.Or(n.folders[rest], rest)
	}
	of := k.Mailbox(key)
	switch name := n.mailbox[of].Name; {
	case name == "":
		return key
	case k.Form == OfWord:
		return strings.TrimSuffix(key, of) + name
	default:
		return k.Key + name + rest[len(of):]
	}
}

// text gives the text of a note with the other names of the mailboxes, and with the files of their
// folders in their other ones.
func (n *renamings) text(k Kind, text string) string {
	if k.Form == OfFileIn {
		of, _ := Text(text).Said()
		if name := n.mailbox[string(of)].Name; name != "" {
			return strings.TrimSuffix(text, string(of)) + name
		}
	}
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return text
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return text // it is no JSON, though it looks like it
	}
	changed := false
	var in func(key string, v any) any
	in = func(key string, v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				v[k] = in(k, v[k])
			}
		case []any:
			for i := range v {
				v[i] = in(key, v[i])
			}
		case string:
			is := v
			if filepath.IsAbs(v) {
				is = n.path(v)
			}
			if name := n.mailbox[v].Name; name != "" && (strings.EqualFold(key, "mailbox") || strings.EqualFold(key, "to")) {
				is = name
			}
			changed = changed || is != v
			return is
		}
		return v
	}
	if v = in("", v); !changed {
		return text
	}
	out, err := encode(v)
	if err != nil {
		return text
	}
	return out
}

// path gives the path of a mail's file in its folder of now; other texts as they are.
func (n *renamings) path(s string) string {
	sub := filepath.Dir(s) // "cur" or "new"
	folder, err := filepath.Rel(n.root, filepath.Dir(sub))
	if to := n.folders[folder]; err == nil && to != "" {
		return filepath.Join(n.root, to, filepath.Base(sub), filepath.Base(s))
	}
	return s
}
