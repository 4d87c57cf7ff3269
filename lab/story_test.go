package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/fairlead-net/fairlead/lab/build"
)

// TestStories runs the stories in testdata: scripts with YAML and commands in,
// and what must be reachable or in the kernel out. The first line of a story
// says which lab it needs; stories of equal needs share one. Each has a
// namespace of its own. testdata/README.md tells their commands.
//
// On a machine with processors for it two labs are up at a time; more would need
// more inotify instances than the kernel lets a user have (128). With two processors,
// stories that measure times fail of each other.
func TestStories(t *testing.T) {
	groups := storyGroups(t)
	unlock, err := LockHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	names := make(chan string, 2)
	names <- TestName
	if runtime.NumCPU() >= 8 {
		names <- TestName + "2"
	}
	// The largest first: it takes longer than all others together.
	order := sortedKeys(groups)
	slices.SortStableFunc(order, func(a, b string) int { return len(groups[b]) - len(groups[a]) })
	for _, needs := range order {
		t.Run(strings.ReplaceAll(needs, " ", ","), func(t *testing.T) {
			t.Parallel()
			name := <-names
			t.Cleanup(func() { names <- name })
			runStories(t, name, needs, groups[needs])
		})
	}
}

// storyGroups are the paths of the stories by what they need of a lab.
func storyGroups(t *testing.T) map[string][]string {
	paths, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	groups := map[string][]string{}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(archive.Comment), "\n")
		needs, ok := strings.CutPrefix(first, "# lab:")
		if !ok {
			t.Errorf("%s: the first line is not \"# lab: nodes=3 …\"", path)
			continue
		}
		fields := strings.Fields(needs)
		slices.Sort(fields)
		key := strings.Join(fields, " ")
		groups[key] = append(groups[key], path)
	}
	return groups
}

// runStories runs stories of equal needs, one after the other, in a lab.
func runStories(t *testing.T, name, needs string, paths []string) {
	config, err := parseNeeds(needs)
	if err != nil {
		t.Fatal(err)
	}
	// Stories may build another version of it.
	if config.Source, err = build.FindSource(""); err != nil {
		t.Fatal(err)
	}
	config.Name = name
	s := &stories{known: map[string][]netip.Addr{}, flowing: map[string]*traffic{}, asking3: map[string]*asking3{}}
	// Only if there is a story that -run asks for.
	s.start = s.labs(
		func() *Lab { return begin(t, config) },
		func() *Lab { return renew(t, config) })
	testscript.RunT(oneByOne{t}, testscript.Params{
		Files: paths,
		Setup: s.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"kubectl": s.kubectl, "lab": s.labVerb, "fairlead": s.fairlead, "reach": s.reach, "until": s.until,
			"traffic": s.traffic, "churn": s.churn, "queries": s.queries, "fresh": s.fresh, "http3": s.http3, "rush": s.rush, "outage": s.outage,
		},
	})
}

// parseNeeds reads the first line of a story.
func parseNeeds(needs string) (Config, error) {
	var config Config
	for _, field := range strings.Fields(needs) {
		key, value, _ := strings.Cut(field, "=")
		var err error
		switch key {
		case "nodes":
			config.Nodes, err = strconv.Atoi(value)
		case "segments":
			config.Segments, err = strconv.Atoi(value)
		case "zones":
			config.Zones, err = strconv.Atoi(value)
		case "mtu":
			for text := range strings.SplitSeq(value, ",") {
				var mtu int
				mtu, err = strconv.Atoi(text)
				config.MTU = append(config.MTU, mtu)
			}
		case "family":
			config.Family = Family(value)
		case "kube-proxy":
			config.KubeProxy = value
		case "dns":
			config.DNS = value
		case "network":
			config.Network = value
		default:
			err = fmt.Errorf("no such setting of a lab")
		}
		if err != nil {
			return config, fmt.Errorf("%s: %w", field, err)
		}
	}
	return config, nil
}

