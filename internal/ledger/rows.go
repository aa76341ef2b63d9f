package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Mailboxes gives all mailboxes, by name.
func (l *Ledger) Mailboxes(ctx context.Context) (boxes []Mailbox, err error) {
	rows, err := l.db.QueryContext(ctx, `SELECT name, folder, delim, uidvalidity, uidnext, highestmodseq, messages, complete FROM mailbox ORDER BY name`)
	if err != nil {
		return nil, l.fail(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var b Mailbox
		var validity, modseq int64
		if err := rows.Scan(&b.Name, &b.Folder, &b.Delim, &validity, &b.UIDNext, &modseq, &b.Messages, &b.Complete); err != nil {
			return nil, l.fail(err)
		}
		b.UIDValidity, b.HighestModSeq = uint64(validity), uint64(modseq)
		boxes = append(boxes, b)
	}
	if err := rows.Err(); err != nil {
		return nil, l.fail(err)
	}
	return boxes, nil
}

// SaveMailbox records a mailbox.
func (l *Ledger) SaveMailbox(ctx context.Context, b Mailbox) error {
	return l.tx(ctx, func(tx *sql.Tx) error { return saveMailbox(ctx, tx, b) })
}

func saveMailbox(ctx context.Context, tx *sql.Tx, b Mailbox) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO mailbox (name, folder, delim, uidvalidity, uidnext, highestmodseq, messages, complete) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET folder = excluded.folder, delim = excluded.delim, uidvalidity = excluded.uidvalidity,
			uidnext = excluded.uidnext, highestmodseq = excluded.highestmodseq, messages = excluded.messages, complete = excluded.complete`,
		b.Name, b.Folder, b.Delim, int64(b.UIDValidity), b.UIDNext, int64(b.HighestModSeq), b.Messages, b.Complete)
	return err
}

// Forget forgets a mailbox, its messages, and values of the account about it.
func (l *Ledger) Forget(ctx context.Context, mailbox string, metas ...string) error {
	c := Change{Gone: mailbox, Metas: make(map[string]string, len(metas))}
	for _, m := range metas {
		c.Metas[m] = ""
	}
	return l.Record(ctx, c)
}

func forget(ctx context.Context, tx *sql.Tx, mailbox string) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM message WHERE mailbox = (SELECT id FROM mailbox WHERE name = ?)", mailbox); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM mailbox WHERE name = ?", mailbox)
	return err
}

// Rows gives a mailbox's messages under one UIDVALIDITY, by UID.
func (l *Ledger) Rows(ctx context.Context, mailbox string, uidValidity uint64) (out []Row, err error) {
	rows, err := l.db.QueryContext(ctx, `SELECT uid, state, flags, key, name, stubkey FROM message
		WHERE mailbox = (SELECT id FROM mailbox WHERE name = ?) AND uidvalidity = ? ORDER BY uid`, mailbox, int64(uidValidity))
	if err != nil {
		return nil, l.fail(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	// Most rows have one of a few states and sets of flags: these are made once.
	states := make(map[string]State)
	sets := make(map[string][]string)
	var state, flags sql.RawBytes
	for rows.Next() {
		var r Row
		if err := rows.Scan(&r.UID, &state, &flags, &r.Key, &r.Name, &r.StubKey); err != nil {
			return nil, l.fail(err)
		}
		r.Key = within(r.Name, r.Key)
		var ok bool
		if r.State, ok = states[string(state)]; !ok {
			r.State = State(state)
			states[string(state)] = r.State
		}
		if r.Flags, ok = sets[string(flags)]; !ok {
			r.Flags = splitFlags(string(flags))
			sets[string(flags)] = r.Flags
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, l.fail(err)
	}
	return out, nil
}

// within gives a word as the part of a text that it is, if it is one, so that it takes no room
// of its own: a file's key is most of its name.
func within(text, word string) string {
	if i := strings.Index(text, word); i >= 0 {
		return text[i : i+len(word)]
	}
	return word
}

const columns = `(SELECT name FROM mailbox WHERE mailbox.id = message.mailbox), uidvalidity, uid, state, key, name, id, size, wiresize, date, flags,
	stubkey, stubname, attempts, since, nexttry, reason, digest`

// columns gives the columns of a message as they are in this ledger.
func (l *Ledger) columns() string {
	if l.old {
		return strings.TrimSuffix(columns, "digest") + "x''"
	}
	return columns
}

// query gives the messages that match a condition.
func (l *Ledger) query(ctx context.Context, where string, args ...any) (out []Message, err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT "+l.columns()+" FROM message WHERE "+where, args...)
	if err != nil {
		return nil, l.fail(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var m Message
		var validity, date, since, next int64
		var flags string
		var digest sql.RawBytes
		if err := rows.Scan(&m.Mailbox, &validity, &m.UID, &m.State, &m.Key, &m.Name, &m.ID, &m.Size, &m.WireSize, &date, &flags,
			&m.StubKey, &m.StubName, &m.Attempts, &since, &next, &m.Reason, &digest); err != nil {
			return nil, l.fail(err)
		}
		m.UIDValidity, m.Date, m.Since, m.NextTry = uint64(validity), fromUnix(date), fromUnix(since), fromUnix(next)
		m.Flags = splitFlags(flags)
		copy(m.Digest[:], digest)
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, l.fail(err)
	}
	return out, nil
}

// Get gives one message; ok is false if there is none.
func (l *Ledger) Get(ctx context.Context, mailbox string, uidValidity uint64, uid imap.UID) (m Message, ok bool, err error) {
	ms, err := l.GetMany(ctx, mailbox, uidValidity, []imap.UID{uid})
	if err != nil || len(ms) == 0 {
		return Message{}, false, err
	}
	return ms[0], true, nil
}

// GetMany gives those of the messages that there are, by UID.
func (l *Ledger) GetMany(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) ([]Message, error) {
	var out []Message
	for part := range slices.Chunk(slices.Sorted(slices.Values(uids)), 500) {
		args := []any{mailbox, int64(uidValidity)}
		for _, u := range part {
			args = append(args, u)
		}
		ms, err := l.query(ctx, `mailbox = (SELECT id FROM mailbox WHERE name = ?) AND uidvalidity = ? AND uid IN (?`+
			strings.Repeat(", ?", len(part)-1)+`) ORDER BY uid`, args...)
		if err != nil {
			return nil, err
		}
		out = append(out, ms...)
	}
	return out, nil
}

// InState gives the account's messages in any of the states.
func (l *Ledger) InState(ctx context.Context, states ...State) ([]Message, error) {
	where := "state IN (" + quoted(states) + ")"
	if !slices.Contains(states, Present) {
		where += " AND state <> 'present'" // the index's own words, or SQLite does not see that it serves
	}
	return l.query(ctx, where+" ORDER BY mailbox, uidvalidity, uid")
}

// Any tells whether the account has a message in any of the states, all but
// Present.
func (l *Ledger) Any(ctx context.Context, states ...State) (found bool, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM message WHERE state IN (`+quoted(states)+`) AND state <> 'present')`).Scan(&found)
	if err != nil {
		return false, l.fail(err)
	}
	return found, nil
}

