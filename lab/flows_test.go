package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// pingPause is the time between two pings of a traffic: a thousand in each
// second, shared by its address families.
const pingPause = time.Millisecond

// straggle is how long an answer may take.
const straggle = time.Second

// burst is how many pings may be sent at once after the sender was kept from
// its work. More would fill the queues that they are to watch.
const burst = 20

// ping sends echo requests, and waits for stragglers.
func ping(ctx context.Context, target netip.Addr, every time.Duration) result {
	r := result{name: "ping " + target.String()}
	protocol, request, reply := unix.IPPROTO_ICMP, byte(8), byte(0)
	if target.Is6() {
		protocol, request, reply = unix.IPPROTO_ICMPV6, 128, 129
	}
	fd, err := socketTo(target, unix.SOCK_RAW, protocol)
	if err == nil {
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20), unix.Connect(fd, sockaddr(target, 0)))
	}
	if err != nil {
		r.broken = err
		return r
	}
	defer unix.Close(fd)
	answered := map[uint64]bool{}
	var ended atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		for packet := make([]byte, 2048); !ended.Load(); {
			n, err := unix.Read(fd, packet)
			if err != nil {
				continue // the time is over, or an error that the next ping meets again
			}
			message := packet[:n]
			if target.Is4() && n > 20 {
				message = packet[20:n]
			}
			if len(message) == 16 && message[0] == reply {
				answered[binary.BigEndian.Uint64(message[8:])] = true
			}
		}
	})
	sent := sendPings(ctx, fd, request, every)
	stopped := time.Now()
	pause(context.Background(), straggle)
	ended.Store(true)
	reader.Wait()
	var gaps []string
	r.sent = len(sent)
	for i := 0; i < len(sent); i++ {
		first := i
		for i < len(sent) && !answered[uint64(i)] {
			i++
		}
		if i == first {
			continue
		}
		until, began := stopped, sent[first].at
		if i < len(sent) {
			until = sent[i].at
		}
		r.lost += i - first
		r.gap = max(r.gap, until.Sub(began))
		text := fmt.Sprintf("%d in %s from %s, after %d", i-first, until.Sub(began).Round(time.Millisecond), began.Format("05.000"), first)
		if err := sent[first].err; err != nil {
			text += ", not sent: " + err.Error()
		}
		gaps = append(gaps, text)
	}
	if len(gaps) > 0 {
		r.detail = fmt.Sprintf(" (%d gaps: %s)", len(gaps), strings.Join(gaps[:min(5, len(gaps))], ", "))
	}
	return r
}

// sentPing is when one was sent, and why it was not.
type sentPing struct {
	at  time.Time
	err error
}

// sendPings returns when each was sent, by its number. One that cannot be sent,
// because there is no route, is lost like others.
func sendPings(ctx context.Context, fd int, request byte, every time.Duration) (sent []sentPing) {
	for due := time.Now(); ctx.Err() == nil; pause(ctx, every) {
		if late := time.Since(due); late > burst*every {
			due = due.Add(late - burst*every)
		}
		for ; !time.Now().Before(due); due = due.Add(every) {
			message := echo(request, uint64(len(sent)))
			now := time.Now()
			_, err := unix.Write(fd, message)
			if err != nil { // it may be that of an answer to an earlier one
				_, err = unix.Write(fd, message)
			}
			sent = append(sent, sentPing{now, err})
		}
	}
	return sent
}

// echo is an ICMP echo request with a number. Of ICMPv6 the kernel makes the
// checksum.
func echo(kind byte, number uint64) []byte {
	message := binary.BigEndian.AppendUint64([]byte{kind, 0, 0, 0, 0x0f, 0x1e, byte(number >> 8), byte(number)}, number)
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return message
}

// connect makes up to a hundred connections in a second, one after the other.
func connect(ctx context.Context, target netip.Addr) result {
	return connectEvery(ctx, target, 10*time.Millisecond, exchange)
}

// connectEvery makes connections, one after the other, each by exchange.
func connectEvery(ctx context.Context, target netip.Addr, every time.Duration, exchange func(netip.Addr) error) result {
	r := result{name: "connect " + target.String(), tcp: true}
	var failures []string
	var failing time.Time // since when; zero while it works
	for ctx.Err() == nil {
		began := time.Now()
		err := exchange(target)
		r.sent++
		if err != nil {
			r.lost++
			failures = append(failures, fmt.Sprintf("%s: %v", began.Format("05.000"), err))
			if failing.IsZero() {
				failing = began
			}
			r.gap = max(r.gap, time.Since(failing))
		} else {
			failing = time.Time{}
		}
		pause(ctx, every-time.Since(began))
	}
	if len(failures) > 0 {
		r.detail = fmt.Sprintf(" (%q)", failures[:min(5, len(failures))])
	}
	return r
}

// connectTime ends a connection that the server does not take. A first packet
// that was lost is sent again after a second.
const connectTime = 1500 * time.Millisecond

// errResent says that an exchange needed a packet twice: it came through, and
// something was lost.
var errResent = errors.New("a packet was sent again")

