package local

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// ownFile is a file of a message that notmuch knows, with its row.
type ownFile struct {
	view   *View
	row    ledger.Row
	name   string // below its folder, as it is now
	unseen bool
}

// settle finds, of messages that the database has by now and that were agreed on with another
// one, the changes that give them the tags that they had: those of the flags and keywords
// that were agreed on, and those with which the rules leave them where they are. What of
// the tags orders something all the same is noted as said before. It gives the ids of those
// messages. all is false if some are in a folder that cannot be judged now.
func (r *Reader) settle(ctx context.Context, d *database, views []View, tagged []mail.Tagged, trash string, f *Followed) (ids map[string]bool, all bool, err error) {
	all, ids = true, make(map[string]bool)
	if len(d.notSeen) == 0 {
		return ids, true, nil
	}
	byDir := byDirectory(views)
	rows := make(map[*View]map[string]ledger.Row)
	seen := make(map[*View]map[string]bool) // by key
	for _, t := range tagged {
		files, known, err := r.filesOf(ctx, d, t, byDir, rows)
		if err != nil {
			return ids, false, err
		}
		all = all && known
		if !slices.ContainsFunc(files, func(f ownFile) bool { return f.unseen }) {
			continue
		}
		ids[t.ID] = true
		if r.Tags.HasRules() && r.Tags.Untagged(t.Tags) {
			continue // its owner's hook is yet to tag it
		}
		changes, err := r.asAgreed(ctx, d, t, files, trash, &f.Seen)
		if err != nil {
			return ids, false, err
		}
		f.Changes = append(f.Changes, changes...)
		for _, o := range files {
			if seen[o.view] == nil {
				seen[o.view] = make(map[string]bool)
			}
			seen[o.view][o.row.Key] = true
		}
	}
	for v, keys := range seen {
		var uids []imap.UID
		for key, row := range rows[v] {
			if d.unseen(v, row.UID) && !keys[key] {
				uids = append(uids, row.UID)
			}
		}
		slices.Sort(uids)
		left := journal.Unseen{UIDValidity: v.Known.UIDValidity, UIDs: imap.UIDSetNum(uids...)}
		if d.notSeen[v.Name] = left; len(left.UIDs) > 0 {
			r.Journal.Unseen.Put(&f.Seen, v.Name, left)
		} else {
			r.Journal.Unseen.Forget(&f.Seen, v.Name)
		}
	}
	return ids, all, nil
}

// filesOf gives those of a message's files that were agreed on. rows are those of folders, by
// key, as far as they were read. known is false if one may be in a folder that cannot be judged.
func (r *Reader) filesOf(ctx context.Context, d *database, t mail.Tagged, byDir map[string]*View, rows map[*View]map[string]ledger.Row) (files []ownFile, known bool, err error) {
	known = true
	for _, p := range t.Paths {
		v := byDir[filepath.Dir(filepath.Dir(p))]
		if v == nil {
			continue
		}
		if !v.Agreed() || v.Unread {
			known = known && len(d.notSeen[v.Name].UIDs) == 0
			continue
		}
		if rows[v] == nil {
			list, err := r.Ledger.Rows(ctx, v.Name, v.Known.UIDValidity)
			if err != nil {
				return nil, false, err
			}
			rows[v] = make(map[string]ledger.Row, len(list))
			for _, row := range list {
				if row.State == ledger.Present && row.Key != "" {
					rows[v][row.Key] = row
				}
			}
		}
		key, _ := maildir.ParseName(p)
		row, ok := rows[v][key]
		if !ok {
			continue
		}
		last, err := filepath.Rel(string(v.Dir), p)
		if err != nil {
			return nil, false, err
		}
		name, here, err := v.Dir.Locate(key, last)
		known = known && err == nil
		if here {
			files = append(files, ownFile{v, row, name, d.unseen(v, row.UID)})
		}
	}
	return files, known, nil
}

