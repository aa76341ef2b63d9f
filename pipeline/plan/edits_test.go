package plan

import (
	"slices"

	"github.com/emersion/go-imap/v2"
)

// edit changes one thing on one side.
func (a *account) edit(there bool) {
	side := 0
	if there {
		side = 1
	}
	box, other := boxNames()[a.IntN(3)], boxNames()[a.IntN(3)]
	kind, renamed, which := a.IntN(5), a.IntN(2) == 0, a.IntN(1000)
	if kind == 2 && (a.gentle || a.old["Trash"] != nil) || a.old[box] != nil || a.old[other] != nil {
		return
	}
	if kind == 4 {
		for a.deleted[a.mails/2] {
			a.mails++
		}
		c := &copied{a.mails, a.someFlags()}
		a.fresh[c.mail/2] = true
		a.mails++
		a.want[c.mail]++
		a.moved[c.mail] = true
		if there {
			a.append(box, c)
		} else {
			a.here[box][a.newKey()] = c
		}
		a.say("new %d in %s, there %v", c.mail, box, there)
		return
	}
	var c *copied
	var u imap.UID
	var key string
	if there {
		uids := byMail(a.server[box])
		if len(uids) == 0 {
			return
		}
		u = uids[which%len(uids)]
		c = a.server[box][u]
	} else {
		keys := byMail(a.here[box])
		if len(keys) == 0 {
			return
		}
		key = keys[which%len(keys)]
		c = a.here[box][key]
	}
	// A mail that goes from its mailbox, and another that comes elsewhere with all its
	// headers in the same moment, are a move as far as anybody can tell without its text.
	goes := kind == 2 || kind == 0 && (there || a.gentle)
	if kind == 3 && a.edited[side][c.mail] || kind != 3 && a.moved[c.mail] || kind < 2 && box == other || goes && a.fresh[c.mail/2] {
		return
	}
	a.deleted[c.mail/2] = a.deleted[c.mail/2] || goes
	if kind == 3 {
		a.edited[side][c.mail] = true
	} else {
		a.moved[c.mail] = true
	}
	a.say("%s of %d in %s to %s, there %v", []string{"move", "copy", "delete", "flag"}[kind], c.mail, box, other, there)
	switch kind {
	case 0:
		if there {
			delete(a.server[box], u)
			a.append(other, c)
		} else {
			delete(a.here[box], key)
			if renamed {
				key = a.newKey()
			}
			a.here[other][key] = c
		}
	case 1:
		a.want[c.mail]++
		if there {
			a.append(other, c)
		} else {
			a.here[other][a.newKey()] = &copied{c.mail, slices.Clone(c.flags)}
		}
	case 2:
		if there {
			delete(a.server[box], u)
			a.want[c.mail]--
		} else {
			delete(a.here[box], key)
			if box == "Trash" {
				a.want[c.mail]--
			}
		}
	case 3:
		c.flags = a.someFlags()
	}
}
