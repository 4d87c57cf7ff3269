package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// someCluster is a kubeconfig of an API server that has the nodes a, b and c, pods and
// Services in two namespaces, and no more.
func someCluster(t *testing.T) (file string) {
	t.Helper()
	lists := map[string][]string{
		"/api/v1/nodes":                       {"b", "a", "c"},
		"/api/v1/namespaces/default/pods":     {"web-1", "web-0"},
		"/api/v1/namespaces/shop/pods":        {"db-0"},
		"/api/v1/namespaces/default/services": {"web"},
		"/api/v1/namespaces/shop/services":    {"db", "cache"},
	}
	kinds := map[string]string{"nodes": "NodeList", "pods": "PodList", "services": "ServiceList"}
	return kubeconfigOf(t, func(w http.ResponseWriter, request *http.Request) {
		names, ok := lists[request.URL.Path]
		if !ok {
			http.NotFound(w, request)
			return
		}
		var items []string
		for _, name := range names {
			items = append(items, fmt.Sprintf(`{"metadata": {"name": %q}}`, name))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind": %q, "apiVersion": "v1", "items": [%s]}`, kinds[path.Base(request.URL.Path)], strings.Join(items, ", "))
	})
}

// kubeconfigOf is of an API server that answers so.
func kubeconfigOf(t *testing.T, answer http.HandlerFunc) (file string) {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	file = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// completed is what the shell is told at the end of a command: after a flag, which is
// then the last word, or an argument.
func completed(t *testing.T, file, command, begun string) string {
	t.Helper()
	args := append([]string{"__complete"}, strings.Fields(command)...)
	at := len(args)
	if strings.HasPrefix(args[at-1], "--") {
		at--
	}
	args = append(slices.Insert(args, at, "--kubeconfig", file), begun)
	text, err := runCommand(t, args...)
	if err != nil {
		t.Errorf("%s %q: %v", command, begun, err)
	}
	values, _, _ := strings.Cut("\n"+text, "\n:") // and then what the shell is to do
	return strings.Join(strings.Fields(values), " ")
}

// TestCompleteNodes: wherever nodes are named, their names are completed; of a list
// each once.
func TestCompleteNodes(t *testing.T) {
	file := someCluster(t)
	for _, test := range []struct{ command, begun, want string }{
		{"status", "", "a b c"},
		{"check --nodes", "", "a b c"},
		{"check --nodes", "b,", "b,a b,c"},
		{"debug bundle --nodes", "", "a b c"},
		{"debug bundle --nodes", "a,c,", "a,c,b"},
		{"drops --node", "", "a b c"},
		{"dns top --node", "", "a b c"},
	} {
		if got := completed(t, file, test.command, test.begun); got != test.want {
			t.Errorf("%s %q: completed by %q, want %q", test.command, test.begun, got, test.want)
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

// TestCompletePods: wherever pods and Services are named, their names are completed, of
// the namespace that is meant.
func TestCompletePods(t *testing.T) {
	file := someCluster(t)
	for _, test := range []struct{ command, begun, want string }{
		{"route --from", "", "web-0 web-1 node/"},
		{"route -n shop --from", "", "db-0 node/"},
		{"route -n shop --from", "default/", "default/web-0 default/web-1"},
		{"route --from", "node/", "node/a node/b node/c"},
		{"route --from", "svc/", ""},
		{"route --from web-0 --to", "", "web-0 web-1 node/ svc/"},
		{"route --from web-0 --to", "svc/", "svc/web"},
		{"route --from web-0 -n shop --to", "svc/", "svc/cache svc/db"},
		{"route --from web-0 --to", "svc/shop/", "svc/shop/cache svc/shop/db"},
		{"route --from web-0 --to svc/web --backend", "", "web-0 web-1"},
		{"policy explain --from", "shop/", "shop/db-0"},
		{"policy explain --from web-0 --to", "svc/shop/", "svc/shop/cache svc/shop/db"},
		{"policy show", "", "web-0 web-1"},
		{"policy show -n shop", "", "db-0"},
		{"policy show", "shop/", "shop/db-0"},
		{"policy show web-0", "", ""},
		{"dns trace example.com --from", "", "web-0 web-1"},
		{"dns trace example.com --from", "shop/", "shop/db-0"},
		{"drops --pod", "", "web-0 web-1"},
		{"service show", "", "web"},
		{"service show", "shop/", "shop/cache shop/db"},
		{"service show web", "", ""},
	} {
		if got := completed(t, file, test.command, test.begun); got != test.want {
			t.Errorf("%s %q: completed by %q, want %q", test.command, test.begun, got, test.want)
		}
	}
	walk(root(), func(c *cobra.Command) {
		if _, name, ok := strings.Cut(c.Use, " "); ok && strings.HasPrefix(name, "POD") && c.ValidArgsFunction == nil {
			t.Errorf("%s is not completed", c.CommandPath())
		}
		c.Flags().VisitAll(func(flag *pflag.Flag) {
			if _, ok := c.GetFlagCompletionFunc(flag.Name); strings.Contains(flag.Usage, "[NAMESPACE/]POD") && !ok {
				t.Errorf("%s --%s is not completed", c.CommandPath(), flag.Name)
			}
		})
	})
}

// TestCompleteInTime: nothing hangs while the API server does not answer.
func TestCompleteInTime(t *testing.T) {
	t.Parallel()
	const most = 3 * completeTime // who has no limit waits for twenty seconds and more
	file := kubeconfigOf(t, func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
	var lines [][2]string // a command, and what is begun
	walk(root(), func(c *cobra.Command) {
		if c.Flags().Lookup("kubeconfig") == nil {
			return
		}
		command := strings.TrimPrefix(c.CommandPath(), root().Name()+" ")
		if c.ValidArgsFunction != nil {
			lines = append(lines, [2]string{command, ""})
		}
		c.Flags().VisitAll(func(flag *pflag.Flag) {
			if _, ok := c.GetFlagCompletionFunc(flag.Name); ok {
				for _, begun := range []string{"", "node/", "svc/", "shop/"} {
					lines = append(lines, [2]string{command + " --" + flag.Name, begun})
				}
			}
		})
	})
	if len(lines) < 40 {
		t.Errorf("%d are completed", len(lines))
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, line := range lines {
		all.Go(func() {
			began := time.Now()
			completed(t, file, line[0], line[1])
			if took := time.Since(began); took > most {
				t.Errorf("%s %q took %s", line[0], line[1], took)
			}
		})
	}
}
