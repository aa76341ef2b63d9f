package imaptest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// numbered is a mail with its sequence number.
type numbered struct {
	*ScriptMail
	seq int
}

// in tells whether a UID is in a set as clients write it.
func (b *ScriptBox) in(set string, uid uint32) bool {
	last := uint32(0)
	if n := len(b.Mails); n > 0 {
		last = b.Mails[n-1].UID
	}
	return inSet(set, uid, last)
}

// inSet tells whether n is in a set as clients write it, of which last is `*`.
func inSet(set string, n, last uint32) bool {
	number := func(s string) uint32 {
		if s == "*" {
			return last
		}
		n, _ := strconv.ParseUint(s, 10, 32) // 0 is in no set
		return uint32(n)
	}
	for part := range strings.SplitSeq(set, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		x, y := number(from), number(to)
		if n >= min(x, y) && n <= max(x, y) {
			return true
		}
	}
	return false
}

// chosen gives the mails of a set. It is not ok to name a sequence number that
// there is not (RFC 9051 9, seq-number).
func (b *ScriptBox) chosen(set string, byUID bool) (mails []numbered, ok bool) {
	count := len(b.Mails)
	for number := range strings.FieldsFuncSeq(set, func(r rune) bool { return r == ',' || r == ':' }) {
		n, err := strconv.Atoi(number)
		if !byUID && number != "*" && (err != nil || n < 1 || n > count) {
			return nil, false
		}
	}
	for i, m := range b.Mails {
		if byUID && b.in(set, m.UID) || !byUID && inSet(set, uint32(i+1), uint32(count)) {
			mails = append(mails, numbered{m, i + 1})
		}
	}
	return mails, true
}

// words splits a list at the spaces that are not in brackets, upper case.
func words(list string) []string {
	var out []string
	depth, from := 0, 0
	list = strings.ToUpper(list) + " "
	for i := range len(list) {
		switch list[i] {
		case '[', '(':
			depth++
		case ']', ')':
			depth--
		case ' ':
			if depth == 0 {
				if i > from {
					out = append(out, list[from:i])
				}
				from = i + 1
			}
		}
	}
	return out
}

// isBody tells whether an item is a section of the mail.
func isBody(item string) bool {
	return strings.HasPrefix(item, "BODY[") || strings.HasPrefix(item, "BODY.PEEK[")
}

// fetch answers FETCH and UID FETCH.
func (c *scriptConn) fetch(args string, byUID bool) error {
	set, items, _ := strings.Cut(args, " ")
	var since uint64
	if i := strings.Index(items, " (CHANGEDSINCE"); i >= 0 {
		_, _ = fmt.Sscanf(items[i:], " (CHANGEDSINCE %d)", &since) // 0 if it is not that
		items = items[:i]
	}
	items = strings.TrimSuffix(strings.TrimPrefix(items, "("), ")")
	list := words(items)
	for _, item := range list {
		if !isBody(item) && !slices.Contains([]string{"UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "MODSEQ", "BODY", "BODYSTRUCTURE"}, item) &&
			(item != "X-GM-MSGID" || !strings.Contains(c.s.Caps, "X-GM-EXT-1")) {
			c.final = "BAD unknown item " + item
			return nil
		}
	}
	mails, ok := c.box.chosen(set, byUID)
	if !ok || len(list) == 0 {
		c.final = "BAD no such messages, or nothing asked of them"
		return nil
	}
	if byUID {
		list = append([]string{"UID"}, slices.DeleteFunc(list, func(item string) bool { return item == "UID" })...)
	}
	for _, m := range mails {
		if since > 0 && m.ModSeq <= since {
			continue
		}
		a := &Asked{Seq: m.seq, Mail: m.ScriptMail, Items: items, Alone: !strings.ContainsAny(set, ",:*"), list: list}
		answer := m.Rungs.answer
		if f := c.s.Fault; f != nil && f.Body != nil && m.UID == BadUID && c.box.Name == "INBOX" && strings.Contains(items, "BODY") {
			answer = f.Body
		}
		done, err := answer(c, a)
		if err != nil {
			return err
		}
		if !done {
			c.message(m.seq, m.ScriptMail, list)
		}
	}
	return nil
}

// message answers for a message as it should.
func (c *scriptConn) message(seq int, m *ScriptMail, list []string) {
	c.send("%s", c.response(seq, m, list, m.value))
}

// response is the answer for a message with the value of each item.
func (c *scriptConn) response(seq int, m *ScriptMail, list []string, value func(item string) string) string {
	looks := slices.ContainsFunc(list, func(item string) bool { return strings.HasPrefix(item, "BODY[") })
	if looks && (c.writable() || c.box.SeenOnExamine) && c.box.mark(m, "+FLAGS", []string{`\Seen`}) && !slices.Contains(list, "FLAGS") {
		list = append(slices.Clone(list), "FLAGS") // RFC 9051 6.4.5: it changed
	}
	var out []string
	for _, item := range list {
		out = append(out, answerName(item)+" "+value(item))
	}
	return fmt.Sprintf("* %d FETCH (%s)\r\n", seq, strings.Join(out, " "))
}

// answerName is what an item is called in the answer: BODY.PEEK[]<0.100> is
// BODY[]<0>.
func answerName(item string) string {
	item = strings.Replace(item, "BODY.PEEK[", "BODY[", 1)
	if from, partial, ok := strings.Cut(item, "]<"); ok {
		offset, _, _ := strings.Cut(partial, ".")
		item = from + "]<" + offset + ">"
	}
	return item
}

// attributes gives what of a message is not its body.
func (m *ScriptMail) attributes(items string) string {
	out := []string{"UID " + m.value("UID")}
	for _, item := range words(items) {
		switch item {
		case "FLAGS", "INTERNALDATE", "RFC822.SIZE", "MODSEQ":
			out = append(out, item+" "+m.value(item))
		}
	}
	return strings.Join(out, " ")
}

// value is what an item is answered with.
func (m *ScriptMail) value(item string) string {
	switch item {
	case "UID":
		return strconv.FormatUint(uint64(m.UID), 10)
	case "FLAGS":
		return "(" + m.Flags + ")"
	case "INTERNALDATE":
		return m.Date.Format(`"_2-Jan-2006 15:04:05 -0700"`)
	case "RFC822.SIZE":
		return strconv.Itoa(len(m.Raw))
	case "X-GM-MSGID":
		return strconv.FormatUint(m.GmailID, 10)
	case "MODSEQ":
		return fmt.Sprintf("(%d)", m.ModSeq)
	case "BODY", "BODYSTRUCTURE":
		if m.Structure != "" {
			return m.Structure
		}
		return parsePart(m.Raw).structure(item == "BODYSTRUCTURE")
	}
	body, ok := m.section(item)
	if !ok {
		return "NIL"
	}
	return fmt.Sprintf("{%d}\r\n%s", len(body), body)
}

// section gives a part of the mail; ok is false if there is none of that name.
func (m *ScriptMail) section(item string) (body string, ok bool) {
	_, rest, _ := strings.Cut(item, "[")
	name, rest, _ := strings.Cut(rest, "]")
	if body, ok = m.Parts[name]; !ok {
		body, ok = parsePart(m.Raw).section(name)
	}
	var offset, size int
	if n, _ := fmt.Sscanf(rest, "<%d.%d>", &offset, &size); n == 2 { // else it is whole
		offset = min(offset, len(body))
		body = body[offset:min(len(body), offset+size)]
	}
	return body, ok
}
