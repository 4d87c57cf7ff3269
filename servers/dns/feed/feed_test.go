package feed

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// agent is a Sender that runs, and what it reads.
type agent struct {
	*Sender
	stop func()
}

func runSender(t *testing.T, s *Sender) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	a := &agent{s, func() { cancel(); <-ended }}
	t.Cleanup(a.stop)
	return a
}

func newSender(t *testing.T) *Sender {
	return &Sender{Feed: &model.Feed{}, Dir: filepath.Join(t.TempDir(), "dns"), User: os.Getuid(), Program: "v1", Boot: "boot", Log: slog.New(slog.DiscardHandler)}
}

// runReceiver runs one until the test ends, or stop is called.
func runReceiver(t *testing.T, r *Receiver) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// dial connects as a server does, once the socket is there.
func (a *agent) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(a.Dir, Socket))
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			return conn.(*net.UnixConn)
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func addService(s *model.Snapshot, name, addr string) {
	key := model.ServiceKey{Namespace: "default", Name: name}
	s.Services = s.Services.With(key, &model.Service{ServiceKey: key, ClusterIPs: []netip.Addr{netip.MustParseAddr(addr)}})
}

func know(s *model.Snapshot) { s.Network, s.NamesKnown = model.DefaultNetwork(), true }

// all has one object of each kind.
func all(s *model.Snapshot) {
	know(s)
	s.Network.DNS.PodNames = true
	addrs := []netip.Addr{netip.MustParseAddr("10.244.0.5")}
	web := model.ServiceKey{Namespace: "default", Name: "web"}
	s.Services = s.Services.With(web, &model.Service{
		ServiceKey: web, Affinity: 10, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.20")},
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080}},
	})
	out := model.ServiceKey{Namespace: "default", Name: "out"}
	s.Names = s.Names.With(out, &model.Name{ServiceKey: out, External: "www.example.org"})
	slice := model.SliceKey{Namespace: "default", Name: "db-1"}
	s.Hosts = s.Hosts.With(slice, &model.Hosts{
		SliceKey: slice, Service: "db", Ports: []model.EndpointPort{{Name: "sql", Protocol: model.TCP, Port: 5432}},
		Hosts: []model.Host{{Address: netip.MustParseAddr("10.244.0.9"), Hostname: "db-0"}},
	})
	s.ServiceCIDRs = s.ServiceCIDRs.With("kubernetes", &model.ServiceCIDR{Name: "kubernetes", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}})
	s.Nodes = s.Nodes.With("node1", &model.Node{Name: "node1", UID: "u", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}})
	pod := model.PodKey{Namespace: "default", Name: "pod"}
	s.Pods = s.Pods.With(pod, &model.Pod{PodKey: pod, Node: "node1", Addresses: addrs})
	at := model.AttachmentKey{ContainerID: "c", Interface: "eth0"}
	s.Attachments = s.Attachments.With(at, &model.Attachment{AttachmentKey: at, Pod: pod, Device: "veth", Addresses: addrs})
}

// wire is how all of it is said: what servers of other versions read.
const wire = `{"kind":"hello","put":{"version":2,"program":"v1","boot":"boot"}}
{"kind":"serving","put":{"listen":["10.96.0.10:53"],"clients":["10.244.0.0/16"],"node":"node1"}}
{"kind":"options","put":{"dns":{"Zone":"cluster.local","TTL":5,"Service":{"Namespace":"kube-system","Name":"kube-dns"},"PodNames":true,"NoCompletion":false,"Upstreams":null,"Ordered":false,"Stubs":null,"Cache":{"Bytes":16777216,"MaxTTL":3600,"MaxNegativeTTL":30,"MaxStale":86400}},"masquerade":[true,true]}}
{"kind":"range","put":{"name":"kubernetes","prefixes":["10.96.0.0/16"]}}
{"kind":"node","put":{"name":"node1","prefixes":["10.244.0.0/24"]}}
{"kind":"service","put":{"namespace":"default","name":"web","addresses":["10.96.0.20"],"ports":[{"name":"http","protocol":"TCP","port":80}]}}
{"kind":"name","put":{"namespace":"default","name":"out","external":"www.example.org"}}
{"kind":"hosts","put":{"namespace":"default","name":"db-1","service":"db","ports":[{"name":"sql","protocol":"TCP","port":5432}],"hosts":[{"address":"10.244.0.9","hostname":"db-0"}]}}
{"kind":"pod","put":{"namespace":"default","name":"pod","addresses":["10.244.0.5"]}}
{"kind":"attachment","put":{"container":"c","interface":"eth0","namespace":"default","pod":"pod","addresses":["10.244.0.5"]}}
{"kind":"revision","put":{"revision":1,"whole":true}}
`

