package cmd

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/watch"
)

// manager is the service manager that started us (sd_notify(3)); the zero manager is none.
type manager struct {
	socket string
	every  time.Duration // it must hear from us; 0: it need not
}

// manager finds it in the environment.
func (p *program) manager() manager {
	m := manager{socket: p.getenv("NOTIFY_SOCKET")}
	if usec, err := strconv.ParseInt(p.getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		m.every = time.Duration(usec) * time.Microsecond / 2
	}
	return m
}

// managerPatience is how long a manager may take to take a word.
const managerPatience = 10 * time.Second

// tell tells it lines. That nobody listens costs nothing: whoever wants to know starts us anew.
func (m manager) tell(lines ...string) {
	if m.socket == "" {
		return
	}
	path := m.socket
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:] // a socket without a file
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(managerPatience)) // else one that reads no more keeps us from ending
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))       // as above
	_ = conn.Close()
}

// serve says that the watch is at work, and again as often as the manager wants, until the
// context ends.
func (m manager) serve(ctx context.Context, w *watch.Watcher) {
	m.tell("READY=1", standing(w.States()))
	if m.socket == "" {
		return
	}
	var due <-chan time.Time
	if m.every > 0 {
		t := time.NewTicker(m.every)
		defer t.Stop()
		due = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Changed():
			m.tell(standing(w.States()))
		case <-due:
			// The states are had from the accounts themselves: one that hangs keeps this back.
			m.tell("WATCHDOG=1", standing(w.States()))
		}
	}
}

// standing is how the accounts stand, for systemctl status.
func standing(states []watch.State) string {
	var away []string
	for _, s := range states {
		if s.How == "" {
			away = append(away, s.Account)
		}
	}
	text := "STATUS=" + mail.Number(len(states), "account", "accounts")
	if len(away) > 0 {
		text += ", not connected: " + strings.Join(away, ", ")
	}
	return text
}
