package arch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository's root, seen from this package.
const root = "../.."

// pkg is what `go list -json` says of a package, as far as needed here.
type pkg struct {
	ImportPath   string
	Name         string
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func (p pkg) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func goList(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	// With cgo on, files that import "C" are listed as such instead of passed over.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
		}
		t.Fatalf("go list %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TestDependencyRule checks every package of the module, in the ordinary build
// and in the one with fault points.
func TestDependencyRule(t *testing.T) {
	for _, tags := range []string{"no_k8s", "no_k8s,faultpoints"} {
		t.Run("tags="+tags, func(t *testing.T) {
			dec := json.NewDecoder(bytes.NewReader(goList(t, "-e", "-tags", tags,
				"-json=ImportPath,Name,CgoFiles,Imports,TestImports,XTestImports", "./...")))
			seen := 0
			for {
				var p pkg
				err := dec.Decode(&p)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("reading go list: %v", err)
				}
				seen++
				for _, v := range violations(p) {
					t.Error(v)
				}
			}
			if seen == 0 {
				t.Fatal("go list named no package: this test saw nothing")
			}
		})
	}
}

// violations says what is wrong with the imports of one package.
func violations(p pkg) []string {
	var found []string
	report := func(format string, args ...any) {
		found = append(found, p.path()+": "+fmt.Sprintf(format, args...))
	}

	if slices.Contains(vagueNames, p.Name) || slices.Contains(vagueNames, filepath.Base(p.path())) {
		report("the name %q says nothing; name the package for what it provides", p.Name)
	}
	if len(p.CgoFiles) > 0 {
		report("%s use cgo; the product is built without it", strings.Join(p.CgoFiles, ", "))
	}
	if p.Name == "main" && !slices.Contains(programs, p.path()) {
		report("a program that `programs` in test/arch/rules_test.go does not name; cmd/tidegate is the one binary")
	}
	internal, known := allowed[p.path()]
	if !known {
		report("unknown package: add it to the table `allowed` in test/arch/rules_test.go, in its layer, and to depguard in .golangci.yml; " +
			"if it is an adapter, to `adapters` too")
		return found
	}

	for _, imp := range p.Imports {
		switch rel, inside := strings.CutPrefix(imp, module+"/"); {
		case inside:
			if why := forbiddenInternal(p.path(), rel, internal); why != "" {
				report("imports %s: %s", rel, why)
			}
		case thirdParty(imp):
			if why := forbiddenThirdParty(p.path(), imp); why != "" {
				report("imports %s: %s", imp, why)
			}
		}
	}

	for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
		testsToo := stdOnly[p.path()]
		switch rel, inside := strings.CutPrefix(imp, module+"/"); {
		case inside && testsToo && rel != p.path():
			report("its tests import %s: this package and its tests use the standard library only", rel)
		case !inside && thirdParty(imp):
			if testsToo {
				report("its tests import %s: this package and its tests use the standard library only", imp)
			} else if !inModules(imp, testLibraries) && !inModules(imp, slices.Collect(maps.Keys(homes))) {
				report("its tests import %s: add it to `testLibraries` or `homes` in test/arch/rules_test.go, or do without", imp)
			}
		}
	}
	return found
}

func forbiddenInternal(from, to string, internal []string) string {
	if slices.Contains(internal, to) {
		return ""
	}
	switch wildcard := slices.Contains(internal, anything); {
	case strings.HasPrefix(to, "cmd/"):
		return "nobody imports a command"
	case isSuite(to) && !strings.HasPrefix(from, "test/"):
		return "a conformance suite is for tests"
	case slices.Contains(adapters, to) && from != "internal/app" && !strings.HasPrefix(from, "test/"):
		return "only internal/app chooses adapters; ask for the interface"
	case wildcard && to != "internal/app":
		return ""
	default:
		return "not allowed by the dependency rule (cmd → app → roles and edges → intake, registry, directory, receipt, auth → " +
			"journal, store, vault → epro → std; roles never import one another); see test/arch/rules_test.go"
	}
}

func forbiddenThirdParty(from, imp string) string {
	if _, std := stdOnly[from]; std {
		return "this package uses the standard library only"
	}
	if inModules(imp, testLibraries) && (isSuite(from) || strings.HasPrefix(from, "test/")) {
		return ""
	}
	home := ""
	for mod := range homes {
		if inModules(imp, []string{mod}) && len(mod) > len(home) {
			home = mod
		}
	}
	switch packages := homes[home]; {
	case home == "":
		return "this library has no home; give it one in `homes` in test/arch/rules_test.go, or do without"
	case slices.Contains(packages, from) || strings.HasPrefix(from, "test/"):
		return ""
	default:
		return home + " lives in " + strings.Join(packages, ", ")
	}
}