// oneByOne keeps stories from running side by side: some break things that the
// others stand on.
type oneByOne struct{ *testing.T }

func (oneByOne) Parallel()     {}
func (oneByOne) Verbose() bool { return testing.Verbose() }
func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(oneByOne{t}) })
}

// Log is how testscript ends a script: with all that it has done.
func (o oneByOne) Log(args ...any) {
	o.Helper()
	o.T.Log(args...)
	noteFailure(o.Name(), fmt.Sprint(args...))
}

// stories are the commands of stories on one lab.
type stories struct {
	start  func()                  // makes the lab, if there is none that is whole
	lab    *Lab                    // nil: it could not be made
	spoilt bool                    // the last story failed, and left who knows what
	known  map[string][]netip.Addr // of pods and services, for when the API server is away

	flowing map[string]*traffic // by name
	churns  *churning           // nil: not now
	asking3 map[string]*asking3 // by name
}

// namespaceVariable is where a story finds the name of its namespace.
const namespaceVariable = "NAMESPACE"

func (s *stories) setup(env *testscript.Env) error {
	name := "story-" + regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(filepath.Base(env.WorkDir)), "-")
	if s.start(); s.lab == nil {
		return errors.New("there is no lab")
	}
	env.Defer(func() { s.spoilt = env.T().(oneByOne).Failed() })
	ctx := context.Background()
	// A story that failed, whose lab was kept, may have left the API server stopped.
	if err := s.lab.world.StartService(ctx, Control, "kube-apiserver"); err != nil {
		return err
	}
	if err := s.createNamespace(ctx, name); err != nil {
		return err
	}
	// Likewise another configuration. A lab with the network of others has none.
	_, _ = s.lab.Kubectl(ctx, "patch", "network", "default", "--type=merge", `--patch={"spec":null}`)
	// Pods are refused until the controller has made the account they run as. After a
	// story that stopped the API server, it has first to become the leader again.
	if _, err := s.lab.Kubectl(ctx, "wait", "--for=create", "--timeout=2m", "--namespace="+name, "serviceaccount/default"); err != nil {
		return err
	}
	env.Defer(func() {
		// Not waited for: the next story has another namespace.
		_, _ = s.lab.Kubectl(ctx, "delete", "namespace", name, "--wait=false", "--ignore-not-found")
	})
	// The last one may have ended agents more than once, which the kubelet starts ever later,
	// up to after five minutes. (One that ends an agent as its last step waits for it itself.)
	if s.lab.state.Config.Network != None {
		if _, err := s.lab.Kubectl(ctx, "rollout", "status", "--namespace=kube-system", "--timeout=6m", "daemonset/fairlead-agent"); err != nil {
			return err
		}
	}
	env.Setenv(namespaceVariable, name)
	env.Setenv("KUBECONFIG", s.lab.Kubeconfig())
	deploy, err := filepath.Abs("../deploy")
	if err != nil {
		return err
	}
	env.Setenv("DEPLOY", deploy)
	env.Setenv("FAIRLEAD", s.lab.Program())
	env.Setenv("HOME", os.Getenv("HOME")) // for the caches of what is built
	env.Setenv("PATH", s.lab.state.Binaries+":"+os.Getenv("PATH"))
	return nil
}