var serving = Serving{
	Listen:  []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")},
	Clients: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Node: "node1",
}

// TestServingUnknown: an agent that begins, and does not know yet how the cluster's
// names are served, does not say that they are not.
func TestServingUnknown(t *testing.T) {
	sender := newSender(t)
	sender.Feed.Edit(know)
	lines := bufio.NewScanner(runSender(t, sender).dial(t))
	for lines.Scan() && !strings.Contains(lines.Text(), `"revision"`) {
		if strings.Contains(lines.Text(), `"serving"`) {
			t.Errorf("it says %s", lines.Text())
		}
	}
	sender.Serve(Serving{})
	if !lines.Scan() || lines.Text() != `{"kind":"serving","put":{}}` {
		t.Errorf("when it knows, it says %q, %v", lines.Text(), lines.Err())
	}
}

// TestWire: what is said is what it was, since ends of other versions read it; and
// what names do not depend on is not said.
func TestWire(t *testing.T) {
	a := runSender(t, newSender(t))
	a.Serve(serving)
	a.Feed.Edit(all)
	lines := bufio.NewReader(a.dial(t))
	next := func() string {
		t.Helper()
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for want := range strings.Lines(wire) {
		if got := next(); got != want {
			t.Errorf("%swant %s", got, want)
		}
	}
	a.Feed.Edit(func(s *model.Snapshot) { // of no concern
		node, _ := s.Nodes.Get("node1")
		other := *node
		other.Zone = "a"
		s.Nodes = s.Nodes.With("node1", &other)
	})
	a.Feed.Edit(func(s *model.Snapshot) {
		s.Services = s.Services.Without(model.ServiceKey{Namespace: "default", Name: "web"})
	})
	for _, want := range []string{
		`{"kind":"service","gone":{"namespace":"default","name":"web"}}`, `{"kind":"revision","put":{"revision":3}}`,
	} {
		if got := next(); got != want+"\n" {
			t.Errorf("%swant %s", got, want)
		}
	}
}

// saved is how a state is written to a file, and the file.
func saved(t *testing.T, s State) (path, text string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "names")
	if err := Save(path, s, "v1"); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(written)
}

// TestRoundTrip: a server knows what was said, from the socket and from a file, and
// what did not change is the same object.
func TestRoundTrip(t *testing.T) {
	a := runSender(t, newSender(t))
	a.Serve(serving)
	a.Feed.Edit(all)
	states := make(chan State, 100)
	runReceiver(t, &Receiver{Path: filepath.Join(a.Dir, Socket), Apply: func(s State) { states <- s }, Log: slog.New(slog.DiscardHandler)})
	var state State
	until := func(revision uint64) {
		t.Helper()
		for state.Snapshot == nil || state.Snapshot.Revision != revision {
			select {
			case state = <-states:
			case <-time.After(10 * time.Second):
				t.Fatalf("revision %d does not come", revision)
			}
		}
	}
	until(1)
	path, got := saved(t, state)
	if got != wire {
		t.Errorf("what a server knows is\n%s", got)
	}
	loaded, err := Load(path)
	if err != nil || loaded.Confirmed || !state.Confirmed || loaded.Boot != "boot" {
		t.Errorf("loaded: %v, %+v", err, loaded)
	}
	if _, got := saved(t, loaded); got != wire {
		t.Errorf("what is loaded is\n%s", got)
	}

	// Another agent tells all of it anew: nothing of it has changed but what has.
	old := state.Snapshot
	a.stop()
	b := newSender(t)
	b.Dir = a.Dir
	runSender(t, b)
	b.Feed.Edit(func(s *model.Snapshot) { all(s); addService(s, "new", "10.96.0.21") })
	b.Feed.Edit(func(s *model.Snapshot) { s.Hosts = model.Map[model.SliceKey, *model.Hosts]{} })
	until(2)
	changed := 0
	for range model.Diff(old.Services, state.Snapshot.Services) {
		changed++
	}
	if changed != 1 || state.Snapshot.Services.Len() != 2 || state.Snapshot.Hosts.Len() != 0 || state.Snapshot.Names != old.Names {
		t.Errorf("%d Services differ of %d, hosts %d", changed, state.Snapshot.Services.Len(), state.Snapshot.Hosts.Len())
	}
	eventually(t, "the agent does not hear that it is served", func() bool { served, _ := b.Serves(); return served == 2 })
	b.Feed.Edit(func(s *model.Snapshot) { s.Links = s.Links.With("eth0", &model.Link{}) })
	eventually(t, "a revision of nothing new counts as served", func() bool { served, _ := b.Serves(); return served == 3 })
}