// uninterrupted calls again what a signal of Go's runtime ended: sockets with a
// time limit are not resumed by the kernel.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// soonest is the time before which nobody can tell that the one packet which is on its
// way was lost (TCP_RTO_MIN; of the first, a second). What is sent again before, and
// answered, follows an answer: the ACK of an earlier connection whose port was met again
// by chance, to which the kernel answers with RST, and begins anew 8 ms later.
const soonest = 200 * time.Millisecond

// exchange makes a connection, sends one request and reads an answer, which is
// one packet.
func exchange(target netip.Addr) error { return exchangeBy(target, &unix.Linger{}) }

func exchangeBy(target netip.Addr, linger *unix.Linger) error {
	began := time.Now()
	fd, err := socketTo(target, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, linger); err != nil {
		return err
	}
	if err := uninterrupted(func() error { return unix.Connect(fd, sockaddr(target, 8080)) }); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, err := unix.Write(fd, []byte("GET /clientip HTTP/1.0\r\nHost: x\r\n\r\n")); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	// A busy server is no loss.
	limit := unix.NsecToTimeval((10 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	answer, n := make([]byte, 4096), 0
	err = uninterrupted(func() (err error) { n, err = unix.Read(fd, answer); return err })
	if err != nil || !strings.HasPrefix(string(answer[:max(n, 0)]), "HTTP/1.") {
		return fmt.Errorf("answer %q: %w", answer[:max(n, 0)], err)
	}
	// What the receiver says it had twice (RFC 2883) was not lost, only late. It
	// says so when it has the second one, after its answer perhaps.
	for answered := time.Now(); answered.Sub(began) >= soonest; time.Sleep(5 * time.Millisecond) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("asking for retransmissions: %w", err)
		}
		if info.Total_retrans <= info.Dsack_dups {
			return nil
		}
		if time.Since(answered) > 500*time.Millisecond {
			return fmt.Errorf("%w, and answered after %s", errResent, answered.Sub(began).Round(time.Millisecond)) // of the first packet, after a second
		}
	}
	return nil
}

// socketTo returns a blocking socket whose operations end after a while.
func socketTo(target netip.Addr, kind, protocol int) (fd int, err error) {
	family := unix.AF_INET
	if target.Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(connectTime.Nanoseconds())
	if kind == unix.SOCK_RAW {
		limit = unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		err = errors.Join(err, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit))
	}
	return fd, err
}

