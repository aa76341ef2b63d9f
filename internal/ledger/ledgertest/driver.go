// Package ledgertest makes SQLite fail: it stands between database/sql and the
// driver, so that nothing in the product knows of it.
package ledgertest

import (
	"context"
	"database/sql/driver"
	"fmt"

	"modernc.org/sqlite"
)

// Error is an error of SQLite with its result code (sqlite.org/rescode.html).
type Error int

func (e Error) Error() string { return fmt.Sprintf("SQLite fails with %d", int(e)) }

// Code is the result code.
func (e Error) Code() int { return int(e) }

// Driver is SQLite's, with faults. Fault is asked before each thing that SQLite is
// to do, and for COMMIT once more when it is done; an error stands for what SQLite
// says. What names the thing: the statement's text, or "PREPARE" and the text, "ROW"
// for the second row of an answer and those that follow, "BEGIN", "COMMIT", "COMMITTED".
type Driver struct {
	Fault func(what string) error
}

// Open opens a connection.
func (d *Driver) Open(name string) (driver.Conn, error) {
	if err := d.Fault("OPEN"); err != nil {
		return nil, err
	}
	c, err := (&sqlite.Driver{}).Open(name)
	if err != nil {
		return nil, err
	}
	return &conn{c.(sqliteConn), d}, nil
}

// sqliteConn is what the ledger uses of a connection.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.SessionResetter
	driver.Validator
}

type conn struct {
	sqliteConn
	d *Driver
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.d.Fault("BEGIN"); err != nil {
		return nil, err
	}
	t, err := c.sqliteConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &tx{t, c.d}, nil
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.d.Fault("PREPARE " + query); err != nil {
		return nil, err
	}
	s, err := c.sqliteConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{s.(sqliteStmt), c.d, query}, nil
}

// sqliteStmt is what the driver's statement can do.
type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type stmt struct {
	sqliteStmt
	d     *Driver
	query string
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.d.Fault(s.query); err != nil {
		return nil, err
	}
	return s.sqliteStmt.ExecContext(ctx, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.d.Fault(s.query); err != nil {
		return nil, err
	}
	r, err := s.sqliteStmt.QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	return &rows{r, s.d, 0}, nil
}

type rows struct {
	driver.Rows
	d *Driver
	n int
}

func (r *rows) Next(dest []driver.Value) error {
	if r.n++; r.n > 1 {
		if err := r.d.Fault("ROW"); err != nil {
			return err
		}
	}
	return r.Rows.Next(dest)
}

type tx struct {
	driver.Tx
	d *Driver
}

// Commit rolls back where it is to fail before it is done, as SQLite does when a
// commit finds the disk full.
func (t *tx) Commit() error {
	if err := t.d.Fault("COMMIT"); err != nil {
		_ = t.Rollback()
		return err
	}
	if err := t.Tx.Commit(); err != nil {
		return err
	}
	return t.d.Fault("COMMITTED")
}