func quoted(states []State) string {
	words := make([]string, len(states))
	for i, s := range states {
		words[i] = "'" + strings.ReplaceAll(string(s), "'", "''") + "'"
	}
	return strings.Join(words, ", ")
}

// ByMessageID gives the messages with a notmuch message id.
func (l *Ledger) ByMessageID(ctx context.Context, id string) ([]Message, error) {
	return l.query(ctx, "message.id = ?", id)
}

// Like gives the messages that may be the mail of a row, or of a file: those with its Message-ID, or
// those without one that have its digest. What notmuch calls these is of the bytes of their files,
// which may differ by line ends, so that it tells nothing of two mails.
func (l *Ledger) Like(ctx context.Context, m Message) ([]Message, error) {
	if m.Digest.IsZero() || l.old || !strings.HasPrefix(m.ID, "notmuch-sha1-") {
		return l.ByMessageID(ctx, m.ID)
	}
	return l.query(ctx, "message.id = ? OR message.id >= 'notmuch-sha1-' AND message.id < 'notmuch-sha1.' AND digest = ?", m.ID, m.Digest[:])
}

// WithoutMessageID gives the messages that notmuch has under an id of its own making, of those
// with this size on the server.
func (l *Ledger) WithoutMessageID(ctx context.Context, size int64) ([]Message, error) {
	return l.query(ctx, "message.id >= 'notmuch-sha1-' AND message.id < 'notmuch-sha1.' AND size = ?", size)
}