// createNamespace tries until the API server, which may have just started, does
// it.
func (s *stories) createNamespace(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := s.lab.Kubectl(ctx, "create", "namespace", name)
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// kubectl ARGUMENTS… runs kubectl in the story's namespace.
func (s *stories) kubectl(ts *testscript.TestScript, neg bool, args []string) {
	s.exec(ts, neg, filepath.Join(s.lab.state.Binaries, "kubectl"), append([]string{"--namespace=" + ts.Getenv(namespaceVariable)}, args...)...)
}

// lab VERB… runs a verb of fairlead lab.
func (s *stories) labVerb(ts *testscript.TestScript, neg bool, args []string) {
	s.exec(ts, neg, s.lab.Program(), append([]string{"lab", "--name=" + s.lab.Name()}, args...)...)
	lab, err := Open(s.lab.Name()) // the verb may have changed its nodes
	ts.Check(err)
	s.lab = lab
}

// fairlead [code=N] ARGUMENTS… runs the program as a user of the cluster. With "!", it
// ends with the exit code N, or with any but 0.
func (s *stories) fairlead(ts *testscript.TestScript, neg bool, args []string) {
	want := ""
	if len(args) > 0 && strings.HasPrefix(args[0], "code=") {
		want, args = strings.TrimPrefix(args[0], "code="), args[1:]
	}
	err := s.exec(ts, neg, s.lab.Program(), args...)
	exit := (*exec.ExitError)(nil)
	if got := 0; want != "" {
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		}
		if want != strconv.Itoa(got) {
			ts.Fatalf("exit code %d, want %s", got, want)
		}
	}
}

// exec returns the error that was expected, too.
func (s *stories) exec(ts *testscript.TestScript, neg bool, program string, args ...string) error {
	ts.Logf("at %s", time.Now().Format("05.000")) // as traffic tells when it lost something
	err := ts.Exec(program, args...)
	if neg && err == nil {
		ts.Fatalf("it succeeded, and should not have")
	}
	if !neg && err != nil {
		ts.Fatalf("%v", err)
	}
	return err
}

// patience is how long a story waits for what should come about.
const patience = 60 * time.Second

// until PATTERN kubectl|lab|fairlead ARGUMENTS… runs a command again and again until
// it succeeds and what it writes matches.
func (s *stories) until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || !slices.Contains([]string{"kubectl", "lab", "fairlead"}, args[1]) {
		ts.Fatalf("usage: [!] until PATTERN kubectl|lab|fairlead ARGUMENTS…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var output string
	for ctx.Err() == nil {
		switch args[1] {
		case "kubectl":
			output, err = s.lab.Kubectl(ctx, append([]string{"--namespace=" + ts.Getenv(namespaceVariable)}, args[2:]...)...)
		case "lab":
			command := append([]string{"lab", "--name=" + s.lab.Name()}, args[2:]...)
			output, err = run(exec.CommandContext(ctx, s.lab.Program(), command...))
		default:
			command := exec.CommandContext(ctx, s.lab.Program(), args[2:]...)
			command.Env = append(os.Environ(), "KUBECONFIG="+s.lab.Kubeconfig())
			output, err = run(command)
		}
		if err == nil && pattern.MatchString(output) != neg {
			return
		}
		pause(ctx, 200*time.Millisecond)
	}
	ts.Fatalf("it did not come about in %s; the last output was:\n%s\n%v", patience, output, err)
}

// reach FROM TO [PORT] [from=SOURCE] asks TO for its view of the client's
// address by HTTP, over each address family of TO. FROM is a pod or a machine;
// TO is a pod, a machine, svc/NAME or an address. SOURCE is a pod, a machine or
// an address that TO must see. Without "!" it is tried until it works.
func (s *stories) reach(ts *testscript.TestScript, neg bool, args []string) {
	source, port := "", "8080"
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		value, ok := strings.CutPrefix(arg, "from=")
		if ok {
			source = value
		}
		return ok
	})
	if len(args) == 3 {
		port = args[2]
	} else if len(args) != 2 {
		ts.Fatalf("usage: [!] reach FROM TO [PORT] [from=SOURCE]")
	}
	namespace := ts.Getenv(namespaceVariable)
	targets, err := s.addresses(namespace, args[1])
	ts.Check(err)
	var sources []netip.Addr
	if source != "" {
		sources, err = s.addresses(namespace, source)
		ts.Check(err)
	}
	for _, target := range targets {
		seen, err := s.ask(namespace, args[0], netip.AddrPortFrom(target, mustPort(ts, port)), !neg)
		switch {
		case neg && err == nil:
			ts.Fatalf("%s reaches %s, and should not", args[0], target)
		case !neg && err != nil:
			ts.Fatalf("%s does not reach %s: %v", args[0], target, err)
		case !neg && source != "" && !slices.Contains(sources, seen):
			ts.Fatalf("%s is seen by %s as %s, not as one of %s", args[0], target, seen, sources)
		}
	}
}