func sockaddr(target netip.Addr, port int) unix.Sockaddr {
	if target.Is4() {
		return &unix.SockaddrInet4{Addr: target.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: target.As16(), Port: port}
}

// stream is an established connection on which a thousand bytes go out every
// five milliseconds and come back.
type stream struct {
	name           string
	client, server net.Conn
}

const (
	chunk      = 1000
	chunkPause = 5 * time.Millisecond
)

// openStream connects two network namespaces: who calls one address comes out at
// an address of the
// second. Port 0 is any that is free.
func openStream(source, destination *os.File, at, called netip.Addr, port uint16) (*stream, error) {
	var listener net.Listener
	err := within(destination, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(at, port).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	defer listener.Close()
	s := &stream{name: "stream " + called.String()}
	number := uint16(listener.Addr().(*net.TCPAddr).Port)
	if err := within(source, func() (err error) {
		s.client, err = net.DialTimeout("tcp", netip.AddrPortFrom(called, number).String(), 5*time.Second)
		return err
	}); err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	if s.server, err = listener.Accept(); err != nil {
		return nil, fmt.Errorf("opening a stream: %w", err)
	}
	return s, nil
}

// run keeps it busy until the context ends.
func (s *stream) run(ctx context.Context) result {
	r := result{name: s.name, tcp: true, stream: true}
	defer s.server.Close()
	defer s.client.Close()
	before, err := s.warm()
	if err != nil {
		r.broken = err
	}
	var both sync.WaitGroup
	both.Go(func() { // echo
		buffer := make([]byte, 1<<16)
		for {
			n, err := s.server.Read(buffer)
			if err == nil {
				_, err = s.server.Write(buffer[:n])
			}
			if err != nil {
				return
			}
		}
	})
	both.Go(func() { // send; what fails here fails the reader too
		for number, err := byte(0), error(nil); ctx.Err() == nil && err == nil; number++ {
			block := make([]byte, chunk)
			for i := range block {
				block[i] = number
			}
			_, err = s.client.Write(block)
			pause(ctx, chunkPause)
		}
	})
	stop := context.AfterFunc(ctx, func() { _ = s.client.SetDeadline(time.Now()) })
	defer stop()
	buffer := make([]byte, 1<<16)
	began := time.Now()
	last := began
	for ctx.Err() == nil && r.broken == nil {
		n, err := s.client.Read(buffer)
		r.gap = max(r.gap, time.Since(last))
		last = time.Now()
		for i, got := range buffer[:n] {
			if want := byte((r.sent + i) / chunk); got != want && r.broken == nil {
				r.broken = fmt.Errorf("byte %d is %d, and was sent as %d", r.sent+i, got, want)
			}
		}
		r.sent += n
		if err != nil && ctx.Err() == nil {
			r.broken = err
		}
	}
	pause(context.Background(), straggle) // what is on its way arrives
	after := s.settled()
	r.lost = max(0, after.forth-before.forth) + max(0, after.back-before.back)
	learned := min(r.lost, forgotten(last.Sub(began)))
	r.lost -= learned
	r.detail = fmt.Sprintf(" (%d sent again)", after.again-before.again)
	if before.mtus != after.mtus {
		r.detail += fmt.Sprintf(" (MTUs of the paths forth and back: %d before, %d after)", before.mtus, after.mtus)
	}
	if learned > 0 {
		r.detail += fmt.Sprintf(" (%d lost to learn the path's MTU again)", learned)
	}
	s.client.Close()
	s.server.Close()
	both.Wait()
	return r
}

// warm sends as much at once as fills packets, in both directions: the first that
// is too large for a tunnel is lost, so that the sender learns the path's MTU
// (RFC 1191). It returns the counts of then.
func (s *stream) warm() (counts, error) {
	much := make([]byte, 1<<16)
	for _, way := range []struct{ from, to net.Conn }{{s.client, s.server}, {s.server, s.client}} {
		if err := way.to.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return counts{}, err
		}
		go func() { _, _ = way.from.Write(much) }() // an error meets the reader too
		if _, err := io.ReadFull(way.to, make([]byte, len(much))); err != nil {
			return counts{}, fmt.Errorf("sending large packets: %w", err)
		}
		if err := way.to.SetReadDeadline(time.Time{}); err != nil {
			return counts{}, err
		}
	}
	return s.settled(), nil
}

// forgotten is how many packets a stream may lose in a time by what no fault does: the
// kernels of both ends remember the MTU of a path for ten minutes (mtu_expires of
// net.ipv4.route and net.ipv6.route), and send one that is too large to learn it again.
func forgotten(in time.Duration) int { return 2 * int(in/(10*time.Minute)) }

// counts are of packets that one end has sent and the other has not got, but for
// a constant, and of those that were sent again, which may be because an answer
// was late.
type counts struct {
	forth, back, again int
	mtus               [2]uint32 // which both ends know of the path to the other
}

func (s *stream) count() (c counts) {
	client, server := tcpInfo(s.client), tcpInfo(s.server)
	if client == nil || server == nil {
		return c // it broke, which is worse
	}
	c.forth = int(client.Segs_out) - int(server.Segs_in)
	c.back = int(server.Segs_out) - int(client.Segs_in)
	c.again = int(client.Total_retrans + server.Total_retrans)
	c.mtus = [2]uint32{client.Pmtu, server.Pmtu}
	return c
}

// settled counts when no packet is on its way: one that is sent after the one end
// was asked and arrives before the other is would be missed for ever.
func (s *stream) settled() counts {
	last := s.count()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		pause(context.Background(), 100*time.Millisecond)
		now := s.count()
		if now == last {
			break
		}
		last = now
	}
	return last
}

// tcpInfo is what the kernel says of a connection; nil if it is closed.
func tcpInfo(conn net.Conn) (info *unix.TCPInfo) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info
}

// TestFlows: each flow counts what it loses, and loses nothing otherwise.
func TestFlows(t *testing.T) {
	var netns *os.File
	err := world.OnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		netns, err = os.Open("/proc/thread-self/ns/net")
		return errors.Join(err, setLoopback(true))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer netns.Close()
	target := netip.MustParseAddr("127.0.0.1")
	for _, cut := range []time.Duration{0, 700 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		both, err := openStream(netns, netns, target, target, 0)
		if err != nil {
			t.Fatal(err)
		}
		var flows sync.WaitGroup
		var pings, streamed result
		flows.Go(func() {
			_ = within(netns, func() error { pings = ping(ctx, target, time.Millisecond); return nil })
		})
		flows.Go(func() { streamed = both.run(ctx) })
		if cut > 0 {
			pause(ctx, time.Second)
			err := within(netns, func() error { return setLoopback(false) })
			pause(ctx, cut)
			if err = errors.Join(err, within(netns, func() error { return setLoopback(true) })); err != nil {
				t.Fatal(err)
			}
		}
		flows.Wait()
		t.Log(pings)
		t.Log(streamed)
		allowed := allowance{lost: 3000, gap: 2 * cut}
		for _, r := range []result{pings, streamed} {
			if why := allowed.excess(r); why != "" {
				t.Errorf("after a cut of %s: %s: %s", cut, r, why)
			}
		}
		if cut == 0 && pings.sent < 1000 {
			t.Errorf("in three seconds, only %d pings were sent", pings.sent)
		}
		if (allowance{}).excess(pings) == "" != (cut == 0) {
			t.Errorf("after a cut of %s: %s", cut, pings)
		}
		if cut > 0 && (pings.gap < cut/2 || streamed.gap < cut/2) {
			t.Errorf("a cut of %s is not seen: %s; %s", cut, pings, streamed)
		}
	}
}

// setLoopback takes the loopback interface of this thread's namespace up or
// down.
func setLoopback(up bool) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if up {
		return netlink.LinkSetUp(lo)
	}
	return netlink.LinkSetDown(lo)
}
