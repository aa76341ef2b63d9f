//go:build linux

package imaptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strconv"
	"strings"
	"time"
)

// ioTimeout is the longest wait for one answer of the server.
const ioTimeout = 5 * time.Minute

// appendBatch is the number of mails in one APPEND of AppendAll.
const appendBatch = 100

// wire is a raw IMAP connection: it knows lines, literals and tags, nothing else.
type wire struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

func (s *DovecotServer) dial(ctx context.Context) (*wire, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(ioTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	conn.SetDeadline(deadline)
	if s.cert != nil {
		conn = tls.Client(conn, &tls.Config{RootCAs: s.cert.Pool(), ServerName: s.Host})
	}
	return &wire{conn, bufio.NewReader(conn), bufio.NewWriterSize(conn, 64<<10)}, nil
}

// login returns a signed-in connection.
func (s *DovecotServer) login() (*wire, error) {
	c, err := s.dial(context.Background())
	if err != nil {
		return nil, err
	}
	if _, err := c.readResponse(); err != nil { // the greeting
		c.Close()
		return nil, err
	}
	if _, err := c.command("login", fmt.Sprintf("LOGIN %s %s", quote(s.User), quote(s.Password))); err != nil {
		c.Close()
		return nil, fmt.Errorf("signing in: %w", err)
	}
	return c, nil
}

// readResponse returns one response without its last CRLF. Literals stand in
// it as they came, {n}CRLF and n octets (RFC 3501, 4.3).
func (c *wire) readResponse() (string, error) {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return b.String(), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		open := strings.LastIndexByte(line, '{')
		if open < 0 || !strings.HasSuffix(line, "}") {
			break
		}
		n, err := strconv.ParseInt(line[open+1:len(line)-1], 10, 32)
		if err != nil || n < 0 {
			break
		}
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			return b.String(), err
		}
	}
	return strings.TrimSuffix(b.String(), "\r\n"), nil //nolint:nilerr // what announces no literal is text
}

// command sends one command and returns its responses, the tagged one last. A
// tagged NO or BAD is an error as well. No error repeats the command, which may
// hold the password.
func (c *wire) command(tag, line string) ([]string, error) {
	c.SetDeadline(time.Now().Add(ioTimeout))
	c.w.WriteString(tag + " " + line + "\r\n")
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	var lines []string
	for {
		r, err := c.readResponse()
		if err != nil {
			return lines, err
		}
		lines = append(lines, r)
		if status, ok := strings.CutPrefix(r, tag+" "); ok {
			if !strings.HasPrefix(status, "OK") {
				return lines, errors.New(status)
			}
			return lines, nil
		}
	}
}

// quote returns a quoted string (RFC 3501, 9); s has neither CR nor LF.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// Command signs in on a connection of its own, gives the command lines one
// after the other and returns all responses to them, tagged ones too (tags are
// c1, c2 ...), sign-in and greeting left out. A line has neither tag nor CRLF;
// it may hold non-synchronizing literals ("{3+}\r\nabc"). Literals of the
// server stand in its response as they came. The first NO or BAD ends it and is
// the error.
func (s *DovecotServer) Command(lines ...string) ([]string, error) {
	c, err := s.login()
	if err != nil {
		return nil, fmt.Errorf("dovecot: %w", err)
	}
	defer c.Close()
	var all []string
	for i, line := range lines {
		got, err := c.command("c"+strconv.Itoa(i+1), line)
		all = append(all, got...)
		if err != nil {
			return all, fmt.Errorf("dovecot: %s: %w", line, err)
		}
	}
	return all, nil
}

// AppendAll appends the mails to mailbox, in order and without flags, and
// makes the mailbox if there is none. mailbox is as on the wire (modified
// UTF-7). Each mail comes with its INTERNALDATE, the zero time for now, and is
// sent as it is: lines should end in CRLF. Commands take many mails each and are
// pipelined, so that thousands take less than a second; after an error it is
// open which of them arrived. An empty mail is an error.
func (s *DovecotServer) AppendAll(mailbox string, mails iter.Seq2[time.Time, []byte]) error {
	c, err := s.login()
	if err != nil {
		return fmt.Errorf("dovecot: %w", err)
	}
	defer c.Close()
	if !strings.EqualFold(mailbox, "INBOX") {
		if _, err := c.command("create", "CREATE "+quote(mailbox)); err != nil && !strings.Contains(err.Error(), "[ALREADYEXISTS]") {
			return fmt.Errorf("dovecot: creating %s: %w", mailbox, err)
		}
	}
	// The answers are read while the mails are still being sent: both sides'
	// buffers would fill up otherwise. The reader closes the connection at the
	// first refusal, which stops the writer.
	read := make(chan error, 1)
	go func() {
		err := c.readAppended()
		if err != nil {
			c.Close()
		}
		read <- err
	}()
	writeErr := c.writeAppends(mailbox, mails)
	if writeErr != nil {
		c.Close()
	}
	if err := errors.Join(<-read, writeErr); err != nil {
		return fmt.Errorf("dovecot: appending to %s: %w", mailbox, err)
	}
	return nil
}

// writeAppends puts appendBatch mails into a command (MULTIAPPEND, RFC 3502):
// Dovecot locks and writes its index once per command.
func (c *wire) writeAppends(mailbox string, mails iter.Seq2[time.Time, []byte]) error {
	n := 0
	for date, mail := range mails {
		c.SetWriteDeadline(time.Now().Add(ioTimeout))
		if n%appendBatch == 0 {
			if n > 0 {
				c.w.WriteString("\r\n")
			}
			c.w.WriteString("append APPEND " + quote(mailbox))
		}
		n++
		if !date.IsZero() {
			c.w.WriteString(date.Format(` "_2-Jan-2006 15:04:05 -0700"`))
		}
		fmt.Fprintf(c.w, " {%d+}\r\n", len(mail))
		if _, err := c.w.Write(mail); err != nil {
			return err // a bufio.Writer keeps its first error
		}
	}
	if n > 0 {
		c.w.WriteString("\r\n")
	}
	c.w.WriteString("end NOOP\r\n")
	return c.w.Flush()
}

// readAppended reads until the NOOP behind the last APPEND is answered.
func (c *wire) readAppended() error {
	for {
		c.SetReadDeadline(time.Now().Add(ioTimeout))
		r, err := c.readResponse()
		if err != nil {
			return err
		}
		if strings.HasPrefix(r, "end OK") {
			return nil
		}
		if !strings.HasPrefix(r, "* ") && !strings.HasPrefix(r, "append OK") {
			return errors.New(r)
		}
		if strings.HasPrefix(r, "* BYE") {
			return errors.New(r)
		}
	}
}
