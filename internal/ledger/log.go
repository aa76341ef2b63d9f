package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Keeping says how a ledger keeps its log of what was done.
type Keeping struct {
	Now  func() time.Time
	For  time.Duration // each line; 0: none is written, and those that there are go
	Most int           // so many lines, or some more; 0 means 50,000
}

const (
	mostLogged = 50_000
	// pruneAfter is after how many lines of a run the log is pruned again.
	pruneAfter = 1000
)

// keeper writes a log.
type keeper struct {
	Keeping
	mu    sync.Mutex
	run   int64 // what it is known by, milliseconds since 1970; 0: it has no line yet
	lines int   // that were written since the log was pruned
	made  bool  // the tables are there, or gone if no line is written
}

// logSchema is made by the first line of a log. A version that knows none lets the tables be, so
// that this is no other version of the schema. A row has one line, or many that were written at once
// and of which nothing changes any more: a first sync writes one for each batch of mail.
const logSchema = `
CREATE TABLE IF NOT EXISTS log (
	seq     INTEGER PRIMARY KEY, -- the number of its last line
	run     INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	open    TEXT,
	outcome TEXT NOT NULL,
	said    TEXT NOT NULL,
	actions TEXT NOT NULL        -- a JSON object each
);
CREATE UNIQUE INDEX IF NOT EXISTS log_open ON log (open) WHERE open IS NOT NULL;
CREATE TABLE IF NOT EXISTS log_run (id INTEGER PRIMARY KEY, ended INTEGER NOT NULL);
`

// KeepLog lets the ledger keep a log of what its changes say was done. Without that it keeps none.
func (l *Ledger) KeepLog(k Keeping) {
	if k.Most == 0 {
		k.Most = mostLogged
	}
	l.log = &keeper{Keeping: k}
}

