package journal

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// Renaming is, by the name that a mailbox has now, that its files are on their way from one folder
// to another. Both are below the account's.
type Renaming struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Rename gives a mailbox another name and folder: its row, its messages, and all notes about it,
// its folder and its files, all or nothing. root is the account's folder. What a command met under
// the name of before is over.
func (j *Journal) Rename(ctx context.Context, from, to ledger.Mailbox, root string) error {
	c := ledger.Change{Mailbox: &to, Was: from.Name, Metas: make(map[string]string)}
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
			key2, text2 := k.renamed(key, from, to), renamedText(text, from, to, root)
			if in, _ := Text(text).Said(); k.Form == OfFileIn && string(in) == from.Name {
				text2 = strings.TrimSuffix(text, from.Name) + to.Name
			}
			if key2 == key && text2 == text || text == "" {
				continue
			}
			c.Metas[key] = ""
			if k.Key != j.Unavailable.kind.Key {
				c.Metas[key2] = text2
			}
		}
	}
	if from.Folder != to.Folder {
		text, err := encode(Renaming{from.Folder, to.Folder})
		if err != nil {
			return err
		}
		c.Metas[j.Renaming.key(to.Name)] = text
	}
	return j.ledger.Record(ctx, c)
}

// renamed gives the key of a note as it is when the mailbox has its other name and folder.
func (k Kind) renamed(key string, from, to ledger.Mailbox) string {
	switch rest := strings.TrimPrefix(key, k.Key); {
	case k.Form == OfFolder && rest == from.Folder:
		return k.Key + to.Folder
	case from.Name == "" || k.Mailbox(key) != from.Name:
		return key
	case k.Form == OfWord:
		return strings.TrimSuffix(key, from.Name) + to.Name
	default:
		return k.Key + to.Name + rest[len(from.Name):]
	}
}

// renamedText gives the text of a note with the other name of the mailbox, and with the files of its
// folder, which is below root, in its other one.
func renamedText(text string, from, to ledger.Mailbox, root string) string {
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return text
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return text // it is no JSON, though it looks like it
	}
	was, is, changed := filepath.Join(root, from.Folder)+"/", filepath.Join(root, to.Folder)+"/", false
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
			switch rest, below := strings.CutPrefix(v, was); {
			case v == from.Name && (strings.EqualFold(key, "mailbox") || strings.EqualFold(key, "to")):
				changed = true
				return to.Name
			case below && was != is:
				changed = true
				return is + rest
			}
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
