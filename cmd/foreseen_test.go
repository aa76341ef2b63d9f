package cmd

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestADryRunCountsWhatASyncDoes of messages that both sides changed, each in every way.
func TestADryRunCountsWhatASyncDoes(t *testing.T) {
	t.Parallel()
	tag := func(words ...string) func(m *mover, id string) {
		return func(m *mover, id string) {
			m.must(append(append([]string{"notmuch", "tag"}, words...), "--", "id:"+id)...)
		}
	}
	remove := func(m *mover, id string) { m.must("rm", m.file(id)) }
	move := func(m *mover, id string) { m.must("mv", m.file(id), m.root+"/Other/cur/") }
	mark := func(m *mover, id string) {
		key, _, _ := strings.Cut(filepath.Base(m.file(id)), ":")
		m.must("mv", m.file(id), m.root+"/INBOX/cur/"+key+":2,RT")
	}
	theres := []string{"NOOP", `UID STORE %d +FLAGS (\Flagged)`, `UID STORE %d +FLAGS (\Seen)`, `UID STORE %d -FLAGS (\Answered)`, "UID MOVE %d Other",
		`UID STORE %[1]d +FLAGS (\Deleted)` + "\n" + `UID EXPUNGE %[1]d`}
	for what, here := range map[string][]func(m *mover, id string){
		"nothing": nil, "flagged": {tag("+flagged")}, "read": {tag("-unread")}, "a flag taken off": {tag("-replied")}, "removed": {remove}, "moved": {move}, "marked": {mark},
		"flagged and moved": {tag("+flagged"), move}, "flagged and removed": {tag("+flagged"), remove},
	} {
		for _, trash := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " ", trash), func(t *testing.T) {
				t.Parallel()
				s := dovecot(t)
				for i := range len(theres) + 2 {
					appendAll(t, s, "INBOX", rawDovecot(i))
				}
				appendAll(t, s, "Other", rawDovecot(100))
				if trash {
					appendAll(t, s, "Trash", rawDovecot(200))
				}
				command(t, s, "SELECT INBOX", `UID STORE 1:* +FLAGS (\Answered)`)
				m := newMover(t, s, "Verbatim", "*")
				m.must(name, "import", "mbsync")
				m.must(name, "sync")
				for i, there := range theres {
					for _, change := range here {
						change(m, fmt.Sprintf("d%d@example.org", i))
					}
					words := []string{"SELECT INBOX"}
					for l := range strings.Lines(there) {
						if l = strings.TrimSpace(l); strings.Contains(l, "%") {
							l = fmt.Sprintf(l, i+1)
						}
						words = append(words, l)
					}
					command(t, s, words...)
				}
				foreseen, _ := m.run(name, "sync", "-n")
				done, _ := m.run(name, "sync")
				flags := func(out string) []string {
					return regexp.MustCompile(`\d+ changes? of flags( sent)?`).FindAllString(lastLine(out), -1)
				}
				if f, d := flags(foreseen), flags(done); fmt.Sprint(f) != fmt.Sprint(d) {
					t.Errorf("%q foreseen, and %q done:\n%s\n%s", f, d, foreseen, done)
				}
			})
		}
	}
}
