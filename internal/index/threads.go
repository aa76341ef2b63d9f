package index

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
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

// parts divides messages into at most n parts of about as many bytes, of whole threads: those
// that the database has, joined by what the files refer to. Within a part the order stays.
func parts(records []record, root string, n int) [][]record {
	f := forest{node: make(map[string]int32)}
	size := make([]int64, len(records))
	for i, r := range records {
		f.join("id "+r.ID, "thread "+r.Thread)
		for _, file := range r.Files {
			refs, bytes := references(filepath.Join(root, file))
			for _, ref := range refs {
				f.join("id "+r.ID, "id "+ref)
			}
			size[i] += bytes
		}
	}
	type tree struct {
		root  int32
		bytes int64
	}
	at := make(map[int32]int)
	var trees []tree
	for i, r := range records {
		root := f.root(f.of("id " + r.ID))
		k, ok := at[root]
		if !ok {
			k = len(trees)
			at[root], trees = k, append(trees, tree{root: root})
		}
		trees[k].bytes += size[i] + perMessage
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
		p := place[f.root(f.of("id "+r.ID))]
		out[p] = append(out[p], r)
	}
	return slices.DeleteFunc(out, func(p []record) bool { return len(p) == 0 })
}

// perMessage is what a message costs beside its bytes, in bytes.
const perMessage = 2 << 10

// references gives the ids that a mail names in its header, and its size; nothing of a file
// that cannot be read, which is found when it is indexed.
func references(path string) (ids []string, size int64) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0
	}
	defer func() { _ = f.Close() }() // nothing was written
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	h, _ := mail.ReadHeader(f, "References", "In-Reply-To") // see above
	for _, field := range h {
		for _, part := range strings.Split(field.Value, "<")[1:] {
			if id, _, closed := strings.Cut(part, ">"); closed && id != "" {
				ids = append(ids, mail.MessageID("<"+id+">"))
			}
		}
	}
	return ids, size
}
