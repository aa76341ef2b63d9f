package config

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// positions is where each key of a file stands, in the order of the file. The
// decoder keeps neither lines nor order.
type positions []position

type position struct {
	key  []string
	line int
}

// locate finds the keys of a file that is known to be well-formed.
func locate(text []byte) positions {
	var ps positions
	p := parser{text: text}
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			var line int
			table, line = keyOf(&p, e, nil)
			ps = append(ps, position{table, line})
		case unstable.KeyValue:
			ps = ps.add(&p, e, table)
		}
	}
	return ps
}

// parser is the decoder's own, with the line that it read last: counting each
// from the top would take a long file for ever.
type parser struct {
	unstable.Parser
	text []byte
	at   int
	line int // line breaks before at
}

// lineOf gives the line, from 1, of a place in the file.
func (p *parser) lineOf(r unstable.Range) int {
	to := int(r.Offset)
	if to < p.at {
		p.at, p.line = 0, 0
	}
	p.line += bytes.Count(p.text[p.at:to], []byte{'\n'})
	p.at = to
	return p.line + 1
}

// add takes up a key and, for an inline table, the keys in it.
func (ps positions) add(p *parser, e *unstable.Node, table []string) positions {
	key, line := keyOf(p, e, table)
	ps = append(ps, position{key, line})
	if v := e.Value(); v.Kind == unstable.InlineTable {
		for it := v.Children(); it.Next(); {
			ps = ps.add(p, it.Node(), key)
		}
	}
	return ps
}

func keyOf(p *parser, e *unstable.Node, table []string) (key []string, line int) {
	key = slices.Clone(table)
	for it := e.Key(); it.Next(); {
		if line == 0 {
			line = p.lineOf(it.Node().Raw)
		}
		key = append(key, string(it.Node().Data))
	}
	return key, line
}

// line gives the line of a key, or of the first key below it, or else of what the
// key is in.
func (ps positions) line(key []string) int {
	for _, p := range ps {
		if slices.Equal(p.key, key) {
			return p.line
		}
	}
	for _, p := range ps {
		if len(p.key) > len(key) && slices.Equal(p.key[:len(key)], key) {
			return p.line
		}
	}
	if len(key) == 0 {
		return 0
	}
	return ps.line(key[:len(key)-1])
}

// under gives the keys right below a table, in the order of the file.
func (ps positions) under(table ...string) []string {
	var out []string
	seen := make(map[string]bool)
	for _, p := range ps {
		if n := len(table); len(p.key) > n && slices.Equal(p.key[:n], table) && !seen[p.key[n]] {
			seen[p.key[n]] = true
			out = append(out, p.key[n])
		}
	}
	return out
}

// dotted writes a key as it would stand in the file.
func dotted(key []string) string {
	parts := make([]string, len(key))
	for i, k := range key {
		bare := k != "" && strings.Trim(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
		if parts[i] = k; !bare {
			parts[i] = strconv.Quote(k)
		}
	}
	return strings.Join(parts, ".")
}

// nearest gives the word that was probably meant, "" if none is near.
func nearest(word string, known []string) string {
	word = strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	best, most := "", 1+len(word)/4
	for _, k := range known {
		if d := distance(word, k); d <= most {
			best, most = k, d-1
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
