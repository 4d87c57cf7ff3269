// Package fairlead_test holds the rules of the house: who may import whom, and
// what every package and file looks like. docs/architecture.md explains them.
package fairlead_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fairlead-net/fairlead/"

// rule says what a package and those below it may import, besides the standard
// library and packages below itself. A name is of this module or, with a dot
// in its first element, of another; it allows all that lies below it. "*"
// allows everything.
type rule struct {
	path string
	may  []string
	why  string
}

// The first rule whose path fits decides.
var rules = []rule{
	{"model", nil, "shared words need no dependencies"},
	{"plan/", []string{"model"}, "a planner is pure and knows no other; only plan composes them"},
	{"plan", []string{"model", "plan"}, "plans are pure: they are computed and tested anywhere, without root"},
	{"whole", []string{"github.com/vishvananda"}, "whoever reads a kernel reads all of it"},
	{"ipam", []string{"model"}, "allocation is pure: time and storage are passed in"},
	{"api", []string{"k8s.io/apimachinery"}, "the schema is promised; it brings nothing along"},
	{"kube", []string{"api", "model", "k8s.io", "sigs.k8s.io/yaml", "sigs.k8s.io/network-policy-api", "golang.org/x/sync", "google.golang.org/protobuf/encoding/protowire"}, "the only user of client-go, which so stays replaceable"},
	{"dataplane/conformance", []string{"model", "plan", "dataplane", "whole", "github.com/vishvananda", "golang.org/x/sys"}, "the suite compares data planes with the oracle"},
	{"dataplane", []string{"model", "plan", "dataplane", "whole", "github.com/vishvananda", "github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/cilium/ebpf", "golang.org/x/sys"}, "data planes never see Kubernetes"},
	{"servers/dns/daemon", []string{"*"}, "a place of wiring"},
	{"servers/dns/forward", []string{"model", "plan/dns", "servers/dns", "github.com/miekg/dns"}, "asking others may cost what parsing any record costs; answering for the cluster may not"},
	{"servers/gateway/acme", []string{"model", "plan/certificate", "golang.org/x/crypto/acme"}, "it orders what a plan says; Secrets are kept by others"},
	{"servers/gateway/daemon", []string{"*"}, "a place of wiring"},
	{"servers/gateway/htpasswd", []string{"golang.org/x/crypto/bcrypt"}, "checking a password needs nothing else"},
	{"servers/gateway/http2", []string{"servers/gateway/http1", "servers/gateway/multiplex", "golang.org/x/net/http2/hpack"}, "HPACK is the library's; the rest is read here"},
	{"servers/gateway/http3", []string{"servers/gateway/http1", "servers/gateway/multiplex", "github.com/quic-go", "golang.org/x/sys"}, "QUIC and QPACK are the library's; the rest is read here"},
	{"servers/gateway/routing", []string{"model", "plan/gateway", "servers/gateway"}, "it leads the engine by the plan; the engine knows no plan"},
	{"servers/gateway", []string{"model", "plan", "dataplane", "github.com/vishvananda", "golang.org/x/sys", "github.com/klauspost/compress/zstd"}, "servers never see Kubernetes; zstd is the library's"},
	{"servers", []string{"model", "plan", "dataplane", "github.com/vishvananda", "golang.org/x/sys"}, "servers never see Kubernetes"},
	{"observe/probe", []string{"model", "golang.org/x/sys"}, "probes know addresses and names, and no cluster"},
	{"observe/httpd", []string{"github.com/prometheus/client_golang"}, "it serves what others measured"},
	{"observe/metric", []string{"kube", "github.com/prometheus/client_golang"}, "what the agent and the controller measure alike"},
	{"observe/service", []string{"model", "plan"}, "saying what a plan makes of a Service is pure: the nodes are asked by others"},
	{"observe/ingress", []string{"model", "plan/gateway"}, "saying what becomes of a request is pure: the cluster is read by others"},
	{"observe/traffic", nil, "it adds up what gateways have counted"},
	{"observe/asker", nil, "it adds up what servers have counted"},
	{"observe/policy", []string{"model", "plan"}, "saying what policies mean is pure: the cluster is read by others"},
	{"observe/trace", []string{"model", "plan", "observe/service"}, "following a packet is pure: the nodes are asked by others"},
	{"observe/lookup", []string{"plan/dns"}, "following a lookup is pure: the server is asked by others"},
	{"observe/hop", []string{"model", "plan/service", "observe/trace", "observe/service", "dataplane/nftables", "whole", "github.com/vishvananda", "github.com/google/nftables", "golang.org/x/sys"}, "it reads the kernel, and never sees Kubernetes"},
	{"observe/drop", []string{"model", "plan"}, "saying why a packet was dropped is pure: the kernel is read by observe/nflog"},
	{"observe/nflog", []string{"github.com/mdlayher/netlink", "golang.org/x/sys"}, "it reads what the kernel logs, and knows neither pods nor policies"},
	{"observe/dump", []string{"dataplane/nftables/listing", "whole", "github.com/vishvananda", "github.com/google/nftables", "golang.org/x/sys"}, "it reads the kernel, and nothing that could be a secret"},
	{"cni", []string{"github.com/containernetworking/cni", "golang.org/x/sys"}, "it runs once for each pod and starts in milliseconds"},
	{"cmd/fairlead-cni", []string{"cni", "github.com/containernetworking/cni", "golang.org/x/sys"}, "it runs once for each pod and starts in milliseconds"},
	{"agent", []string{"*"}, "a place of wiring"},
	{"controller", []string{"*"}, "a place of wiring"},
	{"preflight", []string{"model", "plan", "kube", "dataplane", "whole", "github.com/vishvananda", "golang.org/x/sys"}, "it judges what it has read, and changes nothing"},
	{"lab/image", nil, "an image is a tar; it knows neither Kubernetes nor the lab"},
	{"lab/world", []string{"github.com/vishvananda", "github.com/google/nftables", "golang.org/x/sys", "golang.org/x/sync"}, "machines know nothing of Kubernetes"},
	{"lab/differ", []string{"model", "plan", "kube", "dataplane/nftables", "lab/build", "k8s.io/api", "k8s.io/apimachinery", "sigs.k8s.io/yaml", "github.com/vishvananda", "github.com/mdlayher/netlink", "golang.org/x/sys"}, "it compares the oracle, the data plane and upstream's own, object by object"},
	{"lab/outside", []string{"github.com/miekg/dns", "golang.org/x/sync"}, "it speaks DNS, and knows neither Kubernetes nor the lab"},
	{"lab", []string{"api", "dataplane/nftables/listing", "deploy", "lab", "whole", "github.com/vishvananda", "github.com/google/nftables", "golang.org/x/sys", "golang.org/x/sync", "sigs.k8s.io/yaml"}, "it drives the binaries as a user would and tests what ships"},
	{"deploy", nil, "what users apply, as it is"},
	{"bench", []string{"*"}, "it measures all of it"},
	{"cli", []string{"*"}, "an entry"},
	{"cmd/fairlead", []string{"cli"}, "dispatch only"},
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	GoFiles    []string
	Imports    []string
	Standard   bool
}

