package stages

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// lattice is who may know whom among our own packages. It is policy: a change that
// needs another arrow needs another design first.
var lattice = map[string][]string{
	"permitchain":                          {"exchange", "exchange/sandbox", "ledger", "ledger/store", "stages", "stages/doctor", "stages/exitbrain", "stages/operator", "stages/operator/terminal", "stages/replay", "stages/simulate"},
	"permitchain/pipeline":                 {},
	"permitchain/ledger":                   {},
	"permitchain/ledger/store":             {"ledger", "pipeline"},
	"permitchain/exchange":                 {"ledger"},
	"permitchain/exchange/venue":           {"ledger", "exchange"},
	"permitchain/exchange/synthetic":       {"ledger", "exchange"},
	"permitchain/exchange/sandbox":         {"ledger", "exchange", "exchange/venue", "exchange/synthetic"},
	"permitchain/exchange/binance":         {"ledger", "exchange"},
	"permitchain/exchange/paper":           {"ledger", "exchange", "exchange/venue", "exchange/synthetic"},
	"permitchain/stages/exitbrain":         {"ledger", "exchange", "pipeline"},
	"permitchain/stages/governor":          {"ledger", "exchange", "pipeline"},
	"permitchain/stages/apply":             {"ledger", "exchange", "pipeline"},
	"permitchain/stages/reconcile":         {"ledger", "exchange", "pipeline"},
	"permitchain/stages/operator":          {"ledger", "ledger/store", "exchange", "pipeline"},
	"permitchain/stages/operator/terminal": {"exchange", "ledger", "ledger/store", "pipeline", "stages/operator"},
	"permitchain/stages/replay":            {"ledger", "exchange", "pipeline", "stages/apply", "stages/governor", "stages/operator", "stages/reconcile"},
	"permitchain/stages/simulate":          {"ledger", "exchange", "exchange/venue", "exchange/synthetic", "pipeline", "stages/apply", "stages/governor", "stages/reconcile"},
	"permitchain/stages/doctor":            {"ledger", "ledger/store", "exchange", "exchange/binance", "stages", "stages/governor"},
	"permitchain/stages":                   {"ledger", "ledger/store", "exchange", "exchange/binance", "exchange/paper", "pipeline", "stages/apply", "stages/exitbrain", "stages/governor", "stages/operator", "stages/reconcile", "stages/replay", "stages/simulate"},
}

// doors are the libraries, by how their paths begin, that few packages may use.
var doors = map[string][]string{
	"go.etcd.io/bbolt":              {"permitchain/ledger/store"},
	"github.com/alecthomas/kong":    {"permitchain"},
	"go.yaml.in/yaml/v4":            {"permitchain/stages"},
	"github.com/shopspring/decimal": {"permitchain/ledger"},
	"github.com/adshao/go-binance/": {"permitchain/exchange/binance"},
	"github.com/gorilla/websocket":  {"permitchain/exchange/binance", "permitchain/exchange/sandbox"},
	"golang.org/x/time/rate":        {"permitchain/exchange/binance"},
}

// kernels are the files that decide. They get their time, and everything else, as arguments.
var kernels = []string{
	"ledger/amount.go", "ledger/book.go", "ledger/check.go", "ledger/event.go", "ledger/fold.go", "ledger/noun.go", "ledger/plan.go", "ledger/position.go", "ledger/state.go",
	"exchange/filter.go", "stages/governor/kernel.go", "stages/reconcile/permit.go", "stages/reconcile/drift.go",
	"stages/exitbrain/params.go", "stages/exitbrain/stats.go", "stages/exitbrain/marketstate.go", "stages/exitbrain/incremental.go",
	"stages/exitbrain/slopemedian.go", "stages/exitbrain/slopeselect.go", "stages/exitbrain/harvest.go", "stages/exitbrain/triggers.go", "stages/exitbrain/pulse.go",
	"stages/replay/again.go", "stages/replay/gates.go", "stages/replay/flips.go", "stages/replay/nearest.go", "stages/replay/tell.go",
	"stages/doctor/judge.go", "stages/apply/plan.go", "stages/apply/execute.go", "stages/apply/resolve.go", "stages/apply/stop.go",
}

// source is one parsed Go file, by its path from the project's root.
type source struct {
	path, pkg string
	file      *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		rel := filepath.ToSlash(strings.TrimPrefix(path, "../"))
		pkg := "permitchain"
		if dir := filepath.Dir(rel); dir != "." {
			pkg += "/" + dir
		}
		all = append(all, source{rel, pkg, file})
		return err
	})
	if err != nil || len(all) < 20 {
		t.Fatalf("%d sources found: %v", len(all), err)
	}
	return all
}

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) imports() []string {
	var paths []string
	for _, i := range s.file.Imports {
		path, _ := strconv.Unquote(i.Path.Value) // The parser has read it already.
		paths = append(paths, path)
	}
	return paths
}

func TestLattice(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		allowed, known := lattice[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no place in the lattice", s.path, s.pkg)
		}
		for _, path := range s.imports() {
			own, ours := strings.CutPrefix(path, "permitchain/")
			if ours && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s, which the lattice does not allow", s.path, path)
			}
			for library, door := range doors {
				if strings.HasPrefix(path, library) && !slices.Contains(door, s.pkg) {
					t.Errorf("%s imports %s, whose only door is %v", s.path, path, door)
				}
			}
			if path == "testing" {
				t.Errorf("%s imports testing, and ships", s.path)
			}
		}
	}
}

func TestKernelsArePure(t *testing.T) {
	found := 0
	for _, s := range sources(t) {
		if !slices.Contains(kernels, s.path) {
			continue
		}
		found++
		for _, path := range s.imports() {
			if slices.Contains([]string{"context", "log", "os", "net", "net/http", "sync", "math/rand", "github.com/rs/zerolog"}, path) {
				t.Errorf("%s imports %s: a kernel does no I/O", s.path, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "NewTicker"}, n.Sel.Name) {
					t.Errorf("%s asks the clock: a kernel is told the time", s.path)
				}
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%s uses goroutines or channels: a kernel does not", s.path)
			}
			return true
		})
	}
	if found != len(kernels) {
		t.Errorf("%d of %d kernel files found", found, len(kernels))
	}
}

func TestHabits(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t) {
		if s.file.Doc != nil && !s.test() {
			docs[s.pkg]++
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if f, ok := n.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s has an init", s.path)
			}
			return true
		})
		if text, err := os.ReadFile("../" + s.path); err != nil || (s.test() && s.path != "stages/lattice_test.go" && strings.Contains(string(text), "time.Sleep(")) {
			t.Errorf("%s sleeps: virtual time does not have to (%v)", s.path, err)
		}
	}
	for pkg := range lattice {
		if docs[pkg] != 1 {
			t.Errorf("package %s has %d package docs", pkg, docs[pkg])
		}
	}
	if mod, err := os.ReadFile("../go.mod"); err != nil || strings.Contains(string(mod), "\nreplace") {
		t.Errorf("go.mod replaces a module: %v", err)
	}
}