// writeLog writes lines in the transaction of what they tell of.
func (l *Ledger) writeLog(ctx context.Context, tx *sql.Tx, lines []mail.Logged) (err error) {
	k := l.log
	if k == nil || len(lines) == 0 {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.Now().UnixMilli()
	if !k.made {
		text := logSchema
		if k.For <= 0 {
			text = "DROP TABLE IF EXISTS log; DROP TABLE IF EXISTS log_run"
		}
		if _, err := tx.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	if k.For <= 0 {
		return nil
	}
	first := k.run == 0
	if first {
		k.run = now
	}
	w := logWriter{ctx: ctx, tx: tx, run: k.run, now: now}
	added, err := w.write(lines)
	if err != nil {
		return err
	}
	if added == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO log_run VALUES (?, 0)", k.run); err != nil {
		return err
	}
	if k.lines += added; first || k.lines >= pruneAfter {
		k.lines = 0
		return k.prune(ctx, tx, now)
	}
	return nil
}

// logWritten tells whether a transaction with lines was committed.
func (l *Ledger) logWritten(err error, lines int) {
	if k := l.log; k != nil && err == nil && lines > 0 {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.made = true
	}
}

// logWriter writes lines in a transaction.
type logWriter struct {
	ctx      context.Context
	tx       *sql.Tx
	run, now int64
}

// write writes lines, and tells how many that added.
func (w *logWriter) write(lines []mail.Logged) (added int, err error) {
	for len(lines) > 0 {
		line, n := &lines[0], 1
		var open any
		if line.Kind.Begun() {
			if line.Outcome == mail.IsBegun {
				open = line.About()
			} else if is, err := w.became(line); err != nil || is || line.Only {
				if err != nil {
					return added, err
				}
				lines = lines[1:]
				continue
			}
		} else {
			for n < len(lines) && !lines[n].Kind.Begun() && lines[n].Outcome == line.Outcome && lines[n].Said == line.Said {
				n++
			}
		}
		actions, err := encodeActions(lines[:n])
		if err != nil {
			return added, err
		}
		if _, err := w.tx.ExecContext(w.ctx, "INSERT INTO log VALUES (coalesce((SELECT max(seq) FROM log), 0) + ?, ?, ?, ?, ?, ?, ?) "+
			"ON CONFLICT (open) WHERE open IS NOT NULL DO UPDATE SET actions = excluded.actions", n, w.run, w.now, open, line.Outcome, line.Said, actions); err != nil {
			return added, err
		}
		lines, added = lines[n:], added+n
	}
	return added, nil
}

// became gives a line that was begun its outcome, and tells whether there is one.
func (w *logWriter) became(line *mail.Logged) (bool, error) {
	var actions any
	if line.From+line.Subject != "" { // it says more than what was begun
		text, err := encodeActions([]mail.Logged{*line})
		if err != nil {
			return false, err
		}
		actions = text
	}
	res, err := w.tx.ExecContext(w.ctx, "UPDATE log SET open = NULL, outcome = ?, said = ?, actions = coalesce(?, actions) WHERE open = ?", line.Outcome, line.Said, actions, line.About())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func encodeActions(lines []mail.Logged) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i := range lines {
		if err := e.Encode(&lines[i].Action); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// followLog has lines follow their mailboxes, which have other names; only those that tell of a new
// name stay as they are. Of lines that are begun in one that is forgotten, or whose name another one has
// now, nobody finds out any more what became of them.
func followLog(ctx context.Context, tx *sql.Tx, renamed map[string]Mailbox, gone string) (err error) {
	if len(renamed) == 0 && gone == "" {
		return nil
	}
	text := "SELECT seq, open IS NOT NULL, actions FROM log"
	if len(renamed) == 0 {
		text += " WHERE open IS NOT NULL"
	}
	rows, err := tx.QueryContext(ctx, text)
	if isNoTable(err) {
		return nil
	}
	if err != nil {
		return err
	}
	over := map[string]bool{gone: true}
	for _, b := range renamed {
		over[b.Name] = true
	}
	var all []followed
	for rows.Next() {
		var f followed
		var actions []byte
		if err = rows.Scan(&f.seq, &f.open, &actions); err != nil {
			break
		}
		var changed bool
		if changed, err = f.follow(actions, renamed, over); err != nil {
			break
		}
		if changed {
			all = append(all, f)
		}
	}
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, f := range all { // they may exchange names
		if _, err := tx.ExecContext(ctx, "UPDATE log SET open = NULL WHERE seq = ?", f.seq); err != nil {
			return err
		}
	}
	for _, f := range all {
		actions, err := encodeActions(f.lines)
		if err != nil {
			return err
		}
		var open any
		if f.open && !f.over {
			open = f.lines[0].About()
		}
		if _, err := tx.ExecContext(ctx, "UPDATE log SET open = ?, actions = ? WHERE seq = ?", open, actions, f.seq); err != nil {
			return err
		}
		if f.over {
			if _, err := tx.ExecContext(ctx, "UPDATE log SET outcome = ?, said = 'the mailbox is gone: it is not known' WHERE seq = ?", mail.IsUndone, f.seq); err != nil {
				return err
			}
		}
	}
	return nil
}

// followed is a row of the log as it is when mailboxes have other names.
type followed struct {
	seq   int64
	open  bool
	over  bool // nobody finds out any more what became of it
	lines []mail.Logged
}

// follow reads a row's actions, and tells whether something of it changes.
func (f *followed) follow(actions []byte, renamed map[string]Mailbox, over map[string]bool) (changed bool, err error) {
	for text := range bytes.Lines(actions) {
		var line mail.Logged
		if err := json.Unmarshal(text, &line.Action); err != nil {
			return false, err
		}
		if line.Kind != mail.ActRename {
			to, is := renamed[line.Mailbox]
			if is {
				line.Mailbox = to.Name
			}
			f.over = f.open && !is && over[line.Mailbox]
			other, also := renamed[line.Other]
			if also {
				line.Other = other.Name
			}
			changed = changed || is || also || f.over
		}
		f.lines = append(f.lines, line)
	}
	return changed, nil
}

// prune forgets what is too old, and the oldest of too much. Lines come in the order of their
// time, so that only what goes is looked at.
func (k *keeper) prune(ctx context.Context, tx *sql.Tx, now int64) error {
	for _, over := range []struct {
		text string
		arg  any
	}{
		{"DELETE FROM log WHERE seq < (SELECT seq FROM log WHERE at >= ? ORDER BY seq LIMIT 1)", now - k.For.Milliseconds()},
		{"DELETE FROM log WHERE seq <= (SELECT max(seq) FROM log) - ?", k.Most},
		{"DELETE FROM log_run WHERE id < (SELECT run FROM log ORDER BY seq LIMIT 1) AND id <> ?", k.run}, // what has no line any more
	} {
		if _, err := tx.ExecContext(ctx, over.text, over.arg); err != nil {
			return err
		}
	}
	return nil
}

// EndRun notes that the run has come to its end whose lines were written last, if it has some. The
// next line is of another run.
func (l *Ledger) EndRun(ctx context.Context) error {
	if l.log == nil {
		return nil
	}
	l.log.mu.Lock()
	run := l.log.run
	l.log.run = 0
	l.log.mu.Unlock()
	if run == 0 {
		return nil
	}
	if _, err := l.db.ExecContext(ctx, "UPDATE log_run SET ended = ? WHERE id = ?", l.log.Now().UnixMilli(), run); err != nil {
		return l.fail(err)
	}
	return nil
}

// LogRun is a run of which the log has lines.
type LogRun struct {
	ID    int64     // when it began, in milliseconds since 1970
	Ended time.Time // zero: it has not, or was killed
}

// Log gives the lines of the log from a time on, the oldest first.
func (l *Ledger) Log(ctx context.Context, since time.Time, each func(mail.Logged) error) error {
	rows, err := l.db.QueryContext(ctx, "SELECT seq, run, at, outcome, said, actions FROM log WHERE at >= ? ORDER BY seq", since.UnixMilli())
	if isNoTable(err) {
		return nil
	}
	if err != nil {
		return l.fail(err)
	}
	err = func() error {
		for rows.Next() {
			var line mail.Logged
			var at int64
			var actions []byte
			if err := rows.Scan(&line.Number, &line.Run, &at, &line.Outcome, &line.Said, &actions); err != nil {
				return l.fail(err)
			}
			line.At = time.UnixMilli(at).UTC()
			line.Number -= int64(bytes.Count(actions, []byte("\n"))) // seq is that of the last one
			for text := range bytes.Lines(actions) {
				line.Number++
				line.Action = mail.Action{}
				if err := json.Unmarshal(text, &line.Action); err != nil {
					return l.fail(err)
				}
				if err := each(line); err != nil {
					return err
				}
			}
		}
		if err := rows.Err(); err != nil {
			return l.fail(err)
		}
		return nil
	}()
	return errors.Join(err, rows.Close())
}

// LogRuns gives the runs of which the log has lines, the oldest first.
func (l *Ledger) LogRuns(ctx context.Context) (runs []LogRun, err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT id, ended FROM log_run ORDER BY id")
	if isNoTable(err) {
		return nil, nil
	}
	if err != nil {
		return nil, l.fail(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r LogRun
		var ended int64
		if err := rows.Scan(&r.ID, &ended); err != nil {
			return nil, l.fail(err)
		}
		if ended != 0 {
			r.Ended = time.UnixMilli(ended).UTC()
		}
		runs = append(runs, r)
	}
	if err := rows.Err(); err != nil {
		return nil, l.fail(err)
	}
	return runs, nil
}

// isNoTable tells whether there is no log yet.
func isNoTable(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no such table: log")
}