// asAgreed gives the changes by which a message gets the tags that were agreed on, and notes
// of its files what of its tags is old.
func (r *Reader) asAgreed(ctx context.Context, d *database, t mail.Tagged, files []ownFile, trash string, c *journal.Change) (changes []mail.Change, err error) {
	want := slices.Clone(t.Tags)
	set := func(tag string, on bool) {
		want = slices.DeleteFunc(want, func(t string) bool { return t == tag })
		if on {
			want = append(want, tag)
		}
	}
	var agreed []string
	for _, f := range files {
		agreed = append(agreed, f.row.Flags...)
	}
	told := d.told.UUID != "" && !r.ReadOnly // else nothing is known of tags that the server lacks
	if told {
		delta := r.Tags.TagDelta(agreed, t.Tags)
		for _, k := range delta.Add {
			if tag := plan.KeywordTag(k); tag != "" {
				keeps, err := r.keeps(ctx, files, k)
				if err != nil {
					return nil, err
				}
				set(tag, !keeps)
			}
		}
	}
	for _, k := range agreed {
		has := func(tag string) bool { return r.Tags.StandsFor(tag, k) }
		if tag := r.Tags.TagOf(k); tag != "" && !r.Tags.IsOrder(tag) && !slices.ContainsFunc(want, has) {
			set(tag, true)
		}
	}
	if told && r.Tags.TagFlags {
		for _, row := range plan.FlagRows() {
			if row.Tag != "" {
				set(row.Tag, plan.HasFlag(agreed, row.Flag) != row.Absent)
			}
		}
	}
	if told {
		for tag, on := range r.placed(want, files, len(t.Others) > 0, trash) {
			set(tag, on)
		}
		for _, f := range files {
			if old := r.Tags.Ordering(f.view.Name, want); len(old) > 0 {
				r.Old.Put(c, f.view.Name, f.row.Key, old)
			}
		}
	}
	change := mail.Change{Op: mail.OpFlag, ID: t.ID}
	for _, tag := range want {
		if !slices.Contains(t.Tags, tag) {
			change.Add = append(change.Add, tag)
		}
	}
	for _, tag := range t.Tags {
		if !slices.Contains(want, tag) {
			change.Remove = append(change.Remove, tag)
		}
	}
	for i, f := range files {
		change.Path, change.Set, change.Clear = f.view.path(f.name), "", ""
		if !r.Tags.TagFlags {
			change.Set, change.Clear = lettersOf(f.name)
		}
		renamed := !slices.Contains(t.Paths, change.Path)
		if i == 0 && len(change.Add)+len(change.Remove) > 0 || renamed || change.Set+change.Clear != "" && i == 0 && untrue(t, files) {
			changes = append(changes, change)
		}
	}
	return changes, nil
}

// placed gives the tags with which no rule moves or deletes a message's files, and whether
// they are on it or off: where a tag is wanted by one and not by another, or the message has
// files elsewhere, it stays as it is. Those of flags are as the files' names have them.
func (r *Reader) placed(tags []string, files []ownFile, elsewhere bool, trash string) map[string]bool {
	out := make(map[string]bool)
	if elsewhere {
		return out
	}
	for _, f := range files {
		for tag, on := range r.Tags.Ordering(f.view.Name, tags) {
			flag := slices.ContainsFunc(plan.FlagRows(), func(row plan.FlagRow) bool { return row.Tag == tag })
			if !flag && (tag != r.Tags.DeletedTag || f.view.Name != trash) {
				out[tag] = !on
			}
		}
	}
	for tag, on := range out {
		after := slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return t == tag })
		if on {
			after = append(after, tag)
		}
		for _, f := range files {
			if _, orders := r.Tags.Ordering(f.view.Name, after)[tag]; orders {
				delete(out, tag)
			}
		}
	}
	return out
}

// keeps tells whether the server keeps a keyword with a message's mail.
func (r *Reader) keeps(ctx context.Context, files []ownFile, keyword string) (bool, error) {
	for _, f := range files {
		if _, stays, err := r.Journal.StaysSaid.Get(ctx, journal.AboutWord(keyword, f.view.Name)); err != nil || stays {
			return false, err
		}
	}
	return true, nil
}

// lettersOf gives the letters that stand for tags as a file's name has them, set or not. To
// notmuch a file in new has none.
func lettersOf(name string) (set, clear string) {
	if !plan.HasInfo(name) && !strings.HasPrefix(name, "new/") {
		return "", ""
	}
	_, letters := maildir.ParseName(name)
	for _, row := range plan.FlagRows() {
		switch {
		case row.Tag == "":
		case slices.Contains([]byte(letters), row.Letter[0]):
			set += row.Letter
		default:
			clear += row.Letter
		}
	}
	return set, clear
}

// untrue tells whether a message's tags are not those of its files' names.
func untrue(t mail.Tagged, files []ownFile) bool {
	var all string
	for _, f := range files {
		set, _ := lettersOf(f.name)
		all += set
	}
	return slices.ContainsFunc(plan.FlagRows(), func(row plan.FlagRow) bool {
		return row.Tag != "" && slices.Contains(t.Tags, row.Tag) != (slices.Contains([]byte(all), row.Letter[0]) != row.Absent)
	})
}
