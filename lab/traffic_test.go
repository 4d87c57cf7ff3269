package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/lab/world"
)

// traffic is what flows from one place to another all the while that a story
// does something: two hundred pings, a hundred new connections and fifty requests
// on an established connection in each second, over each address family. None
// may be lost, but for what the machine's own queues had no room for.
type traffic struct {
	stop  context.CancelFunc
	full  int // packets that found the machine's queues full before it began
	flows sync.WaitGroup
	mu    sync.Mutex // guards report
	// Lines for each flow, and whether one is of a loss.
	report []string
	lost   bool
}

// slow is what an exchange takes that needed a packet twice: TCP sends a first
// packet again after a second.
const slow = 900 * time.Millisecond

// traffic NAME FROM TO begins to send from a pod or a machine to a pod; traffic
// NAME stop ends it, and fails if anything was lost.
func (s *stories) traffic(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: traffic NAME FROM TO, and then traffic NAME stop")
	}
	if args[1] == "stop" {
		flow, ok := s.flowing[args[0]]
		if !ok {
			ts.Fatalf("there is no traffic %s", args[0])
		}
		delete(s.flowing, args[0])
		report, lost := flow.end()
		ts.Logf("traffic %s:\n%s", args[0], strings.Join(report, "\n"))
		switch full := queuesFull(ts) - flow.full; {
		case lost && full > 0:
			ts.Logf("lost, but nobody can tell why: the queues of this machine, which is too busy, were full for %d packets", full)
		case lost:
			ts.Fatalf("packets were lost")
		}
		return
	}
	namespace := ts.Getenv(namespaceVariable)
	targets, err := s.addresses(namespace, args[2])
	ts.Check(err)
	netns, err := s.netns(namespace, args[1])
	ts.Check(err)
	flow := &traffic{full: queuesFull(ts)}
	ctx, cancel := context.WithCancel(context.Background())
	flow.stop = cancel
	ts.Defer(func() { flow.end(); netns.Close() })
	for _, target := range targets {
		for _, run := range []func(context.Context, netip.Addr) (string, bool){ping, connect, converse} {
			flow.flows.Go(func() {
				err := world.OnThread(func() error {
					if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
						return err
					}
					flow.note(run(ctx, target))
					return nil
				})
				if err != nil {
					flow.note(err.Error(), true)
				}
			})
		}
	}
	s.flowing[args[0]] = flow
}

// queuesFull counts the packets of the whole machine that found the queue
// between two interfaces full (second column of softnet_stat).
func queuesFull(ts *testscript.TestScript) (packets int) {
	for line := range strings.Lines(readFile("/proc/net/softnet_stat")) {
		dropped, err := strconv.ParseUint(strings.Fields(line)[1], 16, 32)
		ts.Check(err)
		packets += int(dropped)
	}
	return packets
}

func (t *traffic) note(line string, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report, t.lost = append(t.report, line), t.lost || lost
}

func (t *traffic) end() ([]string, bool) {
	t.stop()
	t.flows.Wait()
	return t.report, t.lost
}

// netns opens the network namespace of a machine or a pod.
func (s *stories) netns(namespace, name string) (file *os.File, err error) {
	if len(s.lab.Addresses(name)) > 0 {
		err := s.lab.world.Do(name, func() error {
			file, err = os.Open("/proc/thread-self/ns/net")
			return err
		})
		return file, err
	}
	uid, err := s.lab.Kubectl(context.Background(), "get", "pod", name, "--namespace="+namespace, "--output=jsonpath={.metadata.uid}")
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		// The kubelet gives each container its pod's /etc/hosts.
		if strings.Contains(readFile(path), uid+"/etc-hosts /etc/hosts ") {
			return os.Open(filepath.Join(filepath.Dir(path), "ns", "net"))
		}
	}
	return nil, fmt.Errorf("pod %s has no process", name)
}

