package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
