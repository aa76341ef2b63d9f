package cmd

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/verify"
)

// verified compares the world with its server, text by text, and wants them equal.
func (w *world) verified(change ...func(*pipeline.Options)) *verify.Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	l, err := ledger.OpenReadOnly(ctx, w.state())
	if err != nil {
		w.t.Fatal(err)
	}
	o := w.options(l)
	for _, f := range change {
		f(&o)
	}
	session, err := o.Dial(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	memory, err := pipeline.Remembered(ctx, "work", o.Root, l, o.Index)
	if err != nil {
		w.t.Fatal(err)
	}
	a := verify.Account{Name: "work", Root: o.Root, Ledger: l, Index: o.Index, Tags: &o.Tags, Deletions: o.Deletions, Trash: o.Trash, Memory: memory,
		Tell: func(d verify.Difference) {
			if d.Kind != verify.Copy {
				w.t.Errorf("%s: %+v", w.dir, d)
			}
		}}
	a.Strays = pipeline.Strays(o, session)
	result, bodies, err := verify.Sides(ctx, a, session)
	if err == nil {
		var done *verify.Done
		if done, err = verify.OpenDone(filepath.Join(w.dir, "verified")); err == nil {
			err = errors.Join(verify.Bytes(ctx, a, session, bodies, done, result), done.Forget())
		}
	}
	if err := errors.Join(err, session.Close(), l.Close()); err != nil {
		w.t.Fatal(err)
	}
	return result
}