func packages(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p pkg
		if err := decoder.Decode(&p); err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		all = append(all, p)
	}
	return all
}

func TestImports(t *testing.T) {
	for _, p := range packages(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if p.ImportPath+"/" == module || len(p.GoFiles) == 0 {
			continue
		}
		at := slices.IndexFunc(rules, func(r rule) bool { return fits(r.path, name) })
		if at < 0 {
			t.Errorf("%s: no rule says what it may import; add one to house_test.go, with its reason", name)
			continue
		}
		for _, imported := range p.Imports {
			if !allowed(rules[at], name, imported) {
				t.Errorf("%s may not import %s: %s", name, strings.TrimPrefix(imported, module), rules[at].why)
			}
		}
	}
}

// fits tells whether a rule's path is the package or lies above it. A path
// that ends in a slash means only what lies below.
func fits(path, name string) bool {
	if below, ok := strings.CutSuffix(path, "/"); ok {
		return strings.HasPrefix(name, below+"/")
	}
	return name == path || strings.HasPrefix(name, path+"/")
}

func allowed(r rule, name, imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") || strings.HasPrefix(imported, module+name+"/") {
		return true
	}
	imported = strings.TrimPrefix(imported, module)
	return slices.ContainsFunc(r.may, func(may string) bool { return may == "*" || fits(may, imported) })
}

