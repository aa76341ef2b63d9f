package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// mailboxes shows what the server has, leaves out what holds all other mail once
// more, and proposes tags.
func (s *setup) mailboxes(ctx context.Context) error {
	boxes, err := s.session.List(ctx, mail.Listing{})
	if err != nil {
		return err
	}
	if more, err := s.fromBulkHost(ctx, boxes); err != nil {
		return err
	} else if more {
		if boxes, err = s.session.List(ctx, mail.Listing{}); err != nil {
			return err
		}
	}
	sizes := s.sizes(ctx, boxes)
	s.say("\nThe server's mailboxes:")
	shown, messages, bytes := 0, uint64(0), int64(0)
	for _, m := range boxes {
		if m.Status == nil {
			continue
		}
		messages, bytes = messages+uint64(m.Status.Messages), bytes+sizes[m.Name]
		if shown++; shown <= mostMailboxes {
			s.say("  %-32s %9d %s", plain(m.Name), m.Status.Messages, size(sizes[m.Name]))
		}
	}
	if more := shown - mostMailboxes; more > 0 {
		s.say("  ... and %d more", more)
	}
	s.say("  %-32s %9d %s", mail.Number(shown, "mailbox", "mailboxes"), messages, size(bytes))
	if s.preset.SkipAll {
		for _, m := range boxes {
			if !holdsAll(m) {
				continue
			}
			leave, err := s.person.agrees(ctx, fmt.Sprintf("%q holds every mail of the others once more, and alone what was archived and has no label; leave it out?", plain(m.Name)), true)
			if err != nil {
				return err
			}
			if leave {
				s.account.Mailboxes = []string{"*", "!" + m.Name}
			}
		}
	}
	if trash := trashOf(boxes, s.preset); trash != "" {
		use, err := s.person.agrees(ctx, fmt.Sprintf("the server does not say which mailbox is its Trash; is it %q, where mail goes that you delete?", plain(trash)), true)
		if err != nil {
			return err
		}
		if use {
			s.account.Trash = trash
		}
	}
	if s.c.Bool("no-tags") {
		return nil
	}
	rules := tagRules(boxes, s.preset)
	rules = slices.DeleteFunc(rules, func(r config.TagRule) bool { return slices.Contains(s.account.Mailboxes, "!"+r.Pattern) })
	if len(rules) == 0 {
		return nil
	}
	s.say("\nNew mail gets notmuch's new.tags. These mailboxes are of another kind;\ntheir mail can be tagged otherwise:")
	for _, r := range rules {
		s.say("  %-32s %s", plain(r.Pattern), strings.Join(r.Tags, " "))
	}
	use, err := s.person.agrees(ctx, "tag so?", true)
	if use {
		s.account.Tags = rules
	}
	return err
}

// fromBulkHost goes over to the host that shows more of a large mailbox, if the person
// wants it. From then on it is the account's: what another host shows no more would
// look deleted.
func (s *setup) fromBulkHost(ctx context.Context, boxes []mail.Mailbox) (more bool, err error) {
	bulk, most := s.preset.BulkHost, s.preset.Most(s.account.Host)
	i := slices.IndexFunc(boxes, func(m mail.Mailbox) bool { return m.Status != nil && most > 0 && m.Status.Messages >= most })
	if i < 0 || bulk == "" || strings.EqualFold(bulk, s.account.Host) {
		return false, nil
	}
	prose(s.stdout, plain(fmt.Sprintf("%s holds %d messages, which is all that %s shows of a mailbox; %s has the same mail and shows %d.", boxes[i].Name, boxes[i].Status.Messages, s.account.Host, bulk, s.preset.BulkShows)))
	if more, err = s.person.agrees(ctx, "take it from there, now and later?", true); err != nil || !more {
		return false, err
	}
	s.hangUp()
	s.account.Host, s.sources["host"] = bulk, "the built-in table of providers"
	return true, s.signIn(ctx)
}

// sizes gives the bytes of each mailbox where the server tells (RFC 8438); a size
// that is not told is 0. At most some fifty are asked for: each is a round trip.
func (s *setup) sizes(ctx context.Context, boxes []mail.Mailbox) map[string]int64 {
	out := make(map[string]int64)
	if !s.session.Has("STATUS=SIZE") && !s.session.Has("IMAP4REV2") {
		return out
	}
	for _, m := range boxes[:min(len(boxes), 50)] {
		if m.Status == nil {
			continue
		}
		n, err := s.session.MailboxSize(ctx, m.Name)
		if err != nil {
			return out // the counts are there
		}
		if n > 0 {
			out[m.Name] = n
		}
	}
	return out
}

// size is a number of bytes for people; "" if it is not known.
func size(n int64) string {
	switch {
	case n <= 0:
		return ""
	case n < 1<<20:
		return fmt.Sprintf("%7.0f KB", float64(n)/1024)
	case n < 1<<30:
		return fmt.Sprintf("%7.1f MB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%7.1f GB", float64(n)/(1<<30))
}
