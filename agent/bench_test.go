package agent

import (
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

// ask is the plugin without its process.
func (a *testAgent) ask(t testing.TB, request cni.Request, netns *os.File) *cni.Reply {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.socket(), Net: "unix"})
	must(t, err)
	defer conn.Close()
	request.Version = cni.Version
	if request.Timeout == 0 {
		request.Timeout = 10 * time.Second
	}
	must(t, cni.WriteRequest(conn, &request, netns))
	reply, err := cni.ReadReply(conn)
	must(t, err)
	return reply
}

// BenchmarkAdd connects and disconnects the 50th pod of a node: what the
// container runtime waits for, without the start of the plugin's process.
func BenchmarkAdd(b *testing.B) {
	needNode(b)
	a := start(b, newCluster("10.244.0.0/16", "fd00:10:244:1::/64"), b.TempDir())
	for n := range 49 {
		if reply := a.ask(b, request("ADD", fmt.Sprint("p", n)), newPod(b, "").netns); reply.Error != nil {
			b.Fatal(reply.Error)
		}
	}
	var adds, dels []time.Duration
	for b.Loop() {
		b.StopTimer()
		p := newPod(b, "")
		b.StartTimer()
		began := time.Now()
		if reply := a.ask(b, request("ADD", "last"), p.netns); reply.Error != nil {
			b.Fatal(reply.Error)
		}
		added := time.Now()
		if reply := a.ask(b, request("DEL", "last"), nil); reply.Error != nil {
			b.Fatal(reply.Error)
		}
		adds, dels = append(adds, added.Sub(began)), append(dels, time.Since(added))
	}
	for name, took := range map[string][]time.Duration{"add": adds, "del": dels} {
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, name+"-p99-ms")
	}
}

// BenchmarkVerify looks at the link of a pod, on a node that has 1,000 more
// neighbours: the start of an agent does so for each pod.
func BenchmarkVerify(b *testing.B) {
	needNode(b)
	a := start(b, newCluster("10.244.0.0/16", "fd00:10:244:1::/64"), b.TempDir())
	reply := a.ask(b, request("ADD", "one"), newPod(b, "").netns)
	if reply.Error != nil {
		b.Fatal(reply.Error)
	}
	other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "other", Flags: net.FlagUp}, PeerName: "end"}
	must(b, netlink.LinkAdd(other))
	link, err := netlink.LinkByName("other")
	must(b, err)
	for n := range 1000 {
		must(b, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 9, byte(n>>8), byte(n)), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
		}))
	}
	_, mac := hardware(keyOf("one"))
	attachment := &model.Attachment{
		AttachmentKey: keyOf("one"), Device: deviceName(keyOf("one")), MAC: mac, Pod: model.PodKey{Namespace: "default", Name: "one"},
	}
	for _, ip := range reply.Result.IPs {
		attachment.Addresses = append(attachment.Addresses, prefixOf(ip.Address).Addr())
	}
	node, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(b, err)
	defer node.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (&veth{Attachment: attachment}).verifyHost(node); err != nil {
			b.Fatal(err)
		}
	}
}