// TestShimIsSmall: the plugin runs once for each pod; what it links, it pays
// for each time.
func TestShimIsSmall(t *testing.T) {
	for _, p := range packages(t, "-deps", "./cmd/fairlead-cni") {
		for _, banned := range []string{"k8s.io/", "github.com/vishvananda/netlink", "github.com/google/nftables", "net/http"} {
			if strings.HasPrefix(p.ImportPath, banned) {
				t.Errorf("cmd/fairlead-cni links %s; it must start in milliseconds", p.ImportPath)
			}
		}
	}
}

// The limits of functions and files, in lines. What exceeds them says why in
// its comment, with the words "longer than the house allows".
const (
	maxFunction = 60
	maxFile     = 500
	excuse      = "longer than the house allows"
)

func TestStyle(t *testing.T) {
	documented := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != "." || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasPrefix(entry.Name(), "zz_generated") {
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		checkLengths(t, path, files, file)
		if !strings.HasSuffix(path, "_test.go") {
			dir := filepath.Dir(path)
			documented[dir] = documented[dir] || file.Doc != nil
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment says what it is, what it is not and who may call it concurrently", dir)
		}
		for _, word := range []string{"util", "utils", "common", "manager", "helper", "helpers", "pkg", "internal"} {
			if slices.Contains(strings.Split(filepath.ToSlash(dir), "/"), word) {
				t.Errorf("%s: a package is one plain noun; %q says nothing", dir, word)
			}
		}
	}
}

func checkLengths(t *testing.T, path string, files *token.FileSet, file *ast.File) {
	t.Helper()
	line := func(pos token.Pos) int { return files.Position(pos).Line }
	if length := line(file.FileEnd); length > maxFile+1 && !strings.Contains(file.Doc.Text(), excuse) {
		t.Errorf("%s has %d lines, more than %d: split it by subject", path, length, maxFile)
	}
	for _, decl := range file.Decls {
		function, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if function.Name.Name == "init" && function.Recv == nil {
			t.Errorf("%s: init() runs in every process that links it; call it where it is needed", path)
		}
		length := line(function.End()) - line(function.Pos()) + 1
		if length > maxFunction && !strings.HasSuffix(path, "_test.go") && !strings.Contains(function.Doc.Text(), excuse) {
			t.Errorf("%s: %s has %d lines, more than %d", path, function.Name.Name, length, maxFunction)
		}
	}
}

// TestFaultsAreTested: the pages of faults of others name tests and stories that are
// there.
func TestFaultsAreTested(t *testing.T) {
	declared := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, dir := range []string{"agent", "cni", "dataplane", "ipam", "kube", "lab/differ", "plan", "preflight", "servers", "whole", "house_test.go"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range declaration.FindAllSubmatch(text, -1) {
				declared[string(match[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, least := range map[string]int{"docs/service-faults.md": 30, "docs/network-faults.md": 25} {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		for line := range strings.Lines(string(page)) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			tests := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[len(cells)-1], -1)
			if len(cells) != 3 || len(tests) == 0 {
				continue
			}
			rows++
			for _, test := range tests {
				_, err := os.Stat("lab/testdata/" + test[1] + ".txtar")
				if !declared[test[1]] && err != nil {
					t.Errorf("%s: there is no test or story %s", strings.TrimSpace(cells[0]), test[1])
				}
			}
		}
		if rows < least {
			t.Errorf("%s has %d rows with tests, which are too few", name, rows)
		}
	}
}
