package agent

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// TestAskNameServer asks servers of each kind.
func TestAskNameServer(t *testing.T) {
	needNode(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	const serverFailed = 2
	for name, c := range map[string]struct {
		answer func(query []byte) []byte // nil: none
		want   model.NameServer
	}{
		"answers": {answered, model.NameServerWell},
		"knows nothing yet": {func(query []byte) []byte {
			query[2], query[3] = query[2]|0x80, serverFailed
			return query
		}, model.NameServerHung},
		"answers another question": {func(query []byte) []byte { query[0]++; return query }, model.NameServerHung},
		"is silent":                {func([]byte) []byte { return nil }, model.NameServerHung},
	} {
		at, stop := answering(t, "127.0.0.9:0", c.answer)
		if got, err := askOnce(query("cluster.local"), at); got != c.want {
			t.Errorf("a server that %s is %s (%v), want %s", name, got, err, c.want)
		}
		stop()
		if got, err := askOnce(query("cluster.local"), at); got != model.NameServerAbsent {
			t.Errorf("where nobody listens, a server is %s (%v)", got, err)
		}
	}
}

func answered(query []byte) []byte { query[2] |= 0x80; return query }

// answering serves UDP until it is stopped. No answer is none.
func answering(t *testing.T, at string, answer func(query []byte) []byte) (_ netip.AddrPort, stop func()) {
	t.Helper()
	server, err := net.ListenPacket("udp", at)
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buffer := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer := answer(buffer[:n]); answer != nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	return netip.MustParseAddrPort(server.LocalAddr().String()), func() { _ = server.Close(); <-ended }
}

// TestNameServersAsked: when an agent that begins lets the data planes begin, it
// knows of a server that answers.
func TestNameServersAsked(t *testing.T) {
	needNode(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	at, stop := answering(t, "127.0.0.9:53", answered)
	defer stop()
	synced := make(chan struct{})
	close(synced)
	w := &nameServers{node: "node1", feed: &model.Feed{}, synced: synced, asked: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
	w.told = &feed.Sender{Feed: w.feed, Dir: t.TempDir(), User: DNSUser, Log: w.log}
	w.domains = newDomains(&Config{Log: w.log}, w.feed, w.told.Resolves, &notices{}, filepath.Join(t.TempDir(), "domains.json"))
	w.feed.Edit(func(s *model.Snapshot) {
		s.Network = model.DefaultNetwork()
		service := &model.Service{
			ServiceKey: s.Network.DNS.Service, ClusterIPs: []netip.Addr{at.Addr()},
			Ports: []model.ServicePort{{Name: "dns", Protocol: model.UDP, Port: at.Port()}},
		}
		s.Services = s.Services.With(service.ServiceKey, service)
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	defer func() { cancel(); must(t, <-ended) }()
	select {
	case <-w.asked:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not begin")
	}
	if snapshot, _ := w.feed.Latest(); snapshot.NameServers[model.IPv4] != model.NameServerWell {
		t.Errorf("the server is %s", snapshot.NameServers[model.IPv4])
	}
}

// TestNameServersSynced: an agent that begins does not tell the server to stop
// listening because it has not read the Service yet.
func TestNameServersSynced(t *testing.T) {
	dir, synced := t.TempDir(), make(chan struct{})
	w := &nameServers{node: "node1", feed: &model.Feed{}, synced: synced, asked: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
	w.told = &feed.Sender{Feed: w.feed, Dir: dir, User: DNSUser, Log: w.log}
	w.domains = newDomains(&Config{Log: w.log}, w.feed, w.told.Resolves, &notices{}, filepath.Join(t.TempDir(), "domains.json"))
	w.feed.Edit(func(s *model.Snapshot) { s.Network, s.NamesKnown = model.DefaultNetwork(), true })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	defer func() { stop(); must(t, <-ended) }()

	conn, err := net.Dial("unix", filepath.Join(dir, feed.Socket))
	for deadline := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(deadline); conn, err = net.Dial("unix", filepath.Join(dir, feed.Socket)) {
		time.Sleep(time.Millisecond)
	}
	must(t, err)
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewScanner(conn)
	for lines.Scan() && !strings.Contains(lines.Text(), `"revision"`) {
		if strings.Contains(lines.Text(), `"serving"`) {
			t.Errorf("before it has read the Services, the agent says %s", lines.Text())
		}
	}
	close(synced)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"serving"`) {
		t.Errorf("after it has, it says %q, %v", lines.Text(), lines.Err())
	}
}