// isSuite says whether a package is a conformance suite (journaltest, …).
func isSuite(path string) bool {
	return strings.HasPrefix(path, "internal/") && strings.HasSuffix(path, "test")
}

// thirdParty says whether an import path is neither the standard library's nor this module's.
func thirdParty(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return strings.Contains(first, ".") && imp != module && !strings.HasPrefix(imp, module+"/")
}

func inModules(imp string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return imp == m || strings.HasPrefix(imp, m+"/")
	})
}

// TestRulesBite shows that each rule finds the fault it is for.
func TestRulesBite(t *testing.T) {
	in := func(path string) string { return module + "/" + path }
	cases := map[string]struct {
		pkg  pkg
		want string // a part of the complaint, "" for none
	}{
		"domain with a library":    {pkg{ImportPath: in("internal/epro"), Imports: []string{"time", "golang.org/x/crypto/hkdf"}}, "standard library only"},
		"domain looks up":          {pkg{ImportPath: in("internal/epro"), Imports: []string{in("internal/journal")}}, "dependency rule"},
		"domain tested with rapid": {pkg{ImportPath: in("internal/epro"), XTestImports: []string{"pgregory.net/rapid", in("internal/journal")}}, ""},
		"contract looks up":        {pkg{ImportPath: in("internal/journal"), Imports: []string{in("internal/receipt")}}, "dependency rule"},
		"role imports role":        {pkg{ImportPath: in("internal/gateway"), Imports: []string{in("internal/projector")}}, "dependency rule"},
		"role picks adapter":       {pkg{ImportPath: in("internal/projector"), Imports: []string{in("internal/store/sqlitestore")}}, "only internal/app chooses"},
		"role's test uses adapter": {pkg{ImportPath: in("internal/projector"), XTestImports: []string{in("internal/store/sqlitestore"), "modernc.org/sqlite"}}, ""},
		"app picks adapter":        {pkg{ImportPath: in("internal/app"), Imports: []string{in("internal/store/sqlitestore")}}, ""},
		"bench picks adapter":      {pkg{ImportPath: in("bench"), Name: "main", Imports: []string{in("internal/store/sqlitestore")}}, "only internal/app chooses"},
		"e2e picks adapter":        {pkg{ImportPath: in("test/e2e"), Imports: []string{in("internal/store/sqlitestore")}}, ""},
		"app uses a suite":         {pkg{ImportPath: in("internal/app"), Imports: []string{in("internal/store/storetest")}}, "suite is for tests"},
		"command goes past app":    {pkg{ImportPath: in("cmd/tidegate"), Name: "main", Imports: []string{in("internal/gateway")}}, "dependency rule"},
		"gin at home":              {pkg{ImportPath: in("internal/gateway"), Imports: []string{"github.com/gin-gonic/gin/render"}}, ""},
		"gin abroad":               {pkg{ImportPath: in("internal/intake"), Imports: []string{"github.com/gin-gonic/gin"}}, "lives in internal/gateway"},
		"library without a home":   {pkg{ImportPath: in("internal/app"), Imports: []string{"example.com/new"}}, "no home"},
		"traces at the edge":       {pkg{ImportPath: in("internal/gateway"), Imports: []string{"go.opentelemetry.io/otel/trace"}}, ""},
		"the SDK of traces abroad": {pkg{ImportPath: in("internal/gateway"), Imports: []string{"go.opentelemetry.io/otel/sdk/trace"}}, "lives in internal/telemetry"},
		"go-zero abroad":           {pkg{ImportPath: in("internal/app"), Imports: []string{"github.com/zeromicro/go-zero/zrpc"}}, "lives in internal/trialrpc"},
		"pgx abroad":               {pkg{ImportPath: in("internal/app"), Imports: []string{"github.com/jackc/pgx/v5"}}, "lives in internal/postgres"},
		"role picks PostgreSQL":    {pkg{ImportPath: in("internal/gateway"), Imports: []string{in("internal/store/pgstore")}}, "only internal/app chooses"},
		"service imports an edge":  {pkg{ImportPath: in("internal/trialrpc"), Imports: []string{in("internal/gateway")}}, "dependency rule"},
		"generated code abroad":    {pkg{ImportPath: in("internal/gateway"), Imports: []string{in("internal/trialrpc/internal/svc")}}, "dependency rule"},
		"test library in product":  {pkg{ImportPath: in("internal/app"), Imports: []string{"pgregory.net/rapid"}}, "no home"},
		"unknown test library":     {pkg{ImportPath: in("internal/app"), TestImports: []string{"example.com/new"}}, "testLibraries"},
		"new package":              {pkg{ImportPath: in("internal/new")}, "unknown package"},
		"vague name":               {pkg{ImportPath: in("internal/app/util"), Name: "util"}, "says nothing"},
		"cgo":                      {pkg{ImportPath: in("internal/app"), CgoFiles: []string{"a.go"}}, "cgo"},
		"second main":              {pkg{ImportPath: in("internal/app"), Name: "main"}, "the one binary"},
		"verifier shares code":     {pkg{ImportPath: in("test/verify2"), Imports: []string{in("internal/journal")}}, "dependency rule"},
		"verifier's test shares":   {pkg{ImportPath: in("test/verify2"), XTestImports: []string{in("internal/journal")}}, "standard library only"},
		"verifier uses a library":  {pkg{ImportPath: in("test/verify2"), Imports: []string{"modernc.org/sqlite"}}, "standard library only"},
		"verifier tests itself":    {pkg{ImportPath: in("test/verify2"), XTestImports: []string{in("test/verify2"), "testing"}}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(violations(c.pkg), "\n")
			if c.want == "" && got != "" {
				t.Errorf("complained of what is allowed: %s", got)
			}
			if c.want != "" && !strings.Contains(got, c.want) {
				t.Errorf("got %q, want a complaint with %q", got, c.want)
			}
		})
	}
}

