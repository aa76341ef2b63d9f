package cmd

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThePageOfGuardsNamesTestsThatExist: a guard whose test was renamed or is gone
// would be a promise that nobody keeps.
func TestThePageOfGuardsNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/will-it-delete-my-mail.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool)
	definition := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range definition.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what could") {
			continue
		}
		names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("no test proves %s", line)
		}
		for _, m := range names {
			if named++; !tests[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
	}
	if named < 40 {
		t.Errorf("%d tests are named: the page was not read", named)
	}
}
