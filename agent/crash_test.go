package agent

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/dataplane"
	planenetlink "github.com/fairlead-net/fairlead/dataplane/netlink"
	"github.com/fairlead-net/fairlead/ipam"
)

// crashRanges have room for all that rests while the test runs.
var crashRanges = []string{"10.244.0.0/20", "fd00:10:244:1::/64"}

// agentMain is an agent in a process of its own, to be killed.
func agentMain(dir string) int {
	routes, err := planenetlink.New()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cluster := newCluster(crashRanges...)
	err = Run(context.Background(), Config{
		Node: testNode, Version: "test", Source: cluster, Publisher: cluster, Dataplanes: []dataplane.Dataplane{routes},
		RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
		CNIBinDir: filepath.Join(dir, "bin"), CNIConfDir: filepath.Join(dir, "conf"),
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	fmt.Fprintln(log, err)
	return 1
}

var (
	crashSeed  = flag.Uint64("crash-seed", uint64(time.Now().UnixNano()), "of TestKilledAgent")
	crashLoops = flag.Int("crash-loops", 1000, "of TestKilledAgent")
)

// killed is a node whose agent is killed again and again, with what its runtime
// knows.
type killed struct {
	dir  string
	list *libcni.NetworkConfigList
	cni  *libcni.CNIConfig

	mu                         sync.Mutex
	held                       map[netip.Addr]string
	freed                      map[netip.Addr]time.Time // when its DEL began, or its namespace went
	added, failed, lost, kills int

	boot time.Duration // that an agent takes until it is ready, about
}

func (k *killed) agent(t *testing.T) *exec.Cmd {
	agent := exec.Command("/proc/self/exe")
	agent.Env = append(os.Environ(), agentInNode+"="+k.dir)
	agent.Stderr = os.Stderr
	must(t, agent.Start())
	return agent
}

func end(agent *exec.Cmd) {
	_ = agent.Process.Kill()
	_ = agent.Wait()
}

// measure starts an agent once, to know how long that takes here.
func (k *killed) measure(t *testing.T) {
	began := time.Now()
	agent := k.agent(t)
	defer end(agent)
	eventually(t, "the first agent to be ready", func() bool {
		_, err := os.Stat(filepath.Join(k.dir, "run", "ready"))
		return err == nil
	})
	k.boot = max(time.Since(began), 60*time.Millisecond) // as long as some pods take
}

// run keeps an agent going until the context ends; each lives for some random
// time.
func (k *killed) run(t *testing.T, ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		agent := k.agent(t)
		life := k.boot + time.Duration(random.Int64N(8*int64(k.boot)))
		if random.IntN(5) == 0 {
			life = time.Duration(random.Int64N(int64(k.boot))) // while it takes over
		}
		pause(ctx, life)
		end(agent)
		k.mu.Lock()
		k.kills++
		k.mu.Unlock()
		if random.IntN(20) == 0 { // longer than a DEL waits
			pause(ctx, 1200*time.Millisecond)
		}
	}
}

// connect is one turn of a pod: ADD, which a runtime follows by DEL if it fails,
// and its end: DEL, or only the end of its namespace.
func (k *killed) connect(t *testing.T, p *pod, random *rand.Rand) {
	ctx := context.Background()
	result, err := k.cni.AddNetworkList(ctx, k.list, p.conf)
	if err != nil {
		k.mu.Lock()
		k.failed++
		k.mu.Unlock()
	} else {
		k.take(t, p.conf.ContainerID, p.addresses(t, result))
	}
	k.free(p.conf.ContainerID)
	if random.IntN(10) == 0 && err == nil {
		// A lost DEL: the link goes with the namespace.
		_ = inside(p.netns, func() error {
			link, err := netlink.LinkByName("eth0")
			if err == nil {
				err = netlink.LinkDel(link)
			}
			return err
		})
		k.mu.Lock()
		k.lost++
		k.mu.Unlock()
		return
	}
	if err := k.cni.DelNetworkList(ctx, k.list, p.conf); err != nil {
		t.Errorf("DEL: %v", err)
	}
}

func (k *killed) take(t *testing.T, name string, addrs []netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.added++
	if len(addrs) != 2 {
		t.Errorf("%s was given %v", name, addrs)
	}
	for _, addr := range addrs {
		if holder, ok := k.held[addr]; ok {
			t.Errorf("%s was given %s, which %s has", name, addr, holder)
		}
		if at, ok := k.freed[addr]; ok && time.Since(at) < ipam.Cooldown {
			t.Errorf("%s was given %s, freed %v ago", name, addr, time.Since(at))
		}
		k.held[addr] = name
	}
}

func (k *killed) free(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for addr, holder := range k.held {
		if holder == name {
			delete(k.held, addr)
			k.freed[addr] = time.Now()
		}
	}
}

// An agent that is killed at any moment leaks no address and gives none to two,
// nor soon again, whatever pods come and go meanwhile.
func TestKilledAgent(t *testing.T) {
	needNode(t)
	loops, workers := *crashLoops, 20
	if testing.Short() {
		loops /= 10
	}
	t.Logf("-crash-seed %d", *crashSeed)
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o755))
	must(t, os.Symlink(plugin(), filepath.Join(dir, "bin", pluginName)))
	// libcni makes one at the first call, for which the loops would race.
	exec := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: os.Stderr}}
	k := &killed{
		dir: dir, cni: libcni.NewCNIConfigWithCacheDir([]string{filepath.Join(dir, "bin")}, t.TempDir(), exec),
		held: map[netip.Addr]string{}, freed: map[netip.Addr]time.Time{},
	}
	var err error
	k.list, err = libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "fairlead",
		"plugins": [{"type": "fairlead-cni", "socket": %q}]}`, filepath.Join(dir, "run", socketName)))
	must(t, err)
	k.measure(t)
	began := time.Now()
	ctx, stop := context.WithCancel(context.Background())
	var agents, pods sync.WaitGroup
	agents.Go(func() { k.run(t, ctx, rand.New(rand.NewPCG(*crashSeed, 0))) })
	for worker := range workers {
		p, random := newPod(t, ""), rand.New(rand.NewPCG(*crashSeed, uint64(worker)+1))
		pods.Go(func() {
			for n := range loops / workers {
				p.conf.ContainerID = fmt.Sprintf("w%d-%d", worker, n)
				k.connect(t, p, random)
			}
		})
	}
	pods.Wait()
	stop()
	agents.Wait()
	t.Logf("%d connected, %d refused, %d DELs lost, %d agents killed, which start in %v; in %v", k.added, k.failed, k.lost, k.kills, k.boot.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if k.added < loops/4 {
		t.Errorf("only %d of %d pods were connected", k.added, loops)
	}
	k.verify(t)
}

// verify starts a last agent and compares: all pods are gone, so nothing may be
// held, in the journal or in the kernel.
func (k *killed) verify(t *testing.T) {
	t.Helper()
	defer end(k.agent(t))
	must(t, k.cni.GetStatusNetworkList(context.Background(), k.list))
	path := filepath.Join(k.dir, "state", "addresses.journal")
	eventually(t, "nothing to be held", func() bool {
		records, damaged, err := readJournal(path)
		must(t, err)
		if len(damaged) > 0 {
			t.Fatalf("lines %v of the journal are damaged", damaged)
		}
		var a ipam.Allocator
		for _, r := range records {
			a.Restore(r, time.Now())
		}
		held := 0
		for range a.All() {
			held++
		}
		waiting, err := os.ReadDir(filepath.Join(k.dir, "run", "del"))
		must(t, err)
		return held == 0 && len(podDevices(t)) == 0 && len(waiting) == 0
	})
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	must(t, err)
	for _, r := range routes {
		if r.Dst != nil && prefixOf(*r.Dst).Bits() == 32 {
			t.Errorf("left: a route to %s", r.Dst)
		}
	}
	if t.Failed() {
		if log, err := os.ReadFile(filepath.Join(k.dir, "log")); err == nil {
			lines := bytes.Split(log, []byte("\n"))
			t.Logf("the agents said at last:\n%s", bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
		}
	}
}

// dialMain speaks on a socket as the user that it is, and tells what it got.
func dialMain(socket string) int {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err == nil {
		err = cni.WriteRequest(conn, &cni.Request{Version: cni.Version, Command: "DEL", ContainerID: "c", Interface: "eth0", Timeout: time.Second}, nil)
	}
	var reply *cni.Reply
	if err == nil {
		reply, err = cni.ReadReply(conn)
	}
	fmt.Println(err)
	if err == nil {
		fmt.Println(reply.Error)
	}
	return 0
}

// Only root may use the socket, also if its mode were changed; and a request
// that never ends holds nobody up.
func TestOthersOnTheSocket(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	half, err := net.Dial("unix", a.socket())
	must(t, err)
	defer half.Close()
	_, err = half.Write([]byte(`{"version": 1, "comm`))
	must(t, err)

	nobody := func() string {
		command := exec.Command("/proc/self/exe")
		command.Env = append(os.Environ(), dialInNode+"="+a.socket())
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := command.CombinedOutput()
		must(t, err)
		return string(out)
	}
	for dir := a.socket(); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if dir != a.socket() {
			must(t, os.Chmod(dir, 0o755))
		}
	}
	if got := nobody(); !strings.Contains(got, "permission denied") {
		t.Errorf("got %s", got)
	}
	must(t, os.Chmod(a.socket(), 0o666))
	if got := nobody(); !strings.Contains(got, "user 65534 may not use the CNI socket") {
		t.Errorf("got %s", got)
	}
	a.del(t, "c")
	must(t, half.SetReadDeadline(time.Now().Add(2*requestTime)))
	if got, err := cni.ReadReply(half.(*net.UnixConn)); err != nil || got.Error == nil {
		t.Errorf("half a request: %v, %v", got, err)
	}
}
