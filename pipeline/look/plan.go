package look

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// What a dry run says of each message is what the log would have of it after a run.

// plan says what would come into a mailbox, and which flags would change here.
func (l *Looker) plan(ctx context.Context, b *Mailbox, news plan.Actions) error {
	come := slices.DeleteFunc(slices.Clone(news.Fetch), func(u imap.UID) bool { return b.linked[u] })
	if len(come) > 0 {
		if err := l.conn.Enter(ctx, b.Name, b.now.UIDValidity); err != nil {
			return err
		}
		headers, err := l.conn.Session().Headers(ctx, mail.UIDSet(come), "FROM", "SUBJECT")
		if err != nil {
			return err
		}
		for _, u := range come {
			a := mail.Action{Kind: mail.ActFetch, Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: u, Why: "it is new on the server"}
			a.From, a.Subject = mail.ParseHeader(headers[u], "From", "Subject").Brief()
			l.Report.Plan(a)
		}
	}
	after := make(map[imap.UID][]string)
	for _, c := range news.Flags {
		if !slices.ContainsFunc(b.Due, func(m ledger.Message) bool { return m.UID == c.UID }) {
			after[c.UID] = c.After
		}
	}
	var uids []imap.UID
	for u := range after {
		uids = append(uids, u)
	}
	rows, err := l.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, uids)
	if err != nil {
		return err
	}
	for _, row := range rows {
		a := journal.ActionOf(mail.ActFlag, row)
		a.Before, a.After, a.Why = row.Flags, after[row.UID], "they were changed on the server"
		a.From, a.Subject = b.Flagging(row, after[row.UID], l.Tags).Brief()
		l.Report.Plan(a)
	}
	return nil
}

// planLink says that a message is here already, in another mailbox.
func (l *Looker) planLink(b *Mailbox, m mail.Message, from ledger.Message, path string) {
	if b.linked == nil {
		b.linked = make(map[imap.UID]bool)
	}
	b.linked[m.UID] = true
	a := mail.Action{Kind: mail.ActLink, Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: m.UID, ID: from.ID, Other: from.Mailbox, Before: from.Flags, After: plan.StoredFlags(m.Flags)}
	a.From, a.Subject = maildir.Brief(path)
	l.Report.Plan(a)
}

// planFollowing says that a file goes to where its mail was moved on the server.
func (l *Looker) planFollowing(b *Mailbox, s stray) {
	a := journal.ActionOf(mail.ActFollow, s.Row)
	a.Mailbox, a.Other, a.Why = s.in.Name, b.Name, "it was moved there on the server"
	if name, ok, err := s.in.Dir.Locate(s.Key, ""); err == nil && ok {
		a.From, a.Subject = maildir.Brief(s.in.Dir.Path(name))
	}
	l.Report.Plan(a)
}

// pairing is that a file of the folder is a message's.
func pairing(b *Mailbox, file ledger.Message, m mail.Message) mail.Action {
	return mail.Action{Kind: mail.ActPair, Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: m.UID, Key: file.Key, ID: file.ID, Why: "its mail is the same"}
}
