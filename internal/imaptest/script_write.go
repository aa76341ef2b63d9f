package imaptest

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// writable tells whether the selected mailbox takes changes.
func (c *scriptConn) writable() bool { return c.box != nil && !c.examine && !c.box.ReadOnly }

// refused says so if the mailbox takes no changes.
func (c *scriptConn) refused() bool {
	if c.writable() {
		return false
	}
	c.final = "NO the mailbox is read-only"
	return true
}

func sameFlag(a string) func(string) bool {
	return func(b string) bool { return strings.EqualFold(a, b) }
}

// flagged tells whether a mail has a flag.
func (m *ScriptMail) flagged(flag string) bool {
	return slices.ContainsFunc(strings.Fields(m.Flags), sameFlag(flag))
}

// mark changes flags as STORE's item says, and tells whether that changed any.
func (b *ScriptBox) mark(m *ScriptMail, item string, flags []string) (changed bool) {
	now := strings.Fields(m.Flags)
	if item == "FLAGS" {
		now = nil
	}
	for _, f := range flags {
		now = slices.DeleteFunc(now, func(g string) bool { return item == "-FLAGS" && strings.EqualFold(f, g) })
		if item != "-FLAGS" && !slices.ContainsFunc(now, sameFlag(f)) {
			now = append(now, f)
		}
	}
	if joined := strings.Join(now, " "); joined != m.Flags {
		b.ModSeq++
		m.Flags, m.ModSeq = joined, b.ModSeq
		return true
	}
	return false
}

// store answers UID STORE.
func (c *scriptConn) store(args string) {
	set, rest, _ := strings.Cut(args, " ")
	item, flags, _ := strings.Cut(rest, " ")
	item, silent := strings.CutSuffix(strings.ToUpper(item), ".SILENT")
	mails, ok := c.box.chosen(set, true)
	if !ok || !strings.HasPrefix(flags, "(") || !slices.Contains([]string{"FLAGS", "+FLAGS", "-FLAGS"}, item) {
		c.final = "BAD no such flags"
		return
	}
	if c.refused() {
		return
	}
	told := []string{"UID", "FLAGS"}
	if c.qresync { // who enabled something has CONDSTORE, too
		told = append(told, "MODSEQ")
	}
	for _, m := range mails {
		c.box.mark(m.ScriptMail, item, strings.Fields(strings.Trim(flags, "()")))
		if !silent {
			c.message(m.seq, m.ScriptMail, told)
		}
	}
}

// expunge answers EXPUNGE, and UID EXPUNGE with its set.
func (c *scriptConn) expunge(set string) {
	if c.refused() {
		return
	}
	c.remove(func(m *ScriptMail) bool { return m.flagged(`\Deleted`) && (set == "" || c.box.in(set, m.UID)) })
}

// remove takes mails out of the mailbox, and tells the client.
func (c *scriptConn) remove(which func(*ScriptMail) bool) {
	seq := 1
	for _, m := range slices.Clone(c.box.Mails) {
		if !which(m) {
			seq++
			continue
		}
		c.box.Expunge(m.UID)
		if c.qresync {
			c.send("* VANISHED %d\r\n", m.UID)
		} else {
			c.send("* %d EXPUNGE\r\n", seq)
		}
	}
}

// copy answers UID COPY and UID MOVE.
func (c *scriptConn) copy(args string, move bool) {
	set, name, _ := strings.Cut(args, " ")
	target := c.s.named(name)
	mails, ok := c.box.chosen(set, true)
	switch {
	case !ok || name == "":
		c.final = "BAD no such messages, or no mailbox"
		return
	case move && c.refused():
		return
	case target == nil:
		c.final = "NO [TRYCREATE] no such mailbox"
		return
	case target.ReadOnly:
		c.final = "NO the mailbox is read-only"
		return
	}
	var from, to []string
	moved := make(map[*ScriptMail]bool)
	for _, m := range mails {
		added := target.Add("", "")
		uid, modseq := added.UID, added.ModSeq
		*added = *m.ScriptMail
		added.UID, added.ModSeq = uid, modseq
		from, to = append(from, m.value("UID")), append(to, strconv.FormatUint(uint64(uid), 10))
		moved[m.ScriptMail] = true
	}
	if c.s.has("UIDPLUS") && len(mails) > 0 {
		code := "OK [COPYUID " + target.UIDValidity + " " + strings.Join(from, ",") + " " + strings.Join(to, ",") + "] done"
		if move { // RFC 6851 4.3: before the mails are gone
			c.send("* %s\r\n", code)
		} else {
			c.final = code
		}
	}
	if move {
		c.remove(func(m *ScriptMail) bool { return moved[m] })
	}
}

