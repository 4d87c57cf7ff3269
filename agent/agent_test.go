package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/bench/cni/reference"
	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/dataplane"
	planenetlink "github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/whole"
)

// What the tests' process is told by its environment.
const (
	inNode      = "FAIRLEAD_TEST_NODE"   // the directory of what was built
	agentInNode = "FAIRLEAD_TEST_AGENT"  // it is an agent, with these directories
	dialInNode  = "FAIRLEAD_TEST_SOCKET" // it speaks on this socket, and ends
)

// TestMain runs the tests as a node: the whole process is in a network
// namespace of its own.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(agentInNode) != "":
		os.Exit(agentMain(os.Getenv(agentInNode)))
	case os.Getenv(dialInNode) != "":
		os.Exit(dialMain(os.Getenv(dialInNode)))
	case slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzz=") || arg == "-test.fuzzworker" }):
		os.Exit(m.Run()) // its workers speak over files that another process lacks
	case os.Geteuid() != 0 || os.Getenv(inNode) != "":
		// The first thread is kept from tests that leave theirs in another
		// namespace: /proc/self/ns/net is its.
		runtime.LockOSThread()
		os.Exit(m.Run())
	}
	code, err := runInNode()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runInNode() (code int, err error) {
	dir, err := os.MkdirTemp("", "fairlead-agent-test-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, pluginName), "../cmd/fairlead-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	if err := reference.Build(context.Background(), dir, "meta/bandwidth", "meta/tuning"); err != nil {
		fmt.Fprintln(os.Stderr, err) // one test needs them
	}
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Env = append(os.Environ(), inNode+"="+dir)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is of the thread
	if err := command.Run(); err != nil {
		return 1, nil
	}
	return 0, nil
}

// plugin is the CNI plugin as it was built for the tests.
func plugin() string { return filepath.Join(os.Getenv(inNode), pluginName) }

const testNode = "node1"

// testHealthAddress is of the loopback interface of the tests' own namespace.
const testHealthAddress = "127.0.0.1:9811"

// testCluster is a source and a publisher without a cluster.
type testCluster struct {
	feed   *model.Feed
	synced chan struct{}
	judged chan struct{} // closed when policies have been read
	never  chan struct{}
	node   *model.Node
	peers  []*model.Node
	pods   []*model.Pod

	policiesUnknown bool
	ahead           dataplane.Dataplane                                     // before that of routes; nil: none
	read            func(context.Context, model.PodKey) (*model.Pod, error) // nil: there is any pod
	first           func(*model.Snapshot)                                   // edits what is known at first; may be nil
	silent          chan struct{}                                           // nothing is known before it is closed; may be nil

	askNames sync.Once
	asked    chan struct{} // closed when names are wanted

	mu        sync.Mutex
	published []kube.NodeStatus
	events    []kube.Event
}

func newCluster(cidrs ...string) *testCluster {
	c := &testCluster{synced: make(chan struct{}), judged: make(chan struct{}), never: make(chan struct{}), asked: make(chan struct{})}
	c.node = &model.Node{Name: testNode, UID: "uid-of-" + testNode, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	for _, cidr := range cidrs {
		c.node.PodCIDRs = append(c.node.PodCIDRs, netip.MustParsePrefix(cidr))
	}
	return c
}

func (c *testCluster) Run(ctx context.Context, feed *model.Feed) error {
	if c.silent != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-c.silent:
		}
	}
	if !c.policiesUnknown {
		close(c.judged)
	}
	feed.Edit(func(s *model.Snapshot) {
		s.Network, s.PoliciesKnown = model.DefaultNetwork(), !c.policiesUnknown
		for _, node := range append(c.peers, c.node) {
			s.Nodes = s.Nodes.With(node.Name, node)
		}
		for _, pod := range c.pods {
			s.Pods = s.Pods.With(pod.PodKey, pod)
		}
		if c.first != nil {
			c.first(s)
		}
	})
	c.feed = feed
	close(c.synced)
	<-ctx.Done()
	return nil
}

// edit changes what the agent knows, once it has begun to follow the cluster.
func (c *testCluster) edit(change func(*model.Snapshot)) {
	<-c.synced
	c.feed.Edit(change)
}

func (c *testCluster) Synced() <-chan struct{}       { return c.synced }
func (c *testCluster) PoliciesRead() <-chan struct{} { return c.judged }

// Watches are those of an API server that does not answer, or that does after it did
// not.
func (c *testCluster) Watches() []kube.WatchState {
	if c.silent == nil {
		return nil
	}
	return []kube.WatchState{{Kind: "Node", Failures: 1, Up: isDone(c.silent)}}
}

