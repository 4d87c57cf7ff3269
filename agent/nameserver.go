package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/dns"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// nameServers tells the DNS server of this node where to listen, and the feed
// whether it answers there. That nobody listens, the kernel sees by itself; what
// this is for is a server that hangs.
type nameServers struct {
	node string
	feed *model.Feed
	// synced is closed once the feed has all Services: until then a server listens
	// where it did.
	synced <-chan struct{}
	// asked is closed when the feed says for the first time whether a server answers:
	// what the node asks in the midst of it is not sent elsewhere then, only because
	// an agent began.
	asked chan struct{}
	told  *feed.Sender // what it serves
	// domains is told what names in policies lead to.
	domains *domains
	log     *slog.Logger
}

const (
	// askInterval is between two questions, and askPatience for how long an answer
	// is waited for. After askAttempts without one, a server hangs: in less than a
	// second.
	askInterval = 200 * time.Millisecond
	askPatience = 250 * time.Millisecond
	askAttempts = 3
)

// Run tells and asks until the context ends.
func (w *nameServers) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.told.Run(ctx) })
	group.Go(func() error { return w.domains.Run(ctx) })
	group.Go(func() error { w.askAlways(ctx); return nil })
	return group.Wait()
}

func (w *nameServers) askAlways(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-w.synced:
	}
	asked := sync.OnceFunc(func() { close(w.asked) })
	var listen *dns.Listen
	for {
		snapshot, changed := w.feed.Latest()
		next := w.follow(listen, snapshot)
		if next == nil || next.Addresses.Len() == 0 {
			listen = next
			w.tell(model.Families[:], model.NameServerUnknown)
			asked()
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			continue
		}
		listen = next
		w.askAll(ctx, snapshot.Network.DNS.Zone, listen, asked)
		if ctx.Err() != nil {
			return
		}
	}
}

// follow computes what the server is told, and tells it.
func (w *nameServers) follow(last *dns.Listen, snapshot *model.Snapshot) *dns.Listen {
	next := dns.ComputeListen(last, snapshot, w.node)
	if next != nil {
		domains, forgotten := w.domains.want(snapshot)
		w.told.Serve(feed.Serving{Listen: next.Serve, Clients: next.Clients, Node: w.node, Domains: domains, Forgotten: forgotten})
	}
	return next
}

// askAll asks at all addresses side by side, until the addresses change. It calls
// asked when there is an answer from each, or none.
func (w *nameServers) askAll(ctx context.Context, zone string, listen *dns.Listen, asked func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asking, first sync.WaitGroup
	defer asking.Wait()
	var served [len(model.Families)]bool
	for addr := range listen.Addresses.All() {
		family := model.FamilyOf(addr)
		if !served[family] { // a Service has one of each
			served[family] = true
			first.Add(1)
			asking.Go(func() {
				w.ask(ctx, query(zone), netip.AddrPortFrom(addr, dns.QueryPort), sync.OnceFunc(first.Done))
			})
		}
	}
	for _, family := range model.Families {
		if !served[family] {
			w.tell([]model.Family{family}, model.NameServerUnknown)
		}
	}
	asking.Go(func() { first.Wait(); asked() })
	for {
		snapshot, changed := w.feed.Latest()
		next := w.follow(listen, snapshot)
		if next == nil || !sameKeys(next.Addresses, listen.Addresses) || snapshot.Network.DNS.Zone != zone {
			cancel()
			return
		}
		listen = next
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func sameKeys[K comparable](a, b model.Map[K, struct{}]) bool {
	for range model.Diff(a, b) {
		return false
	}
	return true
}

// ask asks one address again and again, and calls asked after each time.
func (w *nameServers) ask(ctx context.Context, query []byte, at netip.AddrPort, asked func()) {
	defer asked()
	families := []model.Family{model.FamilyOf(at.Addr())}
	unanswered, last := 0, model.NameServerUnknown
	for {
		began := time.Now()
		is, err := askOnce(query, at)
		if is == model.NameServerHung {
			if unanswered++; unanswered < askAttempts {
				is = last // for now
			}
		} else {
			unanswered = 0
		}
		if ctx.Err() != nil {
			return
		}
		if is != last {
			w.say(at, last, is, err)
			w.tell(families, is)
			last = is
		}
		asked()
		if !pause(ctx, askInterval-time.Since(began)) {
			return
		}
	}
}

func (w *nameServers) say(at netip.AddrPort, was, is model.NameServer, err error) {
	switch {
	case is == model.NameServerWell:
		w.log.Info("queries of DNS are answered on this node", "address", at)
	case is == model.NameServerHung:
		w.log.Error("the DNS server of this node hangs, queries go to other nodes", "address", at, "error", err)
	case was == model.NameServerWell || was == model.NameServerHung:
		w.log.Warn("this node has no DNS server any more, queries go to other nodes", "address", at, "error", err)
	}
}

func (w *nameServers) tell(families []model.Family, is model.NameServer) {
	w.feed.Edit(func(s *model.Snapshot) {
		for _, family := range families {
			s.NameServers[family] = is
		}
	})
}

// query is for the start of authority of the cluster's zone (RFC 1035, section
// 4.1), which a server answers from memory as soon as it knows the cluster. Its
// number is 0.
func query(zone string) []byte {
	const recursionDesired, typeSOA, classIN = 0x0100, 6, 1
	message := binary.BigEndian.AppendUint16(nil, 0)
	for _, word := range []uint16{recursionDesired, 1, 0, 0, 0} {
		message = binary.BigEndian.AppendUint16(message, word)
	}
	for label := range strings.SplitSeq(zone, ".") {
		message = append(append(message, byte(len(label))), label...)
	}
	message = append(message, 0)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(message, typeSOA), classIN)
}

var errNotAnswered = errors.New("it does not answer that it is the cluster's")

// askOnce sends a query from the address itself, which data planes deliver on
// this node whatever they do with those of others, and through the loopback
// interface alone, so that nobody else can be asked. A server that cannot answer
// yet is one that hangs.
func askOnce(query []byte, at netip.AddrPort) (model.NameServer, error) {
	dialer := net.Dialer{
		Timeout:   askPatience,
		LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), 0)),
		Control: func(_, _ string, conn syscall.RawConn) (err error) {
			failed := conn.Control(func(fd uintptr) {
				err = errors.Join(
					unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1),
					unix.BindToDevice(int(fd), "lo"))
			})
			return errors.Join(failed, err)
		},
	}
	conn, err := dialer.Dial("udp", at.String())
	if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		return model.NameServerHung, err // or this process does, for now
	}
	if err != nil {
		return model.NameServerAbsent, err // the address is not there yet
	}
	defer conn.Close()
	message := append([]byte(nil), query...)
	if _, err := rand.Read(message[:2]); err != nil {
		return model.NameServerAbsent, fmt.Errorf("choose a number: %w", err)
	}
	_ = conn.SetDeadline(time.Now().Add(askPatience))
	if _, err := conn.Write(message); err != nil {
		return model.NameServerAbsent, err
	}
	for buffer := make([]byte, 1232); ; {
		n, err := conn.Read(buffer)
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			return model.NameServerAbsent, err
		case err != nil:
			return model.NameServerHung, err
		case n < 12 || buffer[0] != message[0] || buffer[1] != message[1]:
			continue // that of another time
		case buffer[3]&0xf == 0:
			return model.NameServerWell, nil
		default:
			return model.NameServerHung, errNotAnswered
		}
	}
}