// socketTo returns a blocking socket whose operations end after slow.
func socketTo(target netip.Addr, kind, protocol int) (fd int, err error) {
	family := unix.AF_INET
	if target.Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(slow.Nanoseconds())
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

// pause between two pings.
const pingPause = 5 * time.Millisecond

// ping sends echo requests, and waits for stragglers.
func ping(ctx context.Context, target netip.Addr) (string, bool) {
	protocol, request, reply := unix.IPPROTO_ICMP, byte(8), byte(0)
	if target.Is6() {
		protocol, request, reply = unix.IPPROTO_ICMPV6, 128, 129
	}
	fd, err := socketTo(target, unix.SOCK_RAW, protocol)
	if err == nil {
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20), unix.Connect(fd, sockaddr(target, 0)))
	}
	if err != nil {
		return fmt.Sprintf("ping %s: %v", target, err), true
	}
	defer unix.Close(fd)
	var seen sync.Map
	var sent atomic.Uint64
	var sender sync.WaitGroup
	began := time.Now()
	sender.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, pingPause)
			for ; sent.Load() < uint64(time.Since(began)/pingPause); sent.Add(1) {
				_, err = unix.Write(fd, echo(request, sent.Load()))
				if err != nil {
					return
				}
			}
		}
	})
	answered := uint64(0)
	packet := make([]byte, 2048)
	var ended time.Time
	for ended.IsZero() || time.Since(ended) < slow {
		n, err := unix.Read(fd, packet)
		if ended.IsZero() && ctx.Err() != nil {
			ended = time.Now()
		}
		if err != nil {
			continue
		}
		message := packet[:n]
		if target.Is4() && n > 20 {
			message = packet[20:n]
		}
		if len(message) == 16 && message[0] == reply {
			if _, again := seen.LoadOrStore(binary.BigEndian.Uint64(message[8:]), true); !again {
				answered++
			}
		}
	}
	sender.Wait()
	if err != nil {
		return fmt.Sprintf("ping %s: %v after %d", target, err, sent.Load()), true
	}
	var missing []string // ranges of them
	for i := uint64(0); i < sent.Load(); i++ {
		first := i
		for lost := true; lost && i < sent.Load(); i++ {
			_, answered := seen.Load(i)
			lost = !answered
		}
		if i--; i > first {
			missing = append(missing, fmt.Sprintf("%d at %s", i-first, began.Add(time.Duration(first)*pingPause).Format("05.000")))
		}
	}
	return fmt.Sprintf("ping %s: %d of %d answered, missing %q", target, answered, sent.Load(), missing), answered != sent.Load()
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
func connect(ctx context.Context, target netip.Addr) (string, bool) {
	made, failed := 0, []string(nil)
	for ctx.Err() == nil {
		began := time.Now()
		if err := exchange(target, 1); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", began.Format("05.000"), err))
		}
		made++
		pause(ctx, 10*time.Millisecond-time.Since(began))
	}
	return fmt.Sprintf("connect %s: %d, failed %q", target, made, failed[:min(5, len(failed))]), len(failed) > 0
}

// converse keeps one connection busy.
func converse(ctx context.Context, target netip.Addr) (string, bool) {
	fd, err := dial(target)
	if err != nil {
		return fmt.Sprintf("stream %s: %v", target, err), true
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval((30 * time.Second).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err.Error(), true
	}
	turns, longest := 0, time.Duration(0)
	for ; ctx.Err() == nil; turns++ {
		began := time.Now()
		if err := ask(fd, "1.1"); err != nil {
			return fmt.Sprintf("stream %s: %v after %d turns", target, err, turns), true
		}
		longest = max(longest, time.Since(began))
		pause(ctx, 20*time.Millisecond-time.Since(began))
	}
	return fmt.Sprintf("stream %s: %d turns, the longest %s", target, turns, longest.Round(time.Millisecond)), false
}

func exchange(target netip.Addr, turns int) error {
	fd, err := dial(target)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range turns {
		if err := ask(fd, "1.0"); err != nil {
			return err
		}
	}
	return nil
}

func dial(target netip.Addr) (int, error) {
	fd, err := socketTo(target, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(fd, sockaddr(target, 8080))
	}
	if err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// ask sends one request and reads an answer, which is one packet.
func ask(fd int, version string) error {
	if _, err := unix.Write(fd, []byte("GET /clientip HTTP/"+version+"\r\nHost: x\r\n\r\n")); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer := make([]byte, 4096)
	n, err := unix.Read(fd, answer)
	if err != nil || !strings.HasPrefix(string(answer[:max(n, 0)]), "HTTP/1.") {
		return fmt.Errorf("answer %q: %w", answer[:max(n, 0)], err)
	}
	return nil
}
