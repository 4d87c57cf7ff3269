package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runIngress runs fairlead ingress with arguments.
func runIngress(args string) (string, exitCode) {
	var out bytes.Buffer
	command := root()
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(append([]string{"ingress"}, strings.Fields(args)...))
	err := command.Execute()
	var code exitCode
	if !errors.As(err, &code) && err != nil {
		code = exitUsage
		out.WriteString(err.Error())
	}
	return out.String(), code
}

// TestIngressCommands: what the commands print of a realistic set of manifests is
// what it was.
func TestIngressCommands(t *testing.T) {
	for file, test := range map[string]struct {
		args string
		code exitCode
	}{
		"lint":          {"lint --all -f testdata/ingress/nginx", exitNotHonoured},
		"lint.json":     {"lint -o json -f testdata/ingress/nginx/admin.yaml", exitNotHonoured},
		"list":          {"list -f testdata/ingress/nginx", 0},
		"explain":       {"explain https://shop.example.org/static/a.css?v=1 -f testdata/ingress/nginx", 0},
		"explain-http":  {"explain shop.example.org -f testdata/ingress/nginx", 0},
		"explain-regex": {"explain https://api.example.org/V1/users/7 -f testdata/ingress/nginx -o yaml", 0},
		"explain-proof": {"explain https://partners.example.org/orders/7 -f testdata/ingress/nginx", 0},
		"explain-acme":  {"explain http://shop.example.org/.well-known/acme-challenge/token -f testdata/ingress/nginx", 0},
		"explain-other": {"explain https://old.example.org/ -f testdata/ingress/nginx", 0},
	} {
		got, code := runIngress(test.args)
		if code != test.code {
			t.Errorf("%s: exit code %d, want %d", test.args, code, test.code)
		}
		golden := filepath.Join("testdata", "ingress", file+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s says\n%s\nwant\n%s\n(go test ./cli -run TestIngress -update writes it)", test.args, got, want)
		}
	}
}

// TestIngressUntold: what cannot be answered is said, with what to do.
func TestIngressUntold(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old.yaml")
	text := "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: old}\n"
	if err := os.WriteFile(old, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"lint -f none":                              "no such file",
		"lint -f " + old:                            "Ingress old: of extensions/v1beta1, which Kubernetes has not served since 1.22",
		"lint -f testdata/plan":                     "there is no Ingress in the files",
		"explain ftp://x -f testdata/ingress/nginx": "next: name one such as https://",
	} {
		if got, code := runIngress(args); code != exitIngressUnknown || !strings.Contains(got, want) {
			t.Errorf("%s: exit code %d, want %d and %q in\n%s", args, code, exitIngressUnknown, want, got)
		}
	}
}