func mustPort(ts *testscript.TestScript, text string) uint16 {
	port, err := strconv.ParseUint(text, 10, 16)
	ts.Check(err)
	return uint16(port)
}

// ask returns the address that the server at target sees from FROM. If it
// insists, it tries again until its patience ends.
func (s *stories) ask(namespace, from string, target netip.AddrPort, insist bool) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last error
	for {
		response, err := s.askOnce(ctx, namespace, from, target)
		if err == nil {
			return parseClient(response)
		}
		if ctx.Err() == nil { // else it was only told to stop
			last = err
		}
		if !insist || ctx.Err() != nil {
			return netip.Addr{}, last
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// askOnce speaks HTTP itself: the wget of Debian 12's busybox-static crashes on
// numeric addresses.
func (s *stories) askOnce(ctx context.Context, namespace, from string, target netip.AddrPort) (response string, err error) {
	const timeout = 3 * time.Second
	const request = "GET /clientip HTTP/1.0\r\n\r\n"
	if len(s.lab.Addresses(from)) == 0 {
		return s.lab.Kubectl(ctx, "exec", "--namespace="+namespace, from, "--", "sh", "-c",
			fmt.Sprintf("printf '%s' | nc -w %d %s %d", request, int(timeout.Seconds()), target.Addr(), target.Port()))
	}
	err = s.lab.world.Do(from, func() error {
		server, err := net.DialTimeout("tcp", target.String(), timeout)
		if err != nil {
			return err
		}
		defer server.Close()
		if err := server.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, err := io.WriteString(server, request); err != nil {
			return err
		}
		content, err := io.ReadAll(server)
		response = string(content)
		return err
	})
	return response, err
}

// parseClient reads the address in what /clientip answers, HOST:PORT after the
// headers.
func parseClient(response string) (netip.Addr, error) {
	_, body, _ := strings.Cut(response, "\r\n\r\n")
	client, err := netip.ParseAddrPort(strings.TrimSpace(body))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("reading the address that the server saw: %w", err)
	}
	return client.Addr().Unmap(), nil
}

// addresses returns those of a pod, a service, a machine, or the address that
// the name is.
func (s *stories) addresses(namespace, name string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{addr}, nil
	}
	if machine := s.lab.Addresses(name); len(machine) > 0 {
		return machine, nil
	}
	object, path := "pod/"+name, "{.status.podIPs[*].ip}"
	if strings.HasPrefix(name, "svc/") {
		object, path = name, "{.spec.clusterIPs[*]}"
	}
	known := namespace + "/" + object
	output, err := s.lab.Kubectl(context.Background(), "get", object, "--namespace="+namespace, "--output=jsonpath="+path, "--request-timeout=5s")
	if err != nil && s.known[known] != nil && !strings.Contains(err.Error(), "NotFound") {
		return s.known[known], nil
	} else if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, text := range strings.Fields(output) {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("reading an address of %s: %w", name, err)
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", name)
	}
	s.known[known] = addrs
	return addrs, nil
}

// pause waits for a time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func TestParseNeeds(t *testing.T) {
	got, err := parseNeeds("nodes=3 family=ipv6 kube-proxy=none")
	if want := (Config{Nodes: 3, Family: IPv6, KubeProxy: None}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parseNeeds = %+v, %v; want %+v", got, err, want)
	}
	for _, wrong := range []string{"nodes=x", "colour=red"} {
		if _, err := parseNeeds(wrong); err == nil {
			t.Errorf("parseNeeds(%q) succeeded", wrong)
		}
	}
}