func (c *testCluster) FollowNames()              { c.askNames.Do(func() { close(c.asked) }) }
func (c *testCluster) Changed() <-chan struct{}  { return c.never }
func (c *testCluster) Problems() []model.Problem { return nil }

func (c *testCluster) Pod(ctx context.Context, key model.PodKey) (*model.Pod, error) {
	if c.read != nil {
		return c.read(ctx, key)
	}
	return &model.Pod{PodKey: key, Node: testNode}, nil
}

func (c *testCluster) PublishNode(_ context.Context, status kube.NodeStatus) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = append(c.published, status)
	return nil
}

func (c *testCluster) WriteEvent(_ context.Context, event kube.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, event)
	return nil
}

func (c *testCluster) latest() *model.Snapshot {
	<-c.synced
	s, _ := c.feed.Latest()
	return s
}

// problems are those that the node has published last, as text.
func (c *testCluster) problems() (texts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.published) > 0 {
		for _, problem := range c.published[len(c.published)-1].Problems {
			texts = append(texts, problem.String())
		}
	}
	return texts
}

// testAgent is an agent that runs, and the runtime that uses it.
type testAgent struct {
	config Config
	stop   func()
	cni    *libcni.CNIConfig
}

// request is what the plugin asks for a pod.
func request(command, container string) cni.Request {
	return cni.Request{
		Command: command, ContainerID: container, Interface: "eth0",
		Args: "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + container,
	}
}

func (a *testAgent) socket() string { return filepath.Join(a.config.RunDir, socketName) }

// list is the configuration as a runtime reads it, at a version.
func (a *testAgent) list(t testing.TB, version string) *libcni.NetworkConfigList {
	t.Helper()
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil,
		`{"cniVersion": %q, "name": "fairlead", "plugins": [{"type": "fairlead-cni", "socket": %q}]}`, version, a.socket()))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// needNode makes the uplink that the node has.
func needNode(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	addUplink(t)
	t.Cleanup(func() { must(t, netlink.LinkDel(linkOf(t, "uplink"))) })
}

func addUplink(t testing.TB) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "uplink", 1400
	uplink := netlink.NewVeth(attrs)
	uplink.PeerName = "wire"
	must(t, netlink.LinkAdd(uplink))
	for _, name := range []string{"lo", "uplink", "wire"} {
		must(t, netlink.LinkSetUp(linkOf(t, name)))
	}
	for _, addr := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		must(t, netlink.AddrAdd(uplink, address(netip.MustParsePrefix(addr))))
	}
}

func linkOf(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	return link
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start runs an agent on the kernel until stop, or the test's end.
func start(t testing.TB, cluster *testCluster, runDir string) *testAgent {
	t.Helper()
	return startIn(t, cluster, runDir, t.TempDir())
}

// startIn is start with the directory of the runtime's configuration.
func startIn(t testing.TB, cluster *testCluster, runDir, confDir string) *testAgent {
	t.Helper()
	routes, err := planenetlink.New()
	must(t, err)
	if _, err := os.Stat(filepath.Join(runDir, "state")); err != nil {
		eventually(t, "the pods of another test to be gone", func() bool { return len(podDevices(t)) == 0 })
	}
	bin := t.TempDir()
	a := &testAgent{
		config: Config{
			Node: testNode, Version: "test", Source: cluster, Publisher: cluster, Pods: cluster, HealthAddress: testHealthAddress,
			Dataplanes: []dataplane.Dataplane{routes}, Servers: []Server{routes},
			Plugin: plugin(), RunDir: runDir, StateDir: filepath.Join(runDir, "state"), CNIBinDir: bin, CNIConfDir: confDir,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		},
		cni: libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil),
	}
	if cluster.ahead != nil {
		a.config.Dataplanes = []dataplane.Dataplane{cluster.ahead, routes}
	}
	if testing.Verbose() {
		a.config.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, a.config) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended: %v", err)
		}
		routes.Close()
	})
	t.Cleanup(a.stop)
	eventually(t, "the agent to listen and install the plugin", func() bool {
		conn, socketErr := net.Dial("unix", a.socket()) // the file may be that of a former agent
		if socketErr == nil {
			_ = conn.Close()
		}
		_, pluginErr := os.Stat(filepath.Join(bin, pluginName))
		return socketErr == nil && pluginErr == nil
	})
	return a
}

// eventually waits for something that no event tells the test of.
func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func podDevices(t testing.TB) (names []string) {
	t.Helper()
	all, err := whole.List(netlink.LinkList)
	must(t, err)
	for _, link := range all {
		if isPodDevice(link.Attrs().Name) {
			names = append(names, link.Attrs().Name)
		}
	}
	return names
}
