package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicyCommands: what the commands print of a snapshot, and how they end.
func TestPolicyCommands(t *testing.T) {
	const snapshot = "../observe/policy/testdata/shop.yaml"
	file := filepath.Join(t.TempDir(), "new.yaml")
	text := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none}\nspec: {podSelector: {matchLabels: {app: back}}, policyTypes: [Egress]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code exitCode
		want string
	}{
		{"explain --from back-5c6b7d8e9-ccccc --to svc/db -n shop", 0, "by NetworkPolicy shop/db, spec.ingress[0]"},
		{"explain --from front-7d9c5b4f6-aaaaa --to db-0 --port 5432 -n shop", 1, "nearest allow: NetworkPolicy shop/db"},
		{"explain --from front-7d9c5b4f6-aaaaa --to db-0 --port 5432 -n shop -o json", 1, `"verdict": "denied"`},
		{"explain --from monitor --to shop/db-0 --port 80", 2, "next: did you mean monitoring/monitor?"},
		{"explain --from monitor --to shop/db-0 --port 99999", 2, "next: write it as 80/tcp"},
		{"explain --from monitor", 2, "required flag"},
		{"show db-0 -n shop", 0, "ingress: isolated by NetworkPolicies shop/db, shop/deny-all"},
		{"show db-0 -n none", 2, "did you mean shop/db-0?"},
		{"matrix -n shop", 0, "FROM "},
		{"matrix -A -o json", 0, `"reach": [`},
		{"matrix", 2, "there is no namespace default"},
		{"preview -n shop -f FILE", 1, "will be denied\n  shop/back → "},
		{"preview -n shop -f FILE -o yaml", 1, "becomes: denied"},
		{"preview -n shop -f FILE --delete", 2, "there is no NetworkPolicy shop/none to be deleted"},
		{"preview -n none -f FILE", 0, "it selects 0 pods"},
		{"preview -f " + snapshot, 2, "document 1: Node node1 of v1 is no policy"},
		{"preview -f none.yaml", 2, "no such file"},
	} {
		var out bytes.Buffer
		command := root()
		command.SetOut(&out)
		command.SetErr(&out)
		command.SetArgs(append([]string{"policy"}, strings.Fields(strings.ReplaceAll(test.args, "FILE", file)+" --snapshot "+snapshot)...))
		err := command.Execute()
		var code exitCode
		if !errors.As(err, &code) && err != nil {
			if code = 1; errors.As(err, new(*usageError)) { // as Main does
				code = exitUsage
			}
			out.WriteString(err.Error())
		}
		if code != test.code || !strings.Contains(out.String(), test.want) {
			t.Errorf("policy %s: exit code %d, want %d and %q in\n%s", test.args, code, test.code, test.want, out.String())
		}
	}
}
