package verify

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// atOnce is how many messages are asked for with one command; what a cut costs.
const atOnce = 100

// Bytes compares the content of messages with their files, a message at a time, and
// notes in done which are equal, so that it can go on where it was stopped. Others may
// work on the account meanwhile: what went or changed its place since is no difference.
func Bytes(ctx context.Context, a Account, session Session, bodies []Body, done *Done, result *Result) error {
	s := &side{Account: a, result: *result}
	defer func() { *result = s.result }()
	total, at := len(bodies), 0
	folders, err := s.folders(ctx)
	if err != nil {
		return err
	}
	for len(bodies) > 0 {
		first := bodies[0]
		n := 0
		var uids []imap.UID
		for n < len(bodies) && len(uids) < atOnce && bodies[n].Mailbox == first.Mailbox {
			if done.have[bodies[n]] {
				s.result.Compared++
			} else {
				uids = append(uids, bodies[n].UID)
			}
			n++
		}
		bodies, at = bodies[n:], at+n
		if len(uids) > 0 {
			equal, err := s.batch(ctx, session, first, folders[first.Mailbox], uids)
			if err != nil {
				return fmt.Errorf("%s: %w", first.Mailbox, err)
			}
			if err := done.add(first, equal); err != nil {
				return err
			}
		}
		if a.Progress != nil {
			a.Progress(at, total)
		}
	}
	return nil
}

func (s *side) folders(ctx context.Context) (map[string]string, error) {
	known, err := s.Ledger.Mailboxes(ctx)
	out := make(map[string]string, len(known))
	for _, k := range known {
		out[k.Name] = k.Folder
	}
	return out, err
}

// batch compares some messages of one mailbox, and gives those that need not be
// compared again.
func (s *side) batch(ctx context.Context, session Session, of Body, folder string, uids []imap.UID) (settled []imap.UID, err error) {
	sel, err := session.Examine(ctx, of.Mailbox, nil)
	if err != nil {
		return nil, err
	}
	if sel.UIDValidity != of.UIDValidity {
		s.tell(Difference{Mailbox: of.Mailbox, Kind: Mailbox, Text: "the server renumbered it meanwhile"})
		return nil, nil
	}
	got := make(map[imap.UID]*digest, len(uids))
	sink := mail.Sink{
		Open: func(int64) (mail.Spool, error) { return &digest{Digester: mail.NewDigester()}, nil },
		Done: func(m mail.Message, spool mail.Spool) error {
			d := spool.(*digest) //nolint:forcetypeassert // it is what Open gave
			d.sum = d.Sum()
			d.size -= d.Left()
			got[m.UID] = d
			return nil
		},
	}
	if err := session.Fetch(ctx, mail.UIDSet(uids), sink); err != nil && !session.Alive() {
		return nil, err
	}
	words := make(map[imap.UID]string)
	for _, uid := range uids {
		if _, ok := got[uid]; ok {
			continue
		}
		if _, err := session.FetchOne(ctx, uid, sink); err != nil {
			if ctx.Err() != nil || !session.Alive() {
				return nil, err
			}
			words[uid] = err.Error()
		}
	}
	rows, err := s.Ledger.GetMany(ctx, of.Mailbox, of.UIDValidity, uids)
	if err != nil {
		return nil, err
	}
	dir := maildir.Dir(filepath.Join(s.Root, folder))
	for _, row := range slices.Backward(rows) {
		there, came := got[row.UID]
		if row.State != ledger.Present || !came && words[row.UID] == "" {
			continue // it went meanwhile
		}
		kind, text := Content, ""
		here, err := contentOf(dir, row.Key)
		switch {
		case err != nil:
			kind, text = NotHere, "its file cannot be read: "+err.Error()
		case here.Digest.IsZero():
			continue // it was moved or deleted meanwhile
		case !came:
			kind, text = NotFetched, "its bytes are not to be had now: "+words[row.UID]
		case here.Digest == there.sum:
			s.result.Compared++
			settled = append(settled, row.UID)
			continue
		case there.sum == row.Digest:
			text = "its file was changed since it came; " + s.anew()
		case here.Size-here.Added < there.size && !maildir.Ours(row.Key):
			text = fmt.Sprintf("its file, which another program wrote, has %d bytes less than the mail on the server, as one that was cut off; %s", there.size-(here.Size-here.Added), s.anew())
		case here.Digest == row.Digest:
			text = "its text on the server is another than the one that came; " + s.anew()
		default:
			text = "its text is another here than on the server"
		}
		s.tell(Difference{Mailbox: row.Mailbox, UID: row.UID, Kind: kind, Text: text})
	}
	return settled, nil
}

// digest takes a message's bytes.
type digest struct {
	*mail.Digester
	sum  mail.Digest
	size int64 // without what sum leaves out
}

func (d *digest) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	return d.Digester.Write(p)
}

// Done is what of an account was found equal byte by byte: a file of lines, so that one
// that was cut off costs itself alone.
type Done struct {
	path string
	have map[Body]bool
}

// OpenDone reads what an earlier comparison had done when it was stopped.
func OpenDone(path string) (*Done, error) {
	d := &Done{path: path, have: make(map[Body]bool)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var b Body
		if _, err := fmt.Sscanf(lines.Text(), "%d %d %q", &b.UIDValidity, &b.UID, &b.Mailbox); err == nil {
			d.have[b] = true
		}
	}
	return d, lines.Err()
}

// Len is how many messages those are.
func (d *Done) Len() int { return len(d.have) }

func (d *Done) add(of Body, uids []imap.UID) error {
	var text strings.Builder
	for _, uid := range uids {
		fmt.Fprintf(&text, "%d %d %q\n", of.UIDValidity, uid, of.Mailbox)
	}
	f, err := os.OpenFile(d.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text.String())
	return errors.Join(err, f.Close())
}

// Forget begins anew.
func (d *Done) Forget() error {
	d.have = make(map[Body]bool)
	if err := os.Remove(d.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
