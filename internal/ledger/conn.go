package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
)

// connector opens one database through a driver.
type connector struct {
	through driver.Driver
	name    string
}

func (c connector) Driver() driver.Driver { return c.through }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	in, err := c.through.Open(c.name)
	if err != nil {
		return nil, err
	}
	return &conn{in.(sqliteConn), make(map[string]sqliteStmt)}, nil
}

// sqliteConn is what a connection of SQLite's driver can do, less what reads a
// statement, does it once and forgets it: database/sql does without.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.SessionResetter
	driver.Validator
}

// conn keeps the statements that SQLite has read: reading one takes three times
// as long as looking one thing up. It has one user at a time, as each connection.
type conn struct {
	sqliteConn
	ready map[string]sqliteStmt // by their texts
}

// mostReady bounds the statements that are kept. There are fewer fixed ones; a text
// that lists messages is another one for each number of them.
const mostReady = 64

func (c *conn) PrepareContext(ctx context.Context, text string) (driver.Stmt, error) {
	if st, ok := c.ready[text]; ok {
		return lent{st}, nil
	}
	st, err := c.sqliteConn.PrepareContext(ctx, text)
	if err != nil || len(c.ready) == mostReady {
		return st, err
	}
	c.ready[text] = st.(sqliteStmt)
	return lent{c.ready[text]}, nil
}

func (c *conn) Close() error {
	var err error
	for _, st := range c.ready {
		err = errors.Join(err, st.Close())
	}
	return errors.Join(err, c.sqliteConn.Close())
}

// sqliteStmt is what a statement of SQLite's driver can do.
type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// lent is a statement that stays ready when its user closes it.
type lent struct{ sqliteStmt }

func (lent) Close() error { return nil }