// TestVersions: what the other end says that this one does not know is passed
// over, and a file that is broken is told of.
func TestVersions(t *testing.T) {
	l := listen(State{})
	for _, text := range []string{
		`{"kind":"hello","put":{"version":99,"mood":"good"}}`,
		`{"kind":"novelty","put":{"a":1}}`,
		`{"kind":"novelty","gone":{"a":1}}`,
		`{"kind":"options","put":{"dns":{"Zone":"cluster.local","TTL":5,"Novel":true}}}`,
		`{"kind":"service","put":{"namespace":"a","name":"b","addresses":["10.0.0.1"],"novel":[1]},"novel":2}`,
		`{"kind":"revision","put":{"revision":7,"whole":true}}`,
	} {
		var said line
		if err := json.Unmarshal([]byte(text), &said); err != nil {
			t.Fatal(err)
		}
		if _, err := l.hear(said); err != nil {
			t.Error(err)
		}
	}
	if l.state.Snapshot.Services.Len() != 1 || l.state.Snapshot.Revision != 7 || !l.state.Snapshot.NamesKnown {
		t.Errorf("%+v", l.state.Snapshot)
	}
	path := filepath.Join(t.TempDir(), "names")
	for _, text := range []string{"{", `{"kind":"service","put":{"namespace":1}}`, "\x00\x01"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if state, err := Load(path); err == nil || state.Snapshot != nil {
			t.Errorf("%q is taken for names", text)
		}
	}
}

// TestHostile: servers that do not read, write without end, or dial again and
// again keep nobody from editing the feed, and take no memory.
func TestHostile(t *testing.T) {
	a := runSender(t, newSender(t))
	a.Feed.Edit(func(s *model.Snapshot) {
		know(s)
		for i := range 2000 {
			addService(s, fmt.Sprintf("service-%d", i), "10.96.0.20")
		}
	})
	loud := a.dial(t)
	written := make(chan int)
	go func() {
		n := 0
		for {
			some, err := loud.Write([]byte(strings.Repeat("x", 1<<16)))
			if n += some; err != nil || n > 64<<20 {
				written <- n
				return
			}
		}
	}()
	if n := <-written; n > 4<<20 {
		t.Errorf("a server could write %d bytes of one line", n)
	}
	for range 3 * maxServers {
		a.dial(t) // and reads nothing
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for i := range 3000 {
		a.Feed.Edit(func(s *model.Snapshot) {
			addService(s, "service-7", netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}).String())
		})
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("3000 edits took %v", took)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc+20<<20 {
		t.Errorf("memory grew from %d to %d", before.HeapAlloc, after.HeapAlloc)
	}
	a.mu.Lock()
	count := len(a.servers)
	a.mu.Unlock()
	if count > maxServers {
		t.Errorf("%d connections", count)
	}
	// Who reads gets the newest, in one piece.
	latest, _ := a.Feed.Latest()
	lines := bufio.NewScanner(a.dial(t))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() == fmt.Sprintf(`{"kind":"revision","put":{"revision":%d,"whole":true}}`, latest.Revision) {
			return
		}
	}
	t.Error("the newest revision does not come")
}

// TestPermission: nobody but the server's user, and root, may use the socket.
func TestPermission(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give the socket away")
	}
	s := newSender(t)
	s.User = 65532
	a := runSender(t, s)
	conn := a.dial(t) // root may
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]os.FileMode{a.Dir: 0o750 | os.ModeDir, filepath.Join(a.Dir, Socket): 0o660 | os.ModeSocket} {
		at, err := os.Stat(path)
		if err != nil || at.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, err, at.Mode(), want)
		}
	}
}

// TestProblems: what a server has found is told, until it is mended or the server
// is gone.
func TestProblems(t *testing.T) {
	s := newSender(t)
	told := make(chan int, 10)
	s.Tell = func(all ...model.Problem) { told <- len(all) }
	a := runSender(t, s)
	r := &Receiver{Path: filepath.Join(a.Dir, Socket), Apply: func(State) {}, Log: slog.New(slog.DiscardHandler)}
	many := make([]model.Problem, 100)
	for i := range many {
		many[i] = model.Problem{Kind: "Network", Name: "default", Field: fmt.Sprint(i)}
	}
	r.Tell(many...) // before there is an agent
	stop := runReceiver(t, r)
	want := func(n int) {
		t.Helper()
		select {
		case got := <-told:
			if got != n {
				t.Errorf("%d problems, want %d", got, n)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is told")
		}
	}
	want(maxProblems)
	r.Tell(many[0])
	want(1)
	stop()
	want(0)
}