// OtherValidity gives a mailbox's messages under every other UIDVALIDITY.
func (l *Ledger) OtherValidity(ctx context.Context, mailbox string, uidValidity uint64) (out []Message, err error) {
	for _, side := range []string{"<", ">"} { // of <> SQLite reads all messages
		some, err := l.query(ctx, "mailbox = (SELECT id FROM mailbox WHERE name = ?) AND uidvalidity "+side+" ? ORDER BY uidvalidity, uid", mailbox, int64(uidValidity))
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// Renumbered gives the messages that are present under other UIDVALIDITYs than those that their
// mailboxes have, by mailbox.
func (l *Ledger) Renumbered(ctx context.Context) (map[string][]Message, error) {
	validity, err := l.renumbered(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[string][]Message, len(validity))
	for name, v := range validity {
		if out[name], err = l.OtherValidity(ctx, name, v); err != nil {
			return nil, err
		}
		out[name] = slices.DeleteFunc(out[name], func(m Message) bool { return m.State != Present })
	}
	return out, nil
}

// renumbered gives the UIDVALIDITYs of the mailboxes that have such messages, by name.
func (l *Ledger) renumbered(ctx context.Context) (validity map[string]uint64, err error) {
	const under = "EXISTS (SELECT 1 FROM message WHERE message.mailbox = mailbox.id AND state = 'present' AND message.uidvalidity "
	rows, err := l.db.QueryContext(ctx, "SELECT name, uidvalidity FROM mailbox WHERE "+under+"< mailbox.uidvalidity) OR "+under+"> mailbox.uidvalidity)")
	if err != nil {
		return nil, l.fail(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	validity = make(map[string]uint64)
	for rows.Next() {
		var name string
		var v int64
		if err := rows.Scan(&name, &v); err != nil {
			return nil, l.fail(err)
		}
		validity[name] = uint64(v)
	}
	if err := rows.Err(); err != nil {
		return nil, l.fail(err)
	}
	return validity, nil
}

// EveryValidity gives all of a mailbox's messages.
func (l *Ledger) EveryValidity(ctx context.Context, mailbox string) ([]Message, error) {
	return l.query(ctx, "mailbox = (SELECT id FROM mailbox WHERE name = ?) ORDER BY uidvalidity, uid", mailbox)
}

// Count counts a mailbox's messages in any of the states.
func (l *Ledger) Count(ctx context.Context, mailbox string, uidValidity uint64, states ...State) (n int, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT count(*) FROM message WHERE mailbox = (SELECT id FROM mailbox WHERE name = ?) AND uidvalidity = ?
		AND state IN (`+quoted(states)+`)`, mailbox, int64(uidValidity)).Scan(&n)
	if err != nil {
		return 0, l.fail(err)
	}
	return n, nil
}

// Save records messages, all or none. Their mailboxes must be recorded.
func (l *Ledger) Save(ctx context.Context, messages ...Message) error {
	return l.tx(ctx, func(tx *sql.Tx) error { return save(ctx, tx, messages) })
}

func save(ctx context.Context, tx *sql.Tx, messages []Message) (err error) {
	st, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO message
		(mailbox, uidvalidity, uid, state, key, name, id, size, wiresize, date, flags, stubkey, stubname, attempts, since, nexttry, reason, digest)
		VALUES ((SELECT id FROM mailbox WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for _, m := range messages {
		digest := m.Digest[:]
		if m.Digest.IsZero() {
			digest = []byte{}
		}
		if _, err := st.ExecContext(ctx, m.Mailbox, int64(m.UIDValidity), m.UID, m.State, m.Key, m.Name, m.ID, m.Size, m.WireSize, seconds(m.Date),
			joinFlags(m.Flags), m.StubKey, m.StubName, m.Attempts, seconds(m.Since), seconds(m.NextTry), m.Reason, digest); err != nil {
			return fmt.Errorf("%s UID %d: %w", m.Mailbox, m.UID, err)
		}
	}
	return nil
}

// Delete forgets messages, all or none. Unknown ones are no error.
func (l *Ledger) Delete(ctx context.Context, mailbox string, uidValidity uint64, uids ...imap.UID) error {
	return l.tx(ctx, func(tx *sql.Tx) error { return remove(ctx, tx, mailbox, uidValidity, uids...) })
}

func remove(ctx context.Context, tx *sql.Tx, mailbox string, uidValidity uint64, uids ...imap.UID) (err error) {
	st, err := tx.PrepareContext(ctx, `DELETE FROM message WHERE mailbox = (SELECT id FROM mailbox WHERE name = ?) AND uidvalidity = ? AND uid = ?`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	for _, u := range uids {
		if _, err := st.ExecContext(ctx, mailbox, int64(uidValidity), u); err != nil {
			return err
		}
	}
	return nil
}

// Change is what one transaction records.
type Change struct {
	Mailbox *Mailbox           // the row of a mailbox, before its messages; nil: none
	Renamed map[string]Mailbox // mailboxes that have another name, by that of before, with their messages; they may exchange names
	Save    []Message          // their mailboxes must be recorded
	Forget  []Message          // by Mailbox, UIDValidity and UID alone; unknown ones are no error
	Gone    string             // a mailbox that is forgotten with its messages; "": none
	Metas   map[string]string  // values of the account; "" forgets one
	Log     []mail.Logged      // what was done by that, or is about to be; At and Run are filled in
}

// Record records a change, all or nothing: what is forgotten goes first.
func (l *Ledger) Record(ctx context.Context, c Change) error {
	err := l.tx(ctx, func(tx *sql.Tx) error {
		if err := l.writeLog(ctx, tx, c.Log); err != nil {
			return err
		}
		for _, m := range c.Forget {
			if err := remove(ctx, tx, m.Mailbox, m.UIDValidity, m.UID); err != nil {
				return err
			}
		}
		for k, v := range c.Metas {
			text, args := "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", []any{k, v}
			if v == "" {
				text, args = "DELETE FROM meta WHERE key = ?", args[:1]
			}
			if _, err := tx.ExecContext(ctx, text, args...); err != nil {
				return err
			}
		}
		if err := rename(ctx, tx, c.Renamed); err != nil {
			return err
		}
		if err := followLog(ctx, tx, c.Renamed, c.Gone); err != nil {
			return err
		}
		if c.Gone != "" {
			if err := forget(ctx, tx, c.Gone); err != nil {
				return err
			}
		}
		if c.Mailbox != nil {
			if err := saveMailbox(ctx, tx, *c.Mailbox); err != nil {
				return err
			}
		}
		return save(ctx, tx, c.Save)
	})
	l.logWritten(err, len(c.Log))
	return err
}

// rename gives mailboxes other names. Names are unique at each moment, so that all go by way of one
// that no mailbox has: with a NUL before it.
func rename(ctx context.Context, tx *sql.Tx, renamed map[string]Mailbox) error {
	for was := range renamed {
		if _, err := tx.ExecContext(ctx, "UPDATE mailbox SET name = char(0) || name WHERE name = ?", was); err != nil {
			return err
		}
	}
	for was, b := range renamed {
		if _, err := tx.ExecContext(ctx, "UPDATE mailbox SET name = ? WHERE name = char(0) || ?", b.Name, was); err != nil {
			return err
		}
		if err := saveMailbox(ctx, tx, b); err != nil {
			return err
		}
	}
	return nil
}
