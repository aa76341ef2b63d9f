package imaptest

import (
	"slices"
	"strings"
)

// SilentAbout gives no answer to these commands ("STATUS", "EXAMINE", "SELECT") where they are
// about a mailbox, or any if mailbox is "", and, for "LIST", to a LIST that wants its status (RFC 5819), from there on.
func SilentAbout(mailbox string, commands ...string) *Fault {
	return &Fault{Name: "silence", Command: func(c *scriptConn, command, args string) (bool, error) {
		switch {
		case !slices.Contains(commands, command):
			return false, nil
		case command == "LIST" && strings.Contains(args, "STATUS"):
			for _, b := range c.s.boxes {
				c.send("* LIST (\\HasNoChildren) \"/\" %s\r\n", quoteName(b.Name))
				if b.Name == mailbox {
					return true, errHang
				}
				c.status(b)
			}
		case mailbox == "", strings.HasPrefix(args, quoteName(mailbox)):
			return true, errHang
		}
		return false, nil
	}}
}

// Refused answers a command about a mailbox with this line ("NO in use"). "" is the mailbox
// that is open, which stays so.
func Refused(command, mailbox, line string) *Fault {
	return &Fault{Name: "refused", Command: func(c *scriptConn, got, args string) (bool, error) {
		if got != command || mailbox != "" && !strings.HasPrefix(args, quoteName(mailbox)) {
			return false, nil
		}
		if c.final = line; mailbox != "" {
			c.box = nil
		}
		return true, nil
	}}
}

// RefusedWith answers a command that has these words in it with this line ("BAD what is that").
func RefusedWith(command, words, line string) *Fault {
	return &Fault{Name: "refused argument", Command: func(c *scriptConn, got, args string) (bool, error) {
		if got != command || !strings.Contains(args, words) {
			return false, nil
		}
		c.final = line
		return true, nil
	}}
}

// Dies hangs up whenever the body of the mail with this UID in INBOX is asked for, and
// refuses so many connections after the first time; -1: all of them.
func Dies(uid uint32, away int) *Fault {
	died := false
	return &Fault{
		Name: "dies",
		Greeting: func(c *scriptConn) error {
			c.s.mu.Lock()
			defer c.s.mu.Unlock()
			if died && away != 0 {
				away--
				return errHangUp
			}
			c.send("* OK ready\r\n")
			return nil
		},
		Command: func(c *scriptConn, command, args string) (bool, error) {
			set, items, _ := strings.Cut(args, " ")
			if command != "UID FETCH" || c.box == nil || c.box.Name != "INBOX" || !strings.Contains(items, "BODY") || !c.box.in(set, uid) {
				return false, nil
			}
			died = true
			return true, errHangUp
		},
	}
}

// LosesSpares hangs up so many times where a body is asked for on another connection than
// the first that it sees.
func LosesSpares(times int) *Fault {
	first := 0
	return &Fault{
		Name: "loses spares",
		Greeting: func(c *scriptConn) error {
			c.s.mu.Lock()
			defer c.s.mu.Unlock()
			if first == 0 {
				first = c.number
			}
			c.send("* OK ready\r\n")
			return nil
		},
		Command: func(c *scriptConn, command, args string) (bool, error) {
			if command != "UID FETCH" || !strings.Contains(args, "BODY.PEEK[]") || c.number == first || times == 0 {
				return false, nil
			}
			times--
			return true, errHangUp
		},
	}
}

// Says puts a text behind every answer, also as an alert before it, and refuses these commands
// ("UID COPY") with it.
func Says(text string, refused ...string) *Fault {
	return &Fault{
		Name: "says",
		Greeting: func(c *scriptConn) error {
			c.send("* OK [CAPABILITY %s AUTH=PLAIN] %s\r\n", c.s.Caps, text)
			return nil
		},
		Command: func(c *scriptConn, command, _ string) (bool, error) {
			c.send("* OK [ALERT] %s\r\n", text)
			c.final = "OK " + text
			if slices.Contains(refused, command) {
				c.final = "NO " + text
				return true, nil
			}
			return false, nil
		},
	}
}
