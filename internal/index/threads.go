package index

import (
	"cmp"
	"slices"
)

// forest joins names that belong together (union-find).
type forest struct {
	parent []int32
	node   map[string]int32
}

func (f *forest) of(name string) int32 {
	n, ok := f.node[name]
	if !ok {
		n = int32(len(f.parent)) //nolint:gosec // 2^31 names do not fit into memory
		f.node[name], f.parent = n, append(f.parent, n)
	}
	return n
}

func (f *forest) root(n int32) int32 {
	for f.parent[n] != n {
		f.parent[n] = f.parent[f.parent[n]]
		n = f.parent[n]
	}
	return n
}

func (f *forest) join(a, b string) { f.parent[f.root(f.of(a))] = f.root(f.of(b)) }

// grove is messages, of which those belong together that are in a thread, in the database
// or by what their files refer to.
type grove struct {
	forest
	size map[string]int64 // of a message's files, in bytes, by its id
}

func newGrove() *grove {
	return &grove{forest: forest{node: make(map[string]int32)}, size: make(map[string]int64)}
}

// file adds a file of a message.
func (g *grove) file(id string, refs []string, bytes int64) {
	for _, ref := range refs {
		g.join("id "+id, "id "+ref)
	}
	g.size[id] += bytes
}

// parts divides messages into at most n parts of about as many bytes, of what belongs
// together. Within a part the order stays.
func (g *grove) parts(records []record, n int) [][]record {
	for _, r := range records {
		if r.Thread != "" {
			g.join("id "+r.ID, "thread "+r.Thread)
		}
	}
	type tree struct {
		root  int32
		bytes int64
	}
	at := make(map[int32]int)
	var trees []tree
	for _, r := range records {
		root := g.root(g.of("id " + r.ID))
		k, ok := at[root]
		if !ok {
			k = len(trees)
			at[root], trees = k, append(trees, tree{root: root})
		}
		trees[k].bytes += g.size[r.ID] + perMessage
	}
	slices.SortStableFunc(trees, func(a, b tree) int { return cmp.Compare(b.bytes, a.bytes) })
	load, place := make([]int64, n), make(map[int32]int, len(trees))
	for _, t := range trees {
		least := slices.Index(load, slices.Min(load))
		load[least] += t.bytes
		place[t.root] = least
	}
	out := make([][]record, n)
	for _, r := range records {
		p := place[g.root(g.of("id "+r.ID))]
		out[p] = append(out[p], r)
	}
	return slices.DeleteFunc(out, func(p []record) bool { return len(p) == 0 })
}

// perMessage is what a message costs beside its bytes, in bytes.
const perMessage = 2 << 10