// create answers CREATE.
func (c *scriptConn) create(args string) {
	if c.s.named(args) != nil {
		c.final = "NO [ALREADYEXISTS] the mailbox exists"
		return
	}
	c.s.boxes = append(c.s.boxes, Box(strings.Trim(strings.TrimSpace(args), `"`)))
}

// close answers CLOSE, which expunges without a word, and UNSELECT.
func (c *scriptConn) close(expunge bool) {
	if expunge && c.writable() {
		for _, m := range slices.Clone(c.box.Mails) {
			if m.flagged(`\Deleted`) {
				c.box.Expunge(m.UID)
			}
		}
	}
	c.box = nil
}

// appended is one mail of an APPEND.
type appended struct{ flags, date, literal string }

// splitAppend takes the arguments of APPEND apart: with MULTIAPPEND it may have
// several mails (RFC 3502).
func splitAppend(args string) (name string, mails []appended) {
	if rest, ok := strings.CutPrefix(args, `"`); ok {
		name, args, _ = strings.Cut(rest, `"`)
	} else {
		name, args, _ = strings.Cut(args, " ")
	}
	for args = strings.TrimSpace(args); args != ""; args = strings.TrimSpace(args) {
		var m appended
		if rest, ok := strings.CutPrefix(args, "("); ok {
			m.flags, args, _ = strings.Cut(rest, ")")
		}
		if rest, ok := strings.CutPrefix(strings.TrimSpace(args), `"`); ok {
			m.date, args, _ = strings.Cut(rest, `"`)
		}
		m.literal, args, _ = strings.Cut(strings.TrimSpace(args), "}")
		mails = append(mails, m)
	}
	return name, mails
}

// refusal gives the answer to an APPEND of a mail of so many bytes that is
// refused, else "".
func (c *scriptConn) refusal(args string, size int) string {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	name, mails := splitAppend(args)
	b := c.s.named(name)
	switch {
	case len(mails) > 1 && !c.s.has("MULTIAPPEND"):
		return "BAD one mail, as a literal"
	case b == nil:
		return "NO [TRYCREATE] no such mailbox"
	case b.ReadOnly:
		return "NO the mailbox is read-only"
	case b.Refuse != nil:
		return b.Refuse(size)
	}
	return ""
}

// append answers APPEND.
func (c *scriptConn) append(args string) error {
	name, mails := splitAppend(args)
	if len(mails) == 0 || len(mails) != len(c.literals) && c.no == "" {
		c.final = "BAD one mail, as a literal"
		return nil
	}
	when := make([]time.Time, len(mails))
	for i, m := range mails {
		digits, plus := strings.CutSuffix(strings.TrimPrefix(m.literal, "{"), "+")
		size, err := strconv.Atoi(digits)
		if err != nil {
			c.final = "BAD one mail, as a literal"
			return nil //nolint:nilerr // the client hears of it
		}
		if plus && !c.s.has("LITERAL+") && (size > 4096 || !c.s.has("LITERAL-")) {
			// Such a server would take the mail for commands.
			c.final, c.last = "BAD no leave was given to send a literal", true
			return nil
		}
		when[i] = time.Now()
		if m.date != "" {
			if when[i], err = time.Parse("_2-Jan-2006 15:04:05 -0700", m.date); err != nil || len(m.date) != 26 {
				c.final = "BAD not a date"
				return nil //nolint:nilerr // the client hears of it
			}
		}
	}
	b := c.s.named(name)
	if c.no != "" {
		c.final = c.no
		if b == nil || !b.Partly {
			return nil
		}
		mails = mails[:c.refusedAt]
	}
	var uids []string
	hangUp := false
	for i, m := range mails {
		added := b.Add(c.literals[i], m.flags)
		added.Date = when[i]
		uids = append(uids, added.value("UID"))
		b.appended++
		hangUp = hangUp || b.appended == b.HangUpAt
	}
	if hangUp {
		return errHangUp
	}
	if c.box == b {
		c.send("* %d EXISTS\r\n", len(b.Mails))
	}
	if c.no != "" {
		return nil
	}
	c.final = "OK done"
	if c.s.has("UIDPLUS") {
		if n := len(uids); n > 2 {
			uids = []string{uids[0] + ":" + uids[n-2], uids[n-1]} // as a set may be written
		}
		c.final = "OK [APPENDUID " + b.UIDValidity + " " + strings.Join(uids, ",") + "] done"
	}
	return nil
}