// TestTablesAgree keeps the tables above free of lines that can never match.
func TestTablesAgree(t *testing.T) {
	known := func(path string) bool {
		_, ok := allowed[path]
		return ok || path == "internal/web" // named in the design, not there yet
	}
	for from, list := range allowed {
		for _, to := range list {
			if to != anything && !known(to) {
				t.Errorf("allowed[%q] names %q, which the table does not know", from, to)
			}
		}
	}
	for mod, list := range homes {
		for _, p := range list {
			if !known(p) {
				t.Errorf("homes[%q] names %q, which `allowed` does not know", mod, p)
			}
		}
	}
	for _, p := range slices.Concat(adapters, programs, slices.Collect(maps.Keys(stdOnly))) {
		if !known(p) {
			t.Errorf("%q is in a table but not in `allowed`", p)
		}
	}
}

// TestSQLiteCarriesItsOwnLibc: modernc.org/sqlite is generated against one
// exact release of modernc.org/libc; another one builds and may fail at run
// time, and a careless upgrade of anything else can pull it in.
func TestSQLiteCarriesItsOwnLibc(t *testing.T) {
	ours := strings.TrimSpace(string(goList(t, "-m", "-f", "{{.Version}}", "modernc.org/libc")))
	gomod := strings.TrimSpace(string(goList(t, "-m", "-f", "{{.GoMod}}", "modernc.org/sqlite")))
	text, err := os.ReadFile(gomod)
	if err != nil {
		t.Fatalf("reading go.mod of modernc.org/sqlite: %v", err)
	}
	m := regexp.MustCompile(`(?m)^\s*(?:require )?modernc\.org/libc (v\S+)`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s names no modernc.org/libc", gomod)
	}
	if theirs := string(m[1]); ours != theirs {
		t.Errorf("go.mod has modernc.org/libc %s, the SQLite in use was made with %s: pin that one", ours, theirs)
	}
}

// TestFileLength also reads every Go file of the module, which tells the test
// cache that these results depend on them: `go list` alone would not.
func TestFileLength(t *testing.T) {
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			top := filepath.Dir(rel) == "."
			if rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || top && slices.Contains([]string{"bin", "data", "tools"}, name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		lines := bytes.Count(text, []byte("\n"))
		if reason := longFiles[filepath.ToSlash(rel)]; lines > maxLines && reason == "" && !generated.Match(text) {
			t.Errorf("%s has %d lines, over %d: split it, or give the reason in `longFiles` in test/arch/rules_test.go", rel, lines, maxLines)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walking the repository: %v", err)
	}
	if files < 10 {
		t.Fatalf("read %d Go files: this test does not see the repository", files)
	}
}
