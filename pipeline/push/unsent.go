package push

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// unsent gives what is remembered of a mailbox's files, by what their note is about.
func (p *Pusher) unsent(ctx context.Context, b *Mailbox) (map[string]journal.Unsent, error) {
	all, err := p.Journal.Unsent.All(ctx)
	maps.DeleteFunc(all, func(_ string, u journal.Unsent) bool { return u.Mailbox != b.Name })
	return all, err
}

// postpone takes those uploads out of the plan that the server refused and whose time
// has not come, or that were given up. A file that was edited since is another mail.
func (p *Pusher) postpone(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	notes, err := p.unsent(ctx, b)
	if err != nil || len(notes) == 0 {
		return err
	}
	var due []plan.Untracked
	for _, s := range o.Uploads {
		n, refused := notes[journal.AboutFile(b.Name, s.Key)]
		if !refused || n.Size != s.Size || !p.waits(n.Tries, b, s.Key) {
			due = append(due, s)
		}
	}
	n := len(o.Uploads) - len(due)
	o.Uploads, o.Later = due, o.Later || n > 0
	p.Report.Tally(func(r *report.Report) { r.Unsent += n })
	return nil
}

// refusedUploads remembers what the server would not take, and says it of those that
// were not refused before.
func (p *Pusher) refusedUploads(ctx context.Context, b *Mailbox, refused []refusedUpload) error {
	notes, err := p.unsent(ctx, b)
	if err != nil {
		return err
	}
	var c journal.Change
	var news []refusedUpload
	for _, f := range refused {
		key := journal.AboutFile(b.Name, f.file.Key)
		n := notes[key]
		first := n.Again(b.Name, f.file.Message, p.Now(), f.err.Error(), func(now time.Time, attempts int) time.Time {
			if f.unopened {
				return report.RetryFromSecond(now, attempts)
			}
			if ofWhole(f.err) { // room, or a right, is there again before long, and it is not the mail's fault
				attempts = min(attempts, 2)
			}
			return report.RetryAt(now, attempts)
		})
		if first {
			news = append(news, f)
		}
		p.Journal.Unsent.Put(&c, key, n)
		sent(&c, mail.IsRefused, f.err.Error(), b.Name, f.file.Key)
	}
	if err := p.commit(ctx, c, "refused uploads remembered"); err != nil {
		return err
	}
	known := len(refused) - len(news)
	p.Report.Tally(func(r *report.Report) { r.Unsent += known })
	if len(news) == 0 {
		return nil
	}
	return notPushedf(Unsent, "%s not taken by the server; it is sent again after a while, or with --full (notmuch imap stubs --all lists it): %s",
		mail.Number(len(news), "new message was", "new messages were"), byReason(news))
}

// byReason names refused mails with the reasons, each of which is told once.
func byReason(refused []refusedUpload) string {
	var reasons []string
	names := make(map[string][]string)
	for i, f := range refused {
		why := f.err.Error()
		if names[why] == nil {
			reasons = append(reasons, why)
		}
		name := f.file.Name
		if i >= mostNamed {
			name = ""
		}
		names[why] = append(names[why], name)
	}
	var lines []string
	for _, why := range reasons {
		of := names[why]
		named := slices.DeleteFunc(slices.Clone(of), func(name string) bool { return name == "" })
		switch more := len(of) - len(named); {
		case len(named) == 0:
			named = []string{mail.Number(more, "more", "more")}
		case more > 0:
			named = append(named, fmt.Sprintf("and %d more", more))
		}
		lines = append(lines, strings.Join(named, ", ")+": "+why)
	}
	return strings.Join(lines, "; ")
}

// mostNamed bounds how many refused mails are named in one line.
const mostNamed = 5

type refusedUpload struct {
	file     plan.Untracked
	err      error
	unopened bool // its mailbox was not even opened
}
