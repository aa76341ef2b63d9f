package imaptest

import (
	"strconv"
	"strings"
)

// search answers SEARCH and UID SEARCH.
func (c *scriptConn) search(args string, byUID bool) {
	keys := words(args)
	extended := len(keys) > 1 && keys[0] == "RETURN"
	if extended {
		keys = keys[2:]
	}
	var found []string
	for i, m := range c.box.Mails {
		match, ok := c.box.matches(numbered{m, i + 1}, keys)
		if !ok {
			c.final = "BAD unknown search"
			return
		}
		switch {
		case match && byUID:
			found = append(found, strconv.FormatUint(uint64(m.UID), 10))
		case match:
			found = append(found, strconv.Itoa(i+1))
		}
	}
	if !extended {
		c.send("%s\r\n", strings.Join(append([]string{"* SEARCH"}, found...), " "))
		return
	}
	c.send("* ESEARCH (TAG \"x\")")
	if byUID {
		c.send(" UID")
	}
	if len(found) > 0 {
		c.send(" ALL %s", strings.Join(found, ","))
	}
	c.send("\r\n")
}

// matches tells whether all the keys are true of a mail; ok whether they are
// known.
func (b *ScriptBox) matches(m numbered, keys []string) (match, ok bool) {
	match = len(keys) > 0
	for len(keys) > 0 {
		key := keys[0]
		keys = keys[1:]
		not := key == "NOT"
		if not && len(keys) > 0 {
			key, keys = keys[0], keys[1:]
		}
		var is bool
		flag, isUn := strings.CutPrefix(key, "UN")
		switch {
		case key == "ALL":
			is = true
		case key == "UID" && len(keys) > 0:
			is, keys = b.in(keys[0], m.UID), keys[1:]
		case flag == "DELETED", flag == "SEEN", flag == "FLAGGED", flag == "ANSWERED", flag == "DRAFT":
			is = m.flagged(`\`+flag) != isUn
		case key[0] == '*' || key[0] >= '1' && key[0] <= '9':
			is = inSet(key, uint32(m.seq), uint32(len(b.Mails)))
		default:
			return false, false
		}
		match = match && is != not
	}
	return match, true
}
