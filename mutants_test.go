package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMutantsAreCurrent: each planted bug of testdata/mutants still applies to this tree, says which promise it breaks, and names
// tests that there are. That they find it shows make mutants.
func TestMutantsAreCurrent(t *testing.T) {
	patches, err := filepath.Glob("testdata/mutants/*.patch")
	if err != nil || len(patches) < 20 {
		t.Fatalf("%d planted bugs (%v)", len(patches), err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("no git: whether the patches apply is not looked at")
	}
	header := regexp.MustCompile(`\AWhat: .+\nPromise: .+\nTier: (unit|chain|B|A)\nTest: (.+)\n\n--- a/`)
	names := regexp.MustCompile(`\bTest[A-Z]\w*`)
	tests := testNames(t)
	numbers := map[string]string{}
	for _, patch := range patches {
		text, err := os.ReadFile(patch)
		if err != nil {
			t.Fatal(err)
		}
		m := header.FindStringSubmatch(string(text))
		if m == nil {
			t.Errorf("%s does not begin with What, Promise, Tier and Test", patch)
			continue
		}
		number, _, _ := strings.Cut(filepath.Base(patch), "-")
		if numbers[number] != "" {
			t.Errorf("%s has the number of %s", patch, numbers[number])
		}
		numbers[number] = patch
		for _, name := range names.FindAllString(m[2], -1) {
			if !tests[name] {
				t.Errorf("%s: there is no test %s", patch, name)
			}
		}
		if said, err := exec.Command(git, "apply", "--check", patch).CombinedOutput(); err != nil {
			t.Errorf("%s does not apply: %s", patch, said)
		}
	}
}

// testNames are all tests of the project.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	decl := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range decl.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
