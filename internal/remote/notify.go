package remote

import (
	"cmp"
	"context"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// notifyEvents are what NOTIFY is asked for, the most first. New mail and expunges go
// together (RFC 5465 5); a server names the events that it has not by NO [BADEVENT].
func notifyEvents() []string {
	return []string{"MessageNew MessageExpunge FlagChange MailboxName", "MessageNew MessageExpunge"}
}

// Notify asks for the news of all of the user's mailboxes (RFC 5465), which Idle then
// tells, with no mailbox selected. It is asked again after mail.News.Over, and now and then:
// what has changed meanwhile is told, too. One that the server refuses is told by
// mail.Refused; the session lives.
//
// It is the form with STATUS, which says first how all mailboxes stand: by that Idle knows
// news from repetitions, and new mail from mail that left.
func (s *Session) Notify(ctx context.Context, tell func(mail.News)) error {
	if s.notified != nil {
		// Dovecot 2.3 tells nothing of some mailboxes after a second SET, unless it has let go
		// of what it watches for the first one.
		if _, err := s.command(ctx, "NOTIFY NONE", s.heeding(tell)); err != nil {
			return err
		}
	}
	var a answer
	for _, events := range notifyEvents() {
		told := make(statusMap)
		h := s.heeding(tell)
		otherwise := h.data
		h.data = func(word string) (bool, error) {
			if word != "STATUS" {
				return otherwise(word)
			}
			return true, s.statusLine(told)
		}
		var err error
		a, err = s.command(ctx, "NOTIFY SET STATUS (personal ("+events+"))", h)
		if err != nil {
			return err
		}
		if a.status == "OK" {
			before := s.notified
			s.notified = told
			if before != nil {
				differences(before, told, s.newsOf, tell)
			}
			return nil
		}
		if code, _, _ := strings.Cut(a.code, " "); code != "BADEVENT" {
			break
		}
	}
	return s.refused(a, "NOTIFY")
}

// differences tells what became of the mailboxes between two answers to NOTIFY.
func differences(before, now statusMap, newsOf func(wire string, now mail.Status, gone bool) mail.News, tell func(mail.News)) {
	for wire, st := range now {
		was, known := before[wire]
		if !strings.HasPrefix(wire, "\x00") && (!known || completed(st, was) != was) {
			whole := completed(st, was)
			tell(newsOf(wire, sure(whole, st), !known || left(was, whole)))
		}
	}
	for wire := range before {
		if _, there := now[wire]; !there && len(now) > 0 { // some servers say nothing when asked again
			tell(mail.News{Gone: true})
			return
		}
	}
}

// statusNews takes a STATUS that nobody asked for (RFC 5465 5.1).
func (s *Session) statusNews(tell func(mail.News)) error {
	got := make(statusMap)
	if err := s.statusLine(got); err != nil {
		return err
	}
	for wire, now := range got {
		if strings.HasPrefix(wire, "\x00") {
			continue // the same under its name here
		}
		before, known := s.notified[wire]
		told, whole := now, now.UIDNext != 0
		now = completed(now, before)
		if known && whole && now == before {
			continue
		}
		if len(s.notified) <= 2*maxMailboxes {
			if s.notified == nil {
				s.notified = make(statusMap)
			}
			s.notified[wire] = now
		}
		tell(s.newsOf(wire, sure(now, told), !known || left(before, now)))
	}
	return nil
}

// newsOf are of the mailbox that has this name on the wire. gone tells that mail may have left it.
func (s *Session) newsOf(wire string, now mail.Status, gone bool) mail.News {
	news := mail.News{Mailbox: s.plainName(wire), Status: now, Gone: gone}
	if s.wireName(news.Mailbox) != wire {
		news.Mailbox, news.Status = "", mail.Status{} // its name here is another one
	}
	return news
}

// completed takes from before what a STATUS does not tell: that of a change of flags may
// have the mod-sequence alone (RFC 5465 5.3).
func completed(now, before mail.Status) mail.Status {
	if now.UIDNext == 0 {
		now.UIDNext = before.UIDNext
		now.Messages = cmp.Or(now.Messages, before.Messages)
	}
	now.UIDValidity = cmp.Or(now.UIDValidity, before.UIDValidity)
	now.HighestModSeq = cmp.Or(now.HighestModSeq, before.HighestModSeq)
	return now
}

// sure gives a status that was completed, unless what was told is without the mod-sequence: then
// flags may have changed that it does not show.
func sure(completed, told mail.Status) mail.Status {
	if told.HighestModSeq == 0 {
		return mail.Status{}
	}
	return completed
}

// left tells whether messages may have left a mailbox between two statuses.
func left(before, now mail.Status) bool {
	return before.UIDNext == 0 || now.UIDNext == 0 || before.UIDValidity != now.UIDValidity ||
		int64(now.Messages) != int64(before.Messages)+int64(now.UIDNext)-int64(before.UIDNext)
}
