package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of a structure.
const (
	maxStructureDepth = 50
	maxStructureParts = 500
)

var errStructure = errors.New("a BODYSTRUCTURE that cannot be read")

// ParseStructure reads the value of BODYSTRUCTURE or BODY (RFC 9051 7.5.2),
// leniently: NIL may stand anywhere (Exchange 2007 says so of the encoding, MS
// KB 975918), an atom for a string, and fields may be missing or too many. The
// leaves come in order; a message within a message is a leaf. Beside an error
// there is what came before it.
func ParseStructure(raw []byte) ([]mail.Part, error) {
	s := &structure{text: string(raw)}
	root, err := s.value(0)
	if err == nil && root.list == nil {
		err = errStructure
	}
	if root.list != nil {
		if e := s.walk(root.list, ""); err == nil {
			err = e
		}
	}
	return s.parts, err
}

// structure reads one.
type structure struct {
	text  string
	at    int
	nodes int
	parts []mail.Part
}

// node is a list, or a string. A list that is empty is not nil.
type node struct {
	list []node
	text string
	none bool
}

// value reads the next value. A list that breaks off has what came of it.
func (s *structure) value(depth int) (node, error) {
	s.spaces()
	if s.at == len(s.text) || depth > maxStructureDepth {
		return node{none: true}, errStructure
	}
	if s.nodes++; s.nodes > 100*maxStructureParts {
		return node{none: true}, errStructure
	}
	switch s.text[s.at] {
	case '(':
		s.at++
		n := node{list: []node{}}
		for {
			s.spaces()
			if s.at < len(s.text) && s.text[s.at] == ')' {
				s.at++
				return n, nil
			}
			v, err := s.value(depth + 1)
			if !v.none || err == nil {
				n.list = append(n.list, v)
			}
			if err != nil {
				return n, err
			}
		}
	case ')':
		return node{none: true}, errStructure
	case '"':
		return s.quoted()
	}
	end := strings.IndexAny(s.text[s.at:], " ()\"\r\n\t")
	if end < 0 {
		end = len(s.text) - s.at
	}
	word := s.text[s.at : s.at+end]
	if s.at += end; end == 0 {
		s.at++
	}
	return node{text: word, none: strings.EqualFold(word, "NIL")}, nil
}

func (s *structure) spaces() {
	for s.at < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
}

func (s *structure) quoted() (node, error) {
	from := s.at
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			return node{text: unquote(s.text[from:s.at])}, nil
		}
	}
	s.at = len(s.text)
	return node{none: true}, errStructure
}

// unquote undoes the quotes of a string, which a literal has, too, when it comes
// here.
func unquote(quoted string) string {
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(quoted[1 : len(quoted)-1])
}

// walk finds the leaves of a body.
func (s *structure) walk(body []node, path string) error {
	if len(body) == 0 {
		return errStructure
	}
	if body[0].list == nil {
		if path == "" {
			path = "1"
		}
		return s.leaf(body, path)
	}
	for i, child := range body {
		if child.list == nil {
			break // the subtype and what follows
		}
		below := strconv.Itoa(i + 1)
		if path != "" {
			below = path + "." + below
		}
		if err := s.walk(child.list, below); err != nil {
			return err
		}
	}
	return nil
}

func (s *structure) leaf(body []node, path string) error {
	if len(s.parts) == maxStructureParts {
		return fmt.Errorf("%w: more than %d parts", errStructure, maxStructureParts)
	}
	field := func(i int) node {
		if i < len(body) {
			return body[i]
		}
		return node{none: true}
	}
	p := mail.Part{
		Path: path, Type: strings.ToLower(field(0).word()), Subtype: strings.ToLower(field(1).word()),
		Params: pairs(field(2).list), Encoding: strings.ToLower(field(5).word()),
	}
	p.Size, _ = strconv.ParseInt(field(6).word(), 10, 64) // 0: not told
	for _, n := range body[min(len(body), 7):] {
		// ("attachment" ("filename" "x")): where it stands depends on the type,
		// and on what the server leaves out.
		if len(n.list) == 2 && n.list[0].list == nil && !n.list[0].none && (n.list[1].list != nil || n.list[1].none) {
			p.Disposition = strings.ToLower(n.list[0].text)
			p.Filename = pairs(n.list[1].list)["filename"]
		}
	}
	s.parts = append(s.parts, p)
	return nil
}

// word is a string's text; "" of anything else.
func (n node) word() string {
	if n.none || n.list != nil {
		return ""
	}
	return n.text
}

// pairs reads ("name" "value" ...).
func pairs(list []node) map[string]string {
	var out map[string]string
	for i := 0; i+1 < len(list); i += 2 {
		if name := strings.ToLower(list[i].word()); name != "" && !list[i+1].none {
			if out == nil {
				out = make(map[string]string)
			}
			out[name] = list[i+1].word()
		}
	}
	return out
}
