package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// untracked tells of files of which the ledger does not say what they are. there are the
// messages that are on both sides.
func (b *box) untracked(ctx context.Context, unknown func(key string) bool, there []ledger.Message) error {
	irregular, err := b.files.Irregular(unknown)
	if err != nil {
		return err
	}
	for _, name := range irregular {
		b.tell(Difference{Mailbox: b.known.Name, File: filepath.Join(b.known.Folder, name), Kind: NotThere, Text: "it is no regular file, and nothing sends it; put the mail itself there"})
	}
	some, err := b.files.Some(unknown)
	if err != nil || len(some) == 0 {
		return err
	}
	uids := make(map[mail.Digest]imap.UID, len(there))
	for _, m := range there {
		uids[m.Digest] = m.UID
	}
	for _, f := range some {
		digest, err := maildir.Digest(b.dir.Path(f.Name))
		if err != nil {
			return err
		}
		h, err := maildir.ReadHeader(b.dir.Path(f.Name), slices.Concat(b.NoteFields, []string{"Subject", "X-TUID", "Message-ID"})...)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		placeholder := mail.EnvelopeOf(h).Fields.IsPlaceholder()
		u := plan.Untracked{Message: ledger.Message{Mailbox: b.known.Name, Key: f.Key, Name: f.Name, ID: h.MessageID(), Size: f.Size, Digest: digest}}
		b.local().Untracked = append(b.local().Untracked, u)
		d := Difference{Mailbox: b.known.Name, File: filepath.Join(b.known.Folder, f.Name), Kind: NotThere}
		switch uid, copied := uids[digest]; {
		case f.Size == 0:
			d.Text = "the file is empty, and no mail: nothing sends it; remove it"
		case copied && !digest.IsZero():
			d.Kind, d.Text = Copy, fmt.Sprintf("one more of the mail of UID %d, which nothing sends; remove it, if one is enough", uid)
		case b.Twins[f.Key] == b.known.Name:
			continue
		case b.Note != nil && b.Note(h):
			d.Text = "a stub of a mail that did not come, of which this account knows nothing, as of an account that has another name now: nothing sends it; remove it, if it is not wanted"
		case b.HereBefore[f.Key] == b.known.Name && b.ReadOnly:
			d.Text = "no message on the server is this file, which was here before the first sync, and stays here (read_only)"
		case b.HereBefore[f.Key] == b.known.Name:
			d.Text = fmt.Sprintf("no message on the server is this file, which was here before the first sync; `notmuch imap upload %s` sends it", mail.Typed(b.Name+"/"+b.known.Name))
			if u.ID == "" {
				if u.ID, err = maildir.MadeUpID(b.dir.Path(f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			why, as, err := plan.NotHeld, ledger.Message{}, error(nil)
			if b.HeldBack != nil {
				why, as, err = b.HeldBack(ctx, b.known.Name, b.dir, &u)
			}
			if err != nil {
				return err
			}
			switch why {
			case plan.HeldElsewhere:
				d.Text = fmt.Sprintf("the server has its mail elsewhere, as UID %d of %s; the file was here before the first sync, and stays", as.UID, as.Mailbox)
			case plan.HeldUnsure:
				d.Text = fmt.Sprintf("it has the Message-ID of UID %d and another text, or its beginning alone, as after a full disk; the file was here before the first sync, and stays; remove it, if it is not wanted", as.UID)
			}
		case b.NeverUpload[f.Key] == b.known.Name:
			d.Text = "no message on the server is this file, which the server had once: nothing sends it again"
		case placeholder:
			d.Text = "a note that mbsync left in place of a large mail, which nothing sends; remove it"
		case b.Kept[f.Key] == b.known.Name:
			d.Text = "no message on the server is this file since the server gave the mailbox's messages other numbers, as after a restored backup: it stays here; one that you move into another folder is uploaded there"
		case b.ReadOnly:
			d.Text = "no message on the server is this file, which stays here (read_only)"
		case b.local().Doubt == plan.DoubtReplaced:
			d.Text = fmt.Sprintf("no message on the server is this file, and %s: a sync keeps it here until you say what is right: `notmuch imap sync --yes-delete=%s`, or with --restore",
				plan.DoubtReplaced, mail.Typed(b.Name+"/"+b.known.Name))
		default:
			d.Text = "no message on the server is this file; a sync uploads it"
		}
		b.tell(d)
	}
	return nil
}

// strays tells of folders that are of no mailbox.
func (s *side) strays(ctx context.Context, known []ledger.Mailbox, list []mail.Mailbox) error {
	there := make(map[string]bool, len(list))
	for _, m := range list {
		there[m.Name] = true
	}
	folders, err := maildir.Folders(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var stray func(ctx context.Context, folder string) (string, error) // once there is one
	for _, folder := range folders {
		i := slices.IndexFunc(known, func(k ledger.Mailbox) bool { return k.Folder == folder })
		if i >= 0 && there[known[i].Name] {
			continue
		}
		next := ""
		if i < 0 {
			if stray == nil {
				stray = s.Strays(list)
			}
			if next, err = stray(ctx, folder); err != nil {
				return err
			}
			if next == "" {
				continue // it takes no part, as its mailbox would not
			}
		}
		files, err := maildir.Dir(filepath.Join(s.Root, folder)).Scan()
		if err != nil {
			return err
		}
		if files.Len() > 0 {
			text := fmt.Sprintf("the folder is of no mailbox of the server; %s in it", mail.Number(files.Len(), "mail is", "mails are"))
			switch {
			case i >= 0:
			case s.ReadOnly:
				text += ", and stays here (read_only)"
			default:
				text += "; " + next
			}
			s.tell(Difference{File: folder, Kind: NotThere, Text: text})
		}
	}
	long, err := maildir.LongFolders(s.Root)
	for _, folder := range long {
		if !slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Folder == folder }) {
			s.tell(Difference{File: folder, Kind: NotThere, Text: maildir.TooLong(folder) + ": no sync takes what is in it; give it a shorter one"})
		}
	}
	return err
}
