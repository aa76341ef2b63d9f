package pipeline

import (
	"context"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// verbs are the verbs of a session, each spoken as a line of IMAP, so that faults and
// counts of a server are in one place.
type verbs struct {
	exchange func(ctx context.Context, command string) (*mail.Exchange, error)
	selected func() string
}

func (v verbs) say(ctx context.Context, op, mailbox, format string, args ...any) (*mail.Exchange, error) {
	ex, err := v.exchange(ctx, fmt.Sprintf(format, args...))
	if err != nil {
		return ex, err
	}
	return ex, ex.Refused(op, mailbox, 0)
}

func (v verbs) Store(ctx context.Context, uids imap.UIDSet, set bool, flag string) error {
	_, err := v.say(ctx, "UID STORE", v.selected(), "UID STORE %s %sFLAGS.SILENT (%s)", uids.String(), map[bool]string{true: "+", false: "-"}[set], flag)
	return err
}

func (v verbs) Move(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error) {
	return v.transfer(ctx, "UID MOVE", uids, to)
}

func (v verbs) Copy(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error) {
	return v.transfer(ctx, "UID COPY", uids, to)
}

func (v verbs) transfer(ctx context.Context, verb string, uids imap.UIDSet, to string) (mail.Copied, error) {
	ex, err := v.say(ctx, verb, v.selected(), "%s %s \"%s\"", verb, uids.String(), to)
	if err != nil {
		return mail.Copied{}, err
	}
	out := mail.Copied{UIDs: make(map[imap.UID]imap.UID)}
	for _, line := range ex.Untagged {
		var from, there string
		if n, _ := fmt.Sscanf(line, "OK [COPYUID %d %s %s", &out.UIDValidity, &from, &there); n == 3 {
			was, is := parseUIDs(from), parseUIDs(strings.TrimSuffix(there, "]"))
			for i := range was {
				out.UIDs[was[i]] = is[i]
			}
		}
	}
	return out, nil
}

func (v verbs) ExpungeUIDs(ctx context.Context, uids imap.UIDSet) error {
	_, err := v.say(ctx, "UID EXPUNGE", v.selected(), "UID EXPUNGE %s", uids.String())
	return err
}

func (v verbs) ExpungeMarked(ctx context.Context) error {
	_, err := v.say(ctx, "EXPUNGE", v.selected(), "EXPUNGE")
	return err
}

func (v verbs) Create(ctx context.Context, mailbox string) error {
	return v.about(ctx, "CREATE", mailbox)
}

func (v verbs) Delete(ctx context.Context, mailbox string) error {
	return v.about(ctx, "DELETE", mailbox)
}

func (v verbs) Subscribe(ctx context.Context, mailbox string) error {
	return v.about(ctx, "SUBSCRIBE", mailbox)
}

func (v verbs) Unsubscribe(ctx context.Context, mailbox string) error {
	return v.about(ctx, "UNSUBSCRIBE", mailbox)
}

func (v verbs) about(ctx context.Context, verb, mailbox string) error {
	_, err := v.say(ctx, verb, mailbox, "%s \"%s\"", verb, mailbox)
	return err
}

func (v verbs) Namespace(ctx context.Context) (prefix string, told bool, err error) {
	ex, err := v.exchange(ctx, "NAMESPACE")
	if err != nil {
		return "", false, err
	}
	for _, line := range ex.Untagged {
		if _, rest, ok := strings.Cut(line, `NAMESPACE (("`); ok {
			prefix, _, _ = strings.Cut(rest, `"`)
			return prefix, true, nil
		}
	}
	return "", false, nil
}

func (v verbs) Headers(ctx context.Context, uids imap.UIDSet, fields ...string) (map[imap.UID][]byte, error) {
	out := make(map[imap.UID][]byte)
	ex, err := v.say(ctx, "UID FETCH", v.selected(), "UID FETCH %s (UID BODY.PEEK[HEADER.FIELDS (%s)])", uids.String(), strings.Join(fields, " "))
	for _, f := range ex.Fetched {
		for name, value := range f.Items {
			if strings.HasPrefix(name, "BODY[HEADER.FIELDS") && len(value.Text) > 0 {
				out[f.UID] = value.Text
			}
		}
	}
	return out, err
}
