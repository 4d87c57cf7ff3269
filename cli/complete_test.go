package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// threeNodes is a kubeconfig of an API server that has the nodes a, b and c, and no
// more.
func threeNodes(t *testing.T) (file string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/api/v1/nodes" {
			http.NotFound(w, request)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind": "NodeList", "apiVersion": "v1", "items": [{"metadata": {"name": "b"}}, {"metadata": {"name": "a"}}, {"metadata": {"name": "c"}}]}`)
	}))
	t.Cleanup(server.Close)
	file = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCompleteNodes: wherever nodes are named, their names are completed; of a list
// each once.
func TestCompleteNodes(t *testing.T) {
	file := threeNodes(t)
	for _, test := range []struct{ command, begun, want string }{
		{"status", "", "a b c"},
		{"check --nodes", "", "a b c"},
		{"check --nodes", "b,", "b,a b,c"},
		{"debug bundle --nodes", "", "a b c"},
		{"debug bundle --nodes", "a,c,", "a,c,b"},
		{"drops --node", "", "a b c"},
		{"dns top --node", "", "a b c"},
	} {
		args := append([]string{"__complete"}, strings.Fields(test.command)...)
		args = append(args[:len(args):len(args)], test.begun)
		if flag := len(args) - 2; strings.HasPrefix(args[flag], "--") {
			args = append(args[:flag:flag], "--kubeconfig", file, args[flag], test.begun)
		} else {
			args = append(args[:flag+1:flag+1], "--kubeconfig", file, test.begun)
		}
		text, err := runCommand(t, args...)
		values, _, _ := strings.Cut(text, "\n:") // and then what the shell is to do
		if got := strings.ReplaceAll(values, "\n", " "); err != nil || got != test.want {
			t.Errorf("%s %q: completed by %q, want %q; %v", test.command, test.begun, got, test.want, err)
		}
	}
	walk(root(), func(c *cobra.Command) {
		c.Flags().VisitAll(func(flag *pflag.Flag) {
			ofCluster := (flag.Name == "nodes" || flag.Name == "node") && flag.Value.Type() != "bool" && c.Flags().Lookup("kubeconfig") != nil
			if _, ok := c.GetFlagCompletionFunc(flag.Name); ofCluster && !ok {
				t.Errorf("%s --%s is not completed", c.CommandPath(), flag.Name)
			}
		})
	})
}
