package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/resume"
	"github.com/notmuch-imap/notmuch-imap/pipeline/show"
)

// recover ends what an interrupted run left on this machine, and carries out what is asked
// here, before anything is looked at.
func (r *run) recover(ctx context.Context) error {
	if err := r.here.CheckRoot(ctx); err != nil {
		return err
	}
	secret, err := r.secret.read(ctx)
	if err != nil {
		return err
	}
	r.here.Secret = secret
	if r.DryRun {
		return r.recallTold(ctx)
	}
	r.ask.Clear()
	if err := r.resume(ctx); err != nil {
		return err
	}
	_, err = r.giveUp(ctx)
	return err
}

// recallTold finds what interrupted runs have told the server of flags.
func (r *run) recallTold(ctx context.Context) error {
	err := r.told.Recall(ctx, !r.DryRun)
	r.here.Told = r.told.Before()
	return err
}

// resume ends what an interrupted run has left here.
func (r *run) resume(ctx context.Context) error {
	if err := recoverAll(ctx, r.recoverHere()); err != nil {
		return err
	}
	if err := r.shower.Retire(ctx); err != nil {
		return err
	}
	return r.resumer.Messages(ctx)
}

// knownBox is a mailbox of the ledger that no connection has seen.
func (r *run) knownBox(k ledger.Mailbox) *box {
	return r.newBox(mail.Mailbox{Name: k.Name, Delim: k.Delim}, k)
}

// knownBoxes gives all of them, with the tags that they have by rule.
func (r *run) knownBoxes(ctx context.Context) (map[string]*box, error) {
	rows, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	boxes := make(map[string]*box, len(rows))
	for _, k := range rows {
		b := r.knownBox(k)
		b.uidValidity = k.UIDValidity
		if r.TagRules != nil {
			b.add, b.remove = r.TagRules(k.Name, k.Delim)
		}
		boxes[k.Name] = b
	}
	return boxes, nil
}

// newResumer gives the one by which this run ends what an interrupted one has left.
func (r *run) newResumer() *resume.Resumer {
	return resume.New(resume.Options{
		Line: r.line, Ledger: r.Ledger, Journal: r.notes(), Ruled: r.ruled, Old: r.old, Here: r.here, Report: r.rep,
		Tags: &r.Tags, Trash: r.Trash, Restore: r.Restore, DryRun: r.DryRun,
		Boxes: func(ctx context.Context) (map[string]*resume.Mailbox, error) {
			boxes, err := r.knownBoxes(ctx)
			out := make(map[string]*resume.Mailbox, len(boxes))
			for name, b := range boxes {
				out[name] = &resume.Mailbox{Mailbox: b.line, Known: b.known, Add: b.add, Remove: b.remove}
			}
			return out, err
		},
		RemoveTwins: r.twins.remove,
		InNotmuch:   r.inNotmuch,
		RestoreTags: func(ctx context.Context, b *resume.Mailbox, trash string, it *deliver.Item) error {
			return r.rememberRemoved(ctx, &r.Tags, arrival{b.Name, trash, b.Add, b.Remove}, it)
		},
	})
}

// inNotmuch gives those of the messages with these ids that notmuch knows, by id.
func (r *run) inNotmuch(ctx context.Context, ids []string) (map[string]mail.Tagged, error) {
	return r.Index.Messages(ctx, ids, r.Root)
}

// newShower gives the one by which notmuch shows what failed.
func (r *run) newShower() *show.Shower {
	return show.New(show.Options{
		Account: r.Name, Address: r.Address, Line: r.line, Index: r.Index, Ledger: r.Ledger, Journal: r.notes(), Report: r.rep, Keys: &r.keys, Now: r.Now, Tags: &r.Tags,
		Again: func(m ledger.Message) bool { return r.Full || r.wants(m) }, Wanted: r.wants, Secret: r.secret.read,
		Boxes: func(ctx context.Context) (map[string]*show.Mailbox, error) {
			boxes, err := r.knownBoxes(ctx)
			out := make(map[string]*show.Mailbox, len(boxes))
			for name, b := range boxes {
				out[name] = &show.Mailbox{Mailbox: b.line, Add: b.add, Remove: b.remove}
			}
			return out, err
		},
	})
}
