package remote

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// say speaks one command, whose answer must be OK.
func (s *Session) say(ctx context.Context, op, mailbox, command string) (*mail.Exchange, error) {
	ex, err := s.Exchange(ctx, command)
	if err != nil {
		return ex, err
	}
	return ex, ex.Refused(op, mailbox, 0)
}

// Store sets or clears a flag of messages of the selected mailbox.
func (s *Session) Store(ctx context.Context, uids imap.UIDSet, set bool, flag string) error {
	sign := "-"
	if set {
		sign = "+"
	}
	_, err := s.say(ctx, "UID STORE", s.mailbox, fmt.Sprintf("UID STORE %s %sFLAGS.SILENT (%s)", uids.String(), sign, flag))
	return err
}

// Move moves messages of the selected mailbox into another one (RFC 6851). The fault's
// code is TRYCREATE if that is not there.
func (s *Session) Move(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error) {
	return s.transfer(ctx, "UID MOVE", uids, to)
}

// Copy copies messages of the selected mailbox into another one, as Move moves them.
func (s *Session) Copy(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error) {
	return s.transfer(ctx, "UID COPY", uids, to)
}

func (s *Session) transfer(ctx context.Context, verb string, uids imap.UIDSet, to string) (mail.Copied, error) {
	ex, err := s.say(ctx, verb, s.mailbox, fmt.Sprintf("%s %s %s", verb, uids.String(), s.quote(to)))
	if err != nil {
		return mail.Copied{}, err
	}
	return copied(ex), nil
}

// ExpungeUIDs removes those of the messages that are marked \Deleted (RFC 4315 2.1).
func (s *Session) ExpungeUIDs(ctx context.Context, uids imap.UIDSet) error {
	_, err := s.say(ctx, "UID EXPUNGE", s.mailbox, "UID EXPUNGE "+uids.String())
	return err
}

// ExpungeMarked removes all messages of the selected mailbox that are marked \Deleted,
// whoever marked them.
func (s *Session) ExpungeMarked(ctx context.Context) error {
	_, err := s.say(ctx, "EXPUNGE", s.mailbox, "EXPUNGE")
	return err
}

// Create makes a mailbox.
func (s *Session) Create(ctx context.Context, mailbox string) error {
	return s.about(ctx, "CREATE", mailbox)
}

// Delete deletes a mailbox.
func (s *Session) Delete(ctx context.Context, mailbox string) error {
	return s.about(ctx, "DELETE", mailbox)
}

// Subscribe puts a mailbox on the list of those that mail readers show.
func (s *Session) Subscribe(ctx context.Context, mailbox string) error {
	return s.about(ctx, "SUBSCRIBE", mailbox)
}

// Unsubscribe takes a mailbox off that list.
func (s *Session) Unsubscribe(ctx context.Context, mailbox string) error {
	return s.about(ctx, "UNSUBSCRIBE", mailbox)
}

func (s *Session) about(ctx context.Context, verb, mailbox string) error {
	_, err := s.say(ctx, verb, mailbox, verb+" "+s.quote(mailbox))
	return err
}

// Namespace gives the prefix that the user's own mailboxes have, such as "INBOX." (RFC
// 2342 5; of several namespaces the first counts). told is false if the server does not
// say.
func (s *Session) Namespace(ctx context.Context) (prefix string, told bool, err error) {
	ex, err := s.Exchange(ctx, "NAMESPACE")
	if err != nil {
		return "", false, err
	}
	for _, line := range ex.Untagged {
		if m := regexp.MustCompile(`(?i)^NAMESPACE \(\("([^"\\]*)" `).FindStringSubmatch(line); m != nil {
			return m[1], true, nil
		}
	}
	return "", false, nil
}

// headersAtOnce is of how many messages one command asks for headers: less than an exchange keeps,
// since a server may tell of flags between.
const headersAtOnce = maxFetched / 2

// Headers asks for some fields of the headers of messages, which are named one by one. What came is
// there beside an error, too.
func (s *Session) Headers(ctx context.Context, uids imap.UIDSet, fields ...string) (map[imap.UID][]byte, error) {
	out := make(map[imap.UID][]byte)
	all, ok := uids.Nums()
	if !ok {
		return nil, &mail.Fault{Kind: mail.KindBad, Op: "UID FETCH", Mailbox: s.mailbox, Err: errors.New("of messages without number no headers are asked for")}
	}
	for part := range slices.Chunk(all, headersAtOnce) {
		ex, err := s.say(ctx, "UID FETCH", s.mailbox, fmt.Sprintf("UID FETCH %s (UID BODY.PEEK[HEADER.FIELDS (%s)])", mail.UIDSet(part).String(), strings.Join(fields, " ")))
		for _, f := range ex.Fetched {
			for name, v := range f.Items {
				if strings.HasPrefix(name, "BODY[HEADER.FIELDS") && len(v.Text) > 0 {
					out[f.UID] = v.Text
				}
			}
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// MailboxSize gives the bytes of a mailbox (RFC 8438); 0 if the server does not tell.
func (s *Session) MailboxSize(ctx context.Context, mailbox string) (int64, error) {
	ex, err := s.Exchange(ctx, "STATUS "+s.quote(mailbox)+" (SIZE)")
	if err != nil {
		return 0, err
	}
	var size int64
	for _, line := range ex.Untagged {
		_, number, ok := strings.Cut(strings.ToUpper(line), "(SIZE ")
		n, err := strconv.ParseInt(strings.TrimRight(strings.TrimSpace(number), ")"), 10, 64)
		if ok && err == nil && n >= 0 {
			size = n
		}
	}
	return size, nil
}

// mostPairs bounds how many messages a COPYUID code may tell of at once, as a command of ours names.
const mostPairs = 500

// copied reads a COPYUID code (RFC 4315 3), which Exchange and others put into
// untagged lines (ruby/net-imap#250, MailKit#555).
func copied(ex *mail.Exchange) mail.Copied {
	var validity uint64
	pairs := make(map[imap.UID]imap.UID)
	for _, text := range append([]string{ex.Code}, ex.Untagged...) {
		_, text, ok := strings.Cut(strings.ToUpper(text), "COPYUID ")
		if !ok {
			continue
		}
		words := strings.Fields(strings.ReplaceAll(text, "]", " "))
		if len(words) < 3 || strings.Contains(text, "...") { // it was cut
			continue
		}
		v, err := strconv.ParseUint(words[0], 10, 64)
		from, to := orderedUIDs(words[1]), orderedUIDs(words[2])
		if err != nil || len(from) == 0 || len(from) != len(to) || validity != 0 && v != validity {
			continue
		}
		validity = v
		for i := range from {
			pairs[from[i]] = to[i]
		}
	}
	return mail.Copied{UIDValidity: validity, UIDs: pairs}
}

// orderedUIDs reads a set in the order in which it stands, at most as long as a
// command of ours has messages.
func orderedUIDs(set string) (uids []imap.UID) {
	for part := range strings.SplitSeq(set, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 32)
		z, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || a == 0 || z < a || z-a >= mostPairs || len(uids) > mostPairs {
			return nil
		}
		for u := a; u <= z; u++ {
			uids = append(uids, imap.UID(u))
		}
	}
	return uids
}
