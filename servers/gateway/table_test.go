package gateway

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTableOfBadInput: the table of docs/ingress.md has 20 rows, and the tests that
// it names are there.
func TestTableOfBadInput(t *testing.T) {
	page, err := os.ReadFile("../../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "../../plan/gateway/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tests = append(tests, content...)
		}
	}
	row, name := regexp.MustCompile(`^\| \d+ \|`), regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	rows := 0
	for line := range strings.Lines(string(page)) {
		if !row.MatchString(line) {
			continue
		}
		rows++
		named := name.FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, n := range named {
			if !bytes.Contains(tests, []byte("\nfunc "+n[1]+"(")) {
				t.Errorf("there is no %s", n[1])
			}
		}
	}
	if rows != 20 {
		t.Errorf("%d rows, not 20", rows)
	}
}
