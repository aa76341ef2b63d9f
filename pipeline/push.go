package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// storeAtOnce bounds how many messages one STORE names.
const storeAtOnce = 500

// push tells the server the flags that the user changed here, and gives the
// changes that remain to be made here, with both sides merged. A crash between
// the server's yes and the record does no harm: the next run finds that both
// sides changed alike.
func (w *worker) push(ctx context.Context, b *box, a actions) ([]flagChange, error) {
	maps.DeleteFunc(b.local, func(u imap.UID, _ delta) bool { return slices.Contains(a.gone, u) })
	if len(b.local) == 0 || b.now.UIDValidity != b.known.UIDValidity {
		return a.flags, nil
	}
	if err := w.prePush(ctx, b); err != nil || len(b.local) == 0 {
		return a.flags, err
	}
	sel, err := w.session.Select(ctx, b.Name)
	w.selected = nil // what fetches wants EXAMINE
	if err != nil {
		return a.flags, err
	}
	if sel.UIDValidity != b.now.UIDValidity {
		return a.flags, &mail.Fault{Kind: mail.KindMalformed, Op: "SELECT", Mailbox: b.Name, Text: "UIDVALIDITY changed during the run"}
	}
	if sel.ReadOnly {
		w.note(b, "the server opens this mailbox for reading only; changed flags stay here")
		return a.flags, w.markScanned(ctx, b)
	}
	for _, f := range flagRows() {
		for _, sign := range []string{"+", "-"} {
			if err := w.store(ctx, b, sel, f.flag, sign); err != nil {
				return a.flags, err
			}
		}
	}
	return w.agree(ctx, b, a.flags)
}

// store sets or clears one flag where the user did so.
func (w *worker) store(ctx context.Context, b *box, sel *mail.Selected, flag, sign string) error {
	var uids []imap.UID
	for u, d := range b.local {
		if sign == "+" && hasFlag(d.add, flag) || sign == "-" && hasFlag(d.remove, flag) {
			uids = append(uids, u)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	if p := sel.PermanentFlags; len(p) > 0 && !hasFlag(p, flag) && (!strings.HasPrefix(flag, "$") || !slices.Contains(p, `\*`)) {
		return w.staysHere(ctx, b, flag, len(uids))
	}
	slices.Sort(uids)
	for part := range slices.Chunk(uids, storeAtOnce) {
		ex, err := w.session.Exchange(ctx, fmt.Sprintf("UID STORE %s %sFLAGS.SILENT (%s)", uidSet(part).String(), sign, flag))
		if err != nil {
			return err
		}
		if err := refused(ex, "UID STORE", b.Name, 0); err != nil {
			return err
		}
		w.step("flags stored")
	}
	return nil
}

// staysHere leaves a flag that the server does not keep to the files. That is
// said once.
func (w *worker) staysHere(ctx context.Context, b *box, flag string, n int) error {
	for u, d := range b.local {
		other := func(f string) bool { return strings.EqualFold(f, flag) }
		b.local[u] = delta{slices.DeleteFunc(d.add, other), slices.DeleteFunc(d.remove, other)}
	}
	key := "stays/" + flag + "/" + b.Name
	said, err := w.Ledger.Meta(ctx, key)
	if err != nil || said != "" {
		return err
	}
	w.note(b, "the server keeps no flag %s in this mailbox; that of %d messages stays here", flag, n)
	return w.Ledger.SetMeta(ctx, key, "said")
}

// agree records what was pushed. Where the server changed flags of the same
// message, the change goes on as it came, with what the user did added.
func (w *worker) agree(ctx context.Context, b *box, changes []flagChange) ([]flagChange, error) {
	maps.DeleteFunc(b.local, func(_ imap.UID, d delta) bool { return len(d.add)+len(d.remove) == 0 })
	n := len(b.local)
	for i, c := range changes {
		if d, ok := b.local[c.uid]; ok {
			changes[i].after = d.merged(c.after)
			delete(b.local, c.uid)
		}
	}
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, slices.Collect(maps.Keys(b.local)))
	if err != nil {
		return changes, err
	}
	rows = slices.DeleteFunc(rows, func(m ledger.Message) bool { return m.State != ledger.Present })
	for i := range rows {
		rows[i].Flags = b.local[rows[i].UID].merged(rows[i].Flags)
	}
	if len(rows) > 0 {
		if err := w.Ledger.Save(ctx, rows...); err != nil {
			return changes, err
		}
		w.step("pushed flags recorded")
	}
	clear(b.local) // the look may be repeated
	w.tally(func(r *Report) { r.Pushed += n })
	return changes, w.markScanned(ctx, b)
}
