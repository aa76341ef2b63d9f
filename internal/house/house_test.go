// Package house has the rules of this module that no linter knows.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const (
	module      = "github.com/notmuch-imap/notmuch-imap"
	mostMethods = 7
	mostLines   = 600
)

// listed is a package as `go list` tells it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles, CgoFiles       []string
}

// sources are the packages of the module, without their tests.
type sources struct {
	files  *token.FileSet
	parsed map[string][]*ast.File
	export map[string]string // what a compiled package says of itself
}

func load(t *testing.T) *sources {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,CgoFiles", "./...")
	cmd.Dir, cmd.Stderr = filepath.Join("..", ".."), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	s := &sources{token.NewFileSet(), make(map[string][]*ast.File), make(map[string]string)}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return s
		} else if err != nil {
			t.Fatal(err)
		}
		s.export[p.ImportPath] = p.Export
		if !strings.HasPrefix(p.ImportPath, module) {
			continue
		}
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			f, err := parser.ParseFile(s.files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			s.parsed[p.ImportPath] = append(s.parsed[p.ImportPath], f)
		}
	}
}

// within tells whether a package is one of these, or below one.
func within(path string, packages ...string) bool {
	for _, p := range packages {
		if p = module + "/" + p; path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

// An interface is what its user needs, and that is not much. What it embeds counts.
func TestNoInterfaceHasOverSevenMethods(t *testing.T) {
	t.Parallel()
	s := load(t)
	imports := importer.ForCompiler(s.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(s.export[path]) })
	seen := 0
	for path, files := range s.parsed {
		info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue)}
		if _, err := (&types.Config{Importer: imports, FakeImportC: true}).Check(path, s.files, files, info); err != nil {
			t.Fatal(err)
		}
		for e, is := range info.Types {
			if i, ok := is.Type.(*types.Interface); ok && is.IsType() {
				seen++
				if i.NumMethods() > mostMethods {
					t.Errorf("%s: an interface of %d methods", s.files.Position(e.Pos()), i.NumMethods())
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d interfaces were looked at", seen)
	}
}

// Commands and answers of IMAP are written and read in two rooms, and where servers are
// played or measured.
func TestTextOfIMAPStandsInItsRooms(t *testing.T) {
	t.Parallel()
	text := regexp.MustCompile(`\bUID (FETCH|STORE|SEARCH|MOVE|COPY|EXPUNGE) \S|\bBODY(\.PEEK)?\[|\bBODYSTRUCTURE\b|\bRFC822\.|\bHEADER\.FIELDS\b|\bCHANGEDSINCE\b| (FETCH|EXAMINE|SELECT) $|^(FETCH|EXAMINE|SEARCH|STORE|STATUS|LIST) `)
	s, seen := load(t), 0
	for path, files := range s.parsed {
		own := within(path, "internal/remote", "pipeline/probe", "internal/imaptest", "contrib")
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				value, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Error(err)
				}
				switch is := text.MatchString(value); {
				case is && own:
					seen++
				case is:
					t.Errorf("%s: text of IMAP: %s", s.files.Position(lit.Pos()), lit.Value)
				}
				return true
			})
		}
	}
	if seen < 20 {
		t.Errorf("only %d were found where they belong", seen)
	}
}

// A test file of more lines has more than one subject.
func TestNoTestFileHasOver600Lines(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if n := bytes.Count(b, []byte("\n")); n > mostLines {
			t.Errorf("%s: %d lines: split it by subject", path, n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The environment is given to who asks for it: what a test gives is all that counts. libnotmuch
// and OfflineIMAP read their own, and a hook gets the whole.
func TestTheEnvironmentIsReadInOnePlace(t *testing.T) {
	t.Parallel()
	s, seen := load(t), 0
	reads := regexp.MustCompile(`^(Getenv|LookupEnv|Environ|ExpandEnv|UserHomeDir|UserConfigDir|UserCacheDir)$`)
	for path, files := range s.parsed {
		if within(path, "hooks", "contrib", "internal/index", "internal/takeover", "internal/imaptest") {
			continue
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || !reads.MatchString(sel.Sel.Name) {
					return true
				}
				if of, ok := sel.X.(*ast.Ident); !ok || of.Name != "os" {
					return true
				}
				if seen++; path != module+"/cmd" || seen > 1 {
					t.Errorf("%s: os.%s past the environment that is given", s.files.Position(n.Pos()), sel.Sel.Name)
				}
				return true
			})
		}
	}
	if seen == 0 {
		t.Error("it is read nowhere")
	}
}
